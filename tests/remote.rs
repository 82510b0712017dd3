//! A host whose keeper is silent, gone or of another version. The keeper is played by the test,
//! which speaks the wire by itself.

mod util;

use std::fs;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use util::{Bench, DEADLINE, Offer, wait_until};
use wsredis::engine::Event;
use wsredis::error::Kind;
use wsredis::sys;

/// The version of the wire, and one that is to come.
const OURS: u8 = 2;
const OTHER: u8 = 3;

/// Where messages stand in the wire.
const PUBLISH: u8 = 6;
const WATCH: u8 = 9;
const OPENED: u8 = 11;

/// A keeper of some version: it greets, and does nothing with what it is told.
struct Played {
    folder: PathBuf,
    version: u8,
    /// `None`: it is gone.
    listener: Option<OwnedFd>,
    connections: Vec<OwnedFd>,
}

impl Played {
    fn new(version: u8) -> Self {
        let name = format!("wsredis-test-{}-{:x}", std::process::id(), sys::random());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let mut keeper = Played { folder, version, listener: None, connections: Vec::new() };
        keeper.come(version);
        keeper
    }

    fn host(&self) -> Bench {
        Bench::new(1, &[("keeper", self.path().to_str().unwrap())])
    }

    fn path(&self) -> PathBuf {
        self.folder.join("keeper")
    }

    fn go(&mut self) {
        self.listener = None;
        self.connections.clear();
        fs::remove_file(self.path()).unwrap();
    }

    fn come(&mut self, version: u8) {
        self.version = version;
        self.listener = Some(sys::packet_listen(&self.path()).unwrap());
    }

    fn greet(&mut self) {
        let Some(listener) = &self.listener else { return };
        while let Ok(connection) = sys::packet_accept(listener) {
            tell(&connection, self.version, &[0, 1, b'9', 0, 0]);
            self.connections.push(connection);
        }
    }

    /// Greets who came and counts what has come of this message. As a keeper does, it closes the
    /// connection of who is of another version.
    fn hear(&mut self, message: u8) -> usize {
        self.greet();
        let (mut count, mut buffer) = (0, vec![0; 1 << 16]);
        let version = self.version;
        self.connections.retain(|connection| {
            while let Ok(packet) = sys::receive_packet(connection, &mut buffer) {
                if packet.len == 0 {
                    return false;
                }
                count += usize::from(buffer[6] == message);
                if buffer[0] != version {
                    return false;
                }
            }
            true
        });
        count
    }
}

impl Drop for Played {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn tell(connection: &OwnedFd, version: u8, body: &[u8]) {
    let header = [version, 0, body.len() as u8, 0, 0, 0];
    sys::send_packet(connection, &[&header, body], &[]).unwrap();
}

#[test]
fn all_who_ask_a_keeper_that_stands_still_wait_one_second_together() {
    let keeper = Played::new(OURS);
    let host = keeper.host();
    let begin = Instant::now();
    thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| assert_eq!(host.engine.stats().unwrap_err().kind, Kind::Busy));
        }
    });
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(900), "they give it a second: {took:?}");
    assert!(took < Duration::from_millis(2_500), "{took:?}");
}

