//! Once the end of a socket is decided, for whatever reason: what was queued before is sent, in whole frames, then the
//! close frame, and nothing behind it.

mod util;

use std::ops::Range;

use util::browser::{PING, TEXT, frame};
use util::wire::{End, Frame, frames, read_to_end};
use util::{Bench, Browser, Offer, wait_until};
use wsredis::cause::Cause;
use wsredis::engine::Who;

/// Far more than the kernel takes from an AF_UNIX socket at a time.
const QUEUED: usize = 200;
/// Enough to show that the loop went on; the time in which a socket that failed may be read is short.
const LATER: usize = 10;
const GRANT: &str = r#"{"subscribe":["a"],"publish":["b"],"user":"ann","expires_in":EXPIRES}"#;

fn message(number: usize) -> String {
    format!("{number} {}", "x".repeat(4_000))
}

/// Publishes these messages and waits until a healthy browser has them: the loop has dealt with all of them.
fn publish(bench: &Bench, healthy: &mut Browser, numbers: Range<usize>) {
    for number in numbers.clone() {
        bench.publish("a", message(number));
    }
    for number in numbers {
        assert_eq!(healthy.text(), message(number));
    }
}

/// A socket whose queue is full of messages; `end` makes something happen that ends it. Then more is published, and the
/// browser pings; at last it reads everything.
fn ends(
    cause: Cause,
    expires: &str,
    settings: &[(&str, &str)],
    end: impl FnOnce(&Bench, &mut Browser),
) {
    let common = [("write-queue-limit", "1g"), ("write-queue-age", "10m"), ("close-timeout", "1m")];
    let settings: Vec<_> = common
        .into_iter()
        .filter(|(key, _)| settings.iter().all(|(other, _)| other != key))
        .chain(settings.iter().copied())
        .collect();
    let bench = Bench::new(1, &settings);
    let grant = GRANT.replace("EXPIRES", expires);
    let envelope = cause == Cause::NotGranted;
    let mut browser =
        bench.offer(Offer { grant: &grant, envelope, unix: true, ..Offer::default() });
    let mut healthy = bench.open(r#"{"subscribe":["a"]}"#);
    publish(&bench, &mut healthy, 0..QUEUED);
    assert_eq!(bench.stat("sockets"), 2, "{cause:?}: nothing has happened yet");

    end(&bench, &mut browser);
    let mut published = QUEUED;
    wait_until("its end is decided", || {
        if cause == Cause::Slow {
            // Only a message shows who is slow.
            publish(&bench, &mut healthy, published..published + 1);
            published += 1;
        }
        bench.has_logged(&format!("closed: {} ", cause.name()))
    });
    publish(&bench, &mut healthy, published..published + LATER);
    // Neither a pong nor anything else comes of this.
    let _ = std::io::Write::write_all(browser.stream(), &frame(PING, b"still there?"));

    let last = judge(cause, &mut browser, published);
    if cause != Cause::Slow {
        assert_eq!(last, QUEUED, "{cause:?}: all that was queued before");
    }
}

/// Reads everything: the answer, whole messages in order from the first, the close frame, the end. Returns how many
/// messages there were.
fn judge(cause: Cause, browser: &mut Browser, published: usize) -> usize {
    let stream = browser.stream();
    let (mut bytes, mut buffer) = (Vec::new(), [0; 64 * 1024]);
    // The close frame is answered when it comes, as a browser does.
    loop {
        let n = std::io::Read::read(stream, &mut buffer).unwrap();
        assert!(n > 0, "{cause:?}: the end came without a close frame");
        bytes.extend_from_slice(&buffer[..n]);
        let close = Frame::close(cause.code(), cause.reason());
        let close = [&[0x88, close.payload.len() as u8][..], &close.payload].concat();
        if bytes.ends_with(&close) {
            break;
        }
    }
    let _ = std::io::Write::write_all(stream, &frame(0x88, &cause.code().to_be_bytes()));
    let (rest, end) = read_to_end(stream);
    assert_eq!(
        (rest.len(), end),
        (0, Some(End::Fin)),
        "{cause:?}: something is behind the close frame"
    );
    let head =
        bytes.windows(4).position(|four| four == b"\r\n\r\n").expect("the handshake's answer") + 4;
    let (mut frames, behind) = frames(&bytes[head..]);
    assert!(behind.is_empty(), "{cause:?}: half a frame");
    assert_eq!(frames.pop(), Some(Frame::close(cause.code(), cause.reason())));
    if cause == Cause::NotGranted {
        frames.remove(0); // the hello
    }
    // Pings were queued like messages.
    frames.retain(|frame| *frame != Frame::new(PING, b""));
    for (number, frame) in frames.iter().enumerate() {
        let text = String::from_utf8_lossy(&frame.payload);
        assert!(number < published && text.contains(&message(number)), "{cause:?}: {number}");
    }
    frames.len()
}

#[test]
fn a_kick() {
    ends(Cause::Kicked, "600", &[], |bench, _| {
        bench.engine.kick(&Who::User("ann".into())).unwrap()
    });
}

#[test]
fn the_end_of_its_grant() {
    // Long enough for everything to be queued before, on a busy machine too.
    ends(Cause::Expired, "3", &[], |_, _| {});
}

#[test]
fn a_frame_that_breaks_the_protocol() {
    ends(Cause::Protocol, "600", &[], |_, browser| browser.write(&frame(0x83, b"")));
}

#[test]
fn a_message_that_is_too_big() {
    let big = vec![b'x'; 126];
    ends(Cause::TooBig, "600", &[("max-message-size", "125")], move |_, browser| {
        browser.write(&frame(TEXT, &big));
    });
}

#[test]
fn text_that_is_no_utf8() {
    ends(Cause::Utf8, "600", &[], |_, browser| browser.write(&frame(TEXT, b"\xff")));
}

#[test]
fn a_channel_that_was_not_granted() {
    ends(Cause::NotGranted, "600", &[], |_, browser| {
        browser.write(&frame(TEXT, br#"{"channel":"c","data":1}"#));
    });
}

#[test]
fn silence() {
    let settings = [("ping-interval", "2s"), ("pong-timeout", "500ms")];
    // Pings wait behind the messages: nobody reads them, nobody answers.
    ends(Cause::NoPong, "600", &settings, |_, _| {});
}

/// What no browser has read is dropped, but for the frame that is half written.
#[test]
fn being_slow() {
    ends(Cause::Slow, "600", &[("write-queue-age", "2s")], |_, _| {});
}

/// The same for everybody at once: nobody is left to show that it is decided, but the engine ends only then.
#[test]
fn the_end_of_the_engine() {
    let bench = Bench::new(1, &[("write-queue-limit", "1g"), ("write-queue-age", "10m")]);
    let grant = GRANT.replace("EXPIRES", "600");
    let mut browser = bench.offer(Offer { grant: &grant, unix: true, ..Offer::default() });
    let mut healthy = bench.open(r#"{"subscribe":["a"]}"#);
    publish(&bench, &mut healthy, 0..QUEUED);
    let reader = std::thread::spawn(move || judge(Cause::Restart, &mut browser, QUEUED));
    let healthy = std::thread::spawn(move || assert_eq!(healthy.closed().0, 1012));
    assert!(bench.engine.stop(20_000), "it has ended");
    assert!(bench.engine.publish("a", b"later").is_err());
    assert_eq!(reader.join().unwrap(), QUEUED);
    healthy.join().unwrap();
}
