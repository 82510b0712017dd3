//! The grant: what the app allows one socket. JSON text becomes a [`Grant`], or a reason for the
//! log.
//!
//! Everything that is not granted is denied, and whatever is not understood makes the whole grant
//! wrong: a misspelt field must not quietly grant less, or more, than the app meant. Errors name
//! the field and the cure; they never hold what `user`, `session` and `sender` say. Pure: no clock,
//! no socket.

use std::collections::HashSet;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::config::{is_origin, shown};
use crate::error::{Error, Kind, Result};
use crate::ws::handshake::is_token;

/// What one socket may do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Grant {
    /// The channels it hears, each once.
    pub subscribe: Vec<String>,
    /// The channels its messages go to, each once. Without any they are dropped and counted.
    pub publish: Vec<String>,
    /// JSON text that goes around each of its messages as `sender`. The browser can not set it.
    pub sender: Option<String>,
    /// Does it hear its own messages?
    pub echo: bool,
    /// Whose socket it is: for kicks and limits. Opaque to us.
    pub user: Option<String>,
    /// Of which login: for kicks. Opaque to us.
    pub session: Option<String>,
    /// It is closed with 4401 this long after it was adopted.
    pub expires_in: Option<Duration>,
    /// The text frame that is sent when the socket is idle, and swallowed when it comes from the
    /// browser.
    pub heartbeat: Option<String>,
    /// The subprotocol of the answer; the browser must have offered it.
    pub subprotocol: Option<String>,
    /// How payloads are put into frames.
    pub format: Format,
    /// Origins that are allowed for this handshake besides `allowed-origins`.
    pub origins: Vec<String>,
    /// What happens when it does not read.
    pub slow: Slow,
}

/// What happens to a socket that is too slow for its messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slow {
    /// It is closed.
    #[default]
    Close,
    /// Only the newest message of each channel is kept for it.
    Latest,
}

/// How payloads are put into frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text if it is UTF-8, else binary.
    #[default]
    Auto,
    /// Always binary.
    Binary,
}

/// Longest channel name, user and session, in bytes.
const MAX_NAME: usize = 255;
/// A heartbeat is no bigger than a control frame's payload (RFC 6455 §5.5): every browser gets it
/// often.
const MAX_HEARTBEAT: usize = 125;
/// Longest subprotocol.
const MAX_SUBPROTOCOL: usize = 128;
/// Most origins of one grant.
const MAX_ORIGINS: usize = 20;
/// Longest sender: it stands around every message.
const MAX_SENDER: usize = 4096;
/// Ten years; longer is a time stamp that was taken for a span.
const MAX_EXPIRES_IN: f64 = 10.0 * 365.0 * 86_400.0;
/// The most characters of serde's own text in an error: an unknown field's name and the known ones.
const MAX_SERDE: usize = 300;
/// Timers count milliseconds.
const MIN_EXPIRES_IN: f64 = 0.001;

/// The JSON text of each field. Reading the fields one by one keeps serde from quoting a private
/// value in its error, and lets ours name the field.
#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow, deserialize_with = "present")]
    subscribe: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    publish: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    sender: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    echo: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    user: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    session: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    expires_in: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    heartbeat: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    subprotocol: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    format: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    origins: Option<&'a RawValue>,
    #[serde(borrow, deserialize_with = "present")]
    slow: Option<&'a RawValue>,
}

/// serde takes `null` for an absent `Option`; here it is a value, and for most fields a wrong one.
fn present<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> std::result::Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

impl Grant {
    /// Reads a grant of at most `max_channels` channels to hear and as many to speak on. A channel
    /// that is listed twice counts once: two reasons to hear a room are no mistake.
    pub fn parse(json: &[u8], max_channels: usize) -> Result<Grant> {
        read(json, max_channels).map_err(|why| Error::new(Kind::Grant, format!("grant: {why}")))
    }
}

