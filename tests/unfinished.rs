//! What a browser begins it has to finish: a message or a frame that is not whole in time closes its socket with 1008.

mod util;

use std::time::{Duration, Instant};

use util::browser::{PING, TEXT, frame};
use util::transfer::{hand_over, two};
use util::{Bench, Browser, Offer, wait_until};

const GRANT: &str = r#"{"publish":["a"]}"#;
const UNFINISHED: (u16, &str) = (1008, "message not finished");

fn pause(ms: u64) {
    let begin = Instant::now();
    wait_until("a while is over", || begin.elapsed() >= Duration::from_millis(ms));
}

/// Reads until the close frame, which must say that the message was not finished.
#[track_caller]
fn assert_unfinished(browser: &mut Browser) {
    loop {
        match browser.message() {
            tungstenite::Message::Pong(_) => {}
            tungstenite::Message::Close(Some(close)) => {
                assert_eq!((u16::from(close.code), close.reason.as_str()), UNFINISHED);
                return;
            }
            other => panic!("not closed but {other:?}"),
        }
    }
}

fn whatever_is_begun_and_not_finished_is_closed_in_time(loops: usize) {
    let bench = Bench::new(loops, &[("message-timeout", "300ms")]);
    let whole = frame(TEXT, &[b'x'; 200]);
    let begun = [
        whole[..1].to_vec(),
        whole[..2].to_vec(),
        whole[..7].to_vec(),
        whole[..8].to_vec(),
        whole[..whole.len() - 1].to_vec(),
        frame(0x01, b"first"),
        [frame(0x01, b"first"), frame(0x00, b"second")].concat(),
        [frame(0x01, b"first"), frame(PING, b"?")].concat(),
        frame(PING, b"half a ping")[..9].to_vec(),
        // A whole one before it is no excuse.
        [&whole[..], &whole[..100]].concat(),
    ];
    for bytes in &begun {
        let mut browser = bench.open(GRANT);
        let begin = Instant::now();
        browser.write(bytes);
        assert_unfinished(&mut browser);
        let took = begin.elapsed();
        assert!(took >= Duration::from_millis(295), "{took:?}: {bytes:?}");
        assert!(took < Duration::from_secs(10), "{took:?}: {bytes:?}");
    }
    // What came behind the request counts from the answer on.
    let leftover = &whole[..20];
    let mut browser = bench.offer(Offer { grant: GRANT, leftover, ..Offer::default() });
    browser.opened();
    assert_unfinished(&mut browser);
    bench.wait_for("closed/unfinished", begun.len() as u64 + 1);
    assert!(bench.has_logged("closed: unfinished (1008)"));
}

fn control_frames_between_give_no_more_time(loops: usize) {
    let bench = Bench::new(loops, &[("message-timeout", "300ms")]);
    let mut browser = bench.open(GRANT);
    browser.write(&frame(0x01, b"first"));
    let begin = Instant::now();
    // Its last ones may come too late.
    while begin.elapsed() < Duration::from_secs(1) {
        let _ = std::io::Write::write(browser.stream(), &frame(PING, b"still here"));
        pause(30);
    }
    assert_unfinished(&mut browser);
    bench.wait_for("closed/unfinished", 1);
}

fn who_finishes_in_time_and_who_begins_nothing_stays(loops: usize) {
    let bench = Bench::new(loops, &[("message-timeout", "5s")]);
    let mut listener = bench.open(r#"{"subscribe":["a"]}"#);
    let (mut idle, mut slow, mut pieces) =
        (bench.open(GRANT), bench.open(GRANT), bench.open(GRANT));
    // 64 KiB, a KiB at a time: slow but honest.
    let text = "y".repeat(65_536);
    for piece in frame(TEXT, text.as_bytes()).chunks(1_024) {
        slow.write(piece);
        pause(15);
    }
    assert_eq!(listener.text(), text);
    for bytes in
        [frame(0x01, b"one "), frame(PING, b""), frame(0x00, b"two "), frame(0x80, b"three")]
    {
        pieces.write(&bytes);
        pause(100);
    }
    assert_eq!(listener.text(), "one two three");
    for browser in [&mut idle, &mut slow, &mut pieces] {
        browser.send("and on");
        assert_eq!(listener.text(), "and on");
    }
    assert_eq!(bench.stat("sockets"), 4);
}

/// Each write ends one message and begins the next: there is always one that is not whole, and none for long.
fn an_endless_row_of_messages_is_not_one_message(loops: usize) {
    let bench = Bench::new(loops, &[("message-timeout", "2s")]);
    let mut browser = bench.open(GRANT);
    let whole = frame(TEXT, b"over and over");
    browser.write(&whole[..9]);
    let (begin, mut count) = (Instant::now(), 0);
    while begin.elapsed() < Duration::from_millis(4_500) {
        browser.write(&[&whole[9..], &whole[..9]].concat());
        count += 1;
        pause(20);
    }
    browser.write(&whole[9..]);
    bench.wait_for("received", count + 1);
    assert_eq!(bench.stat("sockets"), 1);
}

fn the_time_goes_on_in_another_engine(loops: usize) {
    let [from, to] = two(loops, &[("message-timeout", "3s")]);
    let whole = frame(TEXT, b"on its way");
    let (mut silent, mut late) = (from.open(GRANT), from.open(GRANT));
    let begin = Instant::now();
    silent.write(&whole[..8]);
    late.write(&frame(0x01, b"first"));
    pause(2_000);
    hand_over(&from, &to);
    assert!(begin.elapsed() < Duration::from_millis(2_900), "this machine is too slow to tell");
    late.write(&frame(0x00, b"second"));
    for browser in [&mut silent, &mut late] {
        assert_unfinished(browser);
    }
    let took = begin.elapsed();
    // From the handover on it would have been five.
    assert!((2_990..4_900).contains(&took.as_millis()), "{took:?}");
    to.wait_for("closed/unfinished", 2);
}

with_one_and_three_loops!(
    whatever_is_begun_and_not_finished_is_closed_in_time,
    control_frames_between_give_no_more_time,
    who_finishes_in_time_and_who_begins_nothing_stays,
    an_endless_row_of_messages_is_not_one_message,
    the_time_goes_on_in_another_engine,
);
