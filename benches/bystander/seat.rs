//! The place of one browser: its grant, what it hears, and its connections one after the other.
//!
//! Owned by the harness, which alone changes it.

use std::time::Instant;

use serde_json::json;

use crate::Options;
use crate::browser::Browser;
use crate::judge::Ear;
use crate::site::encoded;

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
