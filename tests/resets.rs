//! Connections that end at any moment, by a reset or in order: nothing is left of them, and the host is told of each
//! once.

mod util;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::time::{Duration, Instant};

use util::browser::{CLOSE, PING, TEXT, frame};
use util::{Bench, Browser, Dice, FakeRedis, Offer, memory, rounds, wait_until};
use wsredis::engine::{Event, Who};

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

const GRANT: &str =
    r#"{"subscribe":["a","b"],"publish":["a"],"echo":true,"user":"ann","session":"s","sender":1}"#;
/// Connections that are there at the same time.
const BATCH: usize = 50;

/// How far a connection gets before it ends.
const STATES: usize = 14;

/// Brings a connection into a state. Whether its answer is held by Redis is up to the batch.
fn bring(bench: &Bench, dice: &mut Dice, state: usize, held: bool) -> Browser {
    let message = frame(TEXT, br#"{"channel":"a","data":"something to say"}"#);
    let cut = 1 + dice.below(message.len() - 1);
    let leftover = match state {
        // Some of it is behind the request.
        0 => message[..cut].to_vec(),
        1 => [message.clone(), message[..cut].to_vec()].concat(),
        2 => frame(CLOSE, &1000u16.to_be_bytes()),
        _ => Vec::new(),
    };
    let (envelope, unix) = (dice.below(2) == 0, dice.below(4) == 0);
    let offer = Offer { grant: GRANT, envelope, unix, leftover: &leftover, ..Offer::default() };
    let mut browser = bench.offer(offer);
    if state > 3 && !held && dice.below(2) == 0 {
        browser.opened();
    }
    // It may be gone already, as some of the leftovers say.
    let mut write = |bytes: &[u8]| drop(browser.stream().write_all(bytes));
    match state {
        // In the middle of a header, of a payload, of a message.
        4 => write(&message[..cut.min(5)]),
        5 => write(&message[..cut]),
        6 => write(&[frame(0x01, b"{\"channel\":"), frame(PING, b"between")].concat()),
        7 => write(&frame(PING, &[7; 125]).repeat(5)),
        8 => write(&message.repeat(3)),
        // While it ends.
        9 => write(&frame(CLOSE, b"")),
        10 => write(&frame(0x83, b"wrong")),
        11 => write(&frame(TEXT, b"\xff")),
        12 => bench.engine.kick(&Who::User("ann".into())).unwrap(),
        13 => bench.publish("a", "x".repeat(dice.below(100_000))),
        _ => {}
    }
    browser
}

/// Ends a connection in one of the ways that there are; what is given back ends later.
fn end(dice: &mut Dice, mut browser: Browser) -> Option<Browser> {
    match dice.below(5) {
        // SO_LINGER 0.
        0 => browser.stream().reset_on_drop(),
        // With unread bytes a reset as well, else in order.
        1 => {}
        2 => browser.stream().shutdown(),
        3 => browser.stream().shutdown_write(),
        _ => {
            browser.stream().shutdown_write();
            return Some(browser);
        }
    }
    None
}

/// What the host is told: each socket comes once and goes once.
#[derive(Default)]
struct Told {
    here: HashSet<String>,
    gone: usize,
}

impl Told {
    fn read(&mut self, bench: &Bench) {
        while let Some(event) = bench.engine.next_event().unwrap() {
            match event {
                Event::Opened(id) => assert!(self.here.insert(id), "it came twice"),
                Event::Closed(id, _) => {
                    assert!(self.here.remove(&id), "{id} is dead or never came");
                    self.gone += 1;
                }
                other => panic!("{other:?}"),
            }
        }
    }
}

fn open_files() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

/// One test, because it counts the memory of its own process.
#[test]
fn whatever_ends_at_any_moment_leaves_nothing() {
    let redis = FakeRedis::start();
    let settings = [
        ("redis-url", &*redis.url()),
        ("channel-linger", "0"),
        ("join-timeout", "1m"),
        ("close-timeout", "100ms"),
    ];
    let bench = Bench::new(1, &settings);
    bench.engine.events_fd().unwrap();
    let (mut dice, mut told) = (Dice::new(14), Told::default());
    let mut adopted = 0;
    let mut come_and_go = |count: usize| {
        for batch in 0..count / BATCH {
            let held = batch % 3 == 0;
            if held {
                redis.hold("SUBSCRIBE");
            }
            let mut later = Vec::new();
            for _ in 0..BATCH {
                let state = dice.below(STATES);
                let browser = bring(&bench, &mut dice, state, held);
                adopted += 1;
                later.extend(end(&mut dice, browser));
                told.read(&bench);
            }
            redis.release("SUBSCRIBE");
            drop(later);
            bench.wait_for("adopted", adopted);
            bench.wait_until_empty();
            told.read(&bench);
            redis.take_commands();
        }
        bench.wait_for("channels", 0);
        wait_until("everything is told", || {
            told.read(&bench);
            told.here.is_empty()
        });
        assert_eq!(told.gone as u64, adopted);
        redis.wait_for_subscribers("a", 0);
        (open_files(), memory::live())
    };
    let begin = Instant::now();
    let (files, memory) = come_and_go(600);
    let count = rounds(2_000, 100_000);
    let (files_now, memory_now) = come_and_go(count);
    let grown = memory_now - memory;
    println!(
        "{count} ends: {grown} bytes and {} descriptors more, {:?}",
        files_now - files,
        begin.elapsed()
    );
    assert_eq!(files_now, files);
    // A byte of each would be a leak; the rest is tables that have grown.
    assert!(grown < 50_000, "{grown} bytes");
    let closed: u64 =
        ["normal", "lost", "protocol", "utf8", "kicked", "slow", "not_granted", "unacceptable"]
            .iter()
            .map(|cause| bench.stat(&format!("closed/{cause}")))
            .sum();
    assert_eq!(closed, adopted);
    assert!(begin.elapsed() < Duration::from_secs(3600));
}
