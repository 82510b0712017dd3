//! All sockets go to another engine and back: no browser notices, nothing is lost, doubled or told twice.

mod util;

use std::io::Read;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use util::browser::{BINARY, PING, TEXT, frame};
use util::transfer::{SETTLE, hand_over, hand_over_within, two};
use util::{Bench, Browser, FakeRedis, Offer, RealRedis, wait_until};
use wsredis::cause::Cause;
use wsredis::engine::{Event, Who};
use wsredis::error::Kind;

const HEAR: &str = r#"{"subscribe":["c"]}"#;

/// No socket, no descriptor of one and no memory is left.
#[track_caller]
fn leave_nothing(benches: &[Bench], browsers: Vec<Browser>) {
    drop(browsers);
    for bench in benches {
        bench.wait_until_empty();
        bench.wait_for("channels", 0);
    }
}

/// What both hear goes on as if nothing had been, and what is counted is counted where the sockets are.
fn sockets_go_and_come_back_and_nobody_notices(loops: usize) {
    let benches = two(loops, &[("channel-linger", "0")]);
    let [a, b] = &benches;
    for bench in &benches {
        bench.engine.events_fd().unwrap();
    }
    let mut browsers: Vec<_> = (0..2 * loops).map(|_| a.open(HEAR)).collect();
    let (mut envelope, id) = a.open_envelope(HEAR);
    let count = browsers.len() as u64 + 1;
    let bytes = a.stat("socket_bytes");
    let mut opened = 0;
    while a.engine.next_event().unwrap().is_some() {
        opened += 1;
    }
    assert_eq!(opened, count);
    for (from, to) in [(a, b), (b, a), (a, a), (a, b)] {
        hand_over(from, to);
        if !std::ptr::eq(from, to) {
            assert_eq!((from.local().sockets(), from.stat("socket_bytes")), (0, 0));
            from.wait_for("channels", 0);
        }
        assert_eq!((to.local().sockets(), to.stat("socket_bytes")), (count, bytes));
        to.wait_for("channels", if loops == 1 { 1 } else { loops as u64 });
        to.publish("c", "on");
        for browser in &mut browsers {
            assert_eq!(browser.text(), "on");
        }
        assert_eq!(envelope.json()["data"], "on");
        to.engine.send(&id, b"only for you").unwrap();
        assert_eq!(envelope.text(), "only for you");
        if !std::ptr::eq(from, to) {
            assert_eq!(from.engine.kick(&Who::Socket(id.clone())).map_err(|e| e.kind), {
                // Who gave the id can not know that the socket is gone; others never heard of it.
                if std::ptr::eq(from, a) { Ok(()) } else { Err(Kind::NotFound) }
            });
        }
    }
    assert_eq!((a.stat("adopted"), b.stat("adopted")), (count, 0));
    for bench in &benches {
        assert_eq!(bench.engine.next_event().unwrap(), None, "a move is no event");
    }
    b.engine.kick(&Who::Socket(id.clone())).unwrap();
    assert_eq!(envelope.closed().0, 4403);
    b.wait_for("closed/kicked", 1);
    assert_eq!(b.engine.next_event().unwrap(), Some(Event::Closed(id.clone(), 4403)));
    assert_eq!(b.engine.send(&id, b"x").unwrap_err().kind, Kind::NotFound, "it is forgotten");
    leave_nothing(&benches, browsers);
}

