//! RESP2, the protocol of Redis: commands into bytes, and bytes as they came into replies.
//!
//! Each link owns one [`Decoder`], used by its loop. The parser of values is the redis crate's. What
//! a loop does for every message is done here: commands, where a reply ends, pushes, and the answers
//! to PUBLISH; the crate takes a microsecond for each of them. Its blocking client is not used,
//! nothing here reads a descriptor. A reply is bounded in size and depth: one that is larger comes
//! from no Redis that we asked, and the link is dropped.

use std::borrow::Cow;

use ::redis::Value;

use crate::error::{Error, Kind, Result};

/// Arrays within arrays. The deepest answer to a command of ours has three levels.
const MAX_DEPTH: usize = 8;

/// Appends one command.
pub fn command(out: &mut Vec<u8>, args: &[&[u8]]) {
    head(out, b'*', args.len());
    for arg in args {
        head(out, b'$', arg.len());
        out.extend_from_slice(arg);
        out.extend_from_slice(b"\r\n");
    }
}

fn head(out: &mut Vec<u8>, kind: u8, length: usize) {
    out.push(kind);
    out.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// What Redis said, as far as links tell it apart.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply<'a> {
    /// A message of a subscribed channel.
    Message {
        /// The channel as Redis knows it, with any prefix.
        channel: Cow<'a, [u8]>,
        /// The bytes as they were published.
        payload: Cow<'a, [u8]>,
    },
    /// From now on messages of this channel come.
    Subscribed(Vec<u8>),
    /// No more messages of this channel come.
    Unsubscribed(Vec<u8>),
    /// The answer to PING, in either of its two shapes.
    Pong,
    /// A command failed.
    Error {
        /// The first word, such as `NOAUTH`, `READONLY` or `ERR`.
        code: String,
        /// The rest of the line, without the arguments that Redis may quote in it.
        text: String,
    },
    /// The answer to any other command.
    Other(Value),
}

impl Reply<'_> {
    /// The same reply, for whoever keeps it.
    pub fn into_owned(self) -> Reply<'static> {
        match self {
            Reply::Message { channel, payload } => Reply::Message {
                channel: Cow::Owned(channel.into_owned()),
                payload: Cow::Owned(payload.into_owned()),
            },
            Reply::Subscribed(name) => Reply::Subscribed(name),
            Reply::Unsubscribed(name) => Reply::Unsubscribed(name),
            Reply::Pong => Reply::Pong,
            Reply::Error { code, text } => Reply::Error { code, text },
            Reply::Other(value) => Reply::Other(value),
        }
    }
}

/// Turns the bytes of one link into replies, however they are cut.
pub struct Decoder {
    max_reply: usize,
    /// What came of a reply that is not whole yet.
    tail: Vec<u8>,
    /// How far that was looked at.
    scan: Scan,
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Decoder({} bytes of a reply)", self.tail.len())
    }
}

impl Decoder {
    /// A decoder that refuses a reply of more than `max_reply` bytes.
    pub fn new(max_reply: usize) -> Self {
        Decoder { max_reply, tail: Vec::new(), scan: Scan::default() }
    }

    /// The bytes of a reply that is not whole yet: what another decoder is to be fed first.
    pub fn unparsed(&self) -> &[u8] {
        &self.tail
    }

