//! How many sockets may come in a second: the others are asked to come back, not all at the same time.

mod util;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use util::{Bench, Offer, wait_until};

/// Offers so many at once; how many were taken, and the times after which the others are to come back.
fn offer(bench: &Bench, count: usize) -> (u64, Vec<u64>) {
    let browsers: Vec<_> = (0..count).map(|_| bench.offer(Offer::default())).collect();
    let (mut taken, mut waits) = (0, Vec::new());
    for mut browser in browsers {
        let mut first = [0; 12];
        std::io::Read::read_exact(browser.stream(), &mut first).unwrap();
        if first == *b"HTTP/1.1 101" {
            taken += 1;
            continue;
        }
        let answer = String::from_utf8(browser.read_to_end()).unwrap();
        assert_eq!(first, *b"HTTP/1.1 503", "{answer}");
        let line = answer.lines().find_map(|line| line.strip_prefix("Retry-After: "));
        waits.push(line.unwrap_or_else(|| panic!("{answer}")).parse().unwrap());
    }
    (taken, waits)
}

/// The pace is the engine's, however many loops it has.
fn more_than_the_pace_are_asked_to_come_back(loops: usize) {
    let bench = Bench::new(loops, &[("max-adopt-rate", "20")]);
    let begin = Instant::now();
    let (taken, waits) = offer(&bench, 300);
    let most = 20 + 20 * (1 + begin.elapsed().as_millis() as u64) / 1_000;
    assert!((20..=most).contains(&taken), "{taken} of at most {most}");
    assert!(waits.iter().all(|wait| (1..=10).contains(wait)), "{waits:?}");
    assert!(waits.iter().collect::<BTreeSet<_>>().len() > 5, "they come back apart: {waits:?}");
    assert_eq!(bench.stat("refused/pace"), 300 - taken);
    assert_eq!((bench.stat("refused/full"), bench.stat("adopted")), (0, taken));
    let lines = bench.count_logged("handshake refused with 503: max-adopt-rate is reached") as u64;
    assert!((1..=2 + begin.elapsed().as_secs()).contains(&lines), "{lines} lines");
    // A second later as many may come.
    let begin = Instant::now();
    wait_until("a second is over", || begin.elapsed() >= Duration::from_millis(1_050));
    assert_eq!(offer(&bench, 20), (20, vec![]));
}

fn without_a_pace_all_may_come_at_once(loops: usize) {
    let bench = Bench::new(loops, &[]);
    assert_eq!(offer(&bench, 300), (300, vec![]));
}

/// Whoever is refused for another reason has that one counted, and takes nothing of the pace.
fn each_limit_counts_and_names_itself(loops: usize) {
    let bench = Bench::new(loops, &[("max-adopt-rate", "10"), ("max-sockets", "5")]);
    let begin = Instant::now();
    let browsers: Vec<_> = (0..5).map(|_| bench.open("{}")).collect();
    assert_eq!(offer(&bench, 50).0, 0);
    assert_eq!((bench.stat("refused/full"), bench.stat("refused/pace")), (50, 0));
    drop(browsers);
    bench.wait_for("sockets", 0);
    assert_eq!(offer(&bench, 5), (5, vec![]));
    assert_eq!(bench.stat("refused/pace"), 0);
    bench.wait_for("sockets", 0);
    let (taken, _) = offer(&bench, 5);
    if begin.elapsed() < Duration::from_millis(100) {
        assert_eq!((taken, bench.stat("refused/pace")), (0, 5));
    }
    assert!(bench.has_logged("max-sockets is reached"));
}

/// A proxy that passes no address on would shut everybody out.
fn the_address_of_a_trusted_proxy_is_nobody_s(loops: usize) {
    let settings = [("max-sockets-per-address", "2"), ("trusted-proxies", "10.0.0.0/8 unix")];
    let bench = Bench::new(loops, &settings);
    let at = |address| {
        let mut browser = bench.offer(Offer { address, ..Offer::default() });
        let mut first = [0; 12];
        std::io::Read::read_exact(browser.stream(), &mut first).unwrap();
        (String::from_utf8_lossy(&first[9..]).into_owned(), browser)
    };
    let mut kept = Vec::new();
    for address in ["10.1.2.3", "::ffff:10.1.2.3", ""].repeat(5) {
        let (status, browser) = at(address);
        assert_eq!(status, "101", "{address}");
        kept.push(browser);
    }
    for address in ["192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1"] {
        let statuses = [(); 3].map(|()| {
            let (status, browser) = at(address);
            kept.push(browser);
            status
        });
        assert_eq!(statuses, ["101", "101", "503"], "{address}");
    }
    assert!(bench.has_logged("503: max-sockets-per-address is reached"));
    assert_eq!(bench.stat("refused/full"), 3);
}

with_one_and_three_loops!(
    more_than_the_pace_are_asked_to_come_back,
    without_a_pace_all_may_come_at_once,
    each_limit_counts_and_names_itself,
    the_address_of_a_trusted_proxy_is_nobody_s,
);
