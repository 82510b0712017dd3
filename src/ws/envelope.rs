//! The subprotocol `wsredis.v1`: JSON text frames that name their channel; and the `sender` put
//! around what a socket says. Values to JSON and back, called by the loop once per message of a
//! channel, never once per socket.
//!
//! One rule makes both directions exact: what one browser sends as `data` is what another gets as
//! `data`, for every JSON value, while a program that PUBLISHes bare text or JSON need not know of
//! it. [`message`] takes a payload that is JSON for that value and any other text for a string;
//! [`parse`] is its inverse.

use std::borrow::Cow;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, de::IgnoredAny};
use serde_json::value::RawValue;

use crate::cause::Cause;

/// The name in `Sec-WebSocket-Protocol`.
pub const PROTOCOL: &str = "wsredis.v1";

/// Arrays and objects within each other, up to which a payload counts as JSON. Parsing here takes
/// no stack, but receivers' parsers do: one message must not make every page that hears it throw.
const MAX_DEPTH: usize = 128;

/// The same for what browsers send, with room for what is put around it.
const MAX_SENT_DEPTH: usize = 120;

/// Appends the first message of a socket, which tells it its id.
pub fn hello(out: &mut Vec<u8>, socket_id: &str) {
    out.extend_from_slice(br#"{"type":"hello","socket":"#);
    string(out, socket_id);
    out.push(b'}');
}

/// Appends a channel's message: JSON as it is, other text as a string, other bytes in base64.
pub fn message(out: &mut Vec<u8>, channel: &str, payload: &[u8]) {
    out.extend_from_slice(br#"{"channel":"#);
    string(out, channel);
    out.extend_from_slice(br#","data":"#);
    // UTF-8 first: a JSON parser over bytes would let wrong bytes inside a skipped string pass into
    // a text frame.
    match std::str::from_utf8(payload) {
        Ok(text) => data(out, text, MAX_DEPTH),
        Err(_) => {
            string(out, &BASE64.encode(payload));
            out.extend_from_slice(br#","encoding":"base64""#);
        }
    }
    out.push(b'}');
}

/// What a socket is told about a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Messages may be missing here: the link to Redis was lost.
    Gap,
    /// Messages were left out for this socket alone, which did not read.
    Dropped,
    /// What was missed can not be brought back.
    Lost,
}

/// Appends a notice.
pub fn notice(out: &mut Vec<u8>, notice: Notice, channel: &str) {
    let name = match notice {
        Notice::Gap => "gap",
        Notice::Dropped => "dropped",
        Notice::Lost => "lost",
    };
    out.extend_from_slice(br#"{"type":""#);
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(br#"","channel":"#);
    string(out, channel);
    out.push(b'}');
}

/// The notice that so many messages were left out, for a socket that reads too slowly.
pub fn dropped(channel: &str, count: u32) -> Vec<u8> {
    let mut out = Vec::new();
    notice(&mut out, Notice::Dropped, channel);
    out.pop();
    out.extend_from_slice(format!(",\"count\":{count}}}").as_bytes());
    out
}

/// What a browser sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent<'a> {
    /// Where to; whether it may is the grant's to say.
    pub channel: Cow<'a, str>,
    /// The bytes to publish.
    pub payload: Cow<'a, [u8]>,
    /// It came as base64: where a `sender` is put around messages it is refused like a binary
    /// frame.
    pub binary: bool,
}

/// The JSON object of a browser, field by field.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    channel: Cow<'a, str>,
    #[serde(borrow)]
    data: &'a RawValue,
    #[serde(borrow, default, deserialize_with = "not_null")]
    encoding: Option<Cow<'a, str>>,
}

/// An `Option` for a field that may be absent but not null.
fn not_null<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cow<'de, str>>, D::Error> {
    Text::deserialize(from).map(|text| Some(text.0))
}

/// A JSON string, borrowed where it holds no escape.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads a browser's message, `{"channel":…,"data":…}` with an optional `"encoding":"base64"`.
///
/// # Errors
/// `Unacceptable` (1003) for everything else: the frame was right, the browser spoke RFC 6455 and
/// nothing was denied, but a message of this kind can not be taken. A program that sends one must
/// be corrected.
pub fn parse(text: &str) -> Result<Sent<'_>, Cause> {
    // serde would also read the fields out of an array.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Cause::Unacceptable);
    }
    let fields: Fields<'_> = serde_json::from_str(text).map_err(|_| Cause::Unacceptable)?;
    let raw = fields.data.get();
    let is_string = raw.starts_with('"');
    let (payload, binary) = match fields.encoding.as_deref() {
        None if is_string => (payload_of_string(raw), false),
        None if is_shallow(raw, MAX_SENT_DEPTH) => (Cow::Borrowed(raw.as_bytes()), false),
        Some("base64") if is_string => {
            let Text(base64) = serde_json::from_str(raw).map_err(|_| Cause::Unacceptable)?;
            let bytes = BASE64.decode(base64.as_bytes()).map_err(|_| Cause::Unacceptable)?;
            (Cow::Owned(bytes), true)
        }
        _ => return Err(Cause::Unacceptable),
    };
    Ok(Sent { channel: fields.channel, payload, binary })
}