/// Three talkers and three listeners, numbers, and the state moves while they speak.
fn traffic(benches: &[Bench; 2], moves: usize, redis: Option<&RealRedis>) {
    let talk = r#"{"subscribe":["c"],"publish":["c"],"echo":true}"#;
    let mut talkers: Vec<_> = (0..3).map(|_| benches[0].open(talk)).collect();
    let listeners: Vec<_> = (0..3).map(|_| benches[0].open(HEAR)).collect();
    let witness = redis.map(|redis| {
        let mut connection = redis.connect();
        thread::spawn(move || {
            let mut pubsub = connection.as_pubsub();
            pubsub.subscribe("c").unwrap();
            let mut heard = Vec::new();
            loop {
                let text: String = pubsub.get_message().unwrap().get_payload().unwrap();
                if text == "end" {
                    return heard;
                }
                heard.push(text);
            }
        })
    });
    if let Some(redis) = redis {
        let loops = benches[0].engine.config().loops.min(6) as u64;
        wait_until("the witness listens", || redis.subscribers("c") == loops + 1);
    }
    let over = AtomicBool::new(false);
    let said = thread::scope(|scope| {
        let speaking: Vec<_> = talkers
            .iter_mut()
            .enumerate()
            .map(|(who, talker)| {
                let over = &over;
                scope.spawn(move || {
                    let mut said = 0;
                    while !over.load(SeqCst) {
                        let own = format!("{who} {said}");
                        talker.send(&own);
                        while talker.text() != own {}
                        said += 1;
                    }
                    said
                })
            })
            .collect();
        for turn in 0..moves {
            // Something of everybody's passes between two moves.
            let begin = benches[turn % 2].stat("received");
            hand_over(&benches[turn % 2], &benches[1 - turn % 2]);
            let to = &benches[1 - turn % 2];
            let before = to.stat("received");
            wait_until("they speak on", || to.stat("received") > before + 20);
            assert!(benches[turn % 2].stat("received") >= begin);
        }
        over.store(true, SeqCst);
        speaking.into_iter().map(|one| one.join().unwrap()).collect::<Vec<u32>>()
    });
    benches[moves % 2].publish("c", "end");
    let total: u32 = said.iter().sum();
    let complete = |heard: &[String]| {
        assert_eq!(heard.len(), total as usize);
        for (who, said) in said.iter().enumerate() {
            let of_who = heard.iter().filter_map(|text| text.strip_prefix(&format!("{who} ")));
            assert!(of_who.eq((0..*said).map(|i| i.to_string()).collect::<Vec<_>>()), "{who}");
        }
    };
    for mut listener in listeners {
        let heard: Vec<_> =
            std::iter::from_fn(|| Some(listener.text()).filter(|text| text != "end")).collect();
        complete(&heard);
    }
    if let Some(witness) = witness {
        complete(&witness.join().unwrap());
    }
    let received = benches[0].stat("received") + benches[1].stat("received");
    assert_eq!(received, u64::from(total), "inbound exactly once");
    assert_eq!(benches[0].stat("gaps_told") + benches[1].stat("gaps_told"), 0);
}

fn under_traffic_on_the_embedded_broker_nothing_is_lost_doubled_or_reordered(loops: usize) {
    traffic(&two(loops, &[]), 20, None);
}

fn under_traffic_on_redis_nothing_is_lost_doubled_or_reordered(loops: usize) {
    let Some(redis) = RealRedis::start() else { return };
    traffic(&two(loops, &[("redis-url", &redis.url())]), 20, Some(&redis));
}

/// Another program publishes all the time: the connection itself moves, whatever it is in the middle of.
fn what_others_publish_meanwhile_waits_in_the_connection(loops: usize) {
    let Some(redis) = RealRedis::start() else { return };
    let unix = format!("unix://{}", redis.unix_path().display());
    for url in [redis.url(), unix] {
        let settings = [("redis-url", &url[..]), ("read-batch", "4k"), ("write-queue-age", "1m")];
        let benches = two(loops, &[&settings[..], &[("write-queue-limit", "1g")]].concat());
        let mut browsers: Vec<_> = (0..2 * loops).map(|_| benches[0].open(HEAR)).collect();
        let (over, mut connection) = (AtomicBool::new(false), redis.connect());
        let published = thread::scope(|scope| {
            let publisher = scope.spawn(|| {
                let mut number = 0;
                while !over.load(SeqCst) {
                    let mut pipeline = redis::pipe();
                    for _ in 0..20 {
                        let text = format!("{number} {}", "x".repeat(number % 3_000));
                        pipeline.cmd("PUBLISH").arg("c").arg(text).ignore();
                        number += 1;
                    }
                    pipeline.query::<()>(&mut connection).unwrap();
                }
                pipeline_end(&mut connection);
                number
            });
            let readers: Vec<_> = browsers
                .iter_mut()
                .map(|browser| {
                    scope.spawn(move || {
                        let mut expected = 0;
                        loop {
                            let text = browser.text();
                            if text == "end" {
                                return expected;
                            }
                            assert!(text.starts_with(&format!("{expected} ")), "{expected}");
                            expected += 1;
                        }
                    })
                })
                .collect();
            for turn in 0..20 {
                let to = &benches[1 - turn % 2];
                hand_over(&benches[turn % 2], to);
                let before = to.stat("messages");
                wait_until("more comes", || to.stat("messages") > before + 50);
            }
            over.store(true, SeqCst);
            let published = publisher.join().unwrap();
            for reader in readers {
                assert_eq!(reader.join().unwrap(), published);
            }
            published
        });
        assert!(published > 1_000);
        leave_nothing(&benches, browsers);
        wait_until("nothing is subscribed", || redis.channels().is_empty());
    }
}

fn pipeline_end(connection: &mut redis::Connection) {
    redis::cmd("PUBLISH").arg("c").arg("end").exec(connection).unwrap();
}

