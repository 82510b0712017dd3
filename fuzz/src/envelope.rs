//! The envelope both ways: what one browser sends is what another gets, and whatever was published
//! is told as right JSON.

use data_encoding::BASE64;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wsredis::cause::Cause;
use wsredis::ws::envelope::{self, Notice};

/// JSON as a value, however deep. `None` also for half characters and huge numbers, which are JSON
/// that no value can hold.
fn value(text: &str) -> Option<Value> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.disable_recursion_limit();
    let value = Value::deserialize(&mut reader).ok()?;
    reader.end().ok().map(|()| value)
}

/// How deep arrays and objects lie in each other.
fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// A JSON text as it is told to browsers.
fn told(channel: &str, payload: &[u8]) -> String {
    let mut out = Vec::new();
    envelope::message(&mut out, channel, payload);
    String::from_utf8(out).expect("a text frame is UTF-8")
}

/// What a program published: it is told as the same JSON, as a string or as base64, and the object
/// holds nothing else.
fn publish(channel: &str, payload: &[u8]) {
    let told = told(channel, payload);
    let _: &RawValue = serde_json::from_str(&told).expect("what is told is JSON");
    let Some(got) = value(&told) else { return };
    let expected = match std::str::from_utf8(payload) {
        Err(_) => {
            let base64 = BASE64.encode(payload);
            json!({"channel": channel, "data": base64, "encoding": "base64"})
        }
        Ok(text) => match value(text) {
            Some(data) if depth(&data) <= 128 => json!({"channel": channel, "data": data}),
            _ => json!({"channel": channel, "data": text}),
        },
    };
    assert_eq!(got, expected);
    assert!(depth(&got) <= 129);
}

/// What a browser sent.
fn send(text: &str) {
    let twin = value(text);
    let sent = match envelope::parse(text) {
        Ok(sent) => sent,
        Err(cause) => {
            assert_eq!(cause, Cause::Unacceptable);
            // Nothing that the protocol describes is refused.
            if let Some(Value::Object(fields)) = twin {
                let data = fields.get("data");
                let is_described = fields.get("channel").is_some_and(Value::is_string)
                    && data.is_some_and(|data| depth(data) <= 120)
                    && fields.len() == 2
                    // Twice the same field is one to the twin.
                    && text.matches("\"channel\"").count() == 1
                    && text.matches("\"data\"").count() == 1
                    && !text.contains('\\');
                assert!(!is_described, "refused");
            }
            return;
        }
    };
    let told = told(&sent.channel, &sent.payload);
    let around = envelope::with_sender(r#"{"id":7}"#, &sent.payload);
    if let (Some(twin), Some(got)) = (&twin, value(&told)) {
        assert_eq!(twin["channel"], got["channel"]);
        if !sent.binary {
            assert_eq!(got, json!({"channel": &*sent.channel, "data": twin["data"]}));
            let raw = around.expect("text can have a sender");
            let around = std::str::from_utf8(&raw).ok().and_then(value).expect("it is JSON");
            assert_eq!(around, json!({"sender": {"id": 7}, "data": twin["data"]}));
            // And on its way out to browsers.
            let got = value(&self::told("c", &raw)).expect("it is JSON");
            assert_eq!(got["data"], around);
        } else {
            assert_eq!(twin["encoding"], "base64");
            let base64 = twin["data"].as_str().expect("it was a string");
            assert_eq!(BASE64.decode(base64.as_bytes()).as_deref(), Ok(&*sent.payload));
        }
    }
    publish(&sent.channel, &sent.payload);
}

/// Both ways agree, of what is right and what is wrong.
pub fn check(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    if choice & 1 == 0 {
        if let Ok(text) = std::str::from_utf8(rest) {
            send(text);
        }
        return;
    }
    let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(0);
    let channel = String::from_utf8_lossy(&rest[..end]);
    let payload = &rest[end..];
    publish(&channel, payload);
    match envelope::with_sender(r#""ann""#, payload) {
        Ok(json) => {
            let text = std::str::from_utf8(&json).expect("it is UTF-8");
            let _: &RawValue = serde_json::from_str(text).expect("it is JSON");
            if let Some(got) = value(text) {
                assert_eq!(got["sender"], "ann");
                assert_eq!(got.as_object().map(|object| object.len()), Some(2));
            }
        }
        Err(cause) => {
            assert_eq!(cause, Cause::Unacceptable);
            assert!(std::str::from_utf8(payload).is_err());
        }
    }
    for (notice, name) in
        [(Notice::Gap, "gap"), (Notice::Dropped, "dropped"), (Notice::Lost, "lost")]
    {
        let mut out = Vec::new();
        envelope::notice(&mut out, notice, &channel);
        let value: Value = serde_json::from_slice(&out).expect("a notice is JSON");
        assert_eq!(value, json!({"type": name, "channel": channel}));
    }
    let count = u32::from(*choice) << 24 | payload.len() as u32;
    let value: Value =
        serde_json::from_slice(&envelope::dropped(&channel, count)).expect("a notice is JSON");
    assert_eq!(value, json!({"type": "dropped", "channel": channel, "count": count}));
}
