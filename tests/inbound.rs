//! What a browser sends goes where its grant says and nowhere else; what breaks a rule closes the socket with the code
//! of that rule.

mod util;

use std::time::{Duration, Instant};

use util::browser::{BINARY, PING, TEXT, frame};
use util::{Bench, FakeRedis, Offer, RealRedis, wait_until};

/// A browser of the grant, after it sent raw bytes and was closed for them.
#[track_caller]
fn closed_for(bench: &Bench, grant: &str, bytes: &[u8]) -> u16 {
    let mut browser = bench.open(grant);
    browser.write(bytes);
    browser.closed().0
}

fn a_raw_message_goes_to_every_granted_channel(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let (mut listener, _) = bench.open_envelope(r#"{"subscribe":["a","b","c"]}"#);
    let mut sender = bench.open(r#"{"publish":["a","b"]}"#);
    sender.send("text");
    assert_eq!(listener.text(), r#"{"channel":"a","data":"text"}"#);
    assert_eq!(listener.text(), r#"{"channel":"b","data":"text"}"#);
    sender.send_binary(b"\xff");
    assert_eq!(listener.json()["encoding"], "base64");
    assert_eq!(listener.json()["channel"], "b");
    assert_eq!((bench.stat("received"), bench.stat("published")), (2, 4));
}

fn a_message_that_may_go_nowhere_is_dropped_and_counted(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browser = bench.open(r#"{"subscribe":["a"]}"#);
    browser.send("into the void");
    bench.wait_for("received_dropped", 1);
    bench.publish("a", "still here");
    assert_eq!(browser.text(), "still here");
}

fn an_envelope_names_one_of_the_granted_channels(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut listener = bench.open(r#"{"subscribe":["a","b"]}"#);
    let grant = r#"{"publish":["a","b"]}"#;
    let (mut browser, _) = bench.open_envelope(grant);
    browser.send(r#"{"channel":"b","data":{"x":[1]}}"#);
    assert_eq!(listener.text(), r#"{"x":[1]}"#);
    browser.send(r#"{"channel":"c","data":1}"#);
    assert_eq!(browser.closed(), (1008, "not granted".into()));
    for (wrong, code) in [("no json", 1003), (r#"{"channel":"a"}"#, 1003), ("[]", 1003)] {
        let (mut browser, _) = bench.open_envelope(grant);
        browser.send(wrong);
        assert_eq!(browser.closed().0, code, "{wrong}");
    }
    let (mut browser, _) = bench.open_envelope(grant);
    browser.send_binary(b"{}");
    assert_eq!(browser.closed().0, 1003);
    bench.wait_for("closed/not_granted", 1);
    bench.wait_for("closed/unacceptable", 4);
}

fn a_sender_stands_around_every_message_and_can_not_be_forged(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let mut sender = bench.open(r#"{"publish":["a"],"sender":{"id":7}}"#);
    for (sent, heard) in [
        ("hello", r#"{"sender":{"id":7},"data":"hello"}"#),
        (r#"{"sender":{"id":1}}"#, r#"{"sender":{"id":7},"data":{"sender":{"id":1}}}"#),
        (r#"1,"sender":1"#, r#"{"sender":{"id":7},"data":"1,\"sender\":1"}"#),
    ] {
        sender.send(sent);
        assert_eq!(listener.text(), heard);
    }
    // Binary is no text, also where it could be.
    for payload in [&b"\xff"[..], b"hello", b""] {
        let mut sender = bench.open(r#"{"publish":["a"],"sender":{"id":7}}"#);
        sender.send_binary(payload);
        assert_eq!(sender.closed(), (1003, "unacceptable message type".into()));
    }
}

fn a_heartbeat_is_sent_when_idle_and_swallowed(loops: usize) {
    let bench = Bench::new(loops, &[("heartbeat-interval", "100ms")]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let mut browser = bench.open(r#"{"publish":["a"],"heartbeat":"--beat--"}"#);
    let begin = Instant::now();
    assert_eq!(browser.text(), "--beat--");
    assert_eq!(browser.text(), "--beat--");
    assert!(begin.elapsed() >= Duration::from_millis(150), "{:?}", begin.elapsed());
    browser.send("--beat--");
    browser.send("a message");
    assert_eq!(listener.text(), "a message");
    assert_eq!(bench.stat("received"), 1);
}

fn a_mirror_returns_every_message_as_it_came(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browser = bench.offer(Offer { mirror: true, ..Offer::default() });
    browser.opened();
    let long = "ä".repeat(30_000);
    for text in ["", "a", &long] {
        browser.send(text);
        assert_eq!(browser.text(), text);
    }
    browser.send_binary(b"\x00\xff");
    assert_eq!(browser.binary(), b"\x00\xff");
    // Fragments, with a ping between them, are one message.
    browser.write(&frame(0x01, b"ab"));
    browser.write(&frame(PING, b"?"));
    browser.write(&frame(0x80, b"c"));
    assert_eq!(browser.message(), tungstenite::Message::Pong(b"?".as_slice().into()));
    assert_eq!(browser.text(), "abc");
}

/// Who sends and never reads must not make the engine hold everything that it sent.
fn a_mirror_that_nobody_reads_is_closed(loops: usize) {
    let bench = Bench::new(loops, &[("write-queue-limit", "64k")]);
    let mut browser = bench.offer(Offer { mirror: true, unix: true, ..Offer::default() });
    browser.opened();
    let long = frame(TEXT, &[b'x'; 60_000]);
    let mut stream = browser.into_stream();
    // Two megabytes; what is still written once it was closed may fail.
    let _ = (0..40).try_for_each(|_| std::io::Write::write_all(&mut stream, &long));
    bench.wait_for("closed/slow", 1);
}

fn what_breaks_the_protocol_is_closed_with_its_code(loops: usize) {
    let bench = Bench::new(loops, &[("max-message-size", "1k")]);
    let grant = r#"{"publish":["a"]}"#;
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let unmasked = b"\x81\x02hi";
    assert_eq!(closed_for(&bench, grant, unmasked), 1002);
    assert_eq!(closed_for(&bench, grant, &frame(0x80, b"continues nothing")), 1002);
    assert_eq!(closed_for(&bench, grant, &frame(0xc1, b"compressed?")), 1002);
    assert_eq!(closed_for(&bench, grant, &frame(0x83, b"reserved")), 1002);
    assert_eq!(closed_for(&bench, grant, &frame(TEXT, b"\xc3\x28")), 1007);
    assert_eq!(closed_for(&bench, grant, &frame(TEXT, &[b'x'; 1025])), 1009);
    // On the word of the header alone.
    let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert_eq!(closed_for(&bench, grant, &[&huge[..], &[0; 4]].concat()), 1009);
    let mut largest = bench.open(grant);
    largest.send(&"y".repeat(1024));
    assert_eq!(listener.text(), "y".repeat(1024));
    bench.wait_for("closed/protocol", 4);
    bench.wait_for("closed/utf8", 1);
    bench.wait_for("closed/too_big", 2);
    assert_eq!(bench.stat("received"), 1);
}

/// The message that is too big fills the loop's buffer exactly, so that the frame inside it is read on its own.
fn nothing_that_follows_a_violation_is_taken_for_a_message(loops: usize) {
    let bench = Bench::new(loops, &[("max-message-size", "1k")]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let leftover = b"\x82\xff\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00";
    let smuggled = frame(TEXT, b"smuggled");
    let bytes = [&leftover[..], &[0; 64 * 1024 - 14], &smuggled].concat();
    for _ in 0..50 {
        let mut browser = bench.open_unix(r#"{"publish":["a"]}"#);
        browser.write(&bytes);
        assert_eq!(browser.closed().0, 1009);
    }
    bench.publish("a", "honest");
    assert_eq!(listener.text(), "honest");
}

fn when_redis_can_not_take_it_the_sender_is_told_to_come_back(loops: usize) {
    let redis = FakeRedis::absent();
    let settings = [("redis-url", &*redis.url()), ("publish-queue-limit", "128k")];
    let bench = Bench::new(loops, &settings);
    let mut browser = bench.open(r#"{"publish":["a"]}"#);
    for _ in 0..3 {
        browser.write(&frame(BINARY, &[0; 60_000]));
    }
    assert_eq!(browser.closed(), (1013, "overloaded".into()));
    assert_eq!((bench.stat("published"), bench.stat("publish_failed")), (2, 1));
}

/// Redis is slow and not away: nobody is closed, whoever sends more than it takes waits.
fn while_redis_takes_less_than_comes_the_senders_wait(loops: usize) {
    const MESSAGES: u64 = 300;
    let Some(redis) = RealRedis::start() else { return };
    let settings = [("redis-url", redis.url()), ("publish-queue-limit", "4m".into())];
    let rates = [("max-message-rate", "0".to_owned())];
    let settings: Vec<_> =
        settings.iter().chain(&rates).map(|(key, value)| (*key, value.as_str())).collect();
    let bench = Bench::new(loops, &settings);
    let mut browser = bench.open(r#"{"publish":["a"]}"#);
    browser.write(&frame(BINARY, b"the link is up"));
    bench.wait_for("published", 1);
    redis.signal("STOP");
    let sender = std::thread::spawn(move || {
        (0..MESSAGES).for_each(|_| browser.write(&frame(BINARY, &[0; 60_000])));
        browser
    });
    wait_until("as much waits as the kernel and the engine take", || {
        let before = bench.stat("published");
        std::thread::sleep(Duration::from_millis(300));
        bench.stat("published") == before && before > 1
    });
    assert!(bench.stat("published") < MESSAGES, "it did not have to wait");
    redis.signal("CONT");
    bench.wait_for("published", MESSAGES + 1);
    drop(sender.join().unwrap());
    assert_eq!((bench.stat("publish_failed"), bench.stat("closed/overloaded")), (0, 0));
}

fn pings_are_answered_with_their_own_bytes(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browser = bench.open("{}");
    for payload in [&b""[..], b"abc", &[7; 125]] {
        browser.write(&frame(PING, payload));
        assert_eq!(browser.message(), tungstenite::Message::Pong(payload.to_vec().into()));
    }
    // Of ten that come together each is answered, in order (Autobahn 2.10).
    browser.write(&(0..10).flat_map(|n| frame(PING, &[n; 20])).collect::<Vec<u8>>());
    for n in 0..10 {
        assert_eq!(browser.message(), tungstenite::Message::Pong(vec![n; 20].into()));
    }
    // A flood of them is answered by its latest at least, and closes nobody.
    browser.write(&[frame(PING, b"x").repeat(5_000), frame(PING, b"last")].concat());
    wait_until("the last is answered", || {
        browser.message() == tungstenite::Message::Pong(b"last".as_slice().into())
    });
    assert_eq!(bench.stat("sockets"), 1);
}

with_one_and_three_loops!(
    a_raw_message_goes_to_every_granted_channel,
    a_message_that_may_go_nowhere_is_dropped_and_counted,
    an_envelope_names_one_of_the_granted_channels,
    a_sender_stands_around_every_message_and_can_not_be_forged,
    a_heartbeat_is_sent_when_idle_and_swallowed,
    a_mirror_returns_every_message_as_it_came,
    a_mirror_that_nobody_reads_is_closed,
    what_breaks_the_protocol_is_closed_with_its_code,
    nothing_that_follows_a_violation_is_taken_for_a_message,
    when_redis_can_not_take_it_the_sender_is_told_to_come_back,
    while_redis_takes_less_than_comes_the_senders_wait,
    pings_are_answered_with_their_own_bytes,
);
