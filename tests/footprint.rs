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

/// Opens all, lets each say a word, and returns how many bytes each takes then.
fn bytes_each(what: &str, address: &str, grant: impl Fn(usize) -> String) -> i64 {
    let bench = Bench::new(1, &[]);
    let open = |i: usize| {
        let (grant, unix) = (&grant(i), true);
        let mut browser = bench.offer(Offer { grant, unix, address, ..Offer::default() });
        browser.opened();
        browser.write(&frame(TEXT, b"a word"));
        browser.into_stream()
    };
    // Whatever is allocated once is there before the count begins.
    drop((0..100).map(open).collect::<Vec<Stream>>());
    bench.wait_until_empty();
    bench.wait_for("channels", 0);
    let mut streams: Vec<Stream> = Vec::with_capacity(SOCKETS);
    bench.forget_log();
    let (asked, kept, resident_before) = (live(), chunks(), resident());
    streams.extend((0..SOCKETS).map(open));
    bench.wait_for("received", 100 + SOCKETS as u64);
    bench.forget_log();
    let each = |bytes: i64| bytes / SOCKETS as i64;
    let (asked, kept_now) = (each(live() - asked), each(chunks() - kept));
    println!(
        "{what}: {kept_now} bytes each ({asked} asked for, {} resident, {} by the engine's count)",
        each(resident() - resident_before),
        bench.stat("socket_bytes") / SOCKETS as u64,
    );
    let full = resident();
    streams.clear();
    bench.wait_until_empty();
    bench.wait_for("channels", 0);
    println!(
        "  after all have left: {} bytes more, {} kB resident before, {} kB with them, {} kB after",
        chunks() - kept,
        resident_before >> 10,
        full >> 10,
        resident() >> 10
    );
    kept_now
}

/// One test, because it measures its own process.
#[test]
fn an_idle_socket_takes_little_memory() {
    let mut settings = Vec::new();
    settings.push(bytes_each("one channel for all", "", |_| {
        r#"{"subscribe":["news"],"publish":["elsewhere"]}"#.into()
    }));
    bytes_each("one channel for all, users", "192.168.100.100", |i| {
        format!(
            r#"{{"subscribe":["news"],"publish":["elsewhere"],"user":"user-{i}","session":"{:032x}"}}"#,
            i
        )
    });
    bytes_each("a channel for each", "", |i| {
        format!(r#"{{"subscribe":["channel:{i}"],"publish":["channel:{i}"]}}"#)
    });
}
