//! Redis goes away and comes back: sockets stay, each channel's gap is told before any later message, nothing loops hot.

mod util;

use std::time::{Duration, Instant};

use wsredis::error::Kind;

use util::{Bench, Browser, FakeRedis, Offer, RealRedis, wait_until};

const BOTH: &str = r#"{"subscribe":["a","b"],"publish":["a"]}"#;

fn notice(browser: &mut Browser) -> (String, String) {
    let json = browser.json();
    (json["type"].as_str().unwrap().to_owned(), json["channel"].as_str().unwrap().to_owned())
}

fn an_envelope_is_told_each_gap_before_any_later_message(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut browsers: Vec<_> = (0..loops).map(|_| bench.open_envelope(BOTH).0).collect();
    for round in 1..=3 {
        redis.drop_links();
        redis.wait_for("SUBSCRIBE a", loops * (round + 1));
        redis.wait_for_subscribers("b", loops);
        redis.publish("a", "later");
        for browser in &mut browsers {
            let mut gaps = [notice(browser), notice(browser)];
            gaps.sort();
            assert_eq!(
                gaps,
                [("gap", "a"), ("gap", "b")].map(|(t, c)| (t.to_owned(), c.to_owned()))
            );
            assert_eq!(browser.json()["data"], "later");
        }
    }
    assert_eq!(bench.stat("sockets"), loops as u64);
}

/// One event of the kernel may tell of both; a link that missed the end would be deaf until a PING.
fn the_end_that_comes_with_a_message_is_noticed_at_once(loops: usize) {
    let redis = FakeRedis::start();
    let settings = [("redis-url", redis.url()), ("redis-ping-interval", "10m".into())];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let bench = Bench::new(loops, &settings);
    let mut browsers: Vec<_> = (0..loops).map(|_| bench.open_envelope(BOTH).0).collect();
    for round in 1..=3 {
        redis.publish("a", "last");
        redis.drop_links();
        redis.wait_for("SUBSCRIBE a", loops * (round + 1));
        redis.wait_for_subscribers("b", loops);
        for browser in &mut browsers {
            assert_eq!(browser.json()["data"], "last");
            assert_eq!([notice(browser).0, notice(browser).0], ["gap", "gap"]);
        }
    }
}

/// What can not reach Redis is no OK: the host is told before anything is queued.
fn the_host_is_told_what_can_not_be_published(loops: usize) {
    let redis = FakeRedis::absent();
    let settings = [("redis-url", redis.url()), ("publish-queue-limit", "64k".into())];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let bench = Bench::new(loops, &settings);
    let publish = |len: usize| bench.engine.publish("a", &vec![b'x'; len]).map_err(|e| e.kind);
    assert_eq!(publish(64 * 1024), Err(Kind::Limit));
    let accepted = (0..20).take_while(|_| publish(10_000).is_ok()).count();
    assert_eq!((accepted, publish(10_000)), (6, Err(Kind::Busy)));
}

fn a_raw_socket_is_closed_with_1012_once_redis_answers_again(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("gap-spread", "300ms")]);
    let mut browsers: Vec<_> = (0..20).map(|_| bench.open(BOTH)).collect();
    redis.hold("SUBSCRIBE");
    redis.drop_links();
    redis.wait_for("SUBSCRIBE", 4 * loops);
    assert_eq!(bench.stat("sockets"), 20, "nobody is closed while Redis does not answer");
    redis.release("SUBSCRIBE");
    redis.wait_for_subscribers("b", loops);
    redis.publish("a", "too late for those who missed something");
    for browser in &mut browsers {
        assert_eq!(browser.closed(), (1012, "continuity lost".to_owned()));
    }
    bench.wait_for("closed/gap", 20);
}

fn with_on_gap_ignore_raw_sockets_stay_and_are_counted(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("on-gap", "ignore")]);
    let mut browsers: Vec<_> = (0..loops).map(|_| bench.open(BOTH)).collect();
    redis.drop_links();
    bench.wait_for("gaps_ignored", 2 * loops as u64);
    redis.publish("a", "on we go");
    for browser in &mut browsers {
        assert_eq!(browser.text(), "on we go");
    }
}

