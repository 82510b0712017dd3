//! Requests that never end, come byte by byte or are huge, against `examples/host.c`: what a host
//! that reads HTTP itself has to survive.

mod util;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use util::build::{self, Link};
use util::c_host::{Host, head, program, upgrade};
use util::wait_until;

/// As many requests as the host reads at a time.
const REQUESTS: usize = 1000;

/// The beginning of a request that never ends.
const HALF: &[u8] = b"GET /ws/half HTTP/1.1\r\nX-Slow: ";

/// The status of the answer; what follows must be the end.
fn status(stream: &mut TcpStream) -> u16 {
    let mut answer = String::new();
    match stream.read_to_string(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("{error}, after {answer:?}"),
    }
    let status = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3));
    status.unwrap_or_else(|| panic!("no answer but {answer:?}")).parse().unwrap()
}

/// A request with so many header lines, each `line` but those of the upgrade.
fn with_headers(line: &str, count: usize) -> Vec<u8> {
    upgrade("/ws/a", &line.repeat(count))
}

/// Lets this process have as many descriptors as it may.
fn many_descriptors() {
    let id = std::process::id().to_string();
    let limit = ["--pid", &id, "--nofile=20000:"];
    assert!(Command::new("prlimit").args(limit).status().unwrap().success(), "no descriptors");
}

/// What a request of this length costs the host for each of its bytes, which come one by one.
fn cost_of_a_byte(host: &Host, len: u32) -> Duration {
    let request = upgrade("/ws/a", &format!("X-Long: {}\r\n", "x".repeat(len as usize)));
    let cost = |_| {
        let (before, mut stream) = (host.busy(), host.connect());
        for byte in &request {
            stream.write_all(&[*byte]).unwrap();
            // Time to read it before the next one comes.
            let written = Instant::now();
            while written.elapsed() < Duration::from_micros(10) {}
        }
        assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
        host.busy() - before
    };
    (0..3).map(cost).min().unwrap() / len
}

#[test]
fn a_request_that_comes_byte_by_byte_costs_the_same_for_each_of_them() {
    let Some(host) = Host::start_fast(&[]) else { return };
    let (short, long) = (cost_of_a_byte(&host, 2_000), cost_of_a_byte(&host, 16_000));
    println!("byte by byte: {short:?} each of 2,000, {long:?} each of 16,000");
    // To look at all of it again each time would be eight times as much.
    assert!(long < short * 4 + Duration::from_micros(5), "{short:?}, then {long:?}");
    assert!(long < Duration::from_micros(20), "{long:?}");
}

#[test]
fn a_huge_head_or_thousands_of_headers_are_a_431_at_little_cost() {
    let Some(mut host) = Host::start_fast(&[]) else { return };
    let mut told = 0;
    for (what, request, tries) in [
        ("20 MB in one header", upgrade("/ws/a", &format!("X: {}\r\n", "x".repeat(20 << 20))), 3),
        ("20 MB of lines", with_headers("a: b\r\n", (20 << 20) / 6), 3),
        ("2,000 headers", with_headers("a:\r\n", 2000), 100),
        ("one header too many", with_headers("a:\r\n", 96), 100),
    ] {
        let before = host.busy();
        for _ in 0..tries {
            let mut stream = host.connect();
            // All of it is taken: the answer must not be lost by a reset.
            stream.write_all(&request).unwrap();
            assert_eq!(status(&mut stream), 431, "{what}");
            told += 1;
        }
        let each = (host.busy() - before) / tries;
        println!("{what}: {each:?} each");
        assert!(each < Duration::from_millis(50), "{what}: {each:?} each");
    }
    assert_eq!(host.refused("too_large"), told);
    let mut last = host.connect();
    last.write_all(&with_headers("a:\r\n", 95)).unwrap();
    assert!(head(&mut last).starts_with("HTTP/1.1 101 "));
}

