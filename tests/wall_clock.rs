//! The wall clock jumps, by an hour and by ten years, back and forth: no socket is closed, none expires early, none is
//! pinged for it. Only the monotonic clock drives timers.
//!
//! The clock is libfaketime's: this program runs itself once more under it, and moves its clock by a file.

mod util;

use std::fs;
use std::process::Command;
use std::time::SystemTime;

use util::{Bench, Browser, Offer, wait_until};

const LIBRARIES: [&str; 3] = [
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1",
    "/usr/lib/faketime/libfaketimeMT.so.1",
];
/// Where the other process finds its clock.
const CLOCK: &str = "WSREDIS_TEST_CLOCK";
const HOUR: i64 = 3_600;
const YEARS: i64 = 10 * 365 * 24 * HOUR;

#[test]
fn jumps_of_the_wall_clock_close_nobody() {
    let Some(library) = LIBRARIES.iter().find(|path| fs::exists(path).unwrap()) else {
        let required = std::env::var_os("WSREDIS_REQUIRE_ALL").is_some_and(|value| value == "1");
        assert!(
            !required,
            "libfaketime (package faketime) is missing, and WSREDIS_REQUIRE_ALL is set"
        );
        eprintln!("SKIPPED: libfaketime (package faketime) is missing; nothing was tested here");
        return;
    };
    let clock = std::env::temp_dir().join(format!("wsredis-clock-{}", std::process::id()));
    fs::write(&clock, "+0").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "under_a_clock_that_jumps", "--ignored", "--nocapture"])
        .env("LD_PRELOAD", library)
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env(CLOCK, &clock)
        .output()
        .unwrap();
    fs::remove_file(&clock).unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    println!("{text}");
}

/// Seconds since 1970, as the wall clock has it.
fn wall() -> i64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() as i64
}

#[test]
#[ignore = "run by the other test, under its clock"]
fn under_a_clock_that_jumps() {
    let clock = std::env::var(CLOCK).unwrap();
    let settings = [("ping-interval", "1s"), ("pong-timeout", "5s"), ("write-queue-limit", "1g")];
    let bench = Bench::new(2, &settings);
    let grants = [
        r#"{"subscribe":["a"]}"#,
        r#"{"subscribe":["a"],"expires_in":3600}"#,
        r#"{"subscribe":["a"],"heartbeat":"alive"}"#,
    ];
    let mut browsers: Vec<Browser> = (0..30).map(|i| bench.open(grants[i % 3])).collect();
    // One that reads nothing for now: what waits for it grows old by the monotonic clock only.
    let mut slow = bench.open_unix(grants[0]);
    for _ in 0..20 {
        bench.publish("a", "x".repeat(50_000));
    }
    let hear = |browsers: &mut [Browser], what: &str| {
        for browser in browsers {
            while browser.text() != what {}
        }
    };
    let begin = wall();
    for jump in 0..20 {
        let by = [HOUR, -HOUR, YEARS, -YEARS][jump % 4];
        fs::write(&clock, format!("{by:+}")).unwrap();
        wait_until("the clock has jumped", || (wall() - begin - by).abs() < 600);
        let number = format!("after jump {jump}");
        bench.publish("a", &number);
        hear(&mut browsers, &number);
        // Who comes now is served, too.
        let mut newcomer = bench.offer(Offer { grant: grants[1], ..Offer::default() });
        newcomer.opened();
        bench.publish("a", "hello");
        hear(std::slice::from_mut(&mut newcomer), "hello");
    }
    assert_eq!(bench.stat("adopted"), 51);
    bench.wait_for("sockets", 31);
    // The slow one has missed nothing either.
    hear(std::slice::from_mut(&mut slow), "after jump 19");
    // Those twenty have left by themselves; nobody was closed.
    assert_eq!(bench.stat("closed/lost"), 20, "{}", bench.log_text());
    let closed: u64 =
        ["expired", "no_pong", "slow", "gap", "protocol", "internal", "kicked", "restart"]
            .iter()
            .map(|cause| bench.stat(&format!("closed/{cause}")))
            .sum();
    assert_eq!(closed, 0, "{}", bench.log_text());
    // And the monotonic clock still ends what it should.
    let mut short = bench.open(r#"{"expires_in":0.2}"#);
    assert_eq!(short.closed().0, 4401);
}
