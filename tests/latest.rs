//! `"slow":"latest"`: who does not read is not closed, and gets only the newest message of each channel once it reads
//! again, told what it missed.

mod util;

use util::{Bench, Browser, Offer, wait_until};

const CHANNELS: [&str; 3] = ["a", "b", "c"];
const GRANT: &str = r#"{"subscribe":["a","b","c"],"slow":"latest"}"#;
const LIMIT: (&str, &str) = ("write-queue-limit", "8k");

/// A browser over a connection that is full soon when nobody reads.
fn open(bench: &Bench, envelope: bool) -> Browser {
    let mut browser = bench.offer(Offer { grant: GRANT, envelope, unix: true, ..Offer::default() });
    browser.opened();
    if envelope {
        assert_eq!(browser.json()["type"], "hello");
    }
    browser
}

/// Publishes messages, numbered from 0, to the channels in turn until so many more were left out. Returns how many.
fn publish(bench: &Bench, dropped: u64) -> usize {
    let (before, enough) = (bench.stat("messages"), bench.stat("dropped") + dropped);
    let mut next = 0;
    wait_until("messages are left out", || {
        for _ in 0..30 {
            bench.publish(CHANNELS[next % 3], format!("{next:06} {}", "x".repeat(1_000)));
            next += 1;
        }
        bench.stat("dropped") >= enough
    });
    wait_until("all have come", || bench.stat("messages") == before + next as u64);
    next
}

fn number(text: &str) -> usize {
    text[..6].parse().unwrap()
}

fn one_that_reads_again_gets_the_newest_and_is_told_how_many_it_missed(loops: usize) {
    let bench = Bench::new(loops, &[LIMIT]);
    let mut browser = open(&bench, true);
    let mut told = 0;
    for _ in 0..3 {
        let published = publish(&bench, 500);
        // For each channel, the number that is to come next.
        let mut next = [0, 1, 2];
        while next.iter().any(|next| *next < published) {
            let message = browser.json();
            let at = CHANNELS.iter().position(|name| message["channel"] == *name).unwrap();
            if message["type"] == "dropped" {
                let count = message["count"].as_u64().unwrap();
                assert!(count > 0);
                told += count;
                next[at] += 3 * count as usize;
            } else {
                // In order, and each is either here or counted.
                assert_eq!(number(message["data"].as_str().unwrap()), next[at]);
                next[at] += 3;
            }
        }
        assert_eq!(bench.stat("dropped"), told);
    }
    assert_eq!((bench.stat("sockets"), bench.stat("closed/slow")), (1, 0));
}

fn without_the_envelope_it_gets_the_newest_all_the_same(loops: usize) {
    let bench = Bench::new(loops, &[LIMIT]);
    let mut browser = open(&bench, false);
    let published = publish(&bench, 500);
    let (mut last, mut came) = ([None; 3], 0);
    while last.iter().any(|last| last.is_none_or(|last| last + 3 < published)) {
        let number = number(&browser.text());
        assert!(last[number % 3].replace(number).is_none_or(|before| before < number));
        came += 1;
    }
    assert_eq!(came + bench.stat("dropped"), published as u64);
}

fn what_the_app_sends_to_it_alone_is_no_channel_and_closes_it_as_ever(loops: usize) {
    let bench = Bench::new(loops, &[LIMIT]);
    let (_stuck, id) = {
        let offer = Offer { grant: GRANT, envelope: true, unix: true, ..Offer::default() };
        let mut browser = bench.offer(offer);
        browser.opened();
        let id = browser.json()["socket"].as_str().unwrap().to_owned();
        (browser, id)
    };
    wait_until("it is closed", || {
        let _ = bench.engine.send(&id, &[b'x'; 1_000]); // Busy, now and then.
        bench.stat("closed/slow") == 1
    });
}

with_one_and_three_loops!(
    one_that_reads_again_gets_the_newest_and_is_told_how_many_it_missed,
    without_the_envelope_it_gets_the_newest_all_the_same,
    what_the_app_sends_to_it_alone_is_no_channel_and_closes_it_as_ever,
);