    /// Takes bytes as they came and calls `each` for every reply that is whole now, in order.
    ///
    /// # Errors
    /// `Io` for what is not RESP2, is nested too deep or too large. The link must be dropped and
    /// this decoder with it: there is no way to find the next reply.
    pub fn feed(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(Reply<'_>)) -> Result<()> {
        if !self.tail.is_empty() {
            let kept = self.tail.len();
            self.tail.extend_from_slice(bytes);
            let Some(end) = self.scan.end(&self.tail)? else {
                return self.check_size(self.tail.len());
            };
            bytes = &bytes[end - kept..];
            let tail = std::mem::take(&mut self.tail);
            self.hand_on(&tail[..end], each)?;
        }
        while !bytes.is_empty() {
            let Some(end) = self.scan.end(bytes)? else {
                self.tail = bytes.to_vec();
                return self.check_size(bytes.len());
            };
            self.hand_on(&bytes[..end], each)?;
            bytes = &bytes[end..];
        }
        Ok(())
    }

    /// Hands on one whole reply.
    fn hand_on(&self, whole: &[u8], each: &mut dyn FnMut(Reply<'_>)) -> Result<()> {
        self.check_size(whole.len())?;
        // Nearly everything is a message, or the answer to PUBLISH.
        each(match whole {
            [b':', line @ .., b'\r', b'\n'] => Reply::Other(Value::Int(number(line)?)),
            _ => match message(whole) {
                Some((channel, payload)) => {
                    Reply::Message { channel: channel.into(), payload: payload.into() }
                }
                // The crate's own text quotes the bytes, which may be anybody's payload.
                None => classify(::redis::parse_redis_value(whole).map_err(|_| not_resp2())?),
            },
        });
        Ok(())
    }

    fn check_size(&self, size: usize) -> Result<()> {
        if size > self.max_reply {
            return Err(malformed(&format!("a reply is over {} bytes", self.max_reply)));
        }
        Ok(())
    }
}

fn malformed(why: &str) -> Error {
    Error::new(Kind::Io, format!("redis reply refused: {why}; is redis-url really a Redis server?"))
}

fn not_resp2() -> Error {
    malformed("what came is not RESP2")
}

/// Finds where a reply ends, by its lengths alone; what it has passed it does not look at again,
/// however the reply is cut. The crate's parser also reads RESP3, for which nobody asked with HELLO, and numbers that no
/// Redis writes; all that is refused here.
#[derive(Default)]
struct Scan {
    /// Where the next item begins.
    at: usize,
    /// There is no end of its line before this.
    seen: usize,
    /// How many items each of the arrays waits for that are open, the innermost last.
    open: Vec<u64>,
}

impl Scan {
    /// The end of the reply that begins `bytes`, if it is whole: then the next one may be looked
    /// for. If not, it wants the same bytes again and more behind them.
    fn end(&mut self, bytes: &[u8]) -> Result<Option<usize>> {
        while let Some(kind) = bytes.get(self.at) {
            if !b"+-:$*".contains(kind) {
                return Err(not_resp2());
            }
            let from = self.seen.max(self.at + 1);
            let Some(line) = end_of_line(bytes, from) else {
                self.seen = from.max(bytes.len() - 1);
                return Ok(None);
            };
            let text = &bytes[self.at + 1..line];
            let mut next = line + 2;
            match kind {
                b':' => drop(number(text)?),
                b'$' => {
                    if let Some(length) = length(text)? {
                        next = next.saturating_add(length as usize).saturating_add(2);
                        let Some(bulk) = bytes.get(..next) else { return Ok(None) };
                        if !bulk.ends_with(b"\r\n") {
                            return Err(not_resp2());
                        }
                    }
                }
                b'*' => {
                    if let Some(items) = length(text)? {
                        if self.open.len() == MAX_DEPTH {
                            return Err(malformed("arrays are nested too deep"));
                        }
                        if items > 0 {
                            self.open.push(items);
                            self.at = next;
                            continue;
                        }
                    }
                }
                _ => {}
            }
            self.at = next;
            while let Some(items) = self.open.last_mut() {
                *items -= 1;
                if *items > 0 {
                    break;
                }
                self.open.pop();
            }
            if self.open.is_empty() {
                (self.at, self.seen) = (0, 0);
                return Ok(Some(next));
            }
        }
        Ok(None)
    }
}

/// Where the line ends in which the byte `from` lies, before its CR LF.
fn end_of_line(bytes: &[u8], mut from: usize) -> Option<usize> {
    loop {
        from += bytes.get(from..)?.iter().position(|byte| *byte == b'\r')?;
        if *bytes.get(from + 1)? == b'\n' {
            return Some(from);
        }
        from += 1;
    }
}

/// A number as Redis writes it.
fn number(text: &[u8]) -> Result<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    let is_plain = matches!(digits, [b'1'..=b'9', ..]) || text == b"0";
    let mut number = Some(0i64).filter(|_| is_plain);
    for digit in digits {
        let digit = (*digit as char).to_digit(10).map(|digit| sign * i64::from(digit));
        number = number.and_then(|number| number.checked_mul(10)?.checked_add(digit?));
    }
    number.ok_or_else(not_resp2)
}

/// A length; `None` is that of what is not there.
fn length(text: &[u8]) -> Result<Option<u64>> {
    match number(text)? {
        -1 => Ok(None),
        length => u64::try_from(length).map(Some).map_err(|_| not_resp2()),
    }
}

/// Channel and payload of a whole reply, if it is a message.
fn message(whole: &[u8]) -> Option<(&[u8], &[u8])> {
    let (channel, rest) = bulk(whole.strip_prefix(b"*3\r\n$7\r\nmessage\r\n")?)?;
    let (payload, rest) = bulk(rest)?;
    rest.is_empty().then_some((channel, payload))
}

/// The string that begins `bytes`, and what is behind it.
fn bulk(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let bytes = bytes.strip_prefix(b"$")?;
    let line = bytes.iter().position(|byte| *byte == b'\r')?;
    let length = usize::try_from(length(&bytes[..line]).ok()??).ok()?;
    let (text, rest) = bytes.get(line + 2..)?.split_at_checked(length)?;
    Some((text, rest.strip_prefix(b"\r\n")?))
}

/// Names a reply. On a link that subscribes, RESP2 gives pushes the shape of ordinary arrays; other
/// links ask nothing whose answer begins with the name of a push.
fn classify(value: Value) -> Reply<'static> {
    match value {
        Value::SimpleString(text) if text == "PONG" => Reply::Pong,
        Value::ServerError(error) => Reply::Error {
            code: error.code().into(),
            text: without_arguments(error.details().unwrap_or_default()).into(),
        },
        Value::Array(mut items) => match items.as_mut_slice() {
            [Value::BulkString(kind), Value::BulkString(channel), Value::Int(_)]
                if kind == b"subscribe" =>
            {
                Reply::Subscribed(std::mem::take(channel))
            }
            [Value::BulkString(kind), Value::BulkString(channel), Value::Int(_)]
                if kind == b"unsubscribe" =>
            {
                Reply::Unsubscribed(std::mem::take(channel))
            }
            [Value::BulkString(kind), Value::BulkString(text)]
                if kind == b"pong" && text.is_empty() =>
            {
                Reply::Pong
            }
            _ => Reply::Other(Value::Array(items)),
        },
        other => Reply::Other(other),
    }
}