/// What is published for the JSON string `raw`: its bare content, which is what people read in
/// `redis-cli`, unless the content would be taken for JSON on the way out ("12", "null"): then the
/// string as it is, with its quotes.
fn payload_of_string(raw: &str) -> Cow<'_, [u8]> {
    match serde_json::from_str(raw) {
        Ok(Text(Cow::Borrowed(text))) if !is_json(text, MAX_DEPTH) => text.as_bytes().into(),
        Ok(Text(Cow::Owned(text))) if !is_json(&text, MAX_DEPTH) => text.into_bytes().into(),
        // Also half a surrogate pair (`"\ud800"`): JavaScript can hold and escape it, UTF-8 can
        // not.
        _ => raw.as_bytes().into(),
    }
}

/// `payload` with the grant's `sender` (JSON) beside it: `{"sender":…,"data":…}`. JSON stays as it
/// is, other text becomes a string.
///
/// # Errors
/// `Unacceptable` (1003) if the payload is not text.
pub fn with_sender(sender: &str, payload: &[u8]) -> Result<Vec<u8>, Cause> {
    let text = std::str::from_utf8(payload).map_err(|_| Cause::Unacceptable)?;
    let mut out = Vec::with_capacity(sender.len() + payload.len() + 24);
    out.extend_from_slice(br#"{"sender":"#);
    out.extend_from_slice(sender.as_bytes());
    out.extend_from_slice(br#","data":"#);
    data(&mut out, text, MAX_SENT_DEPTH);
    out.push(b'}');
    Ok(out)
}

/// Appends text as the value of `data`.
fn data(out: &mut Vec<u8>, text: &str, max_depth: usize) {
    if is_json(text, max_depth) {
        out.extend_from_slice(text.as_bytes());
    } else {
        string(out, text);
    }
}

/// Appends a JSON string.
fn string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("writing a string to a Vec does not fail");
}

/// Whether `text` is one JSON value, not nested deeper than `max_depth`. Takes no stack and no
/// memory that grows with more than the nesting.
fn is_json(text: &str, max_depth: usize) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok() && is_shallow(text, max_depth)
}

