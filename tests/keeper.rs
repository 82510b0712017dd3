//! A keeper in a process of its own, and hosts that hand their sockets to it: what it promises them,
//! and what becomes of it when they, or it, go wrong.

mod util;

use std::fs::{self, File};
use std::io::pipe;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::time::{Duration, Instant};

use util::keeper::{
    ANSWER, AT_ONCE, Folder, Keeper, PUBLISH, Peer, VERSION, WATCH, adopt, ask_stats, in_a_process,
    packet, part, patiently,
};
use util::{Bench, Browser, Offer, RealRedis, wait_until};
use wsredis::engine::Who;
use wsredis::error::Kind;
use wsredis::sys;

#[test]
fn an_engine_in_a_keeper_does_what_an_engine_does() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[]);
    let (host, other) = (folder.host(), folder.host());
    let mut ann = host.open(r#"{"subscribe":["a"],"user":"ann"}"#);
    let (mut bob, id) = other.open_envelope(r#"{"subscribe":["a"],"publish":["a"]}"#);
    host.publish("a", "1");
    assert_eq!(ann.text(), "1");
    assert_eq!(bob.json()["data"], 1);
    bob.send(r#"{"channel":"a","data":2}"#);
    assert_eq!(ann.text(), "2");
    other.engine.send(&id, b"only you").unwrap();
    assert_eq!(bob.text(), "only you");
    assert_eq!(host.stat("sockets"), 2);
    host.engine.health().unwrap();
    assert_eq!(host.engine.send("1-0-0", b"x").unwrap_err().kind, Kind::NotFound);
    host.engine.kick(&Who::User("ann".into())).unwrap();
    assert_eq!(ann.closed().0, 4403);
    keeper.signal("-TERM");
    assert_eq!(bob.closed().0, 1012);
    assert_eq!(keeper.wait(), Some(0));
    assert!(!Path::new(&folder.path()).exists());
    let gone = host.try_offer(Offer::default()).err().unwrap();
    assert_eq!(gone.kind, Kind::Stopped, "{gone}");
}

#[test]
fn a_host_keeps_no_descriptor_of_what_it_handed_over() {
    let folder = Folder::new();
    let _keeper = Keeper::start(&folder, &[]);
    let host = folder.host();
    let _first = host.open("{}");
    let (browser, fd) = host.connection();
    let number = fd.as_raw_fd();
    let link = || fs::read_link(format!("/proc/self/fd/{number}")).ok();
    let was = link();
    host.engine.adopt(host.adoption(fd, Offer::default())).unwrap();
    assert_ne!(link(), was);
    drop(browser);
}

/// Publishes numbers, from `next` on, until the engine is busy. What comes next, and how long the
/// calls took.
fn publish_until_busy(host: &Bench, mut next: usize, times: &mut Vec<Duration>) -> usize {
    loop {
        let begin = Instant::now();
        let published = host.engine.publish("a", next.to_string().as_bytes());
        times.push(begin.elapsed());
        match published {
            Ok(()) => next += 1,
            Err(error) => {
                assert_eq!(error.kind, Kind::Busy, "{error}");
                return next;
            }
        }
    }
}

#[test]
fn a_keeper_that_stands_still_is_busy_at_once_and_loses_nothing() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[]);
    let host = folder.host();
    let (_asked, id) = host.open_envelope("{}");
    let (mut listener, _) = host.open_envelope(r#"{"subscribe":["a"]}"#);
    host.publish("a", "0");
    assert_eq!(listener.json()["data"], 0);
    host.stat("sockets");
    let connections = keeper.descriptors();

    keeper.freeze();
    let mut times = Vec::new();
    let published = publish_until_busy(&host, 1, &mut times);
    assert!(published > 20, "its queue has room for some: {published}");
    for _ in 0..50 {
        assert_eq!(publish_until_busy(&host, published, &mut times), published);
    }
    let (mut browsers, mut refused) = (Vec::new(), 0);
    while refused < 20 {
        let (browser, fd) = host.connection();
        let number = fd.as_raw_fd();
        let adoption = host.adoption(fd, Offer { grant: r#"{"user":"new"}"#, ..Offer::default() });
        let begin = Instant::now();
        let adopted = host.engine.adopt(adoption);
        times.push(begin.elapsed());
        let mut browser = Browser::new(browser);
        match adopted {
            Ok(()) => browsers.push(browser),
            Err((error, adoption)) => {
                assert_eq!((error.kind, adoption.fd.as_raw_fd()), (Kind::Busy, number), "{error}");
                assert!(browser.is_silent());
                refused += 1;
            }
        }
    }
    assert!(browsers.len() > 20, "its queue has room for some: {}", browsers.len());
    // One may have lost its processor for a while; a call that waits would do so every time.
    times.sort();
    assert!(times[times.len() - 2] < AT_ONCE, "{:?}", times.last_chunk::<5>());
    let asks: [&dyn Fn() -> wsredis::error::Result<()>; 4] = [
        &|| host.engine.stats().map(drop),
        &|| host.engine.health(),
        &|| host.engine.kick(&Who::User("nobody".into())),
        &|| host.engine.send(&id, b"x"),
    ];
    for ask in asks {
        let begin = Instant::now();
        assert_eq!(ask().unwrap_err().kind, Kind::Busy);
        let took = begin.elapsed();
        assert!((950..3000).contains(&took.as_millis()), "{took:?}");
    }

    keeper.signal("-CONT");
    for number in 1..published {
        assert_eq!(listener.json()["data"], number);
    }
    for browser in &mut browsers {
        browser.opened();
    }
    host.publish("a", published.to_string());
    assert_eq!(listener.json()["data"], published);
    let _another = host.open("{}");
    host.wait_for("sockets", browsers.len() as u64 + 3);
    let sockets = browsers.len() + 1;
    wait_until("the connections are those of before", || {
        keeper.descriptors() == connections + sockets
    });
}

#[test]
fn what_a_host_left_behind_is_done_after_its_end() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[]);
    let host = folder.host();
    let mut listener = host.open(r#"{"subscribe":["a"]}"#);
    let publish = |text: &str| (PUBLISH, "a", text.as_bytes().to_vec());
    // It was let in and has not read the keeper's first word.
    let deaf = Peer::connect(&folder.path());
    assert!(sys::wait_readable(&deaf.0, util::DEADLINE.as_millis() as u32).unwrap());
    keeper.freeze();
    for text in ["1", "2", "3"] {
        deaf.send(&publish(text), &[]).unwrap();
    }
    drop(deaf);
    // It was not let in yet.
    let late = folder.host();
    late.engine.publish("b", b"4").unwrap();
    let mut browser = late.offer(Offer { grant: r#"{"subscribe":["a"]}"#, ..Offer::default() });
    drop(late);
    keeper.signal("-CONT");
    assert_eq!([listener.text(), listener.text(), listener.text()], ["1", "2", "3"]);
    browser.opened();
    host.wait_for("published", 4);
    host.publish("a", "5");
    assert_eq!((listener.text(), browser.text()), ("5".into(), "5".into()));
}

#[test]
fn another_keeper_at_the_path_of_a_dead_one_serves_the_same_host() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[]);
    let host = folder.host();
    let mut old = host.open(r#"{"subscribe":["a"]}"#);
    host.publish("a", "1");
    assert_eq!(old.text(), "1");
    host.stat("sockets");

    keeper.kill();
    assert!(old.read().is_err());
    assert!(folder.0.join("keeper").exists() && folder.0.join("keeper.lock").exists());
    let (browser, fd) = host.connection();
    let (mut browser, number) = (Browser::new(browser), fd.as_raw_fd());
    let grant = r#"{"subscribe":["a"]}"#;
    let adoption = host.adoption(fd, Offer { grant, ..Offer::default() });
    let (error, adoption) = host.engine.adopt(adoption).unwrap_err();
    assert_eq!((error.kind, adoption.fd.as_raw_fd()), (Kind::Stopped, number), "{error}");
    assert!(browser.is_silent());
    assert_eq!(host.engine.publish("a", b"2").unwrap_err().kind, Kind::Stopped);
    assert_eq!(host.engine.stats().unwrap_err().kind, Kind::Stopped);

    let another = Keeper::start(&folder, &[]);
    host.engine.adopt(*adoption).map_err(|(error, _)| error).unwrap();
    browser.opened();
    host.engine.publish("a", b"3").unwrap();
    assert_eq!(browser.text(), "3");
    assert_eq!(host.stat("sockets"), 1);

    // And once more with connections that have not noticed the change.
    another.kill();
    let _third = Keeper::start(&folder, &[]);
    host.open("{}");
    host.engine.publish("a", b"4").unwrap();
    assert_eq!(host.stat("adopted"), 1);
}

#[test]
fn a_keeper_whose_redis_is_away_holds_back_messages_and_no_handshakes() {
    let Some(redis) = RealRedis::start() else { return };
    let folder = Folder::new();
    let link = folder.0.join("redis");
    let settings = [
        ("redis-url", &*format!("unix://{}", link.display())),
        ("publish-queue-limit", "64k"),
        ("redis-backoff-limit", "50ms"),
    ];
    let keeper = Keeper::start(&folder, &settings);
    let host = folder.host();
    let message = |number: usize| format!("{number:>1000}");
    let (mut published, mut busy_since) = (0, None::<Instant>);
    // Busy for good: neither the engine nor what the keeper holds nor the queue has room.
    while busy_since.is_none_or(|since| since.elapsed() < Duration::from_millis(200)) {
        match host.engine.publish("a", message(published).as_bytes()) {
            Ok(()) => (published, busy_since) = (published + 1, None),
            Err(error) => {
                assert_eq!(error.kind, Kind::Busy, "{error}");
                busy_since.get_or_insert_with(Instant::now);
            }
        }
    }
    assert!(published > 70, "the engine and the queue have room for more than {published}");
    let (mut browser, _) = host.open_envelope("{}");
    host.engine.kick(&Who::User("nobody".into())).unwrap();
    assert_eq!(host.engine.health().unwrap_err().kind, Kind::Unhealthy);
    let other = folder.host();
    other.open("{}");

    let mut connection = redis.connect();
    let mut listener = connection.as_pubsub();
    listener.subscribe("a").unwrap();
    listener.set_read_timeout(Some(util::DEADLINE)).unwrap();
    std::os::unix::fs::symlink(redis.unix_path(), &link).unwrap();
    for number in 0..published {
        let heard: String = listener.get_message().unwrap().get_payload().unwrap();
        assert_eq!(heard.trim_start(), number.to_string());
    }
    host.publish("a", "end");
    assert_eq!(listener.get_message().unwrap().get_payload::<String>().unwrap(), "end");
    wait_until("it is well", || host.engine.health().is_ok());
    keeper.signal("-TERM");
    assert_eq!(browser.closed().0, 1012);
}

#[test]
fn an_embedded_broker_that_is_full_holds_back_and_loses_nothing() {
    let folder = Folder::new();
    let settings = [("feed-limit", "64k"), ("write-queue-limit", "1g"), ("write-queue-age", "10m")];
    let _keeper = Keeper::start(&folder, &settings);
    let host = folder.host();
    let mut listeners: Vec<Browser> =
        (0..20).map(|_| host.open(r#"{"subscribe":["a"]}"#)).collect();
    let message = |number: usize| format!("{number:>50000}");
    let (mut published, mut busy) = (0, 0);
    // A hundred, and more where the keeper takes them as fast as they come.
    while published < 100 || (busy == 0 && published < 2_000) {
        match host.engine.publish("a", message(published).as_bytes()) {
            Ok(()) => published += 1,
            Err(error) => {
                assert_eq!(error.kind, Kind::Busy, "{error}");
                busy += 1;
            }
        }
    }
    assert!(busy > 0, "the test must fill the feed");
    for listener in &mut listeners {
        for number in 0..published {
            assert_eq!(listener.text().trim_start(), number.to_string());
        }
    }
}

/// A keeper, and a host beside the peers that this test is about.
struct Neighbours {
    keeper: Keeper,
    folder: Folder,
    host: Bench,
    listener: Browser,
    said: usize,
}

impl Neighbours {
    fn new(settings: &[(&str, &str)]) -> Self {
        let folder = Folder::new();
        let keeper = Keeper::start(&folder, settings);
        let host = folder.host();
        let listener = host.open(r#"{"subscribe":["a"]}"#);
        let mut neighbours = Neighbours { folder, keeper, host, listener, said: 0 };
        neighbours.are_well();
        neighbours.host.stat("sockets");
        neighbours
    }

    /// The healthy host notices nothing.
    #[track_caller]
    fn are_well(&mut self) {
        self.said += 1;
        self.host.engine.publish("a", self.said.to_string().as_bytes()).unwrap();
        assert_eq!(self.listener.text(), self.said.to_string());
    }

    fn peer(&self) -> Peer {
        Peer::welcomed(&self.folder.path()).0
    }
}

#[test]
fn a_bad_peer_costs_itself_its_connection_and_nobody_else_anything() {
    let mut there = Neighbours::new(&[]);
    let descriptors = there.keeper.descriptors();
    let folder = there.folder.0.clone();
    fs::write(folder.join("file"), [0; 9]).unwrap();
    let file = File::open(folder.join("file")).unwrap();
    let shared = tempfile_in_memory();
    let (_reader, writer) = pipe().unwrap();
    let listening = TcpListener::bind("127.0.0.1:0").unwrap();
    let (one, two) = UnixStream::pair().unwrap();
    let sealed = sys::memory_file(&[&[0; 9]]).unwrap();
    let event = sys::event_fd().unwrap();
    let packets = sys::packet_connect(Path::new(&there.folder.path())).unwrap();
    let good = packet(VERSION, 0, &postcard::to_allocvec(&(PUBLISH, "a", b"x".to_vec())).unwrap());
    let adoption = packet(VERSION, 0, &postcard::to_allocvec(&adopt("{}")).unwrap());
    let in_memory = |length: u32| [&[VERSION, 1][..], &length.to_le_bytes()].concat();
    let of_keepers = |number: u8, rest: &[u8]| packet(VERSION, 0, &[&[number], rest].concat());
    let fds = |fds: &[&dyn AsRawFd]| -> Vec<RawFd> { fds.iter().map(|f| f.as_raw_fd()).collect() };
    let bad: Vec<(&str, Vec<u8>, Vec<RawFd>)> = vec![
        ("no header", vec![VERSION], vec![]),
        ("noise", b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![]),
        ("truncated", good[..good.len() - 1].to_vec(), vec![]),
        ("too much", [&good[..], b"x"].concat(), vec![]),
        ("too long", packet(VERSION, 0, &[0; 60_001]), vec![]),
        ("an unknown message", of_keepers(99, &[]), vec![]),
        ("nobody to adopt", adoption.clone(), vec![]),
        ("two to adopt", adoption.clone(), fds(&[&one, &two])),
        ("a file to adopt", adoption.clone(), fds(&[&file])),
        ("a pipe to adopt", adoption.clone(), fds(&[&writer])),
        ("a listener to adopt", adoption.clone(), fds(&[&listening])),
        ("an event to adopt", adoption.clone(), fds(&[&event])),
        ("a packet socket to adopt", adoption.clone(), fds(&[&packets])),
        ("a message with a file", good.clone(), fds(&[&file])),
        ("a message with a connection", good, fds(&[&one])),
        ("no memory file", in_memory(9), vec![]),
        ("a file on disk", in_memory(9), fds(&[&file])),
        ("a file in memory that is not sealed", in_memory(9), fds(&[&shared])),
        ("a pipe as memory", in_memory(9), fds(&[&writer])),
        ("a memory file that is too short", in_memory(10), fds(&[&sealed])),
        ("a memory file that is too long", in_memory(8), fds(&[&sealed])),
        ("a length of gigabytes", in_memory(u32::MAX), fds(&[&sealed])),
        ("a sealed file of nothing", in_memory(9), fds(&[&sealed])),
        ("a welcome", of_keepers(0, &[0, 0, 0]), vec![]),
        ("an answer", of_keepers(ANSWER, &[1, 0, 0]), vec![]),
        ("an event", of_keepers(11, &[1, b'x']), vec![]),
        ("a log line", of_keepers(14, &[0, 1, b'x']), vec![]),
        (
            "a publish of another version",
            packet(VERSION + 1, 0, &[PUBLISH, 1, b'a', 1, b'x']),
            vec![],
        ),
        ("part of a handing over", packet(VERSION, 0, &[7]), fds(&[&file, &writer])),
    ];
    for (what, bytes, fds) in &bad {
        let peer = there.peer();
        peer.send_raw(bytes, fds).unwrap_or_else(|error| panic!("{what}: {error}"));
        peer.ended();
        there.are_well();
        assert!(!there.keeper.has_ended(), "{what}");
    }
    assert!(there.keeper.log().contains("closes the connection of a host"));
    drop(packets);
    wait_until("no descriptor is left of them", || there.keeper.descriptors() == descriptors);
    assert_eq!(there.host.stat("sockets"), 1);
}

/// A file of nine bytes in memory that anybody may change.
fn tempfile_in_memory() -> File {
    let path = format!("/dev/shm/wsredis-test-{:x}", sys::random());
    fs::write(&path, [0; 9]).unwrap();
    let file = File::open(&path).unwrap();
    fs::remove_file(&path).unwrap();
    file
}

#[test]
fn a_browser_whose_host_or_connection_is_wrong_is_answered_or_let_go() {
    let mut there = Neighbours::new(&[]);
    let descriptors = there.keeper.descriptors();
    // A host of another version.
    let peer = there.peer();
    let (browser, fd) = there.host.connection();
    peer.send_as(VERSION + 1, &adopt("{}"), &[fd.as_raw_fd()]).unwrap();
    drop(fd);
    let answer = Browser::new(browser).read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
    peer.ended();
    // A grant that its host should have refused.
    let peer = there.peer();
    let (browser, fd) = there.host.connection();
    peer.send(&adopt("no grant"), &[fd.as_raw_fd()]).unwrap();
    drop(fd);
    let answer = Browser::new(browser).read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 5"), "{}", String::from_utf8_lossy(&answer));
    // A connection that is none any more; then one that is, by the same peer.
    let (browser, fd) = there.host.connection();
    drop(browser);
    peer.send(&adopt("{}"), &[fd.as_raw_fd()]).unwrap();
    drop(fd);
    let (browser, fd) = there.host.connection();
    peer.send(&adopt("{}"), &[fd.as_raw_fd()]).unwrap();
    drop(fd);
    let mut browser = Browser::new(browser);
    browser.opened();
    drop((browser, peer));
    there.are_well();
    there.host.wait_for("sockets", 1);
    wait_until("no descriptor is left of them", || there.keeper.descriptors() == descriptors);
}

#[test]
fn who_asks_and_does_not_read_goes() {
    let mut there = Neighbours::new(&[]);
    let peer = there.peer();
    let mut number = 0;
    wait_until("the keeper has enough of it", || {
        number += 1;
        let sent = peer.send(&ask_stats(number), &[]);
        sent.is_err_and(|error| error.kind() != std::io::ErrorKind::WouldBlock)
    });
    there.are_well();
    // Who watches and does not read is only told less.
    let watcher = there.peer();
    watcher.send(&(WATCH,), &[]).unwrap();
    watcher.send(&ask_stats(1), &[]).unwrap();
    assert_eq!(watcher.hear().unwrap().body[0], ANSWER, "it was read");
    for _ in 0..300 {
        drop(there.host.open("{}"));
    }
    there.are_well();
    there.host.wait_for("sockets", 1);
    let mut told = 0;
    while told < 600 {
        watcher.hear().expect("it is still there");
        told += 1;
    }
}

#[test]
fn hundreds_of_random_peers_leave_nothing_behind() {
    let mut there = Neighbours::new(&[]);
    let mut random = dice(11);
    let (one, _two) = UnixStream::pair().unwrap();
    let file = File::open("/dev/null").unwrap();
    let memory = sys::memory_file(&[&[7; 40]]).unwrap();
    let some: [&dyn AsRawFd; 3] = [&one, &file, &memory];
    let (mut descriptors, mut before) = (0, 0);
    for round in 0..600 {
        if round == 100 {
            wait_until("the first have gone", || there.host.stat("sockets") == 1);
            (descriptors, before) = (there.keeper.descriptors(), there.keeper.memory());
        }
        let peer = Peer::connect(&there.folder.path());
        for _ in 0..=random(4) {
            let mut body: Vec<u8> = (0..random(80)).map(|_| random(256) as u8).collect();
            if let Some(first) = body.first_mut() {
                // Not Stop, Retire and TakeOver: those end it, as they should.
                *first = [0, 1, 5, 6, 7, 8, 9, 10, 14, 15, 200][random(11)];
                // A lease would end it, too, after its end.
                *first = if *first == 1 { 0 } else { *first };
            }
            let mut bytes = packet(VERSION, random(8) as u8 & 1, &body);
            match random(6) {
                0 => bytes.truncate(random(bytes.len() as u64)),
                1 => bytes[2 + random(4)] = random(256) as u8,
                _ => {}
            }
            let fds: Vec<RawFd> = (0..random(4)).map(|_| some[random(3)].as_raw_fd()).collect();
            let bytes = if bytes.is_empty() { vec![0] } else { bytes };
            if patiently(|| peer.send_raw(&bytes, &fds)).is_err() {
                break; // It was thrown out already.
            }
        }
        if round % 50 == 0 {
            there.are_well();
        }
    }
    there.are_well();
    wait_until("they have gone", || there.host.stat("sockets") == 1);
    wait_until("no descriptor is left of them", || there.keeper.descriptors() <= descriptors);
    let after = there.keeper.memory();
    assert!(after < before + 8 * 1024, "{before} KiB before, {after} KiB behind them");
    println!("600 random peers: {before} KiB before, {after} KiB behind them");
}

/// A small generator of numbers below a bound.
fn dice(mut state: u64) -> impl FnMut(u64) -> usize {
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % below) as usize
    }
}

#[test]
fn a_process_of_another_user_is_not_let_in() {
    if let Some(path) = part() {
        let peer = Peer::connect(&path);
        let _ = peer.send(&(PUBLISH, "a", b"intruder".to_vec()), &[]);
        return peer.ended();
    }
    if sys::user_id() != 0 {
        println!("SKIPPED: only root can be another user; nothing was tried here");
        return;
    }
    let mut there = Neighbours::new(&[]);
    let folder = there.folder.0.clone();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(there.folder.path(), fs::Permissions::from_mode(0o666)).unwrap();
    // Where the other user can execute it.
    let program = folder.join("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let again = in_a_process("a_process_of_another_user_is_not_let_in", &there.folder.path());
    let mut command = std::process::Command::new(program);
    command.args(again.get_args()).envs(again.get_envs().filter_map(|(k, v)| Some((k, v?))));
    let output = command.current_dir("/").uid(65534).gid(65534).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    wait_until("it is logged", || there.keeper.log().contains("refused a connection"));
    assert!(there.keeper.log().contains("user 65534"), "{}", there.keeper.log());
    there.are_well();
}
