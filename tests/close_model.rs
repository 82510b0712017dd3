//! The close handshake against a small model of it: whatever browser and server do at the same time, the wire shows what
//! RFC 6455 says, and the host is told one end with its code.

mod util;

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use util::browser::{CLOSE, PING, TEXT, frame};
use util::wire::{End, Frame, frames, read_to_end};
use util::{Bench, Browser, Dice, Offer, rounds};
use wsredis::engine::{Event, Who};
use wsredis::sys;

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

/// Is that what was seen? A pong may come behind what was read later; of several pings only the latest must be answered
/// (§5.5.3), and none once a close frame was sent or read. No pong comes behind the close frame.
fn agrees(seen: &[Frame], expected: &[Frame]) -> bool {
    let split = |frames: &[Frame]| -> (Vec<Frame>, Vec<Frame>) {
        frames.iter().cloned().partition(|frame| frame.first == 0x8A)
    };
    let ((pongs, others), (wanted, expected)) = (split(seen), split(expected));
    let mut left = wanted.iter();
    let in_order = pongs.iter().all(|pong| left.any(|wanted| wanted == pong));
    let is_closed = expected.last().is_some_and(|frame| frame.first == 0x88);
    let last =
        if is_closed { expected.last() == seen.last() } else { wanted.last() == pongs.last() };
    others == expected && in_order && last
}

/// The next thing that the host is told.
fn event(bench: &Bench) -> Event {
    let fd = bench.engine.events_fd().unwrap();
    loop {
        match bench.engine.next_event().unwrap() {
            Some(event) => return event,
            None => assert!(sys::wait_readable(&fd, 20_000).unwrap(), "nothing is told"),
        }
    }
}

/// A mirror and its id: the host is told of it before its browser is answered.
fn mirror(bench: &Bench, leftover: &[u8]) -> (Browser, String) {
    let mut browser = bench.offer(Offer { mirror: true, leftover, ..Offer::default() });
    let Event::Opened(id) = event(bench) else { panic!("not the event of one that came") };
    browser.stream().read_exact(&mut [0; util::engine::ANSWER.len()]).unwrap();
    (browser, id)
}

/// The code that the host is told; nothing else may be told.
#[track_caller]
fn closed(bench: &Bench, id: &str) -> u16 {
    match event(bench) {
        Event::Closed(closed, code) if closed == id => code,
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
    // The kick is somewhere among what is sent, or in step: after the last text before it has come back, and nothing
    // more is sent before its close frame has come. Or there is none.
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
        while !frames(&seen).0.contains(text) {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "round {round}: {items:?}: it ended before {text:?}");
            seen.extend_from_slice(&buffer[..n]);
        }
    }
    if kick.is_some() {
        bench.engine.kick(&Who::Socket(id.clone())).unwrap();
    }
    if in_step.is_some() && last != Last::Reset {
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
    // Each case is mostly a wait for the other side: some at a time, each with an engine of its own.
    const AT_A_TIME: usize = 4;
    let (count, begin) = (rounds(2_000, 100_000) / AT_A_TIME, Instant::now());
    thread::scope(|scope| {
        for seed in 0..AT_A_TIME {
            scope.spawn(move || {
                let settings = [("close-timeout", "1m"), ("ping-interval", "0")];
                let (bench, mut dice) = (Bench::new(1, &settings), Dice::new(seed as u64));
                bench.engine.events_fd().unwrap();
                (0..count).for_each(|round| play(&bench, &mut dice, round));
                bench.wait_until_empty();
                assert_eq!(bench.engine.next_event().unwrap(), None);
            });
        }
    });
    println!("{} cases in {:?}", count * AT_A_TIME, begin.elapsed());
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
        // The loop counts whole milliseconds.
        assert!(took + Duration::from_millis(2) > TIMEOUT, "round {round}: {took:?}");
        drop(browser);
        assert_eq!(closed(&bench, &id), 4403);
    }
    bench.wait_until_empty();
}