fn read(json: &[u8], max_channels: usize) -> std::result::Result<Grant, String> {
    let Ok(json) = std::str::from_utf8(json) else {
        return Err("it is not UTF-8; encode it as ASCII JSON".to_owned());
    };
    // serde would read a list as a struct too, and quote a lone string.
    if !json.trim_ascii_start().starts_with('{') {
        return Err(
            "it is not a JSON object; begin with {\"subscribe\": [\"a-channel\"]}".to_owned()
        );
    }
    // What serde says here holds names of fields and places, no values. A name can be of any
    // length.
    let fields: Fields = serde_json::from_str(json).map_err(|error| {
        error.to_string().chars().flat_map(char::escape_debug).take(MAX_SERDE).collect::<String>()
    })?;

    let channels = |raw: &str| channels(raw, max_channels);
    Ok(Grant {
        subscribe: field("subscribe", fields.subscribe, channels)?.unwrap_or_default(),
        publish: field("publish", fields.publish, channels)?.unwrap_or_default(),
        sender: field("sender", fields.sender, sender)?,
        echo: field("echo", fields.echo, echo)?.unwrap_or_default(),
        user: field("user", fields.user, identity)?,
        session: field("session", fields.session, identity)?,
        expires_in: field("expires_in", fields.expires_in, expires_in)?,
        heartbeat: field("heartbeat", fields.heartbeat, heartbeat)?,
        subprotocol: field("subprotocol", fields.subprotocol, subprotocol)?,
        format: field("format", fields.format, format)?.unwrap_or_default(),
        origins: field("origins", fields.origins, origins)?.unwrap_or_default(),
        slow: field("slow", fields.slow, slow)?.unwrap_or_default(),
    })
}

/// Reads one field if it is there; the error names it.
fn field<T>(
    name: &str,
    raw: Option<&RawValue>,
    read: impl Fn(&str) -> std::result::Result<T, String>,
) -> std::result::Result<Option<T>, String> {
    raw.map(|raw| read(raw.get()).map_err(|why| format!("{name} {why}"))).transpose()
}

/// A value of the right type, or what the field must be.
fn typed<T: DeserializeOwned>(raw: &str, must_be: &str) -> std::result::Result<T, String> {
    serde_json::from_str(raw).map_err(|_| format!("must be {must_be}"))
}

fn channels(raw: &str, max: usize) -> std::result::Result<Vec<String>, String> {
    let listed: Vec<String> = typed(raw, "a list of channel names, like [\"news\"]")?;
    let mut seen = HashSet::with_capacity(listed.len());
    let mut names = Vec::new();
    for name in &listed {
        check_channel(name).map_err(|why| format!("lists {}: {why}", shown(name)))?;
        if seen.insert(name.as_str()) {
            names.push(name.clone());
        }
    }
    if names.len() > max {
        return Err(format!(
            "lists {} channels; at most {max} (max-channels-per-socket), so use fewer or raise it",
            names.len()
        ));
    }
    Ok(names)
}

/// Is it a channel's name? The text says why not. 1 to 255 bytes of UTF-8 without control
/// characters; names that begin with `__` are Redis's own (keyspace notifications).
pub fn check_channel(name: &str) -> std::result::Result<(), String> {
    if name.is_empty() {
        return Err("a channel's name must not be empty".to_owned());
    }
    if name.len() > MAX_NAME {
        return Err(format!("a channel's name has at most {MAX_NAME} bytes, not {}", name.len()));
    }
    if name.starts_with("__") {
        return Err(
            "a channel's name must not begin with __, which Redis keeps for itself".to_owned()
        );
    }
    if name.chars().any(char::is_control) {
        return Err("a channel's name must not hold control characters".to_owned());
    }
    Ok(())
}

fn sender(raw: &str) -> std::result::Result<String, String> {
    if raw.len() > MAX_SENDER {
        return Err(format!("has {} bytes; at most {MAX_SENDER}", raw.len()));
    }
    // The text is passed on as it is, to readers that stop at deep nesting, huge numbers and lone
    // surrogates, as serde_json does when it builds values.
    let _: serde_json::Value = typed(
        raw,
        "JSON that every reader takes: no deep nesting, huge numbers or half characters",
    )?;
    Ok(raw.to_owned())
}

fn echo(raw: &str) -> std::result::Result<bool, String> {
    match raw {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("must be true or false".to_owned()),
    }
}

