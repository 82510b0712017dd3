//! A grant, against a twin that reads it as plain JSON values; and written down and read again.

use std::time::Duration;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use wsredis::error::Kind;
use wsredis::grant::{Format, Grant, Slow};

use crate::origin;

/// The fields of an object, in their order.
struct Pairs(Vec<(String, Box<RawValue>)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Pairs;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }
        from.deserialize_map(All)
    }
}

fn texts(value: &Value) -> Option<Vec<String>> {
    value.as_array()?.iter().map(|one| one.as_str().map(str::to_owned)).collect()
}

fn channels(value: &Value, max: usize) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for name in texts(value)? {
        let is_good = (1..=255).contains(&name.len())
            && !name.starts_with("__")
            && !name.chars().any(char::is_control);
        if !is_good {
            return None;
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    (names.len() <= max).then_some(names)
}

fn identity(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let is_good = (1..=255).contains(&text.len()) && !text.chars().any(char::is_control);
    is_good.then(|| text.to_owned())
}

/// Reads every field by its rule.
fn twin(json: &[u8], max: usize) -> Option<Grant> {
    let Pairs(pairs) = serde_json::from_str(std::str::from_utf8(json).ok()?).ok()?;
    let mut grant = Grant::default();
    for (at, (name, raw)) in pairs.iter().enumerate() {
        if pairs[..at].iter().any(|(other, _)| other == name) {
            return None;
        }
        let value: Value = serde_json::from_str(raw.get()).ok()?;
        match &**name {
            "subscribe" => grant.subscribe = channels(&value, max)?,
            "publish" => grant.publish = channels(&value, max)?,
            "sender" if raw.get().len() <= 4096 => grant.sender = Some(raw.get().to_owned()),
            "echo" => {
                grant.echo = value.as_bool().or(match raw.get() {
                    "1" => Some(true),
                    "0" => Some(false),
                    _ => None,
                })?
            }
            "user" => grant.user = Some(identity(&value)?),
            "session" => grant.session = Some(identity(&value)?),
            "expires_in" => {
                let seconds = value.as_f64().filter(|s| (0.001..=315_360_000.0).contains(s))?;
                grant.expires_in = Some(Duration::from_secs_f64(seconds));
            }
            "heartbeat" => {
                let text = value.as_str().filter(|text| (1..=125).contains(&text.len()))?;
                grant.heartbeat = Some(text.to_owned());
            }
            "subprotocol" => {
                let legal = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
                let text = value.as_str().filter(|text| (1..=128).contains(&text.len()))?;
                grant.subprotocol = Some(text.to_owned()).filter(|text| text.chars().all(legal));
                grant.subprotocol.as_ref()?;
            }
            "format" => {
                grant.format = match value.as_str()? {
                    "auto" => Format::Auto,
                    "binary" => Format::Binary,
                    _ => return None,
                }
            }
            "slow" => {
                grant.slow = match value.as_str()? {
                    "close" => Slow::Close,
                    "latest" => Slow::Latest,
                    _ => return None,
                }
            }
            "origins" => {
                let origins = texts(&value).filter(|origins| origins.len() <= 20)?;
                for one in &origins {
                    origin::parts(one).filter(|parts| !["ws", "wss"].contains(&&*parts.0))?;
                }
                grant.origins = origins;
            }
            _ => return None,
        }
    }
    Some(grant)
}

fn written(grant: &Grant) -> String {
    let mut fields = json!({
        "subscribe": grant.subscribe,
        "publish": grant.publish,
        "echo": grant.echo,
        "format": if grant.format == Format::Binary { "binary" } else { "auto" },
        "slow": if grant.slow == Slow::Latest { "latest" } else { "close" },
        "origins": grant.origins,
    });
    let texts = [
        ("user", &grant.user),
        ("session", &grant.session),
        ("heartbeat", &grant.heartbeat),
        ("subprotocol", &grant.subprotocol),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            fields[name] = json!(text);
        }
    }
    if let Some(time) = grant.expires_in {
        fields["expires_in"] = json!(time.as_secs_f64());
    }
    let mut text = fields.to_string();
    if let Some(sender) = &grant.sender {
        text.truncate(text.len() - 1);
        text += &format!(",\"sender\":{sender}}}");
    }
    text
}

/// A grant is what the twin reads, or refused where it refuses: in one short line that does not
/// repeat whose it is. Written down it is read as the same.
pub fn check(data: &[u8]) {
    let Some((choice, json)) = data.split_first() else { return };
    let max = [100, 1, 2, 5][usize::from(choice & 3)];
    let (parsed, twin) = (Grant::parse(json, max), twin(json, max));
    match parsed {
        Ok(grant) => {
            assert_eq!(twin.as_ref(), Some(&grant));
            assert_eq!(Grant::parse(written(&grant).as_bytes(), max), Ok(grant));
        }
        Err(error) => {
            assert_eq!(twin, None, "{error}");
            assert_eq!(error.kind, Kind::Grant);
            let text = &error.text;
            assert!(text.chars().count() < 1000 && !text.chars().any(char::is_control), "{text:?}");
            // A private value is marked by this word and stands nowhere else in the seeds.
            if let Ok(Pairs(pairs)) = serde_json::from_slice(json) {
                let private = |name: &str| ["user", "session", "sender"].contains(&name);
                let elsewhere = |(name, raw): &(String, Box<RawValue>)| {
                    name.contains("pa55") || (!private(name) && raw.get().contains("pa55"))
                };
                assert!(!text.contains("pa55") || pairs.iter().any(elsewhere), "{text}");
            }
        }
    }
}
