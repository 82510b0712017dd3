//! The close handshake against a small model of it: whatever browser and server do at the same time, the wire shows what
//! RFC 6455 says, and the host is told one end with its code.

mod util;

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use util::browser::{CLOSE, PING, TEXT, frame};
use util::wire::{End, Frame, frames, read_to_end};
use util::{Bench, Browser, Dice, Offer, rounds, wait_until};
use wsredis::engine::{Event, Who};

/// What a browser sends.
#[derive(Clone, Debug, PartialEq)]
enum Item {
    /// Comes back: these sockets are mirrors.
    Text(String),
    Ping(String),
    /// A close frame that may be sent; the answer has its code.
    Close(Vec<u8>),
    /// Bytes that fail the connection, with the code.
    Wrong(Vec<u8>, u16),
}

use Item::{Close, Ping, Text, Wrong};

impl Item {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Text(text) => frame(TEXT, text.as_bytes()),
            Ping(text) => frame(PING, text.as_bytes()),
            Close(payload) => frame(CLOSE, payload),
            Wrong(bytes, _) => bytes.clone(),
        }
    }
}

fn close_payload(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason].concat()
}

fn item(dice: &mut Dice, number: usize) -> Item {
    match dice.below(20) {
        0..6 => Text(format!("text {number}")),
        6..10 => Ping(format!("ping {number}")),
        10 => Close(Vec::new()),
        11 | 12 => {
            let code = dice.pick(&[1000, 1001, 1002, 1003, 1007, 1008, 1011, 1014, 3000, 4999]);
            let reason = vec![b'r'; dice.pick(&[0, 1, 123])];
            Close(close_payload(code, &reason))
        }
        // Codes that are never sent (§7.4.1), that nobody may use, and that do not exist.
        13 | 14 => {
            let code = dice.pick(&[0, 1, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65_535]);
            let reason: &[u8] = dice.pick(&[b"", b"why", b"\xff"]);
            Wrong(frame(CLOSE, &close_payload(code, reason)), 1002)
        }
        15 => Wrong(frame(CLOSE, b"\x03"), 1002),
        16 => Wrong(frame(CLOSE, &close_payload(1000, &[b'r'; 124])), 1002),
        17 => Wrong(frame(CLOSE, &close_payload(1000, b"good\xc3(bad")), 1007),
        18 => Wrong(frame(0x81, b"\xffnot text"), 1007),
        _ => Wrong(
            dice.pick(&[&[0x81, 0x01, b'a'][..], &[0xF1, 0x80], &[0x83, 0x80]]).to_vec(),
            1002,
        ),
    }
}

/// What comes after everything was sent.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Last {
    /// The browser waits for the end.
    Read,
    /// It says that it sends nothing more.
    Fin,
    /// It resets the connection: nothing can be seen of the wire.
    Reset,
}

/// The naive server: what it puts on the wire if it is told to kick before it reads the item of that number, and the
/// code that the host is told. `None`: the connection goes on, which no case here may.
fn model(items: &[Item], kick: Option<usize>, last: Last) -> Option<(Vec<Frame>, u16)> {
    let (mut seen, mut kicked) = (Vec::new(), false);
    for number in 0..=items.len() {
        if kick == Some(number) {
            seen.push(Frame::close(4403, "kicked"));
            kicked = true;
        }
        match items.get(number) {
            // Once the server has said close it says nothing more, and waits only for the browser's.
            Some(Close(_) | Wrong(..)) if kicked => return Some((seen, 4403)),
            _ if kicked => {}
            Some(Text(text)) => seen.push(Frame::new(TEXT, text)),
            Some(Ping(text)) => seen.push(Frame::new(0x8A, text)),
            Some(Close(payload)) => {
                seen.push(Frame::new(0x88, &payload[..payload.len().min(2)]));
                return Some((seen, 1000));
            }
            Some(Wrong(_, code)) => {
                let reason = if *code == 1007 { "invalid UTF-8" } else { "protocol error" };
                seen.push(Frame::close(*code, reason));
                return Some((seen, *code));
            }
            None => {}
        }
    }
    (last != Last::Read).then_some((seen, if kicked { 4403 } else { 1006 }))
}

