//! Floods: many of what is allowed once. Each ends with its code soon, for little memory and time, and a bystander hears
//! everything in order.

mod util;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use util::browser::{PING, Stream, TEXT, frame};
use util::memory::{Counting, loops_cpu, most_while};
use util::{Bench, RealRedis, wait_until};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const HEAR: &str = r#"{"subscribe":["b"],"publish":["b"],"echo":true}"#;
const SPEAK: &str = r#"{"publish":["a"]}"#;
/// What a socket may have beside its own bytes while it is flooded: its message machine, the pongs that may wait, and
/// its close frame.
const STRUCTS: i64 = 16 * 1024;

/// Writes as fast as it can until the other side has enough, while another thread reads without allocating. Returns the
/// code of the close frame and how many frames came before it.
fn flood(mut stream: TcpStream, bytes: &[u8]) -> (u16, u64) {
    let mut writer = stream.try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || writer.write_all(bytes));
        frames_until_close(&mut stream)
    })
}

/// A browser's bare connection, without the buffers that tungstenite has.
fn open(bench: &Bench) -> TcpStream {
    match bench.open(SPEAK).into_stream() {
        Stream::Tcp(stream) => stream,
        Stream::Unix(_) => panic!("it is a TCP stream"),
    }
}

fn frames_until_close(stream: &mut TcpStream) -> (u16, u64) {
    let mut frames = 0;
    loop {
        let mut head = [0; 2];
        stream.read_exact(&mut head).expect("a close frame comes");
        let mut payload = [0; 125];
        let payload = &mut payload[..usize::from(head[1])];
        stream.read_exact(payload).unwrap();
        if head[0] == 0x88 {
            let _ = stream.shutdown(std::net::Shutdown::Both);
            return (u16::from_be_bytes([payload[0], payload[1]]), frames);
        }
        frames += 1;
    }
}

/// Floods from so many browsers at once, beside a bystander who talks to itself; the code that all were closed with, the
/// most pongs that came to one, and the memory that each cost at most.
#[track_caller]
fn floods(bench: &Bench, browsers: usize, bytes: &[u8]) -> (u16, u64, i64) {
    let mut bystander = bench.open(HEAR);
    let flooders: Vec<_> = (0..browsers).map(|_| open(bench)).collect();
    // Threads, stacks and the bystander's own buffers are there before the count begins.
    let (go, done, most) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let (code, memory) = thread::scope(|scope| {
        let threads: Vec<_> = flooders
            .into_iter()
            .map(|stream| {
                scope.spawn(|| {
                    while !go.load(Relaxed) {
                        thread::yield_now();
                    }
                    let (code, pongs) = flood(stream, bytes);
                    most.fetch_max(pongs, Relaxed);
                    done.fetch_add(1, Relaxed);
                    code
                })
            })
            .collect();
        let mut talk = |n: u64| {
            let text = format!("{n:08}");
            bystander.send(&text);
            assert_eq!(bystander.text(), text);
        };
        (0..100).for_each(&mut talk);
        let ((), memory) = most_while(|| {
            go.store(true, Relaxed);
            let mut n = 0;
            while done.load(Relaxed) < browsers as u64 {
                n += 1;
                talk(n);
            }
        });
        let codes: Vec<u16> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(codes.iter().all(|code| *code == codes[0]), "{codes:?}");
        (codes[0], memory)
    });
    bench.wait_for("sockets", 1);
    (code, most.load(Relaxed), memory / browsers as i64)
}

