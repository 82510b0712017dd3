//! Numbers of channels at which others have stumbled: none too many, none too few, and everything given back.

mod util;

use serde_json::json;
use util::{Bench, Browser, Offer, RealRedis, memory, wait_until};
use wsredis::error::Kind;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// The most that `max-channels-per-socket` can be.
const MOST: usize = 10_000;

fn names(from: usize, count: usize) -> Vec<String> {
    (from..from + count).map(|number| format!("channel:{number}")).collect()
}

fn grant(names: &[String]) -> String {
    json!({ "subscribe": names }).to_string()
}

fn the_limit_of_a_socket_holds_at_its_edges(loops: usize) {
    for limit in [1, 100, 255, 256, 1_000, MOST] {
        let bench = Bench::new(loops, &[("max-channels-per-socket", &limit.to_string())]);
        for count in [limit - 1, limit] {
            let mut browser = bench.open(&grant(&names(0, count)));
            if let Some(last) = names(0, count).last() {
                bench.publish(last, "here");
                assert_eq!(browser.text(), "here");
            }
        }
        let over = grant(&names(0, limit + 1));
        let Err(error) = bench.try_offer(Offer { grant: &over, ..Offer::default() }) else {
            panic!("{} channels were taken", limit + 1);
        };
        assert_eq!(error.kind, Kind::Grant);
        assert!(error.text.contains("max-channels-per-socket"), "{error}");
        // To speak on as many is limited in the same way, and a channel that is listed twice counts once.
        let twice = [names(0, limit), names(0, limit)].concat();
        let mut browser = bench.open(&json!({ "subscribe": twice, "publish": twice }).to_string());
        bench.publish("channel:0", "once");
        bench.publish("channel:0", "more");
        assert_eq!((browser.text(), browser.text()), ("once".into(), "more".into()));
        let over = json!({ "publish": names(0, limit + 1) }).to_string();
        assert!(bench.try_offer(Offer { grant: &over, ..Offer::default() }).is_err());
    }
}

/// Opens sockets that hear so many channels together, each at most [`MOST`].
fn open_all(bench: &Bench, count: usize) -> Vec<Browser> {
    let first = |from: usize| grant(&names(from, MOST.min(count - from)));
    (0..count).step_by(MOST).map(|from| bench.open(&first(from))).collect()
}

/// The numbers of channels in one engine at which a narrow index would wrap.
const COUNTS: [usize; 7] = [255, 256, 257, 65_535, 65_536, 65_537, 100_000];

/// One test, because it counts the memory of its own process.
#[test]
fn an_engine_hears_any_number_of_channels_and_gives_everything_back() {
    let settings =
        [("max-channels-per-socket", "10000"), ("channel-linger", "0"), ("feed-limit", "64m")];
    let bench = Bench::new(1, &settings);
    // Whatever is allocated once is there before the count begins.
    drop(open_all(&bench, 300));
    bench.wait_for("channels", 0);
    let before = memory::live();
    for count in COUNTS {
        let mut browsers = open_all(&bench, count);
        bench.wait_for("channels", count as u64);
        for number in [0, 1, 254, 255, 256, 65_534, 65_535, 65_536, 99_999] {
            if number < count {
                bench.publish(&format!("channel:{number}"), number.to_string());
                assert_eq!(browsers[number / MOST].text(), number.to_string());
            }
        }
        // A name that nobody hears is nobody's.
        bench.publish(&format!("channel:{count}"), "nobody");
        let taken = memory::live() - before;
        println!("{count} channels: {} bytes each", taken / count as i64);
        drop(browsers);
        bench.wait_until_empty();
        bench.wait_for("channels", 0);
        wait_until("the memory is given back", || memory::live() - before < 64 * 1024);
    }
    the_limit_of_a_socket_holds_at_its_edges(1);
    the_limit_of_a_socket_holds_at_its_edges(3);
    on_redis();
}

/// Each is subscribed once and left, whatever pieces the commands are sent in.
fn on_redis() {
    let Some(redis) = RealRedis::start() else { return };
    let settings = [
        ("redis-url", &*redis.url()),
        ("max-channels-per-socket", "10000"),
        ("channel-linger", "0"),
        ("join-timeout", "1m"),
    ];
    let bench = Bench::new(1, &settings);
    for count in [256, 65_536, 100_000] {
        let mut browsers = open_all(&bench, count);
        assert_eq!(redis.channels().len(), count);
        let last = format!("channel:{}", count - 1);
        assert_eq!(redis.publish(&last, "last"), 1);
        assert_eq!(browsers.last_mut().unwrap().text(), "last");
        drop(browsers);
        bench.wait_until_empty();
        wait_until("every channel is left", || redis.channels().is_empty());
    }
    assert_eq!(bench.stat("gaps_told"), 0);
}