/// Is that what was seen? Of several pings only the latest must be answered (§5.5.3), and none behind which a close
/// was read.
fn agrees(seen: &[Frame], expected: &[Frame]) -> bool {
    match (seen.first(), expected.first()) {
        (None, None) => true,
        (Some(a), Some(b)) if a == b => agrees(&seen[1..], &expected[1..]),
        (_, Some(skipped)) if skipped.first == 0x8A => {
            let answered_later =
                expected[1..].iter().any(|frame| matches!(frame.first, 0x8A | 0x88));
            answered_later && agrees(seen, &expected[1..])
        }
        _ => false,
    }
}

/// A mirror and its id: the host is told of it before its browser is answered.
fn mirror(bench: &Bench, leftover: &[u8]) -> (Browser, String) {
    let mut browser = bench.offer(Offer { mirror: true, leftover, ..Offer::default() });
    let mut id = None;
    wait_until("it is told", || {
        if let Some(Event::Opened(opened)) = bench.engine.next_event().unwrap() {
            id = Some(opened);
        }
        id.is_some()
    });
    browser.stream().read_exact(&mut [0; util::engine::ANSWER.len()]).unwrap();
    (browser, id.unwrap())
}

/// The code that the host is told; nothing else may be told.
#[track_caller]
fn closed(bench: &Bench, id: &str) -> u16 {
    let mut told = None;
    wait_until("its end is told", || {
        told = bench.engine.next_event().unwrap();
        told.is_some()
    });
    match told {
        Some(Event::Closed(closed, code)) if closed == id => code,
        other => panic!("{other:?} instead of the end of {id}"),
    }
}

/// One random case.
fn play(bench: &Bench, dice: &mut Dice, round: usize) {
    let mut items: Vec<Item> = (0..dice.below(6)).map(|number| item(dice, number)).collect();
    let last = match dice.below(10) {
        0 => Last::Fin,
        1 => Last::Reset,
        _ => {
            // So that it ends in any case.
            items.push(Close(close_payload(1000, b"at last")));
            Last::Read
        }
    };
    // The kick is somewhere among what is sent, or it waits for the last text before it to come back, or there is none.
    let kick = (dice.below(2) == 0).then(|| dice.below(items.len() + 1));
    let ends_before =
        |at: usize| items[..at].iter().any(|item| matches!(item, Close(_) | Wrong(..)));
    let in_step = match kick {
        Some(at) if at > 0 && dice.below(2) == 0 && !ends_before(at) => match &items[at - 1] {
            Text(text) => Some(Frame::new(TEXT, text)),
            _ => None,
        },
        _ => None,
    };
    let bytes = |items: &[Item]| items.iter().flat_map(Item::bytes).collect::<Vec<u8>>();
    let split = kick.unwrap_or(dice.below(items.len() + 1));
    let (before, after) = (bytes(&items[..split]), bytes(&items[split..]));
    // Some of it lies behind the request.
    let cut = if dice.below(2) == 0 { 0 } else { dice.below(before.len() + 1) };
    let (mut browser, id) = mirror(bench, &before[..cut]);
    let stream = browser.stream();
    let mut seen = Vec::new();
    // Whoever writes to a connection that has ended sees that when reading.
    let _ = stream.write_all(&before[cut..]);
    if let Some(text) = &in_step {
        let mut buffer = [0; 512];
        while frames(&seen).0.last() != Some(text) {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "round {round}: {items:?}: it ended before {text:?}");
            seen.extend_from_slice(&buffer[..n]);
        }
    }
    if kick.is_some() {
        bench.engine.kick(&Who::Socket(id.clone())).unwrap();
    }
    if in_step.is_some() && dice.below(2) == 0 && last != Last::Reset {
        // The browser has read our close frame before it goes on.
        let mut buffer = [0; 512];
        while frames(&seen).0.last().is_none_or(|frame| frame.code() != Some(4403)) {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "round {round}: {items:?}: it ended before the kick");
            seen.extend_from_slice(&buffer[..n]);
        }
    }
    let cut = dice.below(after.len() + 1);
    let _ = stream.write_all(&after[..cut]).and_then(|()| stream.write_all(&after[cut..]));
    match last {
        Last::Read => {}
        Last::Fin => stream.shutdown_write(),
        Last::Reset => {
            stream.reset_on_drop();
            drop(browser);
            let code = closed(bench, &id);
            assert!([1000, 1002, 1006, 1007, 4403].contains(&code), "{code}");
            return;
        }
    }
    let (came, end) = read_to_end(stream);
    seen.extend(came);
    let (got, behind) = frames(&seen);
    drop(browser);
    let code = closed(bench, &id);
    // In step the model knows when the kick came; else it may be anywhere, even too late.
    let kicks: Vec<Option<usize>> = match kick {
        None => vec![None],
        Some(at) if in_step.is_some() => vec![Some(at)],
        Some(_) => (0..=items.len()).map(Some).chain([None]).collect(),
    };
    let allowed: Vec<_> = kicks.iter().filter_map(|kick| model(&items, *kick, last)).collect();
    let fits = allowed.iter().any(|(wire, told)| agrees(&got, wire) && *told == code);
    assert!(
        fits && behind.is_empty() && end == Some(End::Fin),
        "round {round}: {items:?}, kick {kick:?} (in step: {}), {last:?}\nseen {got:?} {behind:x?} {end:?}, told {code}\n\
         one of {allowed:?}",
        in_step.is_some()
    );
}

