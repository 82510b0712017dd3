//! Every first two bytes of a frame, in each state, against a table that was written by hand from RFC 6455
//! (`tests/vectors/first_two_bytes.txt`): all of them through the message machine, and some of each row through real
//! sockets, cut at every byte.

mod util;

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::time::{Duration, Instant};

use util::browser::{BINARY, CLOSE, TEXT, frame};
use util::machine::{Got, feed, feed_with};
use util::wire::{End, Frame, frames, read_to_end};
use util::{Bench, Dice, Offer};
use wsredis::cause::Cause;
use wsredis::config::Config;
use wsredis::engine::Who;
use wsredis::hub::Variant;
use wsredis::socket::{KeptIdentity, Key, Socket};
use wsredis::ws::deflate::Inflater;
use wsredis::ws::message::Assembler;

const TABLE: &str = include_str!("vectors/first_two_bytes.txt");
const STATES: [&str; 9] = [
    "idle",
    "text",
    "binary",
    "closing",
    "closing-text",
    "closed",
    "deflate-idle",
    "deflate-text",
    "deflate-packed",
];
const OUTCOMES: [&str; 12] = [
    "text",
    "binary",
    "more",
    "last",
    "ping",
    "pong",
    "close",
    "1002",
    "1002-whole",
    "end",
    "end-whole",
    "ignored",
];
/// What both sides have said of permessage-deflate.
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// What the first fragment of the states inside a message brought.
const BEGUN: &[u8] = b"begun ";
/// The longest payload here is one more than two bytes of length can say.
const MAX: usize = 1 << 20;

/// One row of the table.
struct Row {
    line: usize,
    states: Vec<&'static str>,
    /// What each field may be: FIN, RSV1, RSV2, RSV3, opcode, mask, length.
    fields: [Vec<u8>; 7],
    outcome: &'static str,
}

impl Row {
    fn matches(&self, state: &str, [first, second]: [u8; 2]) -> bool {
        let fields = [
            first >> 7,
            first >> 6 & 1,
            first >> 5 & 1,
            first >> 4 & 1,
            first & 15,
            second >> 7,
            second & 127,
        ];
        self.states.contains(&state)
            && self.fields.iter().zip(fields).all(|(allowed, field)| allowed.contains(&field))
    }
}

/// `*`, or a list of numbers and ranges.
fn values(text: &str, top: u8, radix: u32) -> Vec<u8> {
    if text == "*" {
        return (0..=top).collect();
    }
    let number = |text: &str| u8::from_str_radix(text, radix).unwrap();
    text.split(',')
        .flat_map(|part| match part.split_once('-') {
            Some((from, to)) => number(from)..=number(to),
            None => number(part)..=number(part),
        })
        .inspect(|value| assert!(*value <= top, "{text}"))
        .collect()
}

fn table() -> Vec<Row> {
    let row = |(index, line): (usize, &'static str)| {
        let content = line.split('#').next().unwrap().trim();
        if content.is_empty() {
            return None;
        }
        let (states, rest) = content.split_once('|').unwrap();
        let (fields, outcome) = rest.split_once("->").unwrap();
        let states: Vec<_> = states.trim().split(',').collect();
        assert!(states.iter().all(|state| STATES.contains(state)), "{line}");
        assert!(OUTCOMES.contains(&outcome.trim()), "{line}");
        let texts: Vec<_> = fields.split_whitespace().collect();
        assert_eq!(texts.len(), 7, "{line}");
        let tops = [(1, 2), (1, 2), (1, 2), (1, 2), (15, 16), (1, 2), (127, 10)];
        let fields = std::array::from_fn(|i| values(texts[i], tops[i].0, tops[i].1));
        Some(Row { line: index + 1, states, fields, outcome: outcome.trim() })
    };
    TABLE.lines().enumerate().filter_map(row).collect()
}

fn pairs() -> impl Iterator<Item = [u8; 2]> {
    (0..=u16::MAX).map(u16::to_be_bytes)
}

/// The row of each pair in one state.
fn judgements<'a>(rows: &'a [Row], state: &str) -> Vec<&'a Row> {
    pairs()
        .map(|pair| {
            let mut found = rows.iter().filter(|row| row.matches(state, pair));
            let row = found.next().unwrap_or_else(|| panic!("no row for {pair:x?} in {state}"));
            let lines: Vec<_> = found.map(|row| row.line).collect();
            assert!(lines.is_empty(), "{pair:x?} in {state}: line {} and {lines:?}", row.line);
            row
        })
        .collect()
}

/// A whole frame.
struct Whole {
    bytes: Vec<u8>,
    payload: Vec<u8>,
    /// The payload, decompressed where it is compressed.
    plain: Vec<u8>,
}