/// `user` and `session`. They may stand in log lines, so they are one line.
fn identity(raw: &str) -> std::result::Result<String, String> {
    let text: String = typed(raw, "text; turn a number into a string, leave it out for nobody")?;
    if text.is_empty() {
        return Err("must not be empty; leave it out for nobody".to_owned());
    }
    if text.len() > MAX_NAME {
        return Err(format!("has {} bytes; at most {MAX_NAME}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err("must not hold control characters".to_owned());
    }
    Ok(text)
}

fn expires_in(raw: &str) -> std::result::Result<Duration, String> {
    let must_be = "a positive number of seconds, up to ten years; leave it out for never";
    let seconds: f64 = typed(raw, must_be)?;
    if !(MIN_EXPIRES_IN..=MAX_EXPIRES_IN).contains(&seconds) {
        return Err(format!("must be {must_be}"));
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| format!("must be {must_be}"))
}

fn heartbeat(raw: &str) -> std::result::Result<String, String> {
    let text: String = typed(raw, "text, like \"--heartbeat--\"; leave it out for none")?;
    match text.len() {
        0 => Err("must not be empty; leave it out for none".to_owned()),
        1..=MAX_HEARTBEAT => Ok(text),
        len => Err(format!("has {len} bytes; at most {MAX_HEARTBEAT}")),
    }
}

/// A token of HTTP (RFC 9110 §5.6.2): it goes into the answer's header as it is.
fn subprotocol(raw: &str) -> std::result::Result<String, String> {
    let text: String = typed(raw, "text, like \"wsredis.v1\"; leave it out for none")?;
    if text.len() > MAX_SUBPROTOCOL || !is_token(text.as_bytes()) {
        return Err(format!(
            "is {}, which is not a token of HTTP of up to {MAX_SUBPROTOCOL} letters, digits, - . _",
            shown(&text)
        ));
    }
    Ok(text)
}

fn format(raw: &str) -> std::result::Result<Format, String> {
    let must_be = "\"auto\" or \"binary\"";
    match typed::<String>(raw, must_be)?.as_str() {
        "auto" => Ok(Format::Auto),
        "binary" => Ok(Format::Binary),
        _ => Err(format!("must be {must_be}")),
    }
}

fn slow(raw: &str) -> std::result::Result<Slow, String> {
    let must_be = "\"close\" or \"latest\"";
    match typed::<String>(raw, must_be)?.as_str() {
        "close" => Ok(Slow::Close),
        "latest" => Ok(Slow::Latest),
        _ => Err(format!("must be {must_be}")),
    }
}

fn origins(raw: &str) -> std::result::Result<Vec<String>, String> {
    let origins: Vec<String> = typed(raw, "a list of origins, like [\"https://example.org\"]")?;
    if origins.len() > MAX_ORIGINS {
        return Err(format!("lists {} origins; at most {MAX_ORIGINS}", origins.len()));
    }
    match origins.iter().find(|origin| !is_origin(origin)) {
        Some(origin) => Err(format!(
            "lists {}, which is not scheme://host or scheme://host:port",
            shown(origin)
        )),
        None => Ok(origins),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> std::result::Result<Grant, String> {
        Grant::parse(json.as_bytes(), 100).map_err(|error| {
            assert_eq!(error.kind, Kind::Grant);
            assert!(error.text.chars().all(|c| !c.is_control()), "not one line: {error}");
            assert!(error.text.chars().count() < 1000, "too long: {error}");
            error.text
        })
    }

    #[track_caller]
    fn accepts(json: &str) -> Grant {
        parse(json).unwrap_or_else(|why| panic!("{json}: {why}"))
    }

    /// The error must hold every one of `parts`.
    #[track_caller]
    fn refuses(json: &str, parts: &[&str]) {
        let why = parse(json).expect_err(json);
        for part in parts {
            assert!(why.contains(part), "{json}: {why:?} lacks {part:?}");
        }
    }

    fn list_of(count: usize) -> String {
        let names: Vec<String> = (0..count).map(|i| format!("\"c{i}\"")).collect();
        format!("[{}]", names.join(","))
    }

    #[test]
    fn an_empty_object_grants_nothing() {
        let grant = accepts("{}");
        assert_eq!(grant, Grant::default());
        assert!(grant.subscribe.is_empty() && grant.publish.is_empty() && !grant.echo);
        assert_eq!(accepts(" \t\r\n{ } \n"), Grant::default());
    }

    #[test]
    fn every_field_arrives() {
        let grant = accepts(
            r#"{"subscribe": ["news", "n\u00e9ws"], "publish": ["chat"],
                "sender": {"id": 7, "n": null}, "echo": true, "user": "u7", "session": "s7",
                "expires_in": 1.5, "heartbeat": "--beat--", "subprotocol": "wsredis.v1",
                "format": "binary", "slow": "latest",
                "origins": ["https://a.example", "http://[::1]:8080"]}"#,
        );
        let text = |text: &str| Some(text.to_owned());
        let expected = Grant {
            subscribe: vec!["news".into(), "néws".into()],
            publish: vec!["chat".into()],
            sender: text(r#"{"id": 7, "n": null}"#),
            echo: true,
            user: text("u7"),
            session: text("s7"),
            expires_in: Some(Duration::from_millis(1500)),
            heartbeat: text("--beat--"),
            subprotocol: text("wsredis.v1"),
            format: Format::Binary,
            origins: vec!["https://a.example".into(), "http://[::1]:8080".into()],
            slow: Slow::Latest,
        };
        assert_eq!(grant, expected);
    }

    #[test]
    fn text_that_is_no_object_is_refused() {
        for json in ["", " ", "null", "true", "7", "[]", "[[\"news\"]]", "\u{feff}{}"] {
            refuses(json, &["not a JSON object", "subscribe"]);
        }
        refuses("\"private\"", &["not a JSON object"]);
        assert!(!parse("\"private\"").unwrap_err().contains("private"));
        assert!(Grant::parse(b"{\"user\":\"\xff\"}", 1).unwrap_err().text.contains("UTF-8"));
    }

    #[test]
    fn broken_json_is_refused_at_every_cut() {
        let whole = r#"{"subscribe":["a","b"],"sender":{"x":[1,2]},"user":"u","expires_in":12}"#;
        accepts(whole);
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_err(), "{}", &whole[..cut]);
        }
        for json in
            ["{}{}", "{} x", "{,}", "{\"echo\":true,}", "{echo:true}", "{'echo':true}", "{7:1}"]
        {
            assert!(parse(json).is_err(), "{json}");
        }
    }

    #[test]
    fn fields_that_are_unknown_or_come_later_are_refused_by_name() {
        for name in ["replay", "retain", "presence", "Subscribe", "subscribe ", "channels", ""] {
            refuses(&format!("{{\"{name}\": 1}}"), &["unknown field", &format!("`{name}`")]);
        }
        let long = "x".repeat(60_000);
        refuses(&format!("{{\"{long}\": 1}}"), &["unknown field"]);
        refuses("{\"a\\nb\": 1}", &["unknown field `a\\nb`"]);
        refuses(&format!("{{\"{}\": 1}}", "\u{7f}".repeat(300)), &["unknown field"]);
    }

    #[test]
    fn a_field_that_stands_twice_is_refused() {
        for name in [
            "subscribe",
            "publish",
            "sender",
            "echo",
            "user",
            "session",
            "expires_in",
            "heartbeat",
            "subprotocol",
            "format",
            "origins",
            "slow",
        ] {
            refuses(
                &format!("{{\"{name}\": null, \"{name}\": null}}"),
                &["duplicate field", &format!("`{name}`")],
            );
        }
    }

    #[test]
    fn wrong_types_are_refused_with_the_field_and_what_it_must_be() {
        let values =
            ["null", "true", "7", "-1.5", "\"text\"", "[]", "[7]", "[null]", "{}", "{\"a\":1}"];
        let right: [(&str, &[&str]); 11] = [
            ("subscribe", &["[]"]),
            ("publish", &["[]"]),
            ("origins", &["[]"]),
            ("echo", &["true"]),
            ("user", &["\"text\""]),
            ("session", &["\"text\""]),
            ("expires_in", &["7"]),
            ("heartbeat", &["\"text\""]),
            ("subprotocol", &["\"text\""]),
            ("format", &[]),
            ("slow", &[]),
        ];
        for (name, right) in right {
            for value in values {
                let json = format!("{{\"{name}\": {value}}}");
                match right.contains(&value) {
                    true => drop(accepts(&json)),
                    false => refuses(&json, &[name, "must be"]),
                }
            }
        }
    }

    #[test]
    fn private_values_never_stand_in_an_error() {
        for name in ["user", "session", "sender"] {
            for value in [
                format!("\"SECRET{}\"", "x".repeat(5000)),
                "\"SECRET\\u0000\"".to_owned(),
                "[\"SECRET\"]".to_owned(),
                "{\"SECRET\": \"SECRET\"}".to_owned(),
                "\"SECRET\\ud800\"".to_owned(),
                "\"SECRET".to_owned(),
            ] {
                match parse(&format!("{{\"{name}\": {value}}}")) {
                    Err(why) => assert!(!why.contains("SECRET"), "{why}"),
                    Ok(_) => assert_eq!(name, "sender", "{value}"),
                }
            }
        }
        // A number is quoted by serde where text was expected; not by us.
        assert!(!parse("{\"user\": 4711}").unwrap_err().contains("4711"));
    }

    #[test]
    fn lists_of_channels_end_at_the_limit_and_count_a_channel_once() {
        for name in ["subscribe", "publish"] {
            for count in [0, 1, 99, 100] {
                accepts(&format!("{{\"{name}\": {}}}", list_of(count)));
            }
            let over = format!("{{\"{name}\": {}}}", list_of(101));
            refuses(&over, &[name, "101", "at most 100", "max-channels-per-socket"]);
        }
        let twice =
            format!("{{\"subscribe\": {}}}", list_of(100).replace("\"c99\"", "\"c99\",\"c0\""));
        assert_eq!(accepts(&twice).subscribe.len(), 100);
        let grant = accepts(r#"{"subscribe": ["b", "a", "b", "c", "a"]}"#);
        assert_eq!(grant.subscribe, ["b", "a", "c"]);
        assert!(Grant::parse(b"{\"subscribe\": []}", 0).is_ok());
        assert!(Grant::parse(b"{\"subscribe\": [\"a\"]}", 0).is_err());
    }

    #[test]
    fn channel_names_keep_to_their_rule() {
        let longest = "x".repeat(255);
        let wide = "é".repeat(127);
        for name in
            ["a", "_", "_a", "a__", "news:1", "a b", "a/b,c=d", " ", "\u{1F600}", &longest, &wide]
        {
            assert_eq!(check_channel(name), Ok(()), "{name}");
        }
        let long = "x".repeat(256);
        let too_wide = "é".repeat(128);
        for (name, why) in [
            ("", "empty"),
            ("__", "__"),
            ("__keyspace@0__:x", "__"),
            ("a\0", "control"),
            ("a\nb", "control"),
            ("\u{7f}", "control"),
            ("\u{85}", "control"),
            (&long, "255 bytes, not 256"),
            (&too_wide, "not 256"),
        ] {
            assert!(check_channel(name).unwrap_err().contains(why), "{name}");
        }
        refuses(r#"{"subscribe": ["ok", "__x"]}"#, &["subscribe lists __x", "keeps for itself"]);
        refuses(r#"{"publish": ["a\nb"]}"#, &["publish lists a\\nb", "control"]);
        refuses(&format!("{{\"publish\": [\"{long}\"]}}"), &["publish lists xxxx", "…", "256"]);
    }

    #[test]
    fn texts_end_at_their_limits() {
        for (name, max) in
            [("user", 255), ("session", 255), ("heartbeat", 125), ("subprotocol", 128)]
        {
            for len in [1, max - 1, max] {
                accepts(&format!("{{\"{name}\": \"{}\"}}", "x".repeat(len)));
            }
            refuses(&format!("{{\"{name}\": \"\"}}"), &[name]);
            let over = format!("{{\"{name}\": \"{}\"}}", "x".repeat(max + 1));
            refuses(&over, &[name, &max.to_string()]);
        }
        refuses(r#"{"user": "a\nb"}"#, &["user", "control"]);
        refuses(r#"{"session": "a\u0007"}"#, &["session", "control"]);
    }

    #[test]
    fn a_sender_is_any_json_of_bounded_size_and_depth_and_stays_as_it_was_written() {
        for json in
            ["null", "true", "7", "1.50", "\"a\"", "[ 1 , 2 ]", "{}", "{\"a\": \"\\u00e9\"}"]
        {
            assert_eq!(accepts(&format!("{{\"sender\":  {json} }}")).sender.as_deref(), Some(json));
        }
        for len in [4095, 4096] {
            accepts(&format!("{{\"sender\": \"{}\"}}", "x".repeat(len - 2)));
        }
        let over = format!("{{\"sender\": \"{}\"}}", "x".repeat(4095));
        refuses(&over, &["sender", "4097", "4096"]);
        let nested =
            |depth: usize| format!("{{\"sender\": {}{}}}", "[".repeat(depth), "]".repeat(depth));
        accepts(&nested(100));
        refuses(&nested(200), &["sender", "nesting"]);
        refuses(&nested(100_000), &["sender"]);
        assert!(parse(&"{\"sender\":".repeat(100_000)).is_err());
        refuses(r#"{"sender": 1e999}"#, &["sender", "numbers"]);
        refuses(r#"{"sender": "\ud800"}"#, &["sender"]);
    }

    #[test]
    fn echo_is_a_boolean_or_a_bit() {
        for (value, expected) in [("true", true), ("false", false), ("1", true), ("0", false)] {
            assert_eq!(accepts(&format!("{{\"echo\": {value}}}")).echo, expected);
        }
        for value in ["2", "1.0", "-1", "\"true\"", "null", "[]"] {
            refuses(&format!("{{\"echo\": {value}}}"), &["echo must be true or false"]);
        }
    }

    #[test]
    fn a_life_is_positive_and_ends_within_ten_years() {
        for (value, ms) in
            [("1", 1000), ("0.001", 1), ("0.25", 250), ("3600", 3_600_000), ("1e3", 1_000_000)]
        {
            let grant = accepts(&format!("{{\"expires_in\": {value}}}"));
            assert_eq!(grant.expires_in, Some(Duration::from_millis(ms)), "{value}");
        }
        accepts("{\"expires_in\": 315360000}");
        for value in
            ["0", "-1", "-0.0", "0.0009", "1e-300", "315360001", "1e300", "1e999", "1795000000"]
        {
            refuses(&format!("{{\"expires_in\": {value}}}"), &["expires_in", "seconds"]);
        }
        for value in ["\"60\"", "NaN", "Infinity", "null", "true", "[60]"] {
            assert!(parse(&format!("{{\"expires_in\": {value}}}")).is_err(), "{value}");
        }
    }

    #[test]
    fn a_subprotocol_can_not_smuggle_a_header() {
        for value in ["a,b", "a b", "a\\r\\nX: y", "é", "a/b", "\\\"a\\\""] {
            refuses(&format!("{{\"subprotocol\": \"{value}\"}}"), &["subprotocol is", "token"]);
        }
    }

    #[test]
    fn formats_are_two() {
        assert_eq!(accepts(r#"{"format": "auto"}"#).format, Format::Auto);
        assert_eq!(accepts(r#"{"format": "binary"}"#).format, Format::Binary);
        assert_eq!(accepts(r#"{"slow": "close"}"#).slow, Slow::Close);
        for value in ["Auto", "text", ""] {
            refuses(&format!("{{\"format\": \"{value}\"}}"), &["format must be \"auto\" or"]);
        }
    }

    #[test]
    fn origins_are_few_and_look_like_origins() {
        let list = |count| vec!["\"https://a.example\""; count].join(",");
        for count in [0, 1, 19, 20] {
            assert_eq!(
                accepts(&format!("{{\"origins\": [{}]}}", list(count))).origins.len(),
                count
            );
        }
        refuses(&format!("{{\"origins\": [{}]}}", list(21)), &["origins", "21", "20"]);
        for value in
            ["", "*", "null", "a.example", "https://", "https://a.example/", "https://*.a.example"]
        {
            refuses(
                &format!("{{\"origins\": [\"{value}\"]}}"),
                &["origins lists", "scheme://host"],
            );
        }
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let seed =
            br#"{"subscribe":["a","b"],"sender":{"x":[1,2]},"user":"u","expires_in":12,"echo":1}"#;
        for _ in 0..100_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..random() % 6 {
                let at = random() as usize % bytes.len();
                match random() % 3 {
                    0 => bytes[at] = random() as u8,
                    1 => bytes.insert(at, b"{}[]\",:\\u0"[random() as usize % 10]),
                    _ => drop(bytes.remove(at)),
                }
            }
            let _ = Grant::parse(&bytes, 1);
        }
    }
}