#[test]
fn the_wire_shows_what_a_naive_model_says_whoever_closes_when_and_how() {
    let bench = Bench::new(1, &[("close-timeout", "1m"), ("ping-interval", "0")]);
    bench.engine.events_fd().unwrap();
    let (mut dice, count) = (Dice::new(11), rounds(4_000, 100_000));
    let begin = Instant::now();
    for round in 0..count {
        play(&bench, &mut dice, round);
    }
    println!("{count} cases in {:?}", begin.elapsed());
    bench.wait_until_empty();
    assert_eq!(bench.engine.next_event().unwrap(), None);
}

/// Who does not answer our close frame is waited for, whatever else it says, and then cut.
#[test]
fn a_browser_that_does_not_answer_a_close_frame_is_cut_after_the_close_timeout() {
    const TIMEOUT: Duration = Duration::from_millis(100);
    let bench = Bench::new(1, &[("close-timeout", "100ms"), ("ping-interval", "0")]);
    bench.engine.events_fd().unwrap();
    let mut dice = Dice::new(12);
    for round in 0..rounds(20, 500) {
        let (mut browser, id) = mirror(&bench, b"");
        let begin = Instant::now();
        bench.engine.kick(&Who::Socket(id.clone())).unwrap();
        let mut data = Vec::new();
        for number in 0..dice.below(5) {
            let text = number.to_string();
            data.extend(if dice.below(2) == 0 { Ping(text) } else { Text(text) }.bytes());
        }
        // A close frame that never becomes whole is none.
        data.extend_from_slice(&frame(CLOSE, &1000u16.to_be_bytes())[..dice.below(8)]);
        let mut stream = browser.stream();
        let mut close = [0; 10];
        stream.read_exact(&mut close).unwrap();
        let _ = stream.write_all(&data);
        let (rest, end) = read_to_end(&mut stream);
        let took = begin.elapsed();
        assert_eq!((frames(&close).0, rest), (vec![Frame::close(4403, "kicked")], vec![]));
        assert!(
            end.is_some() && took < TIMEOUT + Duration::from_secs(2),
            "round {round}: {took:?}"
        );
        assert!(took >= TIMEOUT, "round {round}: {took:?}");
        drop(browser);
        assert_eq!(closed(&bench, &id), 4403);
    }
    bench.wait_until_empty();
}