/// A whole frame that begins so, of letters; in a close frame behind a code, in a compressed message compressed.
fn whole(state: &str, [first, second]: [u8; 2]) -> Whole {
    let len = match second & 127 {
        126 => 300,
        127 => 65_536,
        len => usize::from(len),
    };
    let mut plain = vec![b'x'; len];
    if first & 15 == 8 && len >= 2 {
        plain[..2].copy_from_slice(&1000u16.to_be_bytes());
    }
    let mut payload = plain.clone();
    let packed = (state.starts_with("deflate") && first & 0x40 != 0 && matches!(first & 15, 1 | 2))
        || (state == "deflate-packed" && first & 15 == 0);
    if packed {
        plain.truncate(len.saturating_sub(2));
        payload = deflated(len);
    }
    // Masked whatever the pair says: who is refused for that is refused before.
    let mut bytes = frame(first, &payload);
    bytes[1] = second;
    Whole { bytes, payload, plain }
}

/// Exactly so many bytes of deflate, RFC 1951, without the tail (RFC 7692 §7.2.1): one block with the fixed codes, which
/// has a letter `x` for each byte but two. The frame before it may have ended in the middle of a message, between blocks.
fn deflated(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    if len >= 2 {
        // From the lowest bit: not the last block (0), with fixed codes (10), each `x` 10101000, the block's end 0000000,
        // and of the empty block whose rest is the tail the 000.
        let letters = (0..len - 2).flat_map(|letter| [0, 2, 4].map(|bit| 3 + 8 * letter + bit));
        for bit in letters.chain([1]) {
            bytes[bit / 8] |= 1 << (bit % 8);
        }
    }
    bytes
}

/// What the browser has sent before, to be in a state.
fn before(state: &str) -> Vec<u8> {
    match state {
        "text" | "closing-text" | "deflate-text" => frame(0x01, BEGUN),
        "binary" => frame(0x02, BEGUN),
        "closed" => frame(CLOSE, &1000u16.to_be_bytes()),
        // One block of bytes as they are.
        "deflate-packed" => frame(0x41, &[&[0, 6, 0, !6, !0][..], BEGUN].concat()),
        _ => Vec::new(),
    }
}

/// The last fragment of a message that the frame has begun or gone on with, or that it came between.
fn last_fragment(state: &str, pair: [u8; 2], outcome: &str) -> Vec<u8> {
    let packed = state == "deflate-packed" || (state == "deflate-idle" && pair[0] & 0x40 != 0);
    // The message must end with a block whose rest is the tail.
    let is_ended = outcome == "more" && pair[1] & 127 > 0;
    frame(0x80, if packed && !is_ended { &[0] } else { b"" })
}

/// Where a machine is as regards fragments.
fn kind(state: &str) -> &str {
    match state {
        "deflate-idle" => "idle",
        "deflate-text" | "deflate-packed" => "text",
        other => other,
    }
}

#[test]
fn each_pair_has_one_row_and_each_row_has_a_pair() {
    let rows = table();
    let mut used: Vec<usize> = Vec::new();
    for state in STATES {
        used.extend(judgements(&rows, state).iter().map(|row| row.line));
    }
    used.sort_unstable();
    used.dedup();
    assert_eq!(used, rows.iter().map(|row| row.line).collect::<Vec<_>>());
}

/// What comes out of a machine that gets the frame in two parts, in the words of the table. What only the second part
/// shows has `-whole` behind it.
fn through_the_machine(state: &str, pair: [u8; 2], whole: &Whole, cut: usize) -> &'static str {
    let (mut machine, mut inflater) = (Assembler::default(), Inflater::default());
    let is_agreed = state.starts_with("deflate");
    let mut feed = |bytes: &[u8]| {
        let inflater = is_agreed.then_some(&mut inflater);
        feed_with(&mut machine, inflater, bytes, MAX)
    };
    assert_eq!(feed(&before(state)), (vec![], Ok(())));
    let (early, first) = feed(&whole.bytes[..cut]);
    if let Err(cause) = first {
        assert_eq!((cause, early), (Cause::Protocol, vec![]));
        return "1002";
    }
    let (late, second) = feed(&whole.bytes[cut..]);
    let joined = [BEGUN, &whole.plain].concat();
    let (payload, plain, kind) = (&whole.payload, &whole.plain, kind(state));
    match ([early, late].concat().as_slice(), second) {
        ([], Err(Cause::Protocol)) => "1002-whole",
        ([], Ok(())) => {
            // What was kept comes out with the message's last fragment.
            let (got, fed) = feed(&last_fragment(state, pair, "more"));
            let kept = if kind == "idle" { plain } else { &joined };
            let is_kept = match &got[..] {
                [Got::Text(text)] => text.as_bytes() == kept,
                [Got::Binary(bytes)] => bytes == kept,
                _ => false,
            };
            assert!(is_kept && fed == Ok(()), "{got:?} {fed:?} in {state}");
            "more"
        }
        ([Got::Pong(got)], Ok(())) if got == payload => "pong",
        ([Got::Ping(got)], Ok(())) if got == payload => "ping",
        ([Got::Close(_)], Ok(())) => "close",
        ([Got::Text(got)], Ok(())) if kind == "idle" && got.as_bytes() == plain => "text",
        ([Got::Binary(got)], Ok(())) if kind == "idle" && got == plain => "binary",
        ([Got::Text(got)], Ok(())) if kind == "text" && got.as_bytes() == joined => "last",
        ([Got::Binary(got)], Ok(())) if kind == "binary" && *got == joined => "last",
        other => panic!("{other:?} in {state}"),
    }
}

