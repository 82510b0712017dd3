//! A link that is up goes on in another process, or in another engine of this one.
//!
//! The connection itself moves, with its subscriptions: not one message is lost or doubled. It never
//! moves with a command that is half written.

use std::os::fd::OwnedFd;

use mio::{Interest, Registry};
use serde::{Deserialize, Serialize};

use super::{Link, Phase, Stream};
use crate::config::RedisAddress;
use crate::error::{Error, Result};
use crate::timer::Millis;

/// A link on its way to another process; its descriptor travels beside.
#[derive(Debug, Serialize, Deserialize)]
pub struct LinkState {
    /// The bytes of a reply that is not whole yet.
    unparsed: Vec<u8>,
    up_for: u64,
    heard_ago: u64,
    pinged_ago: Option<u64>,
}

#[cfg(test)]
impl LinkState {
    /// One with a different value in each field.
    pub fn sample() -> Self {
        LinkState { unparsed: vec![1, 2], up_for: 300, heard_ago: 301, pinged_ago: Some(302) }
    }
}

impl Link {
    /// Gives the open connection away, with everything that whoever goes on with it must know; for
    /// `pause_ms` no other is opened. `None`: it is not up, or there are commands to write.
    pub fn export(
        &mut self,
        registry: &Registry,
        now: Millis,
        pause_ms: u64,
    ) -> Option<(OwnedFd, LinkState)> {
        if !self.is_up() || !self.queue.is_empty() {
            return None;
        }
        let mut stream = self.stream.take()?;
        let _ = registry.deregister(stream.source());
        let state = LinkState {
            unparsed: self.decoder.unparsed().to_vec(),
            up_for: now - self.up_since,
            heard_ago: now - self.heard_at,
            pinged_ago: self.pinged_at.map(|at| now - at),
        };
        self.pause(registry, now, pause_ms);
        Some((stream.into(), state))
    }

    /// Goes on with a connection that was given away elsewhere, instead of its own.
    pub fn import(
        &mut self,
        registry: &Registry,
        now: Millis,
        fd: OwnedFd,
        state: &LinkState,
    ) -> Result<()> {
        let mut stream = match self.url.address {
            RedisAddress::Tcp { .. } => Stream::Tcp(fd.into()),
            RedisAddress::Unix(_) => Stream::Unix(fd.into()),
        };
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.pause(registry, now, 0);
        self.decoder.feed(&state.unparsed, &mut |_| {})?;
        registry
            .register(stream.source(), self.token, interest)
            .map_err(|error| Error::io("taking over a link to Redis", &error))?;
        self.stream = Some(stream);
        self.phase = Phase::Up;
        self.up_since = now.saturating_sub(state.up_for);
        self.heard_at = now.saturating_sub(state.heard_ago);
        self.pinged_at = state.pinged_ago.map(|ago| now.saturating_sub(ago));
        Ok(())
    }

    /// Closes the connection and opens another after so many milliseconds.
    pub fn pause(&mut self, registry: &Registry, now: Millis, pause_ms: u64) {
        self.close(registry);
        self.attempts = 0;
        self.phase = Phase::Waiting(now + pause_ms);
    }
}

impl From<Stream> for OwnedFd {
    fn from(stream: Stream) -> Self {
        match stream {
            Stream::Tcp(stream) => stream.into(),
            Stream::Unix(stream) => stream.into(),
        }
    }
}
