//! What is published reaches every socket that hears the channel, in order, in the form that it wants.

mod util;

use tungstenite::Message;
use util::{Bench, FakeRedis, Offer, wait_until};

fn a_message_reaches_every_socket_of_its_channel_and_no_other(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut news: Vec<_> = (0..7).map(|_| bench.open(r#"{"subscribe":["news"]}"#)).collect();
    let mut others: Vec<_> = (0..3).map(|_| bench.open(r#"{"subscribe":["other"]}"#)).collect();
    assert_eq!(redis.publish("news", "hello"), loops, "one connection a loop");
    redis.publish("other", "else");
    for browser in &mut news {
        assert_eq!(browser.text(), "hello");
    }
    for browser in &mut others {
        assert_eq!(browser.text(), "else");
    }
    assert_eq!(redis.count("SUBSCRIBE news"), loops);
    assert_eq!((bench.stat("messages"), bench.stat("delivered")), (2 * loops as u64, 10));
}

fn raw_payloads_are_text_if_they_are_utf8_and_binary_otherwise(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut auto = bench.open(r#"{"subscribe":["c"]}"#);
    let mut binary = bench.open(r#"{"subscribe":["c"],"format":"binary"}"#);
    let payloads: [&[u8]; 4] = [b"plain", "größe".as_bytes(), b"", b"\xff\x00"];
    for payload in payloads {
        redis.publish("c", payload);
        assert_eq!(binary.binary(), payload);
        match auto.message() {
            Message::Text(text) => assert_eq!(text.as_bytes(), payload),
            Message::Binary(bytes) => assert_eq!((&bytes[..], true), (payload, payload[0] == 0xff)),
            other => panic!("{other:?}"),
        }
    }
}

fn the_envelope_names_the_channel_and_keeps_json_text_and_bytes_apart(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let (mut browser, _) = bench.open_envelope(r#"{"subscribe":["a","b \" b"]}"#);
    for (channel, payload, expected) in [
        ("a", &b"{\"n\":1}"[..], r#"{"channel":"a","data":{"n":1}}"#),
        ("b \" b", b"bare words", r#"{"channel":"b \" b","data":"bare words"}"#),
        ("a", b"\xff", r#"{"channel":"a","data":"/w==","encoding":"base64"}"#),
    ] {
        redis.publish(channel, payload);
        assert_eq!(browser.text(), expected);
    }
}

fn messages_of_several_channels_keep_the_order_that_redis_gave_them(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let channels = ["a", "b", "c"];
    let grant = r#"{"subscribe":["a","b","c"]}"#;
    let mut browsers: Vec<_> = (0..5).map(|_| bench.open(grant)).collect();
    for number in 0..3_000 {
        redis.publish(channels[number % 7 % 3], number.to_string());
    }
    for browser in &mut browsers {
        for number in 0..3_000 {
            assert_eq!(browser.text(), number.to_string());
        }
    }
}

fn answers_that_come_one_byte_at_a_time_are_understood(loops: usize) {
    let redis = FakeRedis::start();
    redis.trickle();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut browser = bench.open(r#"{"subscribe":["news"],"publish":["news"],"echo":true}"#);
    browser.send("there and back");
    assert_eq!(browser.text(), "there and back");
    // A message, too, byte by byte.
    for byte in b"*3\r\n$7\r\nmessage\r\n$4\r\nnews\r\n$2\r\nhi\r\n" {
        redis.write_to_subscribers(&[*byte]);
    }
    assert_eq!(browser.text(), "hi");
}

fn a_channel_is_left_a_while_after_its_last_listener(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("channel-linger", "30ms")]);
    let browsers: Vec<_> = (0..loops * 2).map(|_| bench.open(r#"{"subscribe":["a"]}"#)).collect();
    assert_eq!((redis.subscribers("a"), bench.stat("channels")), (loops, loops as u64));
    drop(browsers);
    redis.wait_for_subscribers("a", 0);
    bench.wait_for("channels", 0);
    assert_eq!(redis.count("UNSUBSCRIBE a"), loops);
    // And it can be joined again.
    let mut again = bench.open(r#"{"subscribe":["a"]}"#);
    redis.publish("a", "again");
    assert_eq!(again.text(), "again");
}

fn a_page_that_reloads_costs_no_command(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("channel-linger", "1m")]);
    for _ in 0..5 {
        let mut pages: Vec<_> =
            (0..loops).map(|_| bench.open(r#"{"subscribe":["page"]}"#)).collect();
        redis.publish("page", "hello");
        for page in &mut pages {
            assert_eq!(page.text(), "hello");
        }
        drop(pages);
        bench.wait_until_empty();
    }
    assert_eq!((redis.count("SUBSCRIBE page"), redis.count("UNSUBSCRIBE")), (loops, 0));
}

/// The linger begins with the last listener's leaving, whatever the listeners before it did: a timer that was set when
/// an earlier one left must not cut it short.
fn every_last_leaving_lingers_for_the_whole_time(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("channel-linger", "400ms")]);
    let mut left_at = std::time::Instant::now();
    for _ in 0..8 {
        let pages: Vec<_> = (0..loops).map(|_| bench.open(r#"{"subscribe":["page"]}"#)).collect();
        left_at = std::time::Instant::now();
        drop(pages);
        bench.wait_until_empty();
        let pause = std::time::Duration::from_millis(100);
        wait_until("time has passed", || left_at.elapsed() > pause);
    }
    redis.wait_for("UNSUBSCRIBE page", 1);
    // The loop counts whole milliseconds.
    assert!(left_at.elapsed().as_millis() >= 395, "after {:?}", left_at.elapsed());
    assert_eq!(redis.count("SUBSCRIBE page"), loops);
}

fn the_prefix_stands_on_redis_only(loops: usize) {
    let redis = FakeRedis::start();
    let settings = [("redis-url", &*redis.url()), ("channel-prefix", "staging:")];
    let bench = Bench::new(loops, &settings);
    let (mut told, _) = bench.open_envelope(r#"{"subscribe":["a"],"publish":["b"]}"#);
    let mut raw = bench.open(r#"{"subscribe":["b"]}"#);
    redis.publish("a", "1");
    redis.publish("staging:a", "2");
    assert_eq!(told.text(), r#"{"channel":"a","data":2}"#);
    told.send(r#"{"channel":"b","data":3}"#);
    assert_eq!(raw.text(), "3");
    bench.publish("b", "of the host");
    assert_eq!(raw.text(), "of the host");
    assert_eq!((redis.count("PUBLISH staging:b"), redis.count("PUBLISH b")), (2, 0));
}

fn the_host_publishes_and_sends_to_one(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut all: Vec<_> = (0..4).map(|_| bench.open_envelope(r#"{"subscribe":["a"]}"#)).collect();
    bench.publish("a", "0");
    for (browser, _) in &mut all {
        assert_eq!(browser.json()["data"], 0);
    }
    for (number, (_, id)) in all.iter().enumerate() {
        bench.engine.send(id, format!("for {number}").as_bytes()).unwrap();
    }
    for (number, (browser, _)) in all.iter_mut().enumerate() {
        assert_eq!(browser.text(), format!("for {number}"));
    }
    let unknown = bench.engine.send("0000000000000000-1", b"x").unwrap_err();
    assert_eq!(unknown.kind, wsredis::error::Kind::NotFound);
    assert!(bench.engine.publish("__redis", b"x").is_err(), "no name of a channel");
}

fn messages_of_the_host_on_one_channel_keep_their_order(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let mut browser = bench.open(r#"{"subscribe":["a"]}"#);
    for number in 0..5_000 {
        bench.publish("a", number.to_string());
    }
    for number in 0..5_000 {
        assert_eq!(browser.text(), number.to_string());
    }
}

fn one_socket_may_hear_a_hundred_channels(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let names: Vec<String> = (0..100).map(|n| format!("channel-{n}")).collect();
    let grant = serde_json::json!({ "subscribe": names }).to_string();
    let mut browser = bench.offer(Offer { grant: &grant, ..Offer::default() });
    browser.opened();
    for name in &names {
        redis.publish(name, name);
    }
    for name in &names {
        assert_eq!(browser.text(), *name);
    }
}

with_one_and_three_loops!(
    a_message_reaches_every_socket_of_its_channel_and_no_other,
    raw_payloads_are_text_if_they_are_utf8_and_binary_otherwise,
    the_envelope_names_the_channel_and_keeps_json_text_and_bytes_apart,
    messages_of_several_channels_keep_the_order_that_redis_gave_them,
    answers_that_come_one_byte_at_a_time_are_understood,
    a_channel_is_left_a_while_after_its_last_listener,
    a_page_that_reloads_costs_no_command,
    every_last_leaving_lingers_for_the_whole_time,
    the_prefix_stands_on_redis_only,
    the_host_publishes_and_sends_to_one,
    messages_of_the_host_on_one_channel_keep_their_order,
    one_socket_may_hear_a_hundred_channels,
);