/// The same for a socket that waits for the browser's close frame.
fn through_a_closing_socket(socket: &mut Socket, state: &str, parts: [&[u8]; 2]) -> &'static str {
    let _ = socket.put_assembler(Assembler::default(), &Config::new(), 0);
    let mut inflater = Inflater::default();
    assert!(!socket.hears_close(&mut before(state), MAX, &mut inflater));
    if socket.hears_close(&mut parts[0].to_vec(), MAX, &mut inflater) {
        return "end";
    }
    match socket.hears_close(&mut parts[1].to_vec(), MAX, &mut inflater) {
        true => "end-whole",
        false => "ignored",
    }
}

#[test]
fn every_pair_in_each_state_is_judged_as_the_table_says() {
    let (rows, config) = (table(), Config::new());
    let (_browser, host) = UnixStream::pair().unwrap();
    let key = Key::new(1, 1);
    let mut socket = Socket::new(
        host.into(),
        key,
        Variant::default(),
        Rc::default(),
        KeptIdentity::default(),
        Vec::new(),
        0,
    );
    socket.close(Cause::Kicked, &config, 0);
    for state in STATES {
        for (pair, row) in pairs().zip(judgements(&rows, state)) {
            let whole = whole(state, pair);
            let (bytes, payload) = (&whole.bytes, &whole.payload);
            // The header alone first: what it shows is known before any payload.
            let header = bytes.len() - payload.len();
            for cut in [header, 0, bytes.len()] {
                let outcome = match state {
                    "closed" => {
                        let all = [before(state), bytes.clone()].concat();
                        let (got, fed) = feed(&mut Assembler::default(), &all, MAX);
                        assert_eq!((got, fed), (vec![Got::Close(Some(1000))], Ok(())));
                        "ignored"
                    }
                    "closing" | "closing-text" => {
                        let parts = [&bytes[..cut], &bytes[cut..]];
                        through_a_closing_socket(&mut socket, state, parts)
                    }
                    _ => through_the_machine(state, pair, &whole, cut),
                };
                // Fed at once, or without a payload, nobody can tell when it was known.
                let known = |outcome: &'static str| match cut == header && !payload.is_empty() {
                    true => outcome,
                    false => outcome.trim_end_matches("-whole"),
                };
                let line = row.line;
                let (outcome, expected) = (known(outcome), known(row.outcome));
                assert_eq!(outcome, expected, "{pair:x?} in {state}, line {line}, cut at {cut}");
            }
        }
    }
}

/// What the server must put on the wire for such a frame, from the handshake's answer to the end.
fn on_the_wire(state: &str, outcome: &str, payload: &[u8]) -> Vec<Frame> {
    let state = kind(state);
    let message = |payload: &[u8]| {
        let first = if state == "binary" { BINARY } else { TEXT };
        Frame::new(first, payload)
    };
    let joined = [BEGUN, payload].concat();
    let normal = Frame::close(1000, "");
    // Whatever is still going on is ended by the browser, see `farewell`.
    let rest = || match state {
        "text" | "binary" => vec![message(BEGUN), normal.clone()],
        _ => vec![normal.clone()],
    };
    match outcome {
        "text" => vec![Frame::new(TEXT, payload), normal],
        "binary" => vec![Frame::new(BINARY, payload), normal],
        "more" if state == "idle" => unreachable!("its kind is in its first byte"),
        "more" | "last" => vec![message(&joined), normal],
        "ping" => [vec![Frame::new(0x8A, payload)], rest()].concat(),
        "pong" => rest(),
        "close" if payload.is_empty() => vec![Frame::new(0x88, b"")],
        "close" => vec![normal],
        "1002" | "1002-whole" => vec![Frame::close(1002, "protocol error")],
        "end" | "end-whole" => vec![Frame::close(4403, "kicked")],
        "ignored" if state == "closed" => vec![normal],
        "ignored" => vec![Frame::close(4403, "kicked")],
        other => panic!("{other}"),
    }
}