/// A message of Redis that is cut anywhere goes on in the other engine; nobody subscribes a second time.
fn a_message_of_redis_that_has_come_half_is_whole_afterwards(loops: usize) {
    let redis = FakeRedis::start();
    let benches = two(loops, &[("redis-url", &redis.url())]);
    let mut browsers: Vec<_> = (0..loops).map(|_| benches[0].open(HEAR)).collect();
    let message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$5\r\nhello\r\n";
    for cut in 0..=message.len() {
        // In one write with a whole one, which shows that the half was read too.
        redis.write_to_subscribers(&[message, &message[..cut]].concat());
        for browser in &mut browsers {
            assert_eq!(browser.text(), "hello");
        }
        hand_over(&benches[cut % 2], &benches[1 - cut % 2]);
        redis.write_to_subscribers(&message[cut..]);
        for browser in &mut browsers {
            assert_eq!(browser.text(), "hello", "cut at {cut}");
        }
    }
    assert_eq!(redis.count("SUBSCRIBE c"), loops);
    assert_eq!(benches[0].stat("gaps_told") + benches[1].stat("gaps_told"), 0);
}

/// Fragments, a ping between them and every length, cut at every offset.
fn frames_that_have_come_half_are_whole_afterwards(loops: usize) {
    let benches = two(loops, &[]);
    let grant = r#"{"subscribe":["c"],"publish":["c"],"echo":true}"#;
    let mut browser = benches[0].open(grant);
    let bytes = [
        frame(0x01, "Grü".as_bytes()),
        frame(PING, b"now"),
        frame(0x00, "ß €".as_bytes()),
        frame(0x80, &[b'x'; 130]),
        frame(BINARY, &[0, 255]),
    ]
    .concat();
    let ping = frame(0x01, "Grü".as_bytes()).len() + frame(PING, b"now").len();
    let expected = format!("Grüß €{}", "x".repeat(130));
    for cut in 0..=bytes.len() {
        let [from, to] = [&benches[cut % 2], &benches[1 - cut % 2]];
        browser.write(&bytes[..cut]);
        let (mut got, mut pongs) = (Vec::new(), 0);
        let mut read = |browser: &mut Browser| match browser.read().unwrap() {
            tungstenite::Message::Pong(payload) => {
                assert_eq!(&payload[..], b"now");
                pongs += 1;
            }
            message => got.push(message.into_data().to_vec()),
        };
        if cut >= ping {
            // Its answer shows that what came before was read here, not only found afterwards.
            read(&mut browser);
        }
        hand_over(from, to);
        browser.write(&bytes[cut..]);
        for _ in 0..if cut >= ping { 2 } else { 3 } {
            read(&mut browser);
        }
        assert_eq!(pongs, 1);
        assert_eq!(got, [expected.clone().into_bytes(), vec![0, 255]], "cut at {cut}");
    }
    leave_nothing(&benches, vec![browser]);
}

