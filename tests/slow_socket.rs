//! Who is slow, and who is not: a browser that does not read is closed, everyone else gets everything in order.

mod util;

use std::thread;

use util::{Bench, RealRedis};

const GRANT: &str = r#"{"subscribe":["a"]}"#;

fn a_socket_that_never_reads_is_closed_and_others_get_everything(loops: usize) {
    let bench = Bench::new(loops, &[("write-queue-limit", "64k")]);
    let stuck: Vec<_> = (0..2 * loops).map(|_| bench.open_unix(GRANT)).collect();
    let healthy: Vec<_> = (0..2 * loops).map(|_| bench.open(GRANT)).collect();
    let readers: Vec<_> = healthy
        .into_iter()
        .map(|mut browser| {
            thread::spawn(move || {
                for i in 0..3_000 {
                    assert!(browser.text().starts_with(&format!("{i:05} ")));
                }
                browser
            })
        })
        .collect();
    for i in 0..3_000 {
        bench.publish("a", format!("{i:05} {}", "x".repeat(1_000)));
    }
    let healthy: Vec<_> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    bench.wait_for("closed/slow", stuck.len() as u64);
    bench.wait_for("sockets", healthy.len() as u64);
}

fn a_byte_that_waits_too_long_is_slow_as_well(loops: usize) {
    let bench = Bench::new(loops, &[("write-queue-age", "200ms"), ("write-queue-limit", "1g")]);
    let stuck = bench.open_unix(GRANT);
    let begin = std::time::Instant::now();
    util::wait_until("it is closed", || {
        bench.publish("a", vec![b'x'; 20_000]);
        bench.stat("closed/slow") == 1
    });
    assert!(begin.elapsed().as_millis() >= 200);
    drop(stuck);
}

fn one_message_of_any_size_fits_an_empty_queue(loops: usize) {
    let bench = Bench::new(loops, &[("write-queue-limit", "4k")]);
    let mut browser = bench.open_unix(GRANT);
    let large = "x".repeat(3_000_000);
    for _ in 0..3 {
        bench.publish("a", &large);
        assert_eq!(browser.text().len(), large.len());
    }
    assert_eq!(bench.stat("closed/slow"), 0);
}

fn a_burst_read_in_one_go_dooms_nobody_who_reads(loops: usize) {
    let settings = [("write-queue-limit", "64k"), ("read-batch", "16m"), ("feed-limit", "64m")];
    let bench = Bench::new(loops, &settings);
    let readers: Vec<_> = (0..10)
        .map(|_| {
            let mut browser = bench.open(GRANT);
            thread::spawn(move || {
                (0..40_000).for_each(|i| assert_eq!(browser.text(), i.to_string()))
            })
        })
        .collect();
    for i in 0..40_000 {
        bench.publish("a", i.to_string());
    }
    for reader in readers {
        reader.join().expect("everything came in order");
    }
    assert_eq!(bench.stat("closed/slow"), 0);
}

with_one_and_three_loops!(
    a_socket_that_never_reads_is_closed_and_others_get_everything,
    a_byte_that_waits_too_long_is_slow_as_well,
    one_message_of_any_size_fits_an_empty_queue,
    a_burst_read_in_one_go_dooms_nobody_who_reads,
);

/// 100,000 messages published at once through real Redis to 200 sockets that read.
#[test]
fn a_hundred_thousand_messages_at_once_reach_200_sockets_in_order() {
    let Some(redis) = RealRedis::start() else { return };
    for loops in [1, 3] {
        let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
        let browsers: Vec<_> = (0..200).map(|_| bench.open(GRANT).into_stream()).collect();
        let begin = std::time::Instant::now();
        // Ten threads read twenty sockets each and compare bytes: a client per socket would be the bottleneck.
        let mut expected = Vec::new();
        for i in 0..100_000 {
            expected.extend_from_slice(&[0x81, 6]);
            expected.extend_from_slice(format!("{i:06}").as_bytes());
        }
        let expected = std::sync::Arc::new(expected);
        let mut readers = Vec::new();
        let mut browsers = browsers.into_iter();
        for _ in 0..10 {
            let mut streams: Vec<_> = browsers.by_ref().take(20).map(|s| (s, 0usize)).collect();
            let expected = std::sync::Arc::clone(&expected);
            readers.push(thread::spawn(move || {
                let mut buffer = vec![0; 64 * 1024];
                while streams.iter().any(|(_, at)| *at < expected.len()) {
                    for (stream, at) in streams.iter_mut().filter(|(_, at)| *at < expected.len()) {
                        let n = std::io::Read::read(stream, &mut buffer).unwrap();
                        assert!(n > 0, "closed");
                        assert_eq!(buffer[..n], expected[*at..*at + n], "at byte {at}");
                        *at += n;
                    }
                }
                streams
            }));
        }
        let mut connection = redis.connect();
        for first in (0..100_000).step_by(10_000) {
            let mut pipeline = redis::pipe();
            for i in first..first + 10_000 {
                pipeline.cmd("PUBLISH").arg("a").arg(format!("{i:06}")).ignore();
            }
            pipeline.query::<()>(&mut connection).unwrap();
        }
        let read = |reader: thread::JoinHandle<_>| reader.join().expect("all came in order");
        let _still_open: Vec<_> = readers.into_iter().map(read).collect();
        println!("20,000,000 deliveries with {loops} loop(s) in {:?}", begin.elapsed());
        assert_eq!((bench.stat("sockets"), bench.stat("closed/slow")), (200, 0));
    }
}
