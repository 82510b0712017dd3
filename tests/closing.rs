//! How a socket ends: with the right code, behind what was said before, and leaving nothing.

mod util;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use tungstenite::Message;
use util::browser::{CLOSE, TEXT, frame};
use util::engine::ANSWER;
use util::wire::{Frame, frames};
use util::{Bench, Browser, FakeRedis, Offer, wait_until};
use wsredis::engine::{Event, Who};

/// A time in which nothing here waits for a time-out: those are 5 s by default.
const AT_ONCE: Duration = Duration::from_secs(3);

fn a_browser_that_closes_gets_its_own_code_back_and_the_end(loops: usize) {
    let bench = Bench::new(loops, &[]);
    for code in [1000, 1001, 3000, 4999] {
        let mut browser = bench.open("{}");
        browser.close(code);
        assert_eq!(browser.closed(), (code, String::new()));
    }
    let mut browser = bench.open("{}");
    browser.write(&frame(CLOSE, b""));
    assert_eq!(browser.closed().0, 1005, "no code for no code");
    let mut browser = bench.open("{}");
    browser.write(&frame(CLOSE, &1005u16.to_be_bytes()));
    assert_eq!(browser.closed().0, 1002, "1005 is never sent");
    bench.wait_until_empty();
    assert_eq!((bench.stat("closed/normal"), bench.stat("closed/protocol")), (5, 1));
}

