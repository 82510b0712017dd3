//! From one keeper to the next, under traffic and with either side going wrong at every step: no
//! socket is lost while one of them lives, and none ever has two owners.

mod util;

use std::collections::{HashMap, HashSet};
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::Message;
use util::browser::{TEXT, frame};
use util::keeper::{Folder, Heard, Keeper, Peer, RETIRE, TAKE_OVER, VERSION};
use util::{Bench, Browser, Offer, RealRedis, wait_until};
use wsredis::engine::Event;
use wsredis::sys;

/// The words of a handing over.
const LOOP: u8 = 1;
const SOCKETS: u8 = 2;
const PEERS: u8 = 3;
const ENTRANCE: u8 = 4;
const READY: u8 = 5;
const GO: u8 = 6;
const ABORT: u8 = 8;

/// Hours of what takes seconds otherwise.
fn soak() -> bool {
    std::env::var_os("WSREDIS_SOAK").is_some_and(|value| value == "1")
}

// With traffic.

#[test]
fn ten_upgrades_under_traffic_on_the_embedded_broker() {
    ten_upgrades(&[]);
}

#[test]
fn ten_upgrades_under_traffic_on_redis() {
    let Some(redis) = RealRedis::start() else { return };
    ten_upgrades(&[("redis-url", &redis.url())]);
}

/// Sockets of which some hear all the time, some rarely, and some are always in the middle of a message.
struct Site {
    hot: Vec<(bool, Browser)>,
    quiet: Vec<(bool, Browser)>,
    halves: Vec<Browser>,
    of_halves: Browser,
}

/// Opens many handshakes at once, every other with the envelope.
fn open_all(host: &Bench, grants: impl Iterator<Item = String>) -> Vec<(bool, Browser)> {
    let offered = grants.enumerate().map(|(index, grant)| {
        let envelope = index % 2 == 1;
        let offer = || Offer { grant: &grant, envelope, ..Offer::default() };
        let mut browser = host.try_offer(offer());
        wait_until("the keeper is not busy", || {
            if browser.is_err() {
                browser = host.try_offer(offer());
            }
            browser.is_ok()
        });
        (envelope, browser.unwrap())
    });
    let mut all: Vec<_> = offered.collect();
    for (envelope, browser) in &mut all {
        browser.opened();
        if *envelope {
            assert_eq!(browser.json()["type"], "hello");
        }
    }
    all
}

/// The data of the next message, with or without its envelope.
#[track_caller]
fn data(browser: &mut (bool, Browser)) -> String {
    match browser {
        (false, browser) => browser.text(),
        (true, browser) => browser.json()["data"].as_str().expect("no gap is told").to_owned(),
    }
}