#[test]
fn ten_thousand_floods_of_headers_do_not_keep_a_healthy_handshake_waiting() {
    let Some(mut host) = Host::start_fast(&[]) else { return };
    let floods = [
        with_headers("a:\r\n", 2000),
        upgrade("/ws/a", &format!("X: {}\r\n", "x".repeat(60_000))),
        vec![0; 20_000],
        vec![b'\n'; 20_000],
    ];
    let over = AtomicBool::new(false);
    let slowest = thread::scope(|scope| {
        let healthy = scope.spawn(|| healthy_handshakes(&host, &over));
        for i in 0..10_000 {
            let mut stream = host.connect();
            // It may be refused, and closed, before it has sent everything.
            let _ = stream.write_all(&floods[i % floods.len()]);
            assert!(matches!(status(&mut stream), 400 | 431), "{i}");
        }
        over.store(true, Relaxed);
        p99(healthy.join().unwrap())
    });
    println!("p99 of healthy handshakes {slowest:?}");
    assert!(slowest < Duration::from_millis(200), "{slowest:?}");
    host.assert_alive();
}

/// Healthy handshakes, one after the other, until it is over: how long each took.
fn healthy_handshakes(host: &Host, over: &AtomicBool) -> Vec<Duration> {
    let mut times = Vec::new();
    while !over.load(Relaxed) {
        let began = Instant::now();
        drop(host.join("healthy"));
        times.push(began.elapsed());
        thread::sleep(Duration::from_millis(1));
    }
    times
}

fn p99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    assert!(times.len() >= 100, "only {} handshakes", times.len());
    times[times.len() * 99 / 100]
}

#[test]
fn five_thousand_half_handshakes_at_a_byte_a_second_do_not_keep_a_healthy_one_waiting() {
    const SLOW: usize = 5000;
    const SECONDS: u32 = 6;
    many_descriptors();
    let Some(mut host) = Host::start_fast(&[]) else { return };
    drop(host.join("warm"));
    let (memory, files, began) = (host.resident(), host.files(), Instant::now());
    let (over, mut opened) = (AtomicBool::new(false), 0);
    let mut most = (0, 0);
    let times = thread::scope(|scope| {
        let healthy = scope.spawn(|| healthy_handshakes(&host, &over));
        // Nearly all the memory that one may have.
        let half = [HALF, &[b'x'; 16_000]].concat();
        let mut slow: Vec<Option<TcpStream>> = (0..SLOW).map(|_| None).collect();
        for second in 1..=SECONDS {
            for stream in &mut slow {
                // Whoever was dropped comes back at once.
                if stream.as_mut().is_none_or(|stream| stream.write_all(b"x").is_err()) {
                    let mut fresh = host.connect();
                    let _ = fresh.write_all(&half);
                    *stream = Some(fresh);
                    opened += 1;
                }
            }
            most = (most.0.max(host.resident() - memory), most.1.max(host.files() - files));
            thread::sleep((Duration::from_secs(1) * second).saturating_sub(began.elapsed()));
        }
        over.store(true, Relaxed);
        healthy.join().unwrap()
    });
    let (count, slowest) = (times.len(), p99(times));
    println!(
        "{opened} half handshakes, {count} healthy ones: p99 {slowest:?}, {} KiB, {} descriptors, \
         {:?} busy in {:?}",
        most.0 >> 10,
        most.1,
        host.busy(),
        began.elapsed()
    );
    assert!(opened >= SLOW && slowest < Duration::from_millis(200), "{slowest:?}");
    assert!(most.0 <= REQUESTS * (20 << 10), "{} KiB", most.0 >> 10);
    // The healthy ones have one each, for a moment longer than the browser.
    assert!(most.1 <= REQUESTS + 20, "{} descriptors", most.1);
    assert!(host.refused("full") > 0);
    host.assert_alive();
}

