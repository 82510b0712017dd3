//! The place of one browser: its grant, what it hears, and its connections one after the other.
//!
//! Owned by the harness, which alone changes it.

use std::time::Instant;

use serde_json::{Value, json};

use crate::Options;
use crate::browser::Browser;
use crate::judge::Ear;

/// One browser and what it listens to, across its connections.
pub struct Seat {
    /// The handshake's, with the grant.
    pub path: String,
    /// The stream it is the source of.
    pub speaks: Option<usize>,
    /// By stream.
    pub ears: Vec<(usize, Ear)>,
    pub browser: Option<Browser>,
    pub open: bool,
    /// When to connect (again), or when the handshake in flight began.
    pub at: Option<Instant>,
    pub opened: Instant,
    pub last_message: Instant,
}

impl Seat {
    /// Each hears two channels from outside and two speakers, as far as there are any, and never
    /// itself.
    pub fn new(index: usize, options: &Options, channels: &[&str]) -> Seat {
        let speaks = (index < options.speakers).then_some(options.channels + index);
        let outside = (0..options.channels.min(2)).map(|i| (index + i) % options.channels);
        let speakers = (1..=options.speakers.min(2))
            .map(|i| options.channels + (index + i) % options.speakers)
            .filter(|stream| Some(*stream) != speaks);
        let mut hears: Vec<usize> = outside.chain(speakers).collect();
        hears.dedup();
        let mut grant = json!({
            "subscribe": hears.iter().map(|i| channels[*i]).collect::<Vec<_>>(),
        });
        if let Some(stream) = speaks {
            grant["publish"] = json!([channels[stream]]);
        }
        let now = Instant::now();
        Seat {
            path: format!("{}{}", options.path, encoded(&grant)),
            speaks,
            ears: hears.into_iter().map(|stream| (stream, Ear::default())).collect(),
            browser: None,
            open: false,
            at: Some(now),
            opened: now,
            last_message: now,
        }
    }
}

/// The JSON of a grant, as the query of a URL has it.
fn encoded(grant: &Value) -> String {
    let mut text = String::new();
    for byte in grant.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_fits_a_url() {
        assert_eq!(encoded(&json!({ "a": ["b:c"] })), "%7B%22a%22%3A%5B%22b%3Ac%22%5D%7D");
    }
}