/// Reads what a stream gives until `done`, and returns it.
fn read_until(stream: &mut util::browser::Stream, done: impl Fn(&[u8]) -> bool) -> Vec<u8> {
    let (mut bytes, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    while !done(&bytes) {
        match stream.read(&mut buffer).unwrap() {
            0 => break,
            n => bytes.extend_from_slice(&buffer[..n]),
        }
    }
    bytes
}

/// A browser that does not read, with a frame half written, goes on at the very byte.
fn frames_that_are_half_written_are_whole_afterwards(loops: usize) {
    let benches = two(loops, &[("write-queue-limit", "1g"), ("write-queue-age", "1m")]);
    let mut browser = benches[0].open_unix(HEAR);
    let messages: Vec<Vec<u8>> =
        (0..300u32).map(|i| [&i.to_be_bytes()[..], &vec![b'x'; 5_000]].concat()).collect();
    for message in &messages {
        benches[0].publish("c", message);
    }
    benches[0].wait_for("messages", (messages.len() * loops.min(1)) as u64);
    for turn in 0..4 {
        hand_over(&benches[turn % 2], &benches[1 - turn % 2]);
    }
    for message in &messages {
        assert!(browser.message().into_data() == message[..]);
    }
    leave_nothing(&benches, vec![browser]);
}

/// Of the pings that came meanwhile the last is answered, behind what waits.
fn a_pong_that_waits_comes_behind_the_rest(loops: usize) {
    let benches = two(loops, &[("write-queue-limit", "1g"), ("write-queue-age", "1m")]);
    let mut browser = benches[0].open_unix(r#"{"subscribe":["c"],"publish":["d"]}"#);
    let large = "z".repeat(1_000_000);
    benches[0].publish("c", &large);
    benches[0].wait_for("messages", 1);
    browser.write(&[frame(PING, b"first"), frame(PING, b"last"), frame(TEXT, b"said")].concat());
    benches[0].wait_for("received", 1);
    hand_over(&benches[0], &benches[1]);
    assert!(browser.text() == large);
    match browser.read().unwrap() {
        tungstenite::Message::Pong(payload) => assert_eq!(&payload[..], b"last"),
        other => panic!("no pong but {other:?}"),
    }
    leave_nothing(&benches, vec![browser]);
}

/// It is closed for being slow after the move: the frame that was half written is finished, and only that.
fn a_slow_close_after_a_move_finishes_the_half_written_frame(loops: usize) {
    let benches = two(loops, &[("write-queue-limit", "64k")]);
    let browser = benches[0].open_unix(HEAR);
    benches[0].publish("c", "y".repeat(600_000));
    // It is blocked now, its queue over the limit.
    hand_over(&benches[0], &benches[1]);
    benches[1].publish("c", "one too many");
    let mut stream = browser.into_stream();
    wait_until("it is judged", || benches[1].has_logged("closed: slow"));
    let bytes = read_until(&mut stream, |_| false);
    let mut rest = &bytes[..];
    while rest[0] == 0x81 {
        let len = u64::from_be_bytes(rest[2..10].try_into().unwrap()) as usize;
        assert_eq!(len, 600_000);
        rest = &rest[10 + len..];
    }
    assert_eq!(
        &rest[2..4],
        &4008u16.to_be_bytes(),
        "a whole close frame comes behind whole frames"
    );
    leave_nothing(&benches, Vec::new());
}

/// What waits for its channels waits on, in the other engine.
fn a_held_socket_is_answered_by_the_other_engine(loops: usize) {
    let redis = FakeRedis::start();
    let settings = [("redis-url", &redis.url()[..]), ("join-timeout", "15s")];
    let benches = two(loops, &settings);
    redis.hold("SUBSCRIBE");
    let leftover = frame(TEXT, b"first words");
    let grant = r#"{"subscribe":["c"],"publish":["d"]}"#;
    let offer = Offer { grant, leftover: &leftover, ..Offer::default() };
    let mut browser = benches[0].offer(offer);
    redis.wait_for("SUBSCRIBE c", 1);
    let state = benches[0].local().export(Duration::ZERO).unwrap();
    benches[1].local().import(state, true).unwrap();
    redis.wait_for("SUBSCRIBE c", 2);
    assert!(browser.is_silent(), "it is held still");
    assert_eq!(redis.count("PUBLISH d"), 0);
    redis.release("SUBSCRIBE");
    browser.opened();
    redis.wait_for("PUBLISH d first words", 1);
    redis.publish("c", "hello");
    assert_eq!(browser.text(), "hello", "it has no gap: it was told of nothing before");
    leave_nothing(&benches, vec![browser]);
}

fn deadlines_go_on(loops: usize) {
    let settings =
        [("ping-interval", "1s"), ("pong-timeout", "400ms"), ("heartbeat-interval", "500ms")];
    let benches = two(loops, &settings);
    let begin = Instant::now();
    let mut expiring = benches[0].open(r#"{"expires_in":2}"#);
    let mut beating = benches[0].open(r#"{"heartbeat":"tick"}"#);
    let mut pinged = benches[0].open("{}");
    let mut deaf = benches[0].open("{}");
    let (over, mut moves) = (AtomicBool::new(false), 0);
    thread::scope(|scope| {
        let over = &over;
        let closing = [
            scope.spawn(move || {
                assert_eq!(expiring.closed().0, 4401);
                begin.elapsed()
            }),
            scope.spawn(move || {
                assert_eq!(beating.text(), "tick");
                begin.elapsed()
            }),
            scope.spawn(move || {
                assert!(matches!(pinged.read(), Ok(tungstenite::Message::Ping(_))));
                begin.elapsed()
            }),
            scope.spawn(move || {
                let mut bytes = Vec::new();
                deaf.stream().read_to_end(&mut bytes).unwrap();
                assert_eq!(bytes[..4], [0x89, 0, 0x88, 2 + 7], "a ping and a close");
                assert_eq!(bytes[4..6], 4012u16.to_be_bytes());
                begin.elapsed()
            }),
        ];
        let watch = scope.spawn(move || {
            let times = closing.map(|one| one.join().unwrap().as_millis());
            over.store(true, SeqCst);
            times
        });
        while !over.load(SeqCst) {
            hand_over(&benches[moves % 2], &benches[1 - moves % 2]);
            moves += 1;
            thread::sleep(Duration::from_millis(10)); // Time passes: it is what is tested.
        }
        let [expired, beat, ping, dead] = watch.join().unwrap();
        assert!((1_950..3_500).contains(&expired), "{expired}");
        assert!((450..2_000).contains(&beat), "{beat}");
        assert!((850..2_500).contains(&ping), "{ping}");
        assert!((1_250..3_500).contains(&dead), "{dead}");
    });
    assert!(moves > 10);
}

/// Another Redis, or another number of loops: everyone with a channel is told once it is heard again.
fn a_gap_is_told_where_the_connection_can_not_move(loops: usize) {
    let redis = FakeRedis::start();
    let a = Bench::new(loops, &[("redis-url", &redis.url())]);
    let b = Bench::new(4 - loops, &[("redis-url", &redis.url()), ("gap-spread", "50ms")]);
    // Another one of b's own hears the channel already, and has missed nothing.
    let (mut own, _) = b.open_envelope(HEAR);
    let (mut envelope, id) = a.open_envelope(r#"{"subscribe":["c","d"]}"#);
    let mut raws =
        [HEAR, r#"{"subscribe":["d"]}"#, r#"{"subscribe":["d","c","e"]}"#].map(|g| a.open(g));
    let (other, _) = a.open_envelope("{}");
    let state = a.local().export(SETTLE).unwrap();
    assert_eq!(state.loops.len(), loops);
    b.local().import(state, false).unwrap();
    let mut gaps = [envelope.json(), envelope.json()].map(|gap| gap["channel"].to_string());
    gaps.sort();
    assert_eq!(gaps, [r#""c""#, r#""d""#]);
    for raw in &mut raws {
        assert_eq!(raw.closed(), (1012, "continuity lost".to_owned()));
    }
    b.wait_for("gaps_told", 5);
    redis.publish("c", "later");
    assert_eq!(envelope.json()["data"], "later");
    assert_eq!(own.json()["data"], "later");
    b.engine.send(&id, b"you").unwrap();
    assert_eq!(envelope.text(), "you");
    b.wait_for("sockets", 3);
    drop(other);
    b.wait_for("sockets", 2);
}

/// Who was told of its gap and waits to be closed is closed by the other engine.
fn a_raw_socket_that_is_to_be_closed_for_its_gap_is(loops: usize) {
    let redis = FakeRedis::start();
    let benches = two(loops, &[("redis-url", &redis.url()), ("gap-spread", "1s")]);
    let mut browsers: Vec<_> = (0..10).map(|_| benches[0].open(HEAR)).collect();
    redis.drop_links();
    benches[0].wait_for("gaps_told", 10);
    hand_over(&benches[0], &benches[1]);
    for browser in &mut browsers {
        assert_eq!(browser.closed(), (1012, "continuity lost".to_owned()));
    }
    leave_nothing(&benches, browsers);
}

/// Redis does not answer: whoever has spoken is told before it goes, and never heard twice.
fn who_waits_for_redis_when_the_time_is_up_is_told(loops: usize) {
    let redis = FakeRedis::start();
    let benches = two(loops, &[("redis-url", &redis.url())]);
    let (mut envelope, _) = benches[0].open_envelope(r#"{"subscribe":["c"],"publish":["d"]}"#);
    let mut raw = benches[0].open(r#"{"publish":["d"]}"#);
    redis.hold("PUBLISH");
    envelope.send(r#"{"channel":"d","data":"one"}"#);
    raw.send("two");
    redis.wait_for("PUBLISH d", 1);
    benches[0].wait_for("received", 2);
    let begin = Instant::now();
    let state = benches[0].local().export(Duration::from_millis(100)).unwrap();
    assert!(begin.elapsed() >= Duration::from_millis(95));
    benches[1].local().import(state, true).unwrap();
    assert_eq!(envelope.json(), serde_json::json!({"type": "dropped", "channel": "d"}));
    assert_eq!(raw.closed().0, 1012);
    assert_eq!(benches[0].stat("publish_failed"), 2);
    envelope.send(r#"{"channel":"d","data":"three"}"#);
    redis.release("PUBLISH");
    redis.wait_for("PUBLISH d three", 1);
    assert!(redis.count("PUBLISH d one") <= 1 && redis.count("PUBLISH d two") <= 1);
    leave_nothing(&benches, vec![envelope]);
}

/// While Redis is away the host and browsers publish, some to be heard by themselves; then all go.
fn what_waits_for_redis_goes_along_and_comes_once(loops: usize) {
    let mut redis = FakeRedis::absent();
    let benches = two(loops, &[("redis-url", &redis.url()), ("channel-prefix", "p:")]);
    let mut raws: Vec<_> =
        (0..2 * loops).map(|_| benches[0].open(r#"{"publish":["b"]}"#)).collect();
    let (mut envelope, _) = benches[0].open_envelope(r#"{"publish":["e"]}"#);
    let mut gone = benches[0].open(r#"{"publish":["g"]}"#);
    for number in 0..20 {
        benches[0].publish("h", number.to_string());
        raws[number % (2 * loops)].send(&number.to_string());
        benches[0].wait_for("received", 2 * number as u64 + 1);
        envelope.send(&format!(r#"{{"channel":"e","data":{number}}}"#));
        benches[0].wait_for("received", 2 * number as u64 + 2);
    }
    gone.send("last words");
    benches[0].wait_for("published", 61);
    drop(gone);
    benches[0].wait_for("sockets", 2 * loops as u64 + 1);
    // Three times: it waits on in the successor.
    for turn in 0..3 {
        let [from, to] = [&benches[turn % 2], &benches[1 - turn % 2]];
        hand_over_within(Duration::from_millis(50), from, to, true);
    }
    benches[1].publish("h", "20");
    redis.listen();
    redis.wait_for("PUBLISH p:h 20", 1);
    redis.wait_for("PUBLISH", 62);
    let in_order = |count: usize| (0..count).map(|i| i.to_string()).collect::<Vec<_>>();
    assert_eq!(redis.said("PUBLISH p:h"), in_order(21));
    assert_eq!(redis.said("PUBLISH p:e"), in_order(20));
    assert_eq!(redis.said("PUBLISH p:g"), ["last words"]);
    let of_browsers = redis.said("PUBLISH p:b");
    assert_eq!(of_browsers.len(), 20);
    for one in 0..2 * loops {
        let its_own = |text: &&String| text.parse::<usize>().unwrap() % (2 * loops) == one;
        assert!(
            of_browsers
                .iter()
                .filter(its_own)
                .is_sorted_by_key(|text| { text.parse::<usize>().unwrap() })
        );
    }
    for browser in raws.iter_mut().chain([&mut envelope]) {
        assert!(browser.is_silent(), "nobody is told of a failure");
    }
    assert_eq!((benches[0].stat("publish_failed"), benches[1].stat("publish_failed")), (0, 0));
    assert_eq!((benches[0].stat("published"), benches[1].stat("published")), (61, 1));
    raws.push(envelope);
    leave_nothing(&benches, raws);
}

/// What Redis was told of and has not answered is in doubt: only that is given up.
fn what_waits_behind_something_unanswered_goes_along(loops: usize) {
    let redis = FakeRedis::start();
    let settings = [("redis-url", &redis.url()[..]), ("publish-queue-limit", "64m")];
    let benches = two(loops, &settings);
    let socket = benches[0].open(r#"{"subscribe":["c"]}"#);
    redis.hold("PUBLISH");
    // More than a connection that nobody reads can take.
    let large = "x".repeat(500_000);
    for number in 0..60 {
        benches[0].publish("d", format!("{number} {large}"));
    }
    redis.wait_for("PUBLISH d", 1);
    benches[0].wait_for("published", 60);
    hand_over_within(Duration::from_millis(100), &benches[0], &benches[1], true);
    let failed = benches[0].stat("publish_failed") as usize;
    assert!((1..60).contains(&failed), "{failed} are in doubt");
    redis.release("PUBLISH");
    redis.wait_for("PUBLISH d 59", 1);
    let said = redis.said("PUBLISH d");
    let numbers = said.iter().map(|text| text.split(' ').next().unwrap().parse::<usize>().unwrap());
    let (doubtful, sure): (Vec<_>, Vec<_>) = numbers.partition(|number| *number < failed);
    assert!(sure.iter().copied().eq(failed..60), "{sure:?}");
    assert!(doubtful.iter().copied().eq(0..doubtful.len()), "none twice: {doubtful:?}");
    assert_eq!(benches[1].stat("publish_failed"), 0);
    leave_nothing(&benches, vec![socket]);
}

/// A message that went along and fails in the end, or finds no room, is told to whoever sent it.
fn who_sent_what_went_along_is_told_of_its_failure(loops: usize) {
    let large = "x".repeat(70_000);
    for limit in ["1m", "64k"] {
        let mut redis = FakeRedis::absent();
        let bench = |size, limit| {
            let limits = [("max-message-size", size), ("publish-queue-limit", limit)];
            Bench::new(loops, &[&[("redis-url", &redis.url()[..])], &limits[..]].concat())
        };
        let (a, b) = (bench("128k", "1m"), bench("64k", limit));
        let (mut envelope, _) = a.open_envelope(r#"{"publish":["d"]}"#);
        let mut raw = a.open(r#"{"publish":["d"]}"#);
        envelope.send(&format!(r#"{{"channel":"d","data":"{large}"}}"#));
        raw.send(&large);
        a.wait_for("published", 2);
        redis.refuse("PUBLISH d", "NOPERM no");
        hand_over_within(Duration::from_millis(50), &a, &b, true);
        assert_eq!(a.stat("publish_failed"), 0);
        redis.listen();
        assert_eq!(envelope.json(), serde_json::json!({"type": "dropped", "channel": "d"}));
        assert_eq!(raw.closed().0, 1012);
        assert_eq!(b.stat("publish_failed"), 2);
        leave_nothing(&[a, b], vec![envelope]);
    }
}

/// What a socket said before the move it does not hear after it, unless it wants to.
fn who_does_not_hear_itself_does_not_after_a_move(loops: usize) {
    let redis = FakeRedis::start();
    let benches = two(loops, &[("redis-url", &redis.url())]);
    let mut quiet = benches[0].open(r#"{"subscribe":["c"],"publish":["c"],"echo":false}"#);
    let mut loud = benches[0].open(r#"{"subscribe":["c"],"publish":["c"],"echo":true}"#);
    let hearing = loops.min(2);
    redis.hang_up(true);
    redis.take_accepted();
    redis.drop_subscribers(false);
    // Those who hear stay, the others try again.
    benches[0].wait_for("redis_connections", hearing as u64);
    quiet.send("of the quiet");
    loud.send("of the loud");
    benches[0].wait_for("published", 2);
    hand_over_within(Duration::from_millis(50), &benches[0], &benches[1], true);
    redis.hang_up(false);
    let mut heard = [loud.text(), loud.text()];
    heard.sort();
    assert_eq!(heard, ["of the loud", "of the quiet"]);
    redis.publish("c", "of another");
    assert_eq!([quiet.text(), quiet.text()], ["of the loud", "of another"]);
    assert_eq!(benches[1].stat("gaps_told"), 0);
    leave_nothing(&benches, vec![quiet, loud]);
}

/// Redis is given up for the embedded broker: what waited reaches all that came along.
fn what_waits_is_published_by_an_embedded_broker(loops: usize) {
    let redis = FakeRedis::absent();
    let a = Bench::new(loops, &[("redis-url", &redis.url()), ("join-timeout", "100ms")]);
    let b = Bench::new(loops, &[("on-gap", "ignore")]);
    let mut browsers: Vec<_> = (0..2 * loops).map(|_| a.open(HEAR)).collect();
    for number in 0..20 {
        a.publish("c", number.to_string());
    }
    hand_over_within(Duration::from_millis(50), &a, &b, false);
    b.publish("c", "20");
    for browser in &mut browsers {
        for number in 0..=20 {
            assert_eq!(browser.text(), number.to_string());
        }
    }
    leave_nothing(&[a, b], browsers);
}

/// A close handshake that has begun in one engine ends in the other.
fn a_socket_that_is_closing_closes(loops: usize) {
    let benches = two(loops, &[]);
    let (mut browser, id) = benches[0].open_envelope(HEAR);
    benches[0].engine.kick(&Who::Socket(id)).unwrap();
    benches[0].wait_for("channels", 1);
    wait_until("it is closing", || benches[0].has_logged("closed: kicked"));
    let answer = frame(util::browser::CLOSE, &4403u16.to_be_bytes());
    browser.write(&answer[..3]);
    hand_over(&benches[0], &benches[1]);
    browser.write(&answer[3..]);
    assert_eq!(browser.closed().0, 4403);
    benches[1].wait_for("closed/kicked", 1);
    assert_eq!(benches[0].stat("closed/kicked"), 0);
    leave_nothing(&benches, Vec::new());
}

/// A channel that lingers goes with the rest, and is let go by the successor.
fn a_lingering_channel_is_let_go_by_the_successor(loops: usize) {
    let redis = FakeRedis::start();
    let benches = two(loops, &[("redis-url", &redis.url()), ("channel-linger", "200ms")]);
    let stays = benches[0].open(r#"{"subscribe":["stays"]}"#);
    drop(benches[0].open(HEAR));
    benches[0].wait_for("sockets", 1);
    hand_over(&benches[0], &benches[1]);
    redis.wait_for("UNSUBSCRIBE c", 1);
    assert_eq!(redis.count("SUBSCRIBE c"), 1);
    benches[1].wait_for("channels", 1);
    assert_eq!(redis.subscribers("stays"), 1);
    leave_nothing(&benches, vec![stays]);
}

fn seats_go_along(loops: usize) {
    let benches = two(loops, &[("max-sockets-per-user", "1"), ("max-sockets", "2")]);
    let ann = benches[0].open(r#"{"user":"ann"}"#);
    let bob = benches[0].open(r#"{"user":"bob"}"#);
    hand_over(&benches[0], &benches[1]);
    let refused = |bench: &Bench, grant| {
        let mut browser = bench.offer(Offer { grant, ..Offer::default() });
        browser.read_to_end().starts_with(b"HTTP/1.1 503 ")
    };
    assert!(refused(&benches[1], r#"{"user":"ann"}"#));
    drop(benches[0].open(r#"{"user":"ann"}"#));
    benches[0].wait_until_empty();
    drop(ann);
    benches[1].wait_for("sockets", 1);
    let ann = benches[1].open(r#"{"user":"ann"}"#);
    hand_over(&benches[1], &benches[0]);
    leave_nothing(&benches, vec![ann, bob]);
}

fn all_are_sent_away_over_a_time_and_nobody_comes(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browsers: Vec<_> = (0..20).map(|_| bench.open(HEAR)).collect();
    let begin = Instant::now();
    bench.local().disperse(Cause::Restart, Duration::from_millis(500)).unwrap();
    let mut late = bench.offer(Offer { grant: HEAR, ..Offer::default() });
    assert!(late.read_to_end().starts_with(b"HTTP/1.1 503 "));
    for browser in &mut browsers {
        assert_eq!(browser.closed().0, 1012);
    }
    assert!(begin.elapsed() > Duration::from_millis(200), "they go one after the other");
    bench.wait_for("closed/restart", 20);
    bench.wait_until_empty();
}

/// A loop that stands still gives nothing away; the others get back what they gave.
fn where_a_loop_does_not_answer_everything_stays(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browsers: Vec<_> = (0..2 * loops).map(|_| bench.open(HEAR)).collect();
    bench.while_stuck(|| {
        let error = bench.local().export(Duration::ZERO).unwrap_err();
        assert_eq!(error.kind, Kind::Busy);
    });
    bench.publish("c", "on");
    for browser in &mut browsers {
        assert_eq!(browser.text(), "on");
    }
    assert_eq!(bench.local().sockets(), 2 * loops as u64);
}

fn an_engine_may_end_as_going_away(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browser = bench.open(HEAR);
    thread::scope(|scope| {
        let stopping = scope.spawn(|| bench.local().stop_with(Cause::GoingAway, 5_000));
        assert_eq!(browser.closed().0, 1001);
        assert!(stopping.join().unwrap());
    });
    assert_eq!(bench.stat("closed/going_away"), 1);
    assert_eq!(bench.local().export(SETTLE).unwrap_err().kind, Kind::Stopped);
}

fn an_engine_that_never_began_has_nothing_to_give(loops: usize) {
    let benches = two(loops, &[]);
    hand_over(&benches[0], &benches[1]);
    assert_eq!(benches[1].local().sockets(), 0);
    let browser = benches[1].open(HEAR);
    leave_nothing(&benches, vec![browser]);
}

fn a_thousand_idle_sockets_go_in_no_time(loops: usize) {
    let benches = two(loops, &[]);
    let browsers: Vec<_> = (0..1_000).map(|_| benches[0].open(HEAR)).collect();
    let begin = Instant::now();
    hand_over(&benches[0], &benches[1]);
    let took = begin.elapsed();
    println!("1,000 sockets moved in {took:?} with {loops} loop(s)");
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert_eq!(benches[1].local().sockets(), 1_000);
    leave_nothing(&benches, browsers);
}

with_one_and_three_loops!(
    sockets_go_and_come_back_and_nobody_notices,
    under_traffic_on_the_embedded_broker_nothing_is_lost_doubled_or_reordered,
    under_traffic_on_redis_nothing_is_lost_doubled_or_reordered,
    what_others_publish_meanwhile_waits_in_the_connection,
    a_message_of_redis_that_has_come_half_is_whole_afterwards,
    frames_that_have_come_half_are_whole_afterwards,
    frames_that_are_half_written_are_whole_afterwards,
    a_pong_that_waits_comes_behind_the_rest,
    a_slow_close_after_a_move_finishes_the_half_written_frame,
    a_held_socket_is_answered_by_the_other_engine,
    deadlines_go_on,
    a_gap_is_told_where_the_connection_can_not_move,
    a_raw_socket_that_is_to_be_closed_for_its_gap_is,
    who_waits_for_redis_when_the_time_is_up_is_told,
    what_waits_for_redis_goes_along_and_comes_once,
    what_waits_behind_something_unanswered_goes_along,
    who_sent_what_went_along_is_told_of_its_failure,
    who_does_not_hear_itself_does_not_after_a_move,
    what_waits_is_published_by_an_embedded_broker,
    a_socket_that_is_closing_closes,
    a_lingering_channel_is_let_go_by_the_successor,
    seats_go_along,
    all_are_sent_away_over_a_time_and_nobody_comes,
    where_a_loop_does_not_answer_everything_stays,
    an_engine_may_end_as_going_away,
    an_engine_that_never_began_has_nothing_to_give,
    a_thousand_idle_sockets_go_in_no_time,
);