/// An error's text up to where Redis quotes arguments back. A server that does not know AUTH, or a
/// command behind a proxy, would put a password into our log this way.
fn without_arguments(text: &str) -> &str {
    text.split_once(", with args").map_or(text, |(before, _)| before)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1 << 20;

    fn feed_all<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> (Vec<Reply<'static>>, Result<()>) {
        let (mut decoder, mut replies) = (Decoder::new(max), Vec::new());
        for piece in pieces {
            if let Err(error) = decoder.feed(piece, &mut |reply| replies.push(reply.into_owned())) {
                return (replies, Err(error));
            }
        }
        (replies, Ok(()))
    }

    fn bulk(text: &str) -> Value {
        Value::BulkString(text.into())
    }

    /// Every kind of reply, and what it means.
    fn samples() -> Vec<(&'static [u8], Reply<'static>)> {
        let other = Reply::Other;
        let error = |code: &str, text: &str| Reply::Error { code: code.into(), text: text.into() };
        vec![
            (
                b"*3\r\n$7\r\nmessage\r\n$4\r\nchat\r\n$7\r\na\r\n$1\r\n\r\n",
                Reply::Message { channel: b"chat"[..].into(), payload: b"a\r\n$1\r\n"[..].into() },
            ),
            (
                b"*3\r\n$7\r\nmessage\r\n$1\r\n\xff\r\n$0\r\n\r\n",
                Reply::Message { channel: b"\xff"[..].into(), payload: b""[..].into() },
            ),
            (b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n", Reply::Subscribed(b"a".into())),
            (b"*3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n", Reply::Unsubscribed(b"a".into())),
            (
                b"*3\r\n$11\r\nunsubscribe\r\n$-1\r\n:0\r\n",
                other(Value::Array(vec![bulk("unsubscribe"), Value::Nil, Value::Int(0)])),
            ),
            (b"+PONG\r\n", Reply::Pong),
            (b"*2\r\n$4\r\npong\r\n$0\r\n\r\n", Reply::Pong),
            (
                b"*2\r\n$4\r\npong\r\n$1\r\nx\r\n",
                other(Value::Array(vec![bulk("pong"), bulk("x")])),
            ),
            (b"+OK\r\n", other(Value::Okay)),
            (b"+QUEUED\r\n", other(Value::SimpleString("QUEUED".into()))),
            (b"+\r\n", other(Value::SimpleString("".into()))),
            (b":-12\r\n", other(Value::Int(-12))),
            (b"$-1\r\n", other(Value::Nil)),
            (b"*-1\r\n", other(Value::Nil)),
            (b"*0\r\n", other(Value::Array(vec![]))),
            (
                b"*2\r\n+OK\r\n*1\r\n$1\r\nx\r\n",
                other(Value::Array(vec![Value::Okay, Value::Array(vec![bulk("x")])])),
            ),
            (b"-NOAUTH Authentication required.\r\n", error("NOAUTH", "Authentication required.")),
            (b"-READONLY\r\n", error("READONLY", "")),
            (b"-MOVED 3999 127.0.0.1:6381\r\n", error("MOVED", "3999 127.0.0.1:6381")),
            (b"-ERR  two  spaces\r\n", error("ERR", " two  spaces")),
        ]
    }

    #[test]
    fn replies_are_the_same_however_they_are_cut() {
        let bytes: Vec<u8> = samples().iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        let expected: Vec<Reply> = samples().into_iter().map(|(_, reply)| reply).collect();
        assert_eq!(feed_all([&bytes[..]], MAX), (expected.clone(), Ok(())));
        assert_eq!(feed_all(bytes.chunks(1), MAX), (expected.clone(), Ok(())));
        for cut in 0..=bytes.len() {
            let halves = feed_all([&bytes[..cut], &[], &bytes[cut..]], MAX);
            assert_eq!(halves, (expected.clone(), Ok(())), "cut at {cut}");
        }
    }

    #[test]
    fn a_reply_comes_with_its_last_byte_and_not_before() {
        for (bytes, reply) in samples() {
            for cut in 0..bytes.len() {
                assert_eq!(feed_all([&bytes[..cut]], MAX), (vec![], Ok(())), "{reply:?} at {cut}");
            }
            assert_eq!(feed_all([bytes], MAX).0, [reply]);
        }
    }

    #[test]
    fn the_size_of_each_reply_is_known_so_nothing_is_left_pending() {
        let mut decoder = Decoder::new(MAX);
        for (bytes, reply) in samples() {
            decoder.feed(bytes, &mut |_| {}).unwrap();
            assert_eq!(decoder.tail.len(), 0, "{reply:?}");
        }
    }

    #[test]
    fn another_decoder_goes_on_in_the_middle_of_a_reply() {
        let bytes: Vec<u8> = samples().iter().flat_map(|(bytes, _)| bytes.to_vec()).collect();
        let expected: Vec<Reply> = samples().into_iter().map(|(_, reply)| reply).collect();
        for cut in 0..=bytes.len() {
            for step in [1, bytes.len()] {
                let (mut first, mut second) = (Decoder::new(MAX), Decoder::new(MAX));
                let mut replies = Vec::new();
                for piece in bytes[..cut].chunks(step) {
                    first.feed(piece, &mut |reply| replies.push(reply.into_owned())).unwrap();
                }
                second.feed(first.unparsed(), &mut |_| panic!("it was whole")).unwrap();
                assert_eq!(second.unparsed(), first.unparsed());
                second.feed(&bytes[cut..], &mut |reply| replies.push(reply.into_owned())).unwrap();
                assert_eq!(replies, expected, "cut at {cut}");
                assert!(second.unparsed().is_empty());
            }
        }
    }

    #[test]
    fn a_reply_over_the_limit_is_refused_whole_or_in_pieces() {
        for (len, good) in [(99, true), (100, true), (101, false)] {
            // `$NN` CRLF, payload, CRLF
            let payload = "x".repeat(len - 7);
            let reply = format!("${}\r\n{payload}\r\n", payload.len()).into_bytes();
            assert_eq!(reply.len(), len);
            let around = [&b"+OK\r\n"[..], &reply, b"+OK\r\n"].concat();
            let (whole, pieces) = (feed_all([&around[..]], 100), feed_all(around.chunks(1), 100));
            assert_eq!(whole, pieces);
            assert_eq!((whole.1.is_ok(), whole.0.len()), (good, if good { 3 } else { 1 }));
        }
        // Many small replies in one read are not one large reply.
        let many = b"+PONG\r\n".repeat(10_000);
        assert_eq!(feed_all([&many[..]], 100).0.len(), 10_000);
    }

    #[test]
    fn huge_lengths_wait_for_no_memory_and_end_at_the_limit() {
        for head in ["$2000000000\r\n", "*1000000000\r\n", "$9223372036854775807\r\n"] {
            assert_eq!(feed_all([head.as_bytes()], 100), (vec![], Ok(())), "{head}");
            let filled = [head.as_bytes(), &b":1\r\n".repeat(30)].concat();
            assert_eq!(feed_all([&filled[..]], 100).1.unwrap_err().kind, Kind::Io, "{head}");
        }
        // A line that never ends.
        assert!(feed_all([&b"+".repeat(200)[..]], 100).1.is_err());
    }

    #[test]
    fn arrays_are_nested_at_most_eight_deep() {
        for (depth, good) in [(1, true), (8, true), (9, false), (99, false), (100_000, false)] {
            let bytes = [b"*1\r\n".repeat(depth), b":1\r\n".to_vec()].concat();
            assert_eq!(feed_all([&bytes[..]], MAX).1.is_ok(), good, "{depth}");
        }
    }

    #[test]
    fn what_is_not_resp2_is_refused_and_not_quoted() {
        for bytes in [
            &b"HTTP/1.1 400 secret\r\n"[..],
            b"\r\n",
            b"\0\0\0\0",
            b":secret\r\n",
            b"$secret\r\n",
            b"*secret\r\n",
            b"*1\r\n!",
            b"$3\r\nabcdef\r\n",
            b":99999999999999999999\r\n",
            b"+\xff\xfe\r\n",
            b"%1\r\n+a\r\n+b\r\n",
            b">2\r\n+message\r\n+b\r\n",
            b"#t\r\n",
            b",1.5\r\n",
            b"~1\r\n:1\r\n",
            b"=5\r\ntxt:a\r\n",
            // What the parser takes for a value of RESP2.
            b"_\r\n",
            b"!5\r\nERR a\r\n",
            b":+5\r\n",
            b":05\r\n",
            b": 5\r\n",
            b"$-2\r\n",
            b"$01\r\na\r\n",
            b"*-5\r\n",
            b"*+1\r\n:1\r\n",
            b"*1\r\n_\r\n",
        ] {
            let (replies, result) = feed_all([bytes, b"\r\n\r\n"], MAX);
            let Err(error) = result else { panic!("{bytes:?} gave {replies:?}") };
            assert_eq!((error.kind, replies), (Kind::Io, vec![]));
            assert!(!error.text.contains("secret"), "{error}");
        }
    }

    #[test]
    fn arguments_that_redis_quotes_in_an_error_are_left_out() {
        for line in [
            "-ERR unknown command 'AUTH', with args beginning with: 'app' 'pa55' \r\n",
            "-ERR unknown command `AUTH`, with args beginning with: `pa55`, \r\n",
        ] {
            let replies = feed_all([line.as_bytes()], MAX).0;
            let [Reply::Error { code, text }] = &replies[..] else { panic!("{replies:?}") };
            assert!(code == "ERR" && text.starts_with("unknown command") && text.len() < 30);
        }
    }

    #[test]
    fn commands_are_arrays_of_bulk_strings_that_read_back_as_given() {
        let mut out = b"before".to_vec();
        command(&mut out, &[b"PUBLISH", b"chat", b"a\r\n$5\r\n\0\xff", b""]);
        assert_eq!(
            out,
            b"before*4\r\n$7\r\nPUBLISH\r\n$4\r\nchat\r\n$9\r\na\r\n$5\r\n\0\xff\r\n$0\r\n\r\n"
        );
        let expected = ["PUBLISH", "chat"].map(bulk).into_iter();
        let expected =
            expected.chain([b"a\r\n$5\r\n\0\xff".to_vec(), vec![]].map(Value::BulkString));
        let replies = feed_all([&out[6..]], MAX).0;
        assert_eq!(replies, [Reply::Other(Value::Array(expected.collect()))]);
    }
}