#[test]
fn a_host_that_polls_for_events_rests_while_its_keeper_is_gone() {
    let mut keeper = Played::new(OURS);
    let host = keeper.host();
    let fd = host.engine.events_fd().unwrap();
    // A host's own epoll: it is told of the descriptor once, for ever.
    let (mut poll, mut events) = (Poll::new().unwrap(), Events::with_capacity(1));
    let registry = poll.registry();
    registry.register(&mut SourceFd(&fd), Token(0), Interest::READABLE).unwrap();
    wait_until("it watches", || keeper.hear(WATCH) == 1);
    tell(&keeper.connections[0], OURS, &[OPENED, 1, b'a']);
    let mut next = |keeper: &mut Played| {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(event) = host.engine.next_event().unwrap() {
                return event;
            }
            keeper.greet();
            let left = until.saturating_duration_since(Instant::now());
            poll.poll(&mut events, Some(left)).unwrap();
            assert!(!events.is_empty(), "the host was not woken");
        }
    };
    assert_eq!(next(&mut keeper), Event::Opened("a".into()));

    keeper.go();
    let begin = Instant::now();
    let mut woken = 0;
    while begin.elapsed() < Duration::from_millis(2_500) {
        if sys::wait_readable(&fd, 100).unwrap() {
            woken += 1;
            assert_eq!(host.engine.next_event(), Ok(None));
        }
    }
    // Its end, perhaps a tick that had come before, and two or three more.
    assert!((2..=5).contains(&woken), "woken {woken} times");

    keeper.come(OURS);
    assert_eq!(next(&mut keeper), Event::Overflow(0));
    assert_eq!(keeper.hear(WATCH), 1);
    tell(&keeper.connections[0], OURS, &[OPENED, 1, b'b']);
    assert_eq!(next(&mut keeper), Event::Opened("b".into()));
    assert_eq!(host.engine.events_fd().unwrap(), fd);

    // And while there is one of another version.
    keeper.go();
    keeper.come(OTHER);
    let begin = Instant::now();
    let (mut woken, mut told) = (0, 0);
    while begin.elapsed() < Duration::from_millis(2_500) {
        keeper.greet();
        if sys::wait_readable(&fd, 10).unwrap() {
            woken += 1;
            match host.engine.next_event() {
                Ok(event) => assert_eq!(event, None),
                Err(error) => {
                    assert_eq!(error.kind, Kind::Unsupported);
                    told += 1;
                }
            }
        }
    }
    assert!((1..=4).contains(&told) && woken <= 10, "told {told} times, woken {woken} times");
    keeper.go();
    keeper.come(OURS);
    wait_until("the host has it", || {
        keeper.greet();
        host.engine.next_event() == Ok(Some(Event::Overflow(0)))
    });
}

#[test]
fn a_host_can_begin_to_poll_for_events_before_its_keeper_is_there() {
    let mut keeper = Played::new(OURS);
    keeper.go();
    let host = keeper.host();
    let fd = host.engine.events_fd().unwrap();
    assert_eq!(host.engine.next_event(), Ok(None));
    keeper.come(OURS);
    let mut event = None;
    wait_until("it has one", || {
        keeper.greet();
        if sys::wait_readable(&fd, 100).unwrap() {
            event = host.engine.next_event().unwrap();
        }
        event.is_some()
    });
    assert_eq!(event, Some(Event::Overflow(0)));
    assert_eq!(keeper.hear(WATCH), 1);
    assert!(host.engine.stop(0));
    assert_eq!(host.engine.next_event().unwrap_err().kind, Kind::Stopped);
}

#[test]
fn what_a_keeper_of_another_version_can_not_read_is_not_said_to_have_been_taken() {
    let mut keeper = Played::new(OTHER);
    let host = keeper.host();
    let mut kinds = Vec::new();
    for _ in 0..8 {
        kinds.push(host.engine.publish("a", b"1").err().map(|error| error.kind));
        keeper.hear(PUBLISH);
    }
    let lost = kinds.iter().filter(|kind| kind.is_none()).count();
    assert!(lost <= 1, "nobody had said that it is another version, but then: {kinds:?}");
    assert_eq!(kinds.last(), Some(&Some(Kind::Unsupported)), "{kinds:?}");

    // Sockets go another way, and do not have to find out anew.
    let refused = |keeper: &mut Played| {
        keeper.greet();
        host.try_offer(Offer::default()).err().map(|error| error.kind)
    };
    assert_eq!(refused(&mut keeper), Some(Kind::Busy));
    assert_eq!(refused(&mut keeper), Some(Kind::Unsupported));

    keeper.go();
    keeper.come(OURS);
    let mut heard = 0;
    wait_until("it is spoken to again", || {
        let taken = host.engine.publish("a", b"1").is_ok();
        heard += keeper.hear(PUBLISH);
        assert_eq!(heard, usize::from(taken));
        taken
    });
    // A new connection need not wait any more.
    keeper.go();
    keeper.come(OURS);
    host.engine.publish("a", b"2").unwrap();
    assert_eq!(keeper.hear(PUBLISH), 1);
}
