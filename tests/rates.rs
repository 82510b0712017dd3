//! How much a browser may send: so many messages, and so many control frames and tiny fragments, a second, and a
//! burst. Who sends more is closed with 4029, and nothing more of it counts.

mod util;

use std::time::{Duration, Instant};

use util::browser::{BINARY, CLOSE, PING, TEXT, frame};
use util::transfer::{hand_over, two};
use util::{Bench, Browser, Offer, wait_until};

const PONG: u8 = 0x8a;
const TOO_MANY: (u16, &str) = (4029, "too many messages");

/// Writes all of it at once, which the engine reads at once, and then a close frame. Returns the code of the one that
/// comes back: 1000 if everything before it was taken. What else comes is skipped.
#[track_caller]
fn outcome(browser: &mut Browser, bytes: &[u8]) -> u16 {
    browser.write(&[bytes, &frame(CLOSE, &1000_u16.to_be_bytes())].concat());
    loop {
        match browser.read() {
            Ok(tungstenite::Message::Close(frame)) => return frame.unwrap().code.into(),
            Ok(_) => {}
            Err(error) => panic!("it was not closed: {error}"),
        }
    }
}

fn a_burst_of_messages_passes_and_the_next_one_is_too_much(loops: usize) {
    let bench = Bench::new(loops, &[("max-message-rate", "10")]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let heartbeat = r#"{"heartbeat":"--","publish":["a"]}"#;
    let mut closed = 0;
    for (grant, message) in [
        (r#"{"publish":["a"]}"#, frame(TEXT, b"x")),
        (r#"{"publish":["a"]}"#, frame(BINARY, &[1; 300])),
        (r#"{"publish":["a"]}"#, [frame(0x01, &[b'x'; 16]), frame(0x80, &[b'y'; 16])].concat()),
        // What goes nowhere counts as well, a heartbeat too.
        ("{}", frame(TEXT, b"")),
        (heartbeat, frame(TEXT, b"--")),
    ] {
        let is_heard = grant.contains("publish") && !message.ends_with(&frame(TEXT, b"--"));
        for (count, code) in [(19, 1000), (20, 1000), (21, 4029), (100, 4029)] {
            let mut browser = bench.open(grant);
            assert_eq!(outcome(&mut browser, &message.repeat(count)), code, "{count}: {grant}");
            closed += u64::from(code == 4029);
            if is_heard {
                (0..count.min(20)).for_each(|_| drop(listener.message()));
            }
            // Nothing that came after it was published.
            bench.publish("a", "and then");
            assert_eq!(listener.text(), "and then");
        }
    }
    bench.wait_for("closed/rate", closed);
}

fn control_frames_and_tiny_fragments_have_a_rate_of_their_own(loops: usize) {
    let bench = Bench::new(loops, &[("max-control-rate", "4")]);
    let first = frame(0x02, b"");
    for (before, one, after) in [
        (vec![], frame(PING, b""), vec![]),
        (vec![], frame(PONG, &[7; 125]), vec![]),
        (vec![], [frame(PING, b"?"), frame(PONG, b"!")].concat(), vec![]),
        (first.clone(), frame(0x00, b""), vec![]),
        (first.clone(), frame(0x00, &[7; 15]), vec![]),
        // The last fragment is no flood: it ends a message, and messages are counted.
        (first, frame(0x00, b"x"), frame(0x80, b"")),
    ] {
        let tiny = |bytes: &[u8]| usize::from(!bytes.is_empty());
        let each = if one.len() == frame(PING, b"?").len() * 2 { 2 } else { 1 };
        let room = (10 - tiny(&before)) / each;
        for (count, code) in [(room - 1, 1000), (room, 1000), (room + 1, 4029), (5_000, 4029)] {
            let mut browser = bench.open("{}");
            let bytes = [&before[..], &one.repeat(count), &after].concat();
            assert_eq!(outcome(&mut browser, &bytes), code, "{count}: {one:?}");
        }
    }
    bench.wait_for("closed/rate", 12);
    // Not the fragments of honest browsers, and no message.
    let honest =
        [frame(0x01, &[b'x'; 16]), frame(0x00, &[b'x'; 16]).repeat(998), frame(0x80, &[b'x'; 16])];
    for bytes in [honest.concat(), frame(TEXT, b"").repeat(1_000)] {
        assert_eq!(outcome(&mut bench.open("{}"), &bytes), 1000);
    }
}

fn the_rate_comes_back_and_no_more_than_the_burst(loops: usize) {
    let settings = [("max-message-rate", "10"), ("max-control-rate", "10")];
    let bench = Bench::new(loops, &settings);
    for (one, burst) in [(frame(TEXT, b"x"), 20), (frame(PING, b""), 25)] {
        let (mut patient, mut greedy) = (bench.open("{}"), bench.open("{}"));
        let received = bench.stat("received");
        patient.write(&one.repeat(burst));
        wait_until("they have come", || {
            bench.stat("received") - received == burst as u64 || !patient.is_silent()
        });
        let begin = Instant::now();
        wait_until("a second is over", || begin.elapsed() >= Duration::from_millis(1_050));
        patient.write(&one.repeat(10));
        wait_until("three are over", || begin.elapsed() >= Duration::from_millis(4_000));
        assert_eq!(outcome(&mut patient, &one.repeat(burst)), 1000);
        // Who was silent for long has saved nothing up.
        assert_eq!(outcome(&mut greedy, &one.repeat(burst + 1)), 4029);
    }
}

fn zero_is_no_limit(loops: usize) {
    let bench = Bench::new(loops, &[("max-message-rate", "0"), ("max-control-rate", "0")]);
    let bytes = [frame(TEXT, b"x"), frame(PING, b""), frame(0x01, b""), frame(0x80, b"")].concat();
    assert_eq!(outcome(&mut bench.open("{}"), &bytes.repeat(10_000)), 1000);
    assert_eq!(bench.stat("received"), 20_000);
}

fn a_mirror_has_the_rate_of_everybody(loops: usize) {
    let bench = Bench::new(loops, &[("max-message-rate", "5")]);
    let mut browser = bench.offer(Offer { mirror: true, ..Offer::default() });
    browser.opened();
    for _ in 0..10 {
        browser.write(&frame(TEXT, b"x"));
        assert_eq!(browser.text(), "x");
    }
    assert_eq!(outcome(&mut browser, &frame(TEXT, b"x").repeat(11)), 4029);
}

/// Told once a second at most, however many there are, and each is counted.
fn who_sends_too_much_is_counted_and_logged_and_others_go_on(loops: usize) {
    let bench = Bench::new(loops, &[("max-control-rate", "20")]);
    let mut bystander = bench.open(r#"{"subscribe":["a"],"publish":["a"],"echo":true}"#);
    let begin = Instant::now();
    for i in 1..=200 {
        let mut browser = bench.open("{}");
        browser.write(&frame(PING, b"").repeat(51));
        loop {
            match browser.message() {
                tungstenite::Message::Close(frame) => {
                    let frame = frame.unwrap();
                    assert_eq!((u16::from(frame.code), frame.reason.as_str()), TOO_MANY);
                    break;
                }
                pong => assert_eq!(pong, tungstenite::Message::Pong(b"".as_slice().into())),
            }
        }
        bystander.send(&i.to_string());
        assert_eq!(bystander.text(), i.to_string());
    }
    bench.wait_for("closed/rate", 200);
    let lines = bench.count_logged("closed: rate (4029)") as u64;
    assert!((1..=2 + begin.elapsed().as_secs()).contains(&lines), "{lines} lines");
}

/// Both rates are one a second: what was sent before is not forgiven by another process.
fn a_debt_goes_along_to_another_engine(loops: usize) {
    let settings = [("max-message-rate", "1"), ("max-control-rate", "1")];
    for one in [frame(TEXT, b"x"), frame(PING, b""), frame(BINARY, b"")] {
        loop {
            let [from, to] = two(loops, &settings);
            let mut browser = from.open(r#"{"publish":["a"]}"#);
            let begin = Instant::now();
            browser.write(&one.repeat(2));
            wait_until("both have come", || from.stat("received") == 2 || !browser.is_silent());
            hand_over(&from, &to);
            let code = outcome(&mut browser, &one.repeat(2));
            // On a machine that is that slow they would have been forgiven without a move.
            if begin.elapsed() < Duration::from_millis(1_400) {
                assert_eq!(code, 4029);
                break;
            }
        }
    }
}

with_one_and_three_loops!(
    a_burst_of_messages_passes_and_the_next_one_is_too_much,
    control_frames_and_tiny_fragments_have_a_rate_of_their_own,
    the_rate_comes_back_and_no_more_than_the_burst,
    zero_is_no_limit,
    a_mirror_has_the_rate_of_everybody,
    who_sends_too_much_is_counted_and_logged_and_others_go_on,
    a_debt_goes_along_to_another_engine,
);
