//! Configuration: text becomes a [`Config`] of checked values, or an error that says what to
//! change.
//!
//! One table ([`keys`]) holds every key with its default, range and help. The struct, its defaults,
//! the ini reader, the host's options and the README's reference are all made from it. A `Config`
//! is a plain value: hosts fill it before they fork, the engine copies it. Nothing here connects to
//! anything or reads the environment.

mod ini;
mod redis_url;
mod table;
mod value;

pub use redis_url::{RedisAddress, RedisUrl};
pub use table::{Config, keys, markdown};
pub use value::{Keeper, OnGap, is_origin, shown};

use std::fmt;
use std::path::Path;

use crate::error::{Error, Kind, Result};

/// One row of the table: what a key is called, takes and does.
pub struct Key {
    /// As it stands in an ini file: `max-message-size`.
    pub name: &'static str,
    /// The default, written as a user would write it.
    pub default: &'static str,
    /// What it takes: `125 to 64m`.
    pub range: &'static str,
    /// One line of help.
    pub help: &'static str,
    /// Reads the text into the key's field.
    apply: fn(&mut Config, &str) -> std::result::Result<(), String>,
}

/// A key that was set: what to, and where, to refuse the second time.
#[derive(Clone)]
struct Set {
    key: &'static str,
    text: String,
    whence: String,
}

impl fmt::Debug for Set {
    /// Without the text, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} set {}", self.key, self.whence)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.name)
    }
}

impl Config {
    /// Sets one key from text. The host calls it for its own options; a key that is set twice is an
    /// error.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        self.set_from(key, value, "by the host").map_err(|why| Error::new(Kind::Config, why))
    }

    /// The text of a key: what it was set to, else its default. `None` for an unknown key. It may
    /// hold a password.
    pub fn text(&self, key: &str) -> Option<&str> {
        let set = self.set.iter().find(|set| set.key == key).map(|set| set.text.as_str());
        set.or_else(|| keys().iter().find(|row| row.name == key).map(|row| row.default))
    }

    /// Reads the `[wsredis]` section of an ini file. On an error nothing has changed.
    pub fn load_ini(&mut self, path: &Path) -> Result<()> {
        let mut loaded = self.clone();
        ini::load(&mut loaded, path)?;
        *self = loaded;
        Ok(())
    }

    /// The keys that were set as a `[wsredis]` section, which [`Config::load_ini`] reads. It may hold
    /// a password.
    pub fn ini(&self) -> String {
        let mut text = String::from("[wsredis]\n");
        for set in &self.set {
            text.extend([set.key, " = ", &set.text, "\n"]);
        }
        text
    }

    /// Does it hold together for a host that runs the engine in so many processes? Gives warnings
    /// for the log.
    pub fn check(&self, processes: u32) -> Result<Vec<String>> {
        let wrong = |text: String| Err(Error::new(Kind::Config, text));
        let mut warnings = Vec::new();
        let kept = matches!(self.keeper, Keeper::At(_));
        match &self.redis_url {
            None if processes > 1 && !kept => {
                return wrong(format!(
                    "without redis-url and without a keeper messages stay inside one process, and \
                     there are {processes}: set redis-url (redis://127.0.0.1:6379), let a keeper \
                     hold the sockets (keeper), or run a single process"
                ));
            }
            None => {}
            Some(url) if url.database != 0 && self.channel_prefix.is_empty() => {
                warnings.push(format!(
                    "redis-url names database {}, but Redis pub/sub ignores the database: whoever \
                     else uses this server shares the channels; set channel-prefix to keep them apart",
                    url.database
                ));
            }
            Some(_) => {}
        }
        // What is accepted from one browser must fit everything on its way to the others.
        let embedded = self.redis_url.is_none();
        for (on_the_way, limit, name) in [
            (embedded, self.feed_limit, "feed-limit"),
            (!embedded, self.publish_queue_limit, "publish-queue-limit"),
            (!embedded, self.max_redis_message_size, "max-redis-message-size"),
        ] {
            if on_the_way && self.max_message_size > limit {
                return wrong(format!(
                    "max-message-size ({} bytes) is larger than {name} ({limit} bytes): \
                     raise {name} or lower max-message-size",
                    self.max_message_size
                ));
            }
        }
        Ok(warnings)
    }

    /// Sets a key and remembers where that was: `whence` completes "first set …".
    fn set_from(&mut self, key: &str, text: &str, whence: &str) -> std::result::Result<(), String> {
        let Some(row) = keys().iter().find(|row| row.name == key) else {
            return Err(unknown(key));
        };
        if let Some(first) = self.set.iter().find(|set| set.key == row.name) {
            return Err(format!("{key} is set twice; it was first set {}", first.whence));
        }
        (row.apply)(self, text.trim()).map_err(|why| format!("{key}: {why}"))?;
        self.set.push(Set {
            key: row.name,
            text: text.trim().to_owned(),
            whence: whence.to_owned(),
        });
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Config::new()
    }
}

/// No key can be longer; what is longer was not meant as one.
const MAX_KEY: usize = 64;

/// The text for a key that is not in the table. It repeats only what looks like a key: a forgotten
/// `=` can make a URL with its password the "key" of a line.
fn unknown(key: &str) -> String {
    let looks_like_key = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if key.is_empty() || key.len() > MAX_KEY || !key.bytes().all(looks_like_key) {
        return "what stands before the = is not a key".to_owned();
    }
    let bare = key.strip_prefix("wsredis-").unwrap_or(key);
    match keys().iter().min_by_key(|row| distance(bare, row.name)) {
        Some(nearest) => format!("unknown key {key}; did you mean {}?", nearest.name),
        None => format!("unknown key {key}"),
    }
}

/// The edit distance of Levenshtein.
fn distance(a: &str, b: &str) -> usize {
    let b = b.as_bytes();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
