//! `max-memory`: the slowest are closed before the engine needs more, nobody new comes in meanwhile, and who reads
//! notices nothing.

mod util;

use std::io::Write;
use std::thread;

use util::browser::frame;
use util::{Bench, Offer, wait_until};

const BUDGET: u64 = 8 << 20;
const SETTINGS: [(&str, &str); 3] =
    [("max-memory", "8m"), ("write-queue-limit", "1g"), ("write-queue-age", "10m")];

fn used(bench: &Bench) -> u64 {
    bench.stat("waiting_bytes") + bench.stat("socket_bytes")
}

#[test]
fn the_slowest_are_closed_first_and_healthy_ones_get_everything() {
    let bench = Bench::new(1, &SETTINGS);
    let mut healthy = bench.open(r#"{"subscribe":["a"]}"#);
    let reader = thread::spawn(move || {
        (0..200).for_each(|i| assert_eq!(healthy.text(), i.to_string()));
        healthy
    });
    // Each hears a channel of its own, so that nothing is shared. Those of lower numbers wait longer.
    let open = |channel| bench.open_unix(&format!(r#"{{"subscribe":["stuck{channel}"]}}"#));
    let mut stuck: Vec<_> = (0..40).map(open).collect();
    for round in 0..200 {
        bench.publish(&format!("stuck{}", round % 40), vec![b'x'; 300_000]);
        bench.publish("a", round.to_string());
        wait_until("it was delivered", || bench.stat("waiting_bytes") > 0 || round == 0);
        assert!(used(&bench) <= BUDGET, "{}", used(&bench));
    }
    let _healthy = reader.join().expect("all came in order");
    let shed = bench.stat("closed/shed");
    assert!((10..40).contains(&shed), "{shed}");
    // Those who waited longest were cut, amid a large frame; the youngest were not.
    let end = loop {
        if let Err(error) = stuck[0].read() {
            break error;
        }
    };
    let in_vain = |error: &std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
    assert!(!matches!(&end, tungstenite::Error::Io(error) if in_vain(error)), "{end}");
    assert!(bench.has_logged("max-memory is used up"), "{}", bench.log_text());
    stuck.clear();
    bench.wait_for("sockets", 1);
    bench.wait_for("waiting_bytes", 0);
}

#[test]
fn what_many_wait_for_counts_once() {
    let bench = Bench::new(1, &SETTINGS);
    let stuck: Vec<_> = (0..200).map(|_| bench.open_unix(r#"{"subscribe":["a"]}"#)).collect();
    // Four megabytes, for each of two hundred.
    for _ in 0..40 {
        bench.publish("a", vec![b'x'; 100_000]);
    }
    bench.wait_for("delivered", 40 * 200);
    assert!(bench.stat("waiting_bytes") >= 3_000_000);
    assert_eq!((bench.stat("closed/shed"), bench.stat("sockets")), (0, 200));
    drop(stuck);
}

#[test]
fn halves_of_messages_count_and_whoever_sent_them_is_closed() {
    let bench = Bench::new(1, &SETTINGS);
    let mut healthy = bench.open(r#"{"subscribe":["a"],"publish":["a"],"echo":true}"#);
    let most = frame(0x81, &[b'x'; 64_000])[..63_000].to_vec();
    let mut flood = Vec::new();
    for _ in 0..300 {
        let mut browser = bench.offer(Offer::default());
        let _ = browser.stream().write_all(&most); // One that was refused is gone by now.
        flood.push(browser);
        healthy.send("still here");
        assert_eq!(healthy.text(), "still here");
        assert!(used(&bench) <= BUDGET, "{}", used(&bench));
    }
    // Some were closed, or nobody else was let in: one of the two keeps the bound.
    assert!(bench.stat("closed/shed") + bench.stat("refused/full") >= 100);
    assert!(bench.has_logged("max-memory"), "{}", bench.log_text());
    drop(flood);
    bench.wait_for("sockets", 1);
    bench.wait_for("waiting_bytes", 0);
    let mut newcomer = bench.open("{}");
    newcomer.close(1000);
    assert_eq!(newcomer.closed().0, 1000);
}

#[test]
fn near_the_limit_handshakes_are_refused_until_there_is_room() {
    let bench = Bench::new(1, &SETTINGS);
    let stuck = bench.open_unix(r#"{"subscribe":["a"]}"#);
    // 83 per cent.
    for _ in 0..70 {
        bench.publish("a", vec![b'x'; 100_000]);
    }
    bench.wait_for("delivered", 70);
    let answer = bench.offer(Offer::default()).read_to_end();
    assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", answer.escape_ascii());
    assert_eq!(bench.stat("refused/full"), 1);
    assert!(bench.has_logged("max-memory is nearly reached"), "{}", bench.log_text());
    drop(stuck);
    bench.wait_for("sockets", 0);
    bench.open("{}");
}