fn a_publish_in_flight_is_told_as_dropped_and_never_sent_again(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let (mut browser, _) = bench.open_envelope(r#"{"publish":["a"]}"#);
    redis.hold("PUBLISH");
    browser.send(r#"{"channel":"a","data":"one"}"#);
    redis.wait_for("PUBLISH a", 1);
    redis.drop_links();
    assert_eq!(notice(&mut browser), ("dropped".to_owned(), "a".to_owned()));
    redis.release("PUBLISH");
    browser.send(r#"{"channel":"a","data":"two"}"#);
    redis.wait_for("PUBLISH a two", 1);
    assert_eq!(redis.count("PUBLISH a one"), 1);
}

fn what_a_browser_says_while_redis_is_away_waits_for_it(loops: usize) {
    let mut redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let (mut browser, _) = bench.open_envelope(r#"{"publish":["a"]}"#);
    redis.close();
    bench.wait_for("redis_connections", 0);
    browser.send(r#"{"channel":"a","data":"patience"}"#);
    bench.wait_for("published", 1);
    redis.listen();
    redis.wait_for("PUBLISH a patience", 1);
}

fn a_server_that_kicks_at_once_is_not_asked_in_a_loop(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let _browser = bench.open(BOTH);
    redis.take_accepted();
    redis.kick_after(Some(1));
    redis.drop_links();
    let begin = Instant::now();
    wait_until("two seconds are over", || begin.elapsed() > Duration::from_secs(2));
    let attempts = redis.take_accepted().len();
    // Each link doubles its wait from 50 ms on: about eight attempts in two seconds, by chance some more.
    assert!(attempts <= 2 * loops * 25, "{attempts} attempts");
    assert!(attempts >= 2 * loops, "it tries on");
}

fn a_wrong_password_is_tried_once_in_five_seconds(loops: usize) {
    let redis = FakeRedis::start();
    redis.refuse("AUTH", "WRONGPASS invalid username-password pair");
    let url = redis.url().replace("redis://", "redis://:hush@");
    let bench = Bench::new(loops, &[("redis-url", &url)]);
    let _browser = bench.open(BOTH);
    let begin = Instant::now();
    wait_until("three seconds are over", || begin.elapsed() > Duration::from_secs(3));
    assert_eq!(redis.count("AUTH"), 2 * loops, "one attempt for each link");
    assert!(bench.has_logged("WRONGPASS") && !bench.has_logged("hush"));
}

fn one_forbidden_channel_does_not_silence_the_others(loops: usize) {
    let redis = FakeRedis::start();
    redis.refuse("SUBSCRIBE secret", "NOPERM no permissions to access a channel");
    let settings = [("redis-url", redis.url()), ("join-timeout", "50ms".into())];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let bench = Bench::new(loops, &settings);
    let mut browser = bench.open(r#"{"subscribe":["secret","a"]}"#);
    // It was answered after the join-timeout, which may be before Redis was reached.
    wait_until("the other one is subscribed", || redis.subscribers("a") == 1);
    redis.publish("a", "heard");
    assert_eq!(browser.text(), "heard");
    assert!(bench.engine.health().is_err());
    assert!(bench.has_logged("NOPERM"));
}

with_one_and_three_loops!(
    an_envelope_is_told_each_gap_before_any_later_message,
    the_end_that_comes_with_a_message_is_noticed_at_once,
    the_host_is_told_what_can_not_be_published,
    a_raw_socket_is_closed_with_1012_once_redis_answers_again,
    with_on_gap_ignore_raw_sockets_stay_and_are_counted,
    a_publish_in_flight_is_told_as_dropped_and_never_sent_again,
    what_a_browser_says_while_redis_is_away_waits_for_it,
    a_server_that_kicks_at_once_is_not_asked_in_a_loop,
    a_wrong_password_is_tried_once_in_five_seconds,
    one_forbidden_channel_does_not_silence_the_others,
);

/// Real Redis: killed and started again under 200 sockets.
#[test]
fn redis_killed_and_restarted_under_200_sockets_loses_none() {
    let Some(mut redis) = RealRedis::start() else { return };
    for loops in [1, 3] {
        let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
        let grant = r#"{"subscribe":["a"]}"#;
        let mut browsers: Vec<_> = (0..200).map(|_| bench.open_envelope(grant).0).collect();
        redis.publish("a", "before");
        for browser in &mut browsers {
            assert_eq!(browser.json()["data"], "before");
        }
        redis.kill();
        bench.wait_for("redis_connections", 0);
        redis.run();
        wait_until("every loop listens again", || redis.subscribers("a") == loops as u64);
        redis.publish("a", "after");
        for browser in &mut browsers {
            assert_eq!(notice(browser), ("gap".to_owned(), "a".to_owned()));
            assert_eq!(browser.json()["data"], "after");
        }
        assert_eq!(bench.stat("sockets"), 200);
    }
}

/// Real Redis, stopped by a signal: nothing says that it is gone but its silence.
#[test]
fn a_frozen_redis_is_noticed_by_its_silence() {
    let Some(redis) = RealRedis::start() else { return };
    let settings = [("redis-url", redis.url()), ("redis-ping-interval", "200ms".into())];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let bench = Bench::new(1, &settings);
    let mut browser = bench.offer(Offer { grant: BOTH, envelope: true, ..Offer::default() });
    browser.opened();
    browser.json();
    let begin = Instant::now();
    redis.signal("STOP");
    wait_until("the silence is noticed", || bench.stat("redis_lost") >= 2);
    assert!(begin.elapsed() < Duration::from_secs(2), "after {:?}", begin.elapsed());
    redis.signal("CONT");
    let mut gaps = [notice(&mut browser), notice(&mut browser)];
    gaps.sort();
    assert_eq!(gaps[0], ("gap".to_owned(), "a".to_owned()));
    assert!(redis.publish("a", "thawed") >= 1);
    assert_eq!(browser.json()["data"], "thawed");
}
