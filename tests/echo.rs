//! A socket does not hear its own messages, and hears every other, also of the same content.

mod util;

use std::collections::HashMap;

use util::{Bench, Browser, FakeRedis};

const TALK: &str = r#"{"subscribe":["c"],"publish":["c"]}"#;

/// What a browser hears up to the message `end`.
#[track_caller]
fn heard_until(browser: &mut Browser, end: &str) -> Vec<String> {
    std::iter::from_fn(|| Some(browser.text()).filter(|text| text != end)).collect()
}

fn only_others_hear_what_a_socket_says_unless_its_grant_wants_the_echo(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut silent = bench.open(TALK);
    let mut echoed = bench.open(r#"{"subscribe":["c"],"publish":["c"],"echo":true}"#);
    silent.send("of the silent");
    assert_eq!(echoed.text(), "of the silent");
    echoed.send("of the echoed");
    assert_eq!(echoed.text(), "of the echoed");
    assert_eq!(silent.text(), "of the echoed");
}

fn the_same_words_of_others_are_heard(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut first = bench.open(TALK);
    let mut second = bench.open(TALK);
    let mut witness = bench.open(r#"{"subscribe":["c"]}"#);
    first.send("same");
    assert_eq!(witness.text(), "same");
    second.send("same");
    redis.wait_for("PUBLISH c same", 2);
    redis.publish("c", "same");
    redis.publish("c", "end");
    assert_eq!(heard_until(&mut first, "end"), ["same", "same"], "the other's and a program's");
    assert_eq!(heard_until(&mut second, "end"), ["same", "same"]);
    assert_eq!(heard_until(&mut witness, "end"), ["same", "same"]);
}

/// Several sockets say the same few things at the same time, and every one hears each thing as often as it was said but
/// for its own times.
fn in_a_crowd_everyone_misses_exactly_its_own(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let browsers: Vec<_> = (0..6).map(|_| bench.open(TALK)).collect();
    let mut said_by_all = HashMap::new();
    let said: Vec<HashMap<String, i32>> = (0..6usize)
        .map(|who| {
            let mut said = HashMap::new();
            for turn in 0..150 {
                let text = ["yes", "no", "maybe"][(turn * (who + 1) + turn / 7) % 3];
                *said.entry(text.to_owned()).or_default() += 1;
                *said_by_all.entry(text.to_owned()).or_insert(0) += 1;
            }
            said
        })
        .collect();
    let talkers: Vec<_> = browsers
        .into_iter()
        .enumerate()
        .map(|(who, mut browser)| {
            std::thread::spawn(move || {
                for turn in 0..150 {
                    browser.send(["yes", "no", "maybe"][(turn * (who + 1) + turn / 7) % 3]);
                }
                browser
            })
        })
        .collect();
    let mut browsers: Vec<_> = talkers.into_iter().map(|talker| talker.join().unwrap()).collect();
    redis.wait_for("PUBLISH c", 6 * 150);
    redis.publish("c", "end");
    for (who, browser) in browsers.iter_mut().enumerate() {
        let mut missed = said_by_all.clone();
        for text in heard_until(browser, "end") {
            *missed.get_mut(&text).unwrap() -= 1;
        }
        assert_eq!(missed, said[who], "socket {who}");
    }
}

fn a_publish_that_failed_leaves_no_deaf_spot(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("on-gap", "ignore")]);
    let mut browser = bench.open(TALK);
    redis.refuse("PUBLISH", "NOPERM no permissions");
    browser.send("words");
    bench.wait_for("publish_failed", 1);
    redis.publish("c", "words");
    assert_eq!(browser.text(), "words");
}

fn a_lost_link_leaves_no_deaf_spot(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("on-gap", "ignore")]);
    let mut browser = bench.open(TALK);
    redis.hold("PUBLISH");
    browser.send("words");
    redis.wait_for("PUBLISH c", 1);
    // The message is never carried out, and the link that would have brought it is another one.
    redis.drop_subscribers(true);
    bench.wait_for("gaps_ignored", 1);
    redis.publish("c", "words");
    assert_eq!(browser.text(), "words");
}

fn who_takes_the_place_of_one_that_left_hears_its_last_words(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let _listeners: Vec<_> = (0..loops).map(|_| bench.open(r#"{"subscribe":["c"]}"#)).collect();
    let mut leaving = bench.open(TALK);
    redis.hold("PUBLISH");
    leaving.send("last words");
    redis.wait_for("PUBLISH c", 1);
    drop(leaving);
    bench.wait_for("sockets", loops as u64);
    let mut next: Vec<_> = (0..loops).map(|_| bench.open(TALK)).collect();
    redis.release("PUBLISH");
    for browser in &mut next {
        assert_eq!(browser.text(), "last words");
    }
}

fn the_envelope_and_the_sender_make_no_difference(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let grant = r#"{"subscribe":["c","d"],"publish":["c"],"sender":"ann"}"#;
    let (mut ann, _) = bench.open_envelope(grant);
    let (mut bob, _) = bench.open_envelope(&grant.replace("ann", "bob"));
    let say = r#"{"channel":"c","data":"hi"}"#;
    ann.send(say);
    assert_eq!(bob.text(), r#"{"channel":"c","data":{"sender":"ann","data":"hi"}}"#);
    bob.send(say);
    assert_eq!(ann.text(), r#"{"channel":"c","data":{"sender":"bob","data":"hi"}}"#);
    // The same on another channel is not its own.
    redis.publish("d", r#"{"sender":"ann","data":"hi"}"#);
    assert_eq!(ann.json()["channel"], "d");
}

with_one_and_three_loops!(
    only_others_hear_what_a_socket_says_unless_its_grant_wants_the_echo,
    the_same_words_of_others_are_heard,
    in_a_crowd_everyone_misses_exactly_its_own,
    a_publish_that_failed_leaves_no_deaf_spot,
    a_lost_link_leaves_no_deaf_spot,
    who_takes_the_place_of_one_that_left_hears_its_last_words,
    the_envelope_and_the_sender_make_no_difference,
);
