//! What Redis says, however it is cut, against a twin that reads RESP2 as its specification has it.

use redis::Value;
use wsredis::error::{Kind, Result};
use wsredis::resp::{Decoder, Reply, command};

use crate::input::{Input, pieces};

/// What the twin sees at the begin of some bytes.
enum Seen {
    /// A value and its size.
    Whole(Plain, usize),
    /// The begin of one.
    Part,
    /// None that Redis writes. A reader may still take it: nothing is claimed.
    Odd,
}

/// A value of RESP2.
enum Plain {
    Nil,
    Line(String),
    Error(String),
    Int(i64),
    Bulk(Vec<u8>),
    List(Vec<Plain>),
}

fn twin(bytes: &[u8], depth: usize) -> Seen {
    let Some((kind, rest)) = bytes.split_first() else { return Seen::Part };
    if !b"+-:$*".contains(kind) {
        return Seen::Odd;
    }
    let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return Seen::Part };
    let (line, mut at) = (&rest[..end], 1 + end + 2);
    let Ok(line) = std::str::from_utf8(line) else { return Seen::Odd };
    if line.contains(['\r', '\n']) {
        return Seen::Odd;
    }
    // Only as Redis writes numbers: no plus, no leading zero, no blank.
    let number = line.parse::<i64>().ok().filter(|number| number.to_string() == line);
    match (kind, number) {
        (b'+', _) => Seen::Whole(Plain::Line(line.into()), at),
        (b'-', _) => Seen::Whole(Plain::Error(line.into()), at),
        (b':', Some(number)) => Seen::Whole(Plain::Int(number), at),
        (b'$' | b'*', Some(-1)) => Seen::Whole(Plain::Nil, at),
        (b'$', Some(len @ 0..)) => {
            let (payload, behind) = bytes[at..].split_at((len as usize).min(bytes.len() - at));
            match behind {
                [b'\r', b'\n', ..] => {
                    Seen::Whole(Plain::Bulk(payload.into()), at + payload.len() + 2)
                }
                [] | [b'\r'] => Seen::Part,
                _ => Seen::Odd,
            }
        }
        (b'*', Some(len @ 0..)) if depth < 8 => {
            let mut list = Vec::new();
            for _ in 0..len {
                match twin(&bytes[at..], depth + 1) {
                    Seen::Whole(value, size) => {
                        list.push(value);
                        at += size;
                    }
                    other => return other,
                }
            }
            Seen::Whole(Plain::List(list), at)
        }
        _ => Seen::Odd,
    }
}

/// What links make of a value.
fn named(value: Plain) -> Reply<'static> {
    use Plain::{Bulk, Error, Int, Line, List};
    let error = |line: &str| {
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        let text = text.split(", with args").next().unwrap_or_default();
        Reply::Error { code: code.into(), text: text.into() }
    };
    match value {
        Line(line) if line == "PONG" => Reply::Pong,
        Error(line) => error(&line),
        List(list) => match &list[..] {
            [Bulk(kind), Bulk(channel), Bulk(payload)] if kind == b"message" => {
                Reply::Message { channel: channel.clone().into(), payload: payload.clone().into() }
            }
            [Bulk(kind), Bulk(channel), Int(_)] if kind == b"subscribe" => {
                Reply::Subscribed(channel.clone())
            }
            [Bulk(kind), Bulk(channel), Int(_)] if kind == b"unsubscribe" => {
                Reply::Unsubscribed(channel.clone())
            }
            [Bulk(kind), Bulk(text)] if kind == b"pong" && text.is_empty() => Reply::Pong,
            _ => Reply::Other(plain(List(list))),
        },
        other => Reply::Other(plain(other)),
    }
}

fn plain(value: Plain) -> Value {
    match value {
        Plain::Nil => Value::Nil,
        Plain::Line(line) if line == "OK" => Value::Okay,
        Plain::Line(line) => Value::SimpleString(line),
        Plain::Int(number) => Value::Int(number),
        Plain::Bulk(bytes) => Value::BulkString(bytes),
        Plain::List(list) => Value::Array(list.into_iter().map(plain).collect()),
        // Errors inside of arrays come from EXEC, which nobody sends; their type is the crate's own.
        Plain::Error(line) => Value::SimpleString(format!("-{line}")),
    }
}

fn holds_error(value: &Plain) -> bool {
    match value {
        Plain::List(list) => list.iter().any(holds_error),
        Plain::Error(_) => true,
        _ => false,
    }
}

