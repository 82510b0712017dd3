//! The embedded broker: without Redis everyone in the engine hears everything, in one order, or its sender is told.

mod util;

use std::thread;

use util::Bench;
use util::browser::{TEXT, frame};
use wsredis::error::Kind;

fn everyone_hears_host_and_browsers_in_one_order(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut listeners: Vec<_> =
        (0..2 * loops).map(|_| bench.open(r#"{"subscribe":["c"]}"#)).collect();
    let mut talkers: Vec<_> = (0..3).map(|_| bench.open(r#"{"publish":["c"]}"#)).collect();
    thread::scope(|scope| {
        for (who, talker) in talkers.iter_mut().enumerate() {
            scope.spawn(move || (0..500).for_each(|i| talker.send(&format!("{who} {i}"))));
        }
        (0..500).for_each(|i| bench.publish("c", format!("host {i}")));
    });
    let mut orders: Vec<Vec<String>> = listeners
        .iter_mut()
        .map(|listener| (0..2_000).map(|_| listener.text()).collect())
        .collect();
    let order = orders.pop().unwrap();
    assert!(orders.iter().all(|other| *other == order), "not one order");
    for who in ["0", "1", "2", "host"] {
        let of_who = order.iter().filter_map(|text| text.strip_prefix(who));
        assert!(of_who.eq((0..500).map(|i| format!(" {i}")).collect::<Vec<_>>()), "{who}'s own");
    }
}

/// One loop stands still until its feed is full: then a message goes to all loops or to none.
fn a_full_feed_is_busy_for_the_host_and_nothing_is_heard_by_some_only(loops: usize) {
    let bench = Bench::new(loops, &[("feed-limit", "64k")]);
    let mut listeners: Vec<_> = (0..loops).map(|_| bench.open(r#"{"subscribe":["c"]}"#)).collect();
    let published = bench.while_stuck(|| {
        let full = (0..10_000).find(|i| {
            let published = bench.engine.publish("c", format!("{i}").as_bytes());
            published.is_err_and(|error| error.kind == Kind::Busy)
        });
        full.expect("64 KiB do not hold ten thousand messages")
    });
    bench.publish("c", "end");
    for listener in &mut listeners {
        for i in 0..published {
            assert_eq!(listener.text(), i.to_string());
        }
        assert_eq!(listener.text(), "end");
    }
    assert_eq!(bench.stat("published"), published as u64 + 1);
}

/// A loop empties its own feed only at the end of a turn, and one that stands still not at all.
fn a_full_feed_closes_a_browser_with_1013(loops: usize) {
    let bench = Bench::new(loops, &[("feed-limit", "64k"), ("max-message-size", "1k")]);
    let mut listener = bench.open(r#"{"subscribe":["a","b"]}"#);
    let mut talkers: Vec<_> =
        (0..loops).map(|_| bench.open_unix(r#"{"publish":["a","b"]}"#)).collect();
    bench.while_stuck(|| {
        for talker in &mut talkers {
            talker.write(&frame(TEXT, b"flood").repeat(4_000));
        }
    });
    for talker in &mut talkers {
        assert_eq!(talker.closed(), (1013, "overloaded".into()));
    }
    drop(talkers);
    bench.wait_for("sockets", 1);
    // What was taken was delivered: both halves of each message but perhaps the last.
    let published = bench.stat("published");
    bench.publish("a", "end");
    let heard = std::iter::from_fn(|| Some(listener.text()).filter(|text| text != "end")).count();
    assert_eq!(heard as u64, published);
}

fn a_message_larger_than_the_feed_passes_an_empty_one(loops: usize) {
    let bench = Bench::new(loops, &[("feed-limit", "64k")]);
    let mut listeners: Vec<_> = (0..loops).map(|_| bench.open(r#"{"subscribe":["c"]}"#)).collect();
    let large = "x".repeat(1_000_000);
    for _ in 0..3 {
        bench.publish("c", &large);
        for listener in &mut listeners {
            assert_eq!(listener.text(), large);
        }
    }
}

fn a_socket_does_not_hear_itself_here_either(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let talk = r#"{"subscribe":["c"],"publish":["c"]}"#;
    let (mut ann, mut bob) = (bench.open(talk), bench.open(talk));
    for _ in 0..20 {
        ann.send("same");
        assert_eq!(bob.text(), "same");
        bob.send("same");
        assert_eq!(ann.text(), "same");
    }
    bench.publish("c", "end");
    assert_eq!((ann.text(), bob.text()), ("end".into(), "end".into()));
}

fn a_channel_that_nobody_hears_costs_nothing(loops: usize) {
    let bench = Bench::new(loops, &[("channel-linger", "0")]);
    for i in 0..1_000 {
        bench.publish(&format!("channel-{i}"), "into the void");
    }
    let _browser = bench.open(r#"{"subscribe":["c"]}"#);
    bench.wait_for("channels", 1);
    assert_eq!((bench.stat("messages"), bench.stat("published")), (0, 1_000));
    assert!(bench.engine.health().is_ok());
}

with_one_and_three_loops!(
    everyone_hears_host_and_browsers_in_one_order,
    a_full_feed_is_busy_for_the_host_and_nothing_is_heard_by_some_only,
    a_full_feed_closes_a_browser_with_1013,
    a_message_larger_than_the_feed_passes_an_empty_one,
    a_socket_does_not_hear_itself_here_either,
    a_channel_that_nobody_hears_costs_nothing,
);
