//! What sockets cost that do nothing, and what is left of those that went.

mod util;

use std::fs;
use std::time::{Duration, Instant};

use util::memory::{Counting, live, loops_cpu};
use util::{Bench, Browser, RealRedis, wait_until};

/// Resident memory of this process in bytes.
fn resident() -> i64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<i64>().unwrap() * 4096
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One test, because it measures its own process: idle sockets' memory and time, then ten thousand that come and go.
#[test]
fn idle_sockets_cost_nothing_and_those_that_went_leave_nothing() {
    const SOCKETS: usize = 4_000;
    let Some(redis) = RealRedis::start() else { return };
    let bench = Bench::new(1, &[("redis-url", &redis.url()), ("channel-linger", "100ms")]);
    let grant = |i: usize| {
        let names = [i % 20, 20 + i % 50, 70 + i % 7].map(|n| format!("channel:{n}"));
        format!(r#"{{"subscribe":{names:?},"publish":["channel:1"],"user":"user-{i}"}}"#)
    };
    // Whatever is allocated once is there before the count begins.
    drop((0..200).map(|i| bench.open(&grant(i))).collect::<Vec<Browser>>());
    bench.wait_for("sockets", 0);

    let before = resident();
    let streams: Vec<_> = (0..SOCKETS).map(|i| bench.open(&grant(i)).into_stream()).collect();
    let bytes = (resident() - before) / SOCKETS as i64;
    println!(
        "{bytes} bytes of user memory for each idle socket with three channels, both ends' structs"
    );
    println!("{} bytes by the engine's own count", bench.stat("socket_bytes") / SOCKETS as u64);
    assert!(bytes <= 512, "{bytes} bytes");

    let (cpu, woken) = loops_cpu();
    let begin = Instant::now();
    wait_until("five seconds are over", || begin.elapsed() > Duration::from_secs(5));
    let (cpu, woken) = (loops_cpu().0 - cpu, loops_cpu().1 - woken);
    println!("{cpu} ns of processor time and {woken} wake-ups in 5 s with {SOCKETS} idle sockets");
    assert!(cpu < 2_500_000, "{cpu} ns");
    assert_eq!(redis.subscribers("channel:1"), 1, "one subscription for each channel and loop");
    drop(streams);
    bench.wait_until_empty();

    let open_files = || fs::read_dir("/proc/self/fd").unwrap().count();
    wait_until("every channel is left", || redis.channels().is_empty());
    let come_and_go = |sockets: usize| {
        for _ in 0..sockets / 1_000 {
            drop((0..1_000).map(|i| bench.open(&grant(i))).collect::<Vec<Browser>>());
            bench.wait_until_empty();
        }
        wait_until("every channel is left", || redis.channels().is_empty());
        bench.wait_for("channels", 0);
        (open_files(), live())
    };
    let (files, memory) = come_and_go(2_000);
    let (files_now, memory_now) = come_and_go(10_000);
    let grown = memory_now - memory;
    println!("after 10,000 joins and leaves: {grown} bytes more, no descriptor more");
    assert_eq!(files_now, files);
    // Ten bytes of each that went would be a leak.
    assert!(grown < 100_000, "{grown} bytes");
}
