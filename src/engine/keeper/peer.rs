//! One connection of a keeper: a host, a lease, or a successor, and what waits for it or of it.
//!
//! Owned by the door. It decides nothing.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::super::events::Event;
use super::super::inbox::Adoption;
use super::wire::{self, Message};

/// Events that wait for a peer that watches and does not read.
const EVENT_LIMIT: usize = 65_536;

/// A connection of a host, a lease, or a successor.
pub(super) struct Peer {
    pub connection: OwnedFd,
    /// It holds a lease.
    pub lease: bool,
    /// It wants log lines.
    pub logs: bool,
    /// It wants events.
    pub watches: bool,
    /// What the engine is too busy for just now. Nothing is read meanwhile.
    pub held: Option<Held>,
    /// Events that it has not taken yet.
    events: VecDeque<Event>,
    /// How many more there were than can wait.
    dropped: u64,
}

/// What waits for the engine.
pub(super) enum Held {
    Socket(Box<Adoption>),
    Message(String, Vec<u8>),
}

impl Peer {
    pub fn new(connection: OwnedFd) -> Self {
        Peer {
            connection,
            lease: false,
            logs: false,
            watches: false,
            held: None,
            events: VecDeque::new(),
            dropped: 0,
        }
    }

    /// Lets an event wait for it.
    pub fn queue_event(&mut self, event: &Event) {
        if self.events.len() < EVENT_LIMIT {
            self.events.push_back(event.clone());
        } else {
            self.dropped += 1;
        }
    }

    /// Sends events until its queue is full; its descriptor tells when it has room.
    pub fn flush_events(&mut self) {
        loop {
            if self.dropped > 0 && self.events.is_empty() {
                self.events.push_back(Event::Overflow(std::mem::take(&mut self.dropped)));
            }
            let Some(event) = self.events.front() else { return };
            let message = match event {
                Event::Opened(id) => Message::Opened(id),
                Event::Closed(id, code) => Message::Closed(id, *code),
                Event::Overflow(n) => Message::Overflow(*n),
            };
            if wire::send(&self.connection, &message, &[]).is_err() {
                return;
            }
            self.events.pop_front();
        }
    }

    /// It as plain values beside its connection. A socket that is held does not go along.
    pub fn state(&self) -> PeerState {
        PeerState {
            lease: self.lease,
            logs: self.logs,
            watches: self.watches,
            held: match &self.held {
                Some(Held::Message(channel, payload)) => Some((channel.clone(), payload.clone())),
                _ => None,
            },
            events: self.events.clone(),
            dropped: self.dropped,
        }
    }

    /// The peer that was at this connection in another keeper.
    pub fn of_state(connection: OwnedFd, state: PeerState) -> Self {
        Peer {
            lease: state.lease,
            logs: state.logs,
            watches: state.watches,
            held: state.held.map(|(channel, payload)| Held::Message(channel, payload)),
            events: state.events,
            dropped: state.dropped,
            connection,
        }
    }
}

/// A peer without its connection.
#[derive(Serialize, Deserialize)]
pub(super) struct PeerState {
    lease: bool,
    logs: bool,
    watches: bool,
    held: Option<(String, Vec<u8>)>,
    events: VecDeque<Event>,
    dropped: u64,
}

#[cfg(test)]
impl PeerState {
    /// Those whose encodings tell its fields apart.
    pub fn samples() -> Vec<Self> {
        let held = || Some(("a".to_owned(), vec![1, 2]));
        let flags = [(true, false, false), (false, true, false), (false, false, true)];
        let events = || VecDeque::from([Event::Opened("b".into()), Event::Closed("c".into(), 301)]);
        let peer = |(lease, logs, watches)| PeerState {
            lease,
            logs,
            watches,
            held: held(),
            events: events(),
            dropped: 300,
        };
        flags.map(peer).into()
    }
}