/// Feeds pieces until one is refused.
fn feed<'a>(
    decoder: &mut Decoder,
    pieces: impl IntoIterator<Item = &'a [u8]>,
    replies: &mut Vec<Reply<'static>>,
) -> Result<()> {
    let result = pieces
        .into_iter()
        .try_for_each(|piece| decoder.feed(piece, &mut |reply| replies.push(reply.into_owned())));
    if let Err(error) = &result {
        assert!(error.kind == Kind::Io && error.text.len() < 200, "{error}");
    }
    result
}

/// What came of the whole: a result, the replies, and the decoder with what is left.
type Outcome<'a> = (&'a Result<()>, &'a [Reply<'static>], &'a Decoder);

/// In pieces it is the same.
fn cut(bytes: &[u8], seed: u8, max: usize, (result, replies, decoder): Outcome<'_>) {
    let (mut other, mut again) = (Decoder::new(max), Vec::new());
    let cut = feed(&mut other, pieces(bytes, seed), &mut again);
    match (result, &cut) {
        // An error at the end of a piece is noticed later, with the end of what looks like a reply.
        (Err(_), Ok(())) => drop(feed(&mut other, [&b"\r\n"[..]; 8], &mut again)),
        (Ok(()), Ok(())) => assert_eq!(other.unparsed(), decoder.unparsed()),
        _ => assert_eq!(cut.is_ok(), result.is_ok()),
    }
    assert_eq!(again, replies);
}

/// Another process goes on in the middle.
fn go_on(bytes: &[u8], at: u8, max: usize, (result, replies, decoder): Outcome<'_>) {
    if result.is_err() {
        return;
    }
    let (before, behind) = bytes.split_at(usize::from(at) % (bytes.len() + 1));
    let (mut first, mut second, mut again) = (Decoder::new(max), Decoder::new(max), Vec::new());
    feed(&mut first, [before], &mut again).expect("the whole was good");
    let heard = again.len();
    feed(&mut second, [first.unparsed()], &mut again).expect("it was good before");
    assert_eq!(again.len(), heard, "a whole reply was kept");
    feed(&mut second, [behind], &mut again).expect("the whole was good");
    assert_eq!(again, replies);
    assert_eq!(second.unparsed(), decoder.unparsed());
    assert!(bytes.ends_with(decoder.unparsed()));
}

/// A command of these words is read as it was given.
fn read_back(bytes: &[u8]) {
    let args: Vec<&[u8]> = bytes.split(|byte| *byte == b' ').collect();
    let mut out = Vec::new();
    command(&mut out, &args);
    let (mut decoder, mut replies) = (Decoder::new(1 << 20), Vec::new());
    feed(&mut decoder, [&out[..]], &mut replies).expect("a command is an array");
    let list = args.iter().map(|arg| Plain::Bulk(arg.to_vec())).collect();
    assert_eq!(replies, [named(Plain::List(list))]);
    assert!(decoder.unparsed().is_empty());
}

/// A stream says the same however it is cut, and wherever another decoder goes on with it. What
/// Redis may write is read as the twin reads it, and what is over the limit is refused. Commands
/// read back as they were given.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let (seed, choice) = (input.byte(), input.byte());
    let bytes = input.0;
    let max = [16, 64, 1 << 10, 1 << 20][usize::from(choice & 3)];

    let (mut decoder, mut replies) = (Decoder::new(max), Vec::new());
    let result = feed(&mut decoder, [bytes], &mut replies);

    // One of the three other ways each time: executions are cheap, and the choice is in the input.
    match choice >> 2 & 3 {
        0 | 1 => cut(bytes, seed, max, (&result, &replies, &decoder)),
        2 => go_on(bytes, seed, max, (&result, &replies, &decoder)),
        _ => read_back(bytes),
    }

    let (mut at, mut count) = (0, 0);
    let is_good = loop {
        match twin(&bytes[at..], 0) {
            Seen::Whole(_, size) if size > max => break Some(false),
            Seen::Whole(value, size) => {
                at += size;
                let skip = matches!(value, Plain::List(_)) && holds_error(&value);
                assert!(count < replies.len(), "only {count} replies");
                if !skip {
                    assert_eq!(named(value), replies[count]);
                }
                count += 1;
            }
            Seen::Part => break Some(bytes.len() - at <= max),
            Seen::Odd => break None,
        }
    };
    if let Some(is_good) = is_good {
        assert_eq!((result.is_ok(), replies.len()), (is_good, count));
        if is_good {
            assert_eq!(decoder.unparsed(), &bytes[at..]);
        }
    }
}