fn ten_upgrades(settings: &[(&str, &str)]) {
    const ROUNDS: usize = 10;
    let folder = Folder::new();
    let mut keeper = Keeper::start(&folder, settings);
    let host = folder.host();
    let quiet = (sys::max_open_files() as usize / 8).min(1000) - 100;
    let hears = |channel: String| format!(r#"{{"subscribe":["{channel}"]}}"#);
    let mut site = Site {
        hot: open_all(&host, (0..40).map(|_| hears("hot".into()))),
        quiet: open_all(&host, (0..quiet).map(|n| hears(format!("quiet{}", n / 10)))),
        halves: (0..50).map(|_| host.open(r#"{"publish":["halves"]}"#)).collect(),
        of_halves: host.open(r#"{"subscribe":["halves"]}"#),
    };
    let speakers: Vec<Browser> = (0..4).map(|_| host.open(r#"{"publish":["hot"]}"#)).collect();
    let mut witness = host.open(r#"{"subscribe":["hot","end"]}"#);
    let sockets = (quiet + 40 + 50 + 1 + 4 + 1) as u64;
    assert_eq!(host.stat("sockets"), sockets);

    let (stop, heard) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (mut times, mut waits) = (Vec::new(), Vec::new());
    let (said, silence) = thread::scope(|scope| {
        let (stop, heard) = (&stop, &heard);
        let speaking: Vec<_> = (speakers.into_iter().enumerate())
            .map(|(number, mut speaker)| {
                scope.spawn(move || {
                    let mut said = 0;
                    while !stop.load(Relaxed) {
                        speaker.send(&format!("s{number} {said}"));
                        said += 1;
                        thread::sleep(Duration::from_millis(1)); // Its pace.
                    }
                    (format!("s{number}"), said, Some(speaker))
                })
            })
            .collect();
        let host = &host;
        let publishing = scope.spawn(move || {
            let mut said = 0;
            while !stop.load(Relaxed) {
                host.publish("hot", format!("host {said}"));
                said += 1;
                thread::sleep(Duration::from_millis(1)); // Its pace.
            }
            ("host".to_owned(), said, None)
        });
        let witness = &mut witness;
        let listening = scope.spawn(move || {
            let (mut last, mut longest) = (Instant::now(), Duration::ZERO);
            while witness.text() != "end" {
                heard.fetch_add(1, Relaxed);
                longest = longest.max(last.elapsed());
                last = Instant::now();
            }
            longest
        });
        for round in 0..ROUNDS {
            let message = |index: usize| format!("half {round} {index}");
            let whole = |index| frame(TEXT, message(index).as_bytes());
            for (index, browser) in site.halves.iter_mut().enumerate() {
                let bytes = whole(index);
                browser.write(&bytes[..1 + index % (bytes.len() - 1)]);
            }
            let before = heard.load(Relaxed);
            wait_until("everybody speaks", || heard.load(Relaxed) > before + 200);
            let begin = Instant::now();
            let next = Keeper::start(&folder, settings);
            assert_eq!(keeper.wait(), Some(0));
            waits.push(begin.elapsed().as_millis());
            times.push(handed_over(&keeper, sockets));
            keeper = next;
            for (index, browser) in site.halves.iter_mut().enumerate() {
                let bytes = whole(index);
                browser.write(&bytes[1 + index % (bytes.len() - 1)..]);
            }
            let halves: HashSet<_> = site.halves.iter().map(|_| site.of_halves.text()).collect();
            assert_eq!(halves, (0..50).map(message).collect());
            for channel in 0..quiet.div_ceil(10) {
                host.publish(&format!("quiet{channel}"), format!("round {round}"));
            }
        }
        stop.store(true, Relaxed);
        let mut said: Vec<_> = speaking.into_iter().map(|thread| thread.join().unwrap()).collect();
        said.push(publishing.join().unwrap());
        host.publish("end", "end");
        (said, listening.join().unwrap())
    });
    let all: usize = said.iter().map(|(_, said, _)| said).sum();
    for browser in &mut site.hot {
        let mut next = HashMap::new();
        for _ in 0..all {
            let text = data(browser);
            let (who, number) = text.split_once(' ').unwrap();
            let expected = next.entry(who.to_owned()).or_insert(0);
            assert_eq!(number, expected.to_string(), "{who}");
            *expected += 1;
        }
        assert!(said.iter().all(|(who, said, _)| next[who] == *said));
    }
    for browser in &mut site.quiet {
        for round in 0..ROUNDS {
            assert_eq!(data(browser), format!("round {round}"));
        }
    }
    assert_eq!(host.stat("sockets"), sockets);
    println!(
        "{sockets} sockets, {all} messages in {ROUNDS} upgrades: handed over in {times:?} ms, from \
         the start of a process to the end of the other {waits:?} ms, longest silence {silence:?}"
    );
    assert!(silence < Duration::from_secs(2));
}

/// How many milliseconds its log says it took to hand its sockets over.
fn handed_over(keeper: &Keeper, sockets: u64) -> u64 {
    let log = keeper.log();
    let begin = format!("keeper handed {sockets} sockets over in ");
    let (_, rest) = log.split_once(&begin).unwrap_or_else(|| panic!("no {begin} in {log}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn every_event_is_told_once_across_upgrades() {
    let folder = Folder::new();
    let mut keeper = Keeper::start(&folder, &[]);
    let (host, watcher) = (folder.host(), folder.host());
    let fd = watcher.engine.events_fd().unwrap();
    host.stat("sockets");
    let stop = AtomicBool::new(false);
    let ids = thread::scope(|scope| {
        let coming = scope.spawn(|| {
            let mut ids = Vec::new();
            while !stop.load(Relaxed) {
                let (mut browser, id) = host.open_envelope("{}");
                browser.close(1000);
                browser.closed();
                ids.push(id);
            }
            ids
        });
        for _ in 0..5 {
            let next = Keeper::start(&folder, &[]);
            assert_eq!(keeper.wait(), Some(0));
            keeper = next;
        }
        stop.store(true, Relaxed);
        coming.join().unwrap()
    });
    let mut expected = Vec::new();
    for id in ids {
        expected.extend([Event::Opened(id.clone()), Event::Closed(id, 1000)]);
    }
    println!("{} events in five upgrades", expected.len());
    let mut told = Vec::new();
    wait_until("all events have come", || {
        let _ = sys::wait_readable(&fd, 100);
        while let Some(event) = watcher.engine.next_event().unwrap() {
            told.push(event);
        }
        told.len() >= expected.len()
    });
    assert_eq!(told.len(), expected.len(), "{told:?}");
    let place = |event: &Event| told.iter().position(|told| told == event);
    for pair in expected.chunks(2) {
        let (opened, closed) = (place(&pair[0]), place(&pair[1]));
        assert!(opened.is_some() && opened < closed, "{pair:?} in {told:?}");
    }
}

// With a side that goes wrong.

/// A few sockets that hear a channel, and who speaks there.
struct Crowd {
    folder: Folder,
    host: Bench,
    listeners: Vec<Browser>,
    said: usize,
}

impl Crowd {
    fn new() -> Self {
        let folder = Folder::new();
        let host = folder.host();
        Crowd { folder, host, listeners: Vec::new(), said: 0 }
    }

    fn keeper(&self) -> Keeper {
        Keeper::start(&self.folder, &[])
    }

    fn fill(&mut self) {
        while self.listeners.len() < 4 {
            self.listeners.push(self.host.open(r#"{"subscribe":["a"]}"#));
        }
    }

    /// One message reaches everyone once, or finds the connection closed. How many were closed.
    #[track_caller]
    fn speak(&mut self) -> usize {
        self.said += 1;
        let text = self.said.to_string();
        self.host.publish("a", &text);
        let before = self.listeners.len();
        self.listeners.retain_mut(|listener| match listener.read() {
            Ok(Message::Text(heard)) => {
                assert_eq!(heard.as_str(), text);
                true
            }
            Ok(Message::Close(_)) | Err(tungstenite::Error::Protocol(_)) => false,
            Err(tungstenite::Error::Io(error)) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "nobody serves it");
                false
            }
            other => panic!("{other:?}"),
        });
        before - self.listeners.len()
    }

    /// Everybody is served.
    #[track_caller]
    fn is_well(&mut self) {
        assert_eq!(self.speak(), 0, "nobody may be closed");
        assert_eq!(self.host.stat("sockets"), self.listeners.len() as u64);
    }

    /// A successor that says what the test wants.
    fn successor(&self) -> Peer {
        let (peer, _) = Peer::welcomed(&self.folder.path());
        peer.send(&(TAKE_OVER,), &[]).unwrap();
        peer
    }
}

/// Hears parts up to and with the one of this number.
fn hear_until(peer: &Peer, number: u8) -> Vec<Heard> {
    let mut parts = Vec::new();
    while parts.last().is_none_or(|part: &Heard| part.body[0] != number) {
        parts.push(peer.hear().expect("the predecessor goes on speaking"));
    }
    parts
}

#[test]
fn a_successor_that_goes_wrong_at_any_step_disconnects_nobody() {
    let mut crowd = Crowd::new();
    let keeper = crowd.keeper();
    crowd.fill();
    crowd.is_well();
    let descriptors = keeper.descriptors();
    let parts = [0, LOOP, SOCKETS, PEERS, ENTRANCE];
    for step in 0..=parts.len() + 1 {
        for way in ["goes", "noise", "a wrong word", "a part with files"] {
            let successor = crowd.successor();
            for part in parts.iter().take(step) {
                assert_eq!(successor.hear().expect("a part").body[0], *part);
            }
            if step > parts.len() {
                successor.send(&(READY,), &[]).unwrap();
                hear_until(&successor, GO);
            }
            let file = std::fs::File::open("/dev/null").unwrap();
            // It may have been given up already.
            let _ = match way {
                "noise" => successor.send_raw(b"GET / HTTP/1.1\r\n\r\n", &[]),
                "a wrong word" => successor.send(&(LOOP,), &[]),
                "a part with files" => successor.send(&(SOCKETS, 0u8), &[file.as_raw_fd()]),
                _ => Ok(()),
            };
            if way != "goes" {
                // It is told that it is none, whatever it was told before.
                assert_eq!(hear_until(&successor, ABORT).last().unwrap().body[0], ABORT);
                successor.ended();
            }
            drop(successor);
            crowd.is_well();
        }
    }
    assert!(!keeper.has_ended());
    wait_until("no descriptor is left of it", || keeper.descriptors() == descriptors);
    let next = crowd.keeper();
    assert_eq!(keeper.wait(), Some(0));
    crowd.is_well();
    drop(next);
}

#[test]
fn a_successor_that_stands_still_before_it_has_everything_disconnects_nobody() {
    let mut crowd = Crowd::new();
    let keeper = crowd.keeper();
    crowd.fill();
    let successor = crowd.successor();
    let begin = Instant::now();
    hear_until(&successor, ABORT);
    assert!(begin.elapsed() < Duration::from_secs(10));
    successor.ended();
    crowd.is_well();
    assert!(!keeper.has_ended());
}

#[test]
fn a_successor_that_stands_still_with_everything_is_its_only_owner() {
    let mut crowd = Crowd::new();
    let keeper = crowd.keeper();
    crowd.fill();
    let successor = crowd.successor();
    let mut parts = hear_until(&successor, ENTRANCE);
    successor.send(&(READY,), &[]).unwrap();
    parts.extend(hear_until(&successor, GO));
    assert_eq!(keeper.wait(), Some(0));
    assert!(crowd.listeners.iter_mut().all(Browser::is_silent), "nobody touched them");
    // It dies in the end, and leaves its path and lock behind.
    drop((parts, successor));
    let _next = crowd.keeper();
    assert_eq!(crowd.speak(), 4);
    crowd.fill();
    crowd.is_well();
}

/// A successor between which and its predecessor the test stands: it has heard the parts up to this one.
fn in_between(crowd: &Crowd, process: u32, last: u8) -> (Folder, Keeper, Peer, Peer) {
    let folder = Folder::new();
    let listener = sys::packet_listen(Path::new(&folder.path())).unwrap();
    let keeper = Keeper::spawn(&folder, &[], false);
    assert!(sys::wait_readable(&listener, 10_000).unwrap());
    let to_successor = Peer(sys::packet_accept(&listener).unwrap());
    to_successor.send(&(0u8, "0.1.0", 0u64, process), &[]).unwrap();
    assert_eq!(to_successor.hear().unwrap().body, [TAKE_OVER]);
    let to_predecessor = crowd.successor();
    for part in hear_until(&to_predecessor, last) {
        let fds: Vec<RawFd> = part.descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        to_successor.send_raw(&util::keeper::packet(VERSION, 0, &part.body), &fds).unwrap();
    }
    (folder, keeper, to_successor, to_predecessor)
}

#[test]
fn a_predecessor_that_dies_leaves_its_sockets_to_its_successor() {
    for last in [SOCKETS, PEERS, ENTRANCE] {
        let mut crowd = Crowd::new();
        let keeper = crowd.keeper();
        crowd.fill();
        let (folder, successor, to_successor, to_predecessor) =
            in_between(&crowd, keeper.id(), last);
        keeper.signal("-KILL"); // Nobody has waited for it yet.
        to_predecessor.ended();
        drop((to_successor, to_predecessor));
        wait_until("the successor serves", || {
            assert!(!successor.has_ended(), "it has given up");
            successor.log().contains("took over 4 sockets")
        });
        if last != ENTRANCE {
            crowd.host = folder.host();
        }
        crowd.is_well();
    }
}

#[test]
fn a_predecessor_that_lives_and_says_no_more_keeps_its_sockets() {
    for last in [SOCKETS, ENTRANCE] {
        let mut crowd = Crowd::new();
        let keeper = crowd.keeper();
        crowd.fill();
        let (_folder, successor, to_successor, to_predecessor) =
            in_between(&crowd, keeper.id(), last);
        drop((to_successor, to_predecessor));
        assert_eq!(successor.wait(), Some(1), "it must not serve what another serves");
        crowd.is_well();
        assert!(!keeper.has_ended());
    }
}

#[test]
fn a_successor_killed_at_any_moment_leaves_one_owner_or_none() {
    killed_at_any_moment(|_, successor| successor);
}

#[test]
fn a_predecessor_killed_at_any_moment_leaves_one_owner_or_none() {
    killed_at_any_moment(|predecessor, _| predecessor);
}

fn killed_at_any_moment(victim: impl for<'a> Fn(&'a Keeper, &'a Keeper) -> &'a Keeper) {
    let (tries, limit) = if soak() { (10_000, 1_800) } else { (100, 12) };
    let mut crowd = Crowd::new();
    let mut keeper = crowd.keeper();
    crowd.fill();
    let begin = Instant::now();
    let next = crowd.keeper();
    keeper.wait();
    let usual = begin.elapsed().as_micros() as u64;
    keeper = next;
    let (mut tried, mut kept, mut closed, mut dead) = (0, 0, 0, 0);
    while tried < tries && begin.elapsed().as_secs() < limit {
        tried += 1;
        let successor = Keeper::spawn(&crowd.folder, &[], false);
        thread::sleep(Duration::from_micros(sys::random() % usual)); // A random moment.
        victim(&keeper, &successor).kill();
        wait_until("one serves or both have ended", || {
            let ended = (keeper.has_ended(), successor.has_ended());
            ended == (true, true)
                || ended.0 && successor.log().contains("wsredis: keeper 0")
                || ended.1 && crowd.host.engine.stats().is_ok()
        });
        let new = match (keeper.has_ended(), successor.has_ended()) {
            (false, _) => None,
            (true, false) => Some(successor),
            (true, true) => {
                dead += 1;
                Some(crowd.keeper())
            }
        };
        if let Some(new) = new {
            keeper = new;
        }
        wait_until("it answers", || crowd.host.engine.stats().is_ok());
        let lost = crowd.speak();
        (kept, closed) = (kept + 4 - lost, closed + lost);
        crowd.fill();
    }
    println!(
        "{tried} tries: {kept} sockets went on, {closed} were closed, {dead} times both ended"
    );
    assert!(tried >= 20, "only {tried} tries in {limit} s");
    crowd.is_well();
}

// With another version.

#[test]
fn a_keeper_of_another_version_is_told_to_retire() {
    let folder = Folder::new();
    let listener = sys::packet_listen(Path::new(&folder.path())).unwrap();
    let keeper = Keeper::spawn(&folder, &[], false);
    assert!(sys::wait_readable(&listener, 10_000).unwrap());
    let old = Peer(sys::packet_accept(&listener).unwrap());
    old.send_as(VERSION + 1, &(0u8, "9.9.9", 0u64, std::process::id()), &[]).unwrap();
    let heard = old.hear().unwrap();
    assert_eq!((heard.body, heard.version), (vec![RETIRE], VERSION));
    wait_until("the new one listens", || keeper.log().contains("wsredis: keeper 0"));
    assert!(keeper.log().contains("version 9.9.9"), "{}", keeper.log());
    folder.host().open("{}");
    let next = Keeper::start(&folder, &[]);
    assert_eq!(keeper.wait(), Some(0));
    folder.host().open("{}");
    drop(next);
}

#[test]
fn a_keeper_that_retires_sends_its_browsers_away_little_by_little() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[("gap-spread", "1s")]);
    let host = folder.host();
    let browsers: Vec<Browser> = (0..40).map(|_| host.open("{}")).collect();
    let (peer, _) = Peer::welcomed(&folder.path());
    let begin = Instant::now();
    peer.send_as(VERSION + 1, &(RETIRE,), &[]).unwrap();
    let mut times: Vec<u128> = thread::scope(|scope| {
        let closed = browsers.into_iter().map(|mut browser| {
            scope.spawn(move || {
                assert_eq!(browser.closed().0, 1012);
                begin.elapsed().as_millis()
            })
        });
        let closed: Vec<_> = closed.collect();
        closed.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    times.sort_unstable();
    let (quarter, last) = (times[10], times[39]);
    assert!(quarter < 600 && last > 500 && last < 3000, "{times:?}");
    assert_eq!(keeper.wait(), Some(0));
    assert!(Path::new(&folder.path()).exists(), "the path is its successor's");
}
