//! How much memory a socket takes that does nothing: everything that the engine has allocated for it, with what the
//! system's allocator adds.

mod util;

use std::fs;

use util::browser::{Stream, TEXT, frame};
use util::memory::{Counting, chunks, live};
use util::{Bench, Offer};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// As many as the limit of open files allows in one process that is both ends.
const SOCKETS: usize = 9_000;

/// Resident memory of this process in bytes.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

/// Opens all, lets each say a word, and returns how many bytes each takes then, with what `address` and `grant` give
/// each. When all have left, nothing of it is left.
fn bytes_each(what: &str, address: &str, grant: impl Fn(usize) -> String) -> i64 {
    let bench = Bench::new(1, &[("channel-linger", "0")]);
    let open = |i: usize| {
        let offer = Offer { grant: &grant(i), unix: true, address, ..Offer::default() };
        let mut browser = bench.offer(offer);
        browser.opened();
        browser.write(&frame(TEXT, b"a word"));
        browser.into_stream()
    };
    let leave = |streams: &mut Vec<Stream>| {
        streams.clear();
        bench.wait_until_empty();
        bench.wait_for("channels", 0);
        bench.forget_log();
    };
    let mut streams = Vec::with_capacity(SOCKETS);
    // Whatever is allocated once is there before the count begins.
    streams.extend((0..100).map(open));
    leave(&mut streams);
    let (asked_before, before, resident_before) = (live(), chunks(), resident());
    streams.extend((0..SOCKETS).map(open));
    bench.wait_for("received", 100 + SOCKETS as u64);
    bench.forget_log();
    let each = |bytes: i64| bytes / SOCKETS as i64;
    let bytes = each(chunks() - before);
    let (asked, resident_now) = (each(live() - asked_before), each(resident() - resident_before));
    let counted = bench.stat("socket_bytes") / SOCKETS as u64;
    println!(
        "{what}: {bytes} bytes ({asked} asked for, {resident_now} resident, {counted} by the engine's count)"
    );
    leave(&mut streams);
    let (left, resident_left) = (chunks() - before, (resident() - resident_before) >> 10);
    println!("  after {SOCKETS} have left: {left} bytes more, {resident_left} KiB more resident");
    assert!(left < 4_096, "{left} bytes");
    bytes
}

/// One test, because it measures its own process.
#[test]
fn an_idle_socket_takes_little_memory() {
    let grant = |_| r#"{"subscribe":["news"],"publish":["elsewhere"]}"#.into();
    let bytes = bytes_each("one channel, all the same", "192.168.100.100", grant);
    assert!(bytes <= 188, "{bytes} bytes");

    let grant = |i| {
        let rights = r#""subscribe":["news"],"publish":["elsewhere"]"#;
        format!(r#"{{{rights},"user":"{i}","session":"{i:032x}"}}"#)
    };
    let bytes = bytes_each("one channel, users with sessions", "192.168.100.100", grant);
    assert!(bytes <= 255, "{bytes} bytes");

    let grant = |i| format!(r#"{{"subscribe":["channel:{i}"],"publish":["channel:{i}"]}}"#);
    let bytes = bytes_each("a channel for each", "192.168.100.100", grant);
    assert!(bytes <= 536, "{bytes} bytes");
}