/// When both have said close, the server ends the connection (RFC 6455 §7.1.1): the browser waits for that.
fn the_connection_ends_when_the_browser_has_answered_our_close(loops: usize) {
    let bench = Bench::new(loops, &[("close-timeout", "1m")]);
    let mut browser = bench.open(r#"{"user":"ann"}"#);
    bench.engine.kick(&Who::User("ann".into())).unwrap();
    assert_eq!(browser.closed(), (4403, "kicked".into()));
    bench.wait_until_empty();
}

fn nothing_that_comes_behind_a_close_frame_counts(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let mut browser = bench.open(r#"{"publish":["a"]}"#);
    let close = frame(CLOSE, &1000u16.to_be_bytes());
    browser.write(&[frame(TEXT, b"before"), close, frame(TEXT, b"behind")].concat());
    assert_eq!(browser.closed().0, 1000);
    bench.publish("a", "later");
    assert_eq!((listener.text(), listener.text()), ("before".into(), "later".into()));
}

/// It says close and then that it sends nothing more, perhaps in one segment: it may still read.
fn a_browser_that_closes_and_stops_sending_gets_its_answer(loops: usize) {
    let bench = Bench::new(loops, &[]);
    for _ in 0..50 {
        let leftover = frame(CLOSE, &4000u16.to_be_bytes());
        let mut browser = bench.offer(Offer { leftover: &leftover, ..Offer::default() });
        browser.stream().shutdown_write();
        let answer = Frame::close(4000, "");
        assert_eq!(frames(&browser.read_to_end()[ANSWER.len()..]).0, [answer.clone()]);
        let mut browser = bench.open("{}");
        browser.write(&leftover);
        browser.stream().shutdown_write();
        assert_eq!(frames(&browser.read_to_end()).0, [answer]);
    }
    bench.wait_until_empty();
    assert_eq!((bench.stat("closed/normal"), bench.stat("closed/lost")), (100, 0));
}

/// Whatever else came with it: nobody waits for a second close frame.
fn a_close_frame_behind_what_is_refused_ends_it_at_once(loops: usize) {
    let (bench, begin) = (Bench::new(loops, &[("close-timeout", "1m")]), Instant::now());
    let refused = frame(TEXT, br#"{"channel":"b","data":1}"#);
    let message = frame(TEXT, br#"{"channel":"a","data":1}"#);
    let close = frame(CLOSE, &1000u16.to_be_bytes());
    let wrong = frame(0x83, b"");
    for behind in [close.clone(), [message.clone(), close].concat(), [message, wrong].concat()] {
        let leftover = [refused.clone(), behind].concat();
        let grant = r#"{"publish":["a"]}"#;
        let offer = Offer { grant, envelope: true, leftover: &leftover, ..Offer::default() };
        let mut browser = bench.offer(offer);
        browser.opened();
        assert_eq!(browser.json()["type"], "hello");
        let (bytes, _) = util::wire::read_to_end(browser.stream());
        assert!(bytes.is_empty() || bytes.starts_with(&[0x88]), "{bytes:x?}");
        drop(browser);
        bench.wait_until_empty();
        assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    }
    assert_eq!((bench.stat("closed/not_granted"), bench.stat("received")), (3, 0));
}

fn a_kick_closes_those_who_are_meant_and_no_others(loops: usize) {
    let bench = Bench::new(loops, &[]);
    bench.engine.events_fd().unwrap();
    let grants = [
        r#"{"user":"ann","session":"s1","subscribe":["a"]}"#,
        r#"{"user":"ann","session":"s2","subscribe":["b"]}"#,
        r#"{"user":"bob","session":"s3","subscribe":["c"]}"#,
        r#"{"user":"eve","session":"s4","subscribe":["d"]}"#,
    ];
    let open = || grants.map(|grant| bench.open_envelope(grant));
    for _ in 0..loops {
        let browsers = open();
        let id = browsers[3].1.clone();
        let whos = [
            (Who::User("ann".into()), vec![0, 1]),
            (Who::Channel("c".into()), vec![2]),
            (Who::Session("s4".into()), vec![3]),
        ];
        let mut browsers = browsers.map(|(browser, _)| Some(browser));
        for (who, meant) in whos {
            bench.engine.kick(&who).unwrap();
            for index in meant {
                assert_eq!(browsers[index].take().unwrap().closed(), (4403, "kicked".into()));
            }
        }
        wait_until("its end is told", || {
            bench.engine.next_event().unwrap() == Some(Event::Closed(id.clone(), 4403))
        });
        let [(mut first, id), (mut other, _), ..] = open();
        bench.engine.kick(&Who::Socket(id.clone())).unwrap();
        assert_eq!(first.closed().0, 4403);
        bench.publish("b", "1");
        assert_eq!(other.json()["data"], 1);
    }
}

fn a_grant_ends_when_it_expires(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let begin = Instant::now();
    let mut browser = bench.open(r#"{"expires_in":0.2,"subscribe":["a"]}"#);
    bench.publish("a", "until then");
    assert_eq!(browser.text(), "until then");
    assert_eq!(browser.closed(), (4401, "grant expired".into()));
    assert!(begin.elapsed() >= Duration::from_millis(200), "{:?}", begin.elapsed());
}

fn a_silent_browser_is_pinged_and_stays_while_it_answers(loops: usize) {
    let bench = Bench::new(loops, &[("ping-interval", "100ms"), ("pong-timeout", "5s")]);
    let mut browser = bench.open("{}");
    let begin = Instant::now();
    for _ in 0..4 {
        assert!(matches!(browser.read().unwrap(), Message::Ping(_)));
    }
    // Four intervals, and not one time-out: an answered ping is over.
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    assert_eq!(bench.stat("sockets"), 1);
}

fn a_browser_that_does_not_answer_a_ping_is_closed(loops: usize) {
    let bench = Bench::new(loops, &[("ping-interval", "100ms"), ("pong-timeout", "100ms")]);
    let begin = Instant::now();
    let mut browser = bench.open("{}");
    wait_until("the loop has given it up", || bench.has_logged("no_pong"));
    // The interval is spread by a tenth.
    assert!(begin.elapsed() >= Duration::from_millis(190), "{:?}", begin.elapsed());
    assert_eq!(browser.closed(), (4012, "no pong".into()));
    bench.wait_until_empty();
    assert_eq!(bench.stat("closed/no_pong"), 1);
}

fn stopping_closes_everyone_with_1012_and_is_quick(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let browsers: Vec<Browser> = (0..50).map(|_| bench.open(r#"{"subscribe":["a"]}"#)).collect();
    let begin = Instant::now();
    let readers = std::thread::spawn(|| {
        browsers.into_iter().for_each(|mut b| assert_eq!(b.closed(), (1012, "restarting".into())));
    });
    assert!(bench.engine.stop(20_000), "it has ended");
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    readers.join().unwrap();
    assert_eq!((bench.stat("sockets"), bench.stat("closed/restart")), (0, 50));
    assert!(bench.engine.publish("a", b"x").is_err());
}

fn stopping_waits_for_nobody_longer_than_it_may(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut browsers: Vec<Browser> = (0..5).map(|_| bench.open("{}")).collect();
    let begin = Instant::now();
    bench.engine.stop(200);
    wait_until("it has ended", || bench.engine.stop(0));
    assert!(begin.elapsed() < AT_ONCE, "{:?}", begin.elapsed());
    // They were told all the same.
    for browser in &mut browsers {
        assert!(
            matches!(browser.message(), Message::Close(Some(frame)) if frame.code == 1012.into())
        );
    }
    assert_eq!((bench.stat("sockets"), bench.stat("socket_bytes")), (0, 0));
}

/// What a loop was given before it was told to stop is published: the host had its OK.
fn stopping_publishes_what_was_taken(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    for number in 0..200 {
        bench.publish("a", number.to_string());
    }
    assert!(bench.engine.stop(20_000));
    assert_eq!(redis.count("PUBLISH a"), 200);
}

fn an_engine_that_is_dropped_ends_its_threads_and_sockets(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let browser = bench.open("{}");
    drop(bench);
    // The close frame may or may not have been read before the end; the end comes.
    browser.into_stream().read_to_end(&mut Vec::new()).unwrap_or_default();
}

/// The socket's buffer is full, and a frame is half written: it is finished, everything behind it follows, then comes
/// the close frame.
fn a_close_frame_stands_behind_everything_that_was_queued(loops: usize) {
    let bench = Bench::new(loops, &[("write-queue-limit", "1g"), ("write-queue-age", "10m")]);
    let offer = Offer { envelope: true, unix: true, ..Offer::default() };
    let mut browser = bench.offer(offer);
    browser.opened();
    let id = browser.json()["socket"].as_str().unwrap().to_owned();
    let text = |number: usize| format!("{number} {}", "x".repeat(50_000));
    for number in 0..40 {
        bench.engine.send(&id, text(number).as_bytes()).unwrap();
    }
    bench.engine.kick(&Who::Socket(id.clone())).unwrap();
    for number in 0..40 {
        assert_eq!(browser.text(), text(number));
    }
    assert_eq!(browser.closed().0, 4403);
}

/// A connection with unread bytes that is closed sends a reset.
fn a_reset_at_any_moment_leaves_nothing(loops: usize) {
    let redis = FakeRedis::start();
    let settings = [("redis-url", &*redis.url()), ("channel-linger", "0"), ("join-timeout", "1m")];
    let bench = Bench::new(loops, &settings);
    let grant = r#"{"subscribe":["a"],"publish":["a"],"echo":true,"user":"ann","sender":1}"#;
    for round in 0..60 {
        let offer = Offer { grant, envelope: true, ..Offer::default() };
        let mut browser = bench.offer(offer);
        match round % 6 {
            0 => {}
            1 => {
                browser.opened();
            }
            2 => browser.write(&frame(TEXT, b"{\"channel\":\"a\",\"data\":1}")),
            3 => browser.write(&frame(TEXT, b"half a frame")[..9]),
            4 => bench.engine.kick(&Who::User("ann".into())).unwrap(),
            _ => {
                browser.opened();
                bench.publish("a", "some bytes that nobody reads");
                browser.write(&frame(CLOSE, b""));
            }
        }
        drop(browser);
    }
    bench.wait_until_empty();
    bench.wait_for("channels", 0);
    bench.wait_for("adopted", 60);
    redis.wait_for_subscribers("a", 0);
}

fn a_browser_that_only_stops_sending_is_gone(loops: usize) {
    let bench = Bench::new(loops, &[("ping-interval", "0")]);
    let browser = bench.open("{}");
    let util::browser::Stream::Tcp(mut stream) = browser.into_stream() else { unreachable!() };
    stream.write_all(&frame(TEXT, b"last words")).unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    bench.wait_until_empty();
    assert_eq!((bench.stat("closed/lost"), bench.stat("received")), (1, 1));
    assert_eq!(stream.read(&mut [0; 10]).unwrap(), 0);
}

with_one_and_three_loops!(
    a_browser_that_closes_gets_its_own_code_back_and_the_end,
    the_connection_ends_when_the_browser_has_answered_our_close,
    nothing_that_comes_behind_a_close_frame_counts,
    a_browser_that_closes_and_stops_sending_gets_its_answer,
    a_close_frame_behind_what_is_refused_ends_it_at_once,
    a_kick_closes_those_who_are_meant_and_no_others,
    a_grant_ends_when_it_expires,
    a_silent_browser_is_pinged_and_stays_while_it_answers,
    a_browser_that_does_not_answer_a_ping_is_closed,
    stopping_closes_everyone_with_1012_and_is_quick,
    stopping_waits_for_nobody_longer_than_it_may,
    stopping_publishes_what_was_taken,
    an_engine_that_is_dropped_ends_its_threads_and_sockets,
    a_close_frame_stands_behind_everything_that_was_queued,
    a_reset_at_any_moment_leaves_nothing,
    a_browser_that_only_stops_sending_is_gone,
);