/// What a browser says at the end of it all, if there is still somebody to talk to.
fn farewell(state: &str, pair: [u8; 2], outcome: &str) -> Vec<u8> {
    let close = frame(CLOSE, &1000u16.to_be_bytes());
    let last = last_fragment(state, pair, outcome);
    match outcome {
        "close" | "1002" | "1002-whole" | "end" | "end-whole" => Vec::new(),
        "ignored" if state == "closed" => Vec::new(),
        "more" => [last, close].concat(),
        "ping" | "pong" if matches!(kind(state), "text" | "binary") => [last, close].concat(),
        _ => close,
    }
}

/// Sends a frame in a state, cut in two, and compares everything that comes back.
fn through_a_socket(bench: &Bench, state: &str, pair: [u8; 2], outcome: &str, cut: usize) {
    let Whole { bytes, plain, .. } = whole(state, pair);
    let closing = matches!(state, "closing" | "closing-text");
    let mut leftover = before(state);
    let mut parts = vec![&bytes[..cut], &bytes[cut..]];
    if !closing {
        // Behind the request: the loop is given this part alone, whatever else has come.
        leftover.extend_from_slice(parts.remove(0));
    }
    // A mirror shows what was understood; it takes no grant, so only others can be kicked.
    let grant = if closing { r#"{"user":"ann"}"# } else { "{}" };
    let extensions = state.starts_with("deflate").then_some(AGREED);
    let offer =
        Offer { grant, mirror: !closing, leftover: &leftover, extensions, ..Offer::default() };
    let mut browser = bench.offer(offer);
    let mut seen = Vec::new();
    let stream = browser.stream();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.extend(byte);
    }
    if closing {
        bench.engine.kick(&Who::User("ann".into())).unwrap();
        seen = vec![0; 2 + 2 + "kicked".len()];
        stream.read_exact(&mut seen).unwrap();
    }
    let began = Instant::now();
    let mut all: Vec<u8> = parts.concat();
    all.extend(farewell(state, pair, outcome));
    let (first, rest) = all.split_at(parts[0].len());
    // The server may have ended the connection before everything is sent: that shows when reading.
    let _ = stream.write_all(first).and_then(|()| stream.write_all(rest));
    let (came, end) = read_to_end(stream);
    let limit = Duration::from_secs(1);
    assert!(began.elapsed() < limit, "{pair:x?} in {state}: the end took {:?}", began.elapsed());
    seen.extend_from_slice(&came);
    let (got, behind) = frames(&seen);
    let expected = match (outcome, kind(state)) {
        ("more", "idle") => {
            let kind = 0x80 | (pair[0] & 0x0F);
            vec![Frame::new(kind, &plain), Frame::close(1000, "")]
        }
        _ => on_the_wire(state, outcome, &plain),
    };
    assert_eq!((got, behind), (expected, &[][..]), "{pair:x?} in {state}, cut at {cut}");
    assert_eq!(end, Some(End::Fin), "{pair:x?} in {state}, cut at {cut}");
}

#[test]
fn some_of_each_row_are_judged_the_same_on_the_wire_wherever_they_are_cut() {
    let settings = [
        ("max-message-size", "1m"),
        ("compression-threshold", "1m"),
        ("close-timeout", "1m"),
        ("ping-interval", "0"),
    ];
    let (bench, rows, mut dice) = (Bench::new(1, &settings), table(), Dice::new(1));
    let mut tried = 0;
    for state in STATES {
        let judged: Vec<_> = pairs().zip(judgements(&rows, state)).collect();
        for row in rows.iter().filter(|row| row.states.contains(&state)) {
            let of_row: Vec<_> = judged
                .iter()
                .filter(|(_, of)| of.line == row.line)
                .map(|(pair, _)| *pair)
                .collect();
            let mut chosen = vec![of_row[0], of_row[of_row.len() - 1], dice.pick(&of_row)];
            chosen.dedup();
            for pair in chosen {
                let len = whole(state, pair).bytes.len();
                // Every byte of the header and some of the payload.
                for cut in (0..=len.min(16))
                    .chain([len / 2, len - 1, len].into_iter().filter(|cut| *cut > 16))
                {
                    through_a_socket(&bench, state, pair, row.outcome, cut);
                    tried += 1;
                }
            }
        }
    }
    println!("{tried} frames on the wire");
    bench.wait_until_empty();
    // Each was counted under its cause, and under no other.
    let causes =
        ["normal", "protocol", "kicked"].map(|cause| bench.stat(&format!("closed/{cause}")));
    assert_eq!((causes.iter().sum::<u64>(), bench.stat("adopted")), (tried, tried));
}