#[test]
fn of_too_many_unfinished_requests_the_oldest_have_to_go() {
    const MORE: usize = 50;
    many_descriptors();
    let Some(host) = Host::start(&[]) else { return };
    let before = host.files();
    let mut streams: Vec<_> = (0..REQUESTS + MORE)
        .map(|_| {
            let mut stream = host.connect();
            stream.write_all(HALF).unwrap();
            stream
        })
        .collect();
    for stream in &mut streams[..MORE] {
        assert_eq!(status(stream), 503);
    }
    assert_eq!(host.files(), before + REQUESTS);
    // All others may still finish.
    for i in [MORE, REQUESTS, REQUESTS + MORE - 1] {
        streams[i].write_all(&upgrade("/ws/a", "")[b"GET /ws/a HTTP/1.1".len()..]).unwrap();
        assert!(head(&mut streams[i]).starts_with("HTTP/1.1 101 "), "{i}");
    }
}

#[test]
fn a_request_that_is_not_finished_in_its_time_is_a_408_however_its_bytes_drip() {
    let Some(mut host) = Host::start(&["handshake-ms=400"]) else { return };
    let mut streams: Vec<_> = (0..20).map(|_| (host.connect(), Instant::now())).collect();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        // One of them sends all the time, and gets none for it.
        let mut drip = streams[0].0.try_clone().unwrap();
        let over = &over;
        scope.spawn(move || {
            while !over.load(Relaxed) && drip.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_millis(2));
            }
        });
        for (stream, began) in &mut streams {
            assert_eq!(status(stream), 408);
            let took = began.elapsed();
            assert!(took > Duration::from_millis(390) && took < Duration::from_secs(5), "{took:?}");
        }
        over.store(true, Relaxed);
    });
    assert_eq!(host.refused("timeout"), 20);
    // Whoever does not even close is let go after the same time again.
    let mut mute = host.connect();
    let files = host.files();
    assert!(head(&mut mute).starts_with("HTTP/1.1 408 "));
    wait_until("its descriptor is given back", || host.files() < files);
    drop(host.join("still"));
}

#[test]
fn unfinished_requests_do_not_use_up_the_descriptors() {
    let Some(host) = Host::start_with_files(100, &["fd-reserve=0"]) else { return };
    let half: Vec<_> = (0..150)
        .map(|_| {
            let mut stream = host.connect();
            stream.write_all(HALF).unwrap();
            stream
        })
        .collect();
    drop(host.join("room"));
    assert!(host.files() < 50);
    drop(half);
}

#[test]
fn hostile_requests_touch_no_memory_that_is_not_theirs() {
    if !build::has("valgrind") {
        return;
    }
    let Some(program) = program(Link::Static) else { return };
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--error-exitcode=9", "--quiet", "--leak-check=full"]);
    valgrind.args(["--errors-for-leak-kinds=definite"]).arg(program);
    let mut host = Host::run(valgrind.args(["0", "handshake-ms=3000"]));
    let long = format!("X: {}\r\n", "x".repeat(16_000));
    for (expected, request) in [
        (431, with_headers("a:\r\n", 2000)),
        (431, vec![b'\r'; 20_000]),
        (431, vec![b'\n'; 20_000]),
        (400, vec![0; 100]),
        (400, b"\r\n\r\n".to_vec()),
        (400, b"  \r\n:\r\n\r\n".to_vec()),
        (400, upgrade("/ws/a", ": \r\n")),
        (400, upgrade("/ws/a", "a\r\n")),
        (404, upgrade("", &long)),
        (408, upgrade("/ws/a", "")[..40].to_vec()),
    ] {
        let mut stream = host.connect();
        stream.write_all(&request).unwrap();
        assert_eq!(status(&mut stream), expected, "{}", String::from_utf8_lossy(&request));
    }
    for cut in 0..upgrade("/ws/a", "").len() {
        let request = upgrade("/ws/a", "");
        let mut stream = host.connect();
        stream.write_all(&request[..cut]).unwrap();
        stream.write_all(&request[cut..]).unwrap();
        assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
    }
    host.signal("-TERM");
    assert_eq!(host.wait(Duration::from_secs(20)), Some(0));
}