/// Whether valid JSON is nested at most `max_depth` deep.
fn is_shallow(json: &str, max_depth: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > max_depth {
                    return false;
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn told(channel: &str, payload: &[u8]) -> String {
        let mut out = Vec::new();
        message(&mut out, channel, payload);
        String::from_utf8(out).unwrap()
    }

    /// What is published for `data`, given as JSON text.
    fn published(data: &str) -> String {
        let text = format!(r#"{{"channel":"c","data":{data}}}"#);
        let sent = parse(&text).unwrap();
        assert_eq!((&*sent.channel, sent.binary), ("c", false));
        String::from_utf8(sent.payload.into_owned()).unwrap()
    }

    #[test]
    fn the_messages_of_the_protocol_are_these() {
        let mut out = Vec::new();
        hello(&mut out, "a\"b");
        notice(&mut out, Notice::Gap, "news");
        notice(&mut out, Notice::Dropped, "n\n");
        notice(&mut out, Notice::Lost, "ü");
        let expected = concat!(
            r#"{"type":"hello","socket":"a\"b"}"#,
            r#"{"type":"gap","channel":"news"}"#,
            r#"{"type":"dropped","channel":"n\n"}"#,
            r#"{"type":"lost","channel":"ü"}"#
        );
        assert_eq!(out, expected.as_bytes());
    }

    #[test]
    fn a_payload_is_json_or_a_string_or_base64() {
        for (payload, data) in [
            (&b"hello"[..], r#""hello""#),
            (b"", r#""""#),
            (b"12", "12"),
            (b" [1,\n 2] ", " [1,\n 2] "),
            (b"null", "null"),
            (b"1e999", "1e999"),
            (b"\"quoted\"", r#""quoted""#),
            (br#""\ud800""#, r#""\ud800""#),
            (b"{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":2}"),
            (b"1 2", r#""1 2""#),
            (b"NaN", r#""NaN""#),
            (b"\"\n\"", r#""\"\n\"""#),
            (b"{\"channel\":\"x\"}},", r#""{\"channel\":\"x\"}},""#),
            ("\u{feff}1".as_bytes(), "\"\u{feff}1\""),
            (b"\xff\x00", r#""/wA=","encoding":"base64""#),
            // Wrong bytes inside what would be a JSON string.
            (b"\"\xff\"", r#""Iv8i","encoding":"base64""#),
            (b"\"\xed\xa0\x80\"", r#""Iu2ggCI=","encoding":"base64""#),
        ] {
            let told = told("c\"", payload);
            assert_eq!(told, format!(r#"{{"channel":"c\"","data":{data}}}"#), "{payload:?}");
            serde_json::from_str::<&RawValue>(&told).unwrap();
        }
    }

    #[test]
    fn text_is_published_bare_and_what_looks_like_json_keeps_its_quotes() {
        for (data, payload) in [
            (r#""hello""#, "hello"),
            (r#""""#, ""),
            (r#""a\"b\n""#, "a\"b\n"),
            (r#""12""#, r#""12""#),
            (r#"" 12 ""#, r#"" 12 ""#),
            (r#""null""#, r#""null""#),
            (r#""\u0031""#, r#""\u0031""#),
            (r#""\"a\"""#, r#""\"a\"""#),
            (r#""{\"a\":1}""#, r#""{\"a\":1}""#),
            (r#""\ud800""#, r#""\ud800""#),
            (r#""\ud83d\ude00""#, "😀"),
            ("12", "12"),
            ("{ \"a\" : [1] }", "{ \"a\" : [1] }"),
            ("[\n]", "[\n]"),
            ("1e999", "1e999"),
            ("-0", "-0"),
        ] {
            assert_eq!(published(data), payload, "{data}");
        }
    }

    /// A small generator of JSON text: not the values matter but every way of writing them.
    struct Random(u64);

    impl Random {
        fn below(&mut self, bound: usize) -> usize {
            // xorshift64: enough variety, and the same in every run.
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            (self.0 % bound as u64) as usize
        }

        fn string(&mut self) -> String {
            const PARTS: [&str; 24] = [
                "a",
                "1",
                "12",
                "-",
                ".5",
                "null",
                "true",
                "[",
                "]",
                "{",
                "}",
                ":",
                ",",
                " ",
                "é",
                "😀",
                r#"\""#,
                r"\\",
                r"\n",
                r"\u0031",
                r"\u005b",
                r"\ud83d\ude00",
                r"\/",
                "\u{2028}",
            ];
            let mut text = String::from("\"");
            for _ in 0..self.below(5) {
                text.push_str(PARTS[self.below(PARTS.len())]);
            }
            text + "\""
        }

        fn value(&mut self, depth: usize) -> String {
            const PLAIN: [&str; 8] =
                ["null", "true", "false", "0", "-1.5e3", "12345678901234567890", " 7 ", "\n1\t"];
            match self.below(if depth == 0 { 6 } else { 8 }) {
                0..3 => self.string(),
                3..6 => PLAIN[self.below(PLAIN.len())].into(),
                6 => {
                    let items: Vec<_> = (0..self.below(4)).map(|_| self.value(depth - 1)).collect();
                    format!("[{}]", items.join(", "))
                }
                _ => {
                    let items: Vec<_> = (0..self.below(4))
                        .map(|_| format!("{} : {}", self.string(), self.value(depth - 1)))
                        .collect();
                    format!("{{{}}}", items.join(","))
                }
            }
        }
    }

    #[test]
    fn what_one_browser_sends_is_what_another_gets() {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        for _ in 0..50_000 {
            let data = random.value(4);
            let sent: Value = serde_json::from_str(&data).unwrap();
            let payload = published(&data);
            let got: Value = serde_json::from_str(&told("c", payload.as_bytes())).unwrap();
            assert_eq!(got, json!({"channel": "c", "data": sent}), "{data}");
            // The same with a sender around it.
            let payload = with_sender("{\"name\":\"Ann\"}", payload.as_bytes()).unwrap();
            let got: Value = serde_json::from_str(&told("c", &payload)).unwrap();
            let expected = json!({"sender": {"name": "Ann"}, "data": sent});
            assert_eq!(got, json!({"channel": "c", "data": expected}), "{data}");
        }
    }

    #[test]
    fn any_text_comes_back_as_the_same_string() {
        let mut random = Random(42);
        for _ in 0..20_000 {
            let text: String = (0..random.below(6))
                .filter_map(|_| char::from_u32(random.below(0x3000) as u32))
                .collect();
            let payload = published(&json!(text).to_string());
            let got: Value = serde_json::from_str(&told("c", payload.as_bytes())).unwrap();
            assert_eq!(got["data"], json!(text));
        }
    }

    #[test]
    fn base64_is_decoded_strictly_and_marked() {
        let parsed = |data: &str| {
            parse(&format!(r#"{{"channel":"c","data":{data},"encoding":"base64"}}"#))
                .map(|sent| (sent.payload.into_owned(), sent.binary))
        };
        assert_eq!(parsed(r#""/wA=""#), Ok((vec![0xff, 0], true)));
        assert_eq!(parsed(r#""\/wA=""#), Ok((vec![0xff, 0], true)));
        assert_eq!(parsed(r#""""#), Ok((vec![], true)));
        for data in [r#""/wA""#, r#""_wA=""#, r#""/wB=""#, r#""/w A=""#, "12", "null", "[]"] {
            assert_eq!(parsed(data), Err(Cause::Unacceptable), "{data}");
        }
    }

    #[test]
    fn whatever_else_a_browser_sends_is_unacceptable() {
        for text in [
            "",
            "hello",
            "12",
            "null",
            "[]",
            "{}",
            r#"["c","data"]"#,
            r#"{"channel":"c"}"#,
            r#"{"data":1}"#,
            r#"{"channel":null,"data":1}"#,
            r#"{"channel":1,"data":1}"#,
            r#"{"channel":["c"],"data":1}"#,
            r#"{"channel":"\ud800","data":1}"#,
            r#"{"channel":"c","data":1,"data":2}"#,
            r#"{"channel":"c","channel":"d","data":2}"#,
            r#"{"channel":"c","data":1,"type":"hello"}"#,
            r#"{"channel":"c","data":1,"sender":"admin"}"#,
            r#"{"channel":"c","data":1,"encoding":null}"#,
            r#"{"channel":"c","data":"","encoding":"hex"}"#,
            r#"{"channel":"c","data":"","encoding":""}"#,
            r#"{"channel":"c","data":"","encoding":{"base64":null}}"#,
            r#"{"channel":"c","data":1}x"#,
            r#"{"channel":"c","data":1"#,
            r#"{"channel":"c","data":01}"#,
            r#"{"channel":"c","data":NaN}"#,
            r#"{"Channel":"c","data":1}"#,
            "{\"channel\":\"c\",\"data\":\"\n\"}",
            "\u{feff}{\"channel\":\"c\",\"data\":1}",
        ] {
            assert_eq!(parse(text), Err(Cause::Unacceptable), "{text}");
        }
        assert!(parse(" \r\n{ \"data\" : 1 , \"channel\" : \"c\" } ").is_ok());
    }

    #[test]
    fn deep_nesting_costs_no_stack_and_does_not_reach_receivers_as_json() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let sent = |data: &str| parse(&format!(r#"{{"channel":"c","data":{data}}}"#)).is_ok();
        assert!(sent(&nested(MAX_SENT_DEPTH)) && !sent(&nested(MAX_SENT_DEPTH + 1)));
        assert!(!sent(&nested(1_000_000)));
        assert!(told("c", nested(MAX_DEPTH).as_bytes()).contains(":[[["));
        assert!(told("c", nested(MAX_DEPTH + 1).as_bytes()).contains(r#":"[[["#));
        assert!(told("c", nested(1_000_000).as_bytes()).contains(r#":"[[["#));
        // Brackets inside strings are no nesting.
        let brackets = format!(r#"["{}\"{}"]"#, "[".repeat(500), "{".repeat(500));
        assert!(is_json(&brackets, 1));
        // A string that holds deep JSON is still the same string for the receiver, escaped or not.
        for depth in [MAX_SENT_DEPTH + 1, MAX_DEPTH, MAX_DEPTH + 1] {
            let plain = json!(nested(depth)).to_string();
            for data in [plain.replacen('[', r"\u005b", 1), plain] {
                let payload = published(&data);
                let got: Value = serde_json::from_str(&told("c", payload.as_bytes())).unwrap();
                assert_eq!(got["data"], json!(nested(depth)));
            }
        }
    }

    #[test]
    fn a_sender_is_put_around_text_and_never_around_binary() {
        let around = |payload: &[u8]| with_sender(r#""ann""#, payload).map(String::from_utf8);
        assert_eq!(around(b"hi"), Ok(Ok(r#"{"sender":"ann","data":"hi"}"#.into())));
        assert_eq!(around(b"[1]"), Ok(Ok(r#"{"sender":"ann","data":[1]}"#.into())));
        // A message can not end the object and bring its own sender.
        let forged = br#"1,"sender":"root""#;
        assert_eq!(
            around(forged),
            Ok(Ok(r#"{"sender":"ann","data":"1,\"sender\":\"root\""}"#.into()))
        );
        assert_eq!(around(b"\xff"), Err(Cause::Unacceptable));
        assert_eq!(around(b"\"\xff\""), Err(Cause::Unacceptable));
    }
}