/// One test, because it measures its own process.
#[test]
fn floods_end_soon_cost_little_and_disturb_nobody() {
    const BROWSERS: usize = 20;
    let rates = [("max-message-rate", "100"), ("max-control-rate", "20")];
    let fragments = |first: u8, payload: &[u8], count: usize| {
        [frame(first, payload), frame(0x00, payload).repeat(count - 1)].concat()
    };
    let bench = Bench::new(1, &[rates[1]]);
    for (what, bytes) in [
        ("pings", frame(PING, b"").repeat(100_000)),
        ("pings of 125 bytes", frame(PING, &[7; 125]).repeat(100_000)),
        ("pongs", frame(0x8a, b"").repeat(100_000)),
        ("empty fragments", fragments(0x01, b"", 131_000)),
        ("fragments of a byte", fragments(0x01, b"x", 131_000)),
    ] {
        let (code, pongs, memory) = floods(&bench, BROWSERS, &bytes);
        println!("{what}: {code}, at most {pongs} pongs, {memory} bytes of memory each");
        assert_eq!(code, 4029, "{what}");
        assert!(pongs <= 50, "{pongs} pongs: {what}");
        assert!(memory <= STRUCTS, "{memory} bytes: {what}");
    }
    bench.wait_for("closed/rate", 5 * BROWSERS as u64);

    // Without a rate the message's limit ends it, for what its bytes cost and their growing.
    let bench = Bench::new(1, &[]);
    let (code, _, memory) = floods(&bench, BROWSERS, &fragments(0x02, b"x", 131_000));
    println!("fragments of a byte without a rate: {code}, {memory} bytes of memory each");
    assert_eq!(code, 1009);
    assert!(memory <= 64 * 1024 + STRUCTS, "{memory} bytes");
    bench.wait_for("closed/too_big", BROWSERS as u64);

    let Some(redis) = RealRedis::start() else { return };
    let bench = Bench::new(1, &[rates[0], ("redis-url", &redis.url())]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    for round in 1..=3 {
        let flooders: Vec<_> = (0..BROWSERS).map(|_| open(&bench)).collect();
        let bytes = frame(TEXT, &[b'x'; 200]).repeat(20_000);
        thread::scope(|scope| {
            for stream in flooders {
                scope.spawn(|| assert_eq!(flood(stream, &bytes), (4029, 0)));
            }
        });
        bench.wait_for("sockets", 1);
        // Each had its burst, and what came in the time that it took.
        let published = bench.stat("published");
        let least = round * 200 * BROWSERS as u64;
        assert!((least..least + least / 4).contains(&published), "{published} of {least}");
    }
    bench.wait_for("delivered", bench.stat("published"));
    assert_eq!(bench.stat("publish_failed"), 0);
    assert_eq!(listener.text().len(), 200);

    // Who was told to go and stays costs nothing more, until it is cut.
    let bench = Bench::new(1, &[]);
    let mut stayers: Vec<_> = (0..BROWSERS).map(|_| open(&bench)).collect();
    for stream in &mut stayers {
        stream.write_all(&frame(0x88, &1000_u16.to_be_bytes())).unwrap();
        assert_eq!(stream.read(&mut [0; 10]).unwrap(), 4);
    }
    let (cpu, begin) = (loops_cpu().0, Instant::now());
    wait_until("a second is over", || begin.elapsed() > Duration::from_secs(1));
    let cpu = loops_cpu().0 - cpu;
    println!("{cpu} ns in a second for {BROWSERS} browsers that stay after their close frame");
    assert_eq!(bench.stat("sockets"), BROWSERS as u64, "none was cut yet");
    assert!(cpu < 20_000_000, "{cpu} ns");
    drop(stayers);

    // Who comes back at once and floods again costs little more than who comes and goes. Here no host stands before
    // the engine, who would take longer for each.
    let bench = Bench::new(1, &rates);
    let bytes = frame(PING, b"").repeat(1_000);
    let (end, closed) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        for _ in 0..BROWSERS {
            scope.spawn(|| {
                while !end.load(Relaxed) {
                    assert_eq!(flood(open(&bench), &bytes).0, 4029);
                    closed.fetch_add(1, Relaxed);
                }
            });
        }
        let (cpu, begin) = (loops_cpu().0, Instant::now());
        wait_until("three seconds are over", || begin.elapsed() > Duration::from_secs(3));
        let (cpu, took) = (loops_cpu().0 - cpu, begin.elapsed());
        end.store(true, Relaxed);
        let percent = u128::from(cpu) * 100 / took.as_nanos();
        let each = cpu / closed.load(Relaxed).max(1);
        println!(
            "{percent} % of a core for {closed:?} floods of 1,000 pings in {took:?}: {each} ns each"
        );
        assert!(each < 250_000, "{each} ns");
    });
}
