//! What happened to sockets, for a host that wants to know: a bounded queue behind a pollable
//! descriptor.
//!
//! Nothing is queued until the host has asked for the descriptor once. A host that stops reading
//! loses the oldest events and is told how many: the loops never wait for it.

use std::collections::VecDeque;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sys;

/// Events that wait for the host.
const LIMIT: usize = 65_536;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// The socket with this id was adopted and its handshake answered.
    Opened(String),
    /// The socket with this id ended, with this close code.
    Closed(String, u16),
    /// So many events were dropped because nobody read them.
    Overflow(u64),
}

/// The queue of events of one engine.
#[derive(Debug, Default)]
pub struct Events {
    bell: OnceLock<OwnedFd>,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<Event>,
    dropped: u64,
}

impl Events {
    /// The descriptor that is readable while events wait. From the first call on, events are
    /// queued.
    pub fn fd(&self) -> Result<RawFd> {
        if self.bell.get().is_none() {
            let fd =
                sys::event_fd().map_err(|e| Error::io("creating the events descriptor", &e))?;
            let _ = self.bell.set(fd); // Another thread was faster: its descriptor serves both.
        }
        Ok(self.bell.get().expect("it was set above").as_raw_fd())
    }

    /// Queues an event, if anyone wants them.
    pub fn push(&self, event: impl FnOnce() -> Event) {
        let Some(bell) = self.bell.get() else { return };
        let mut queue = self.queue.lock();
        if queue.events.len() == LIMIT {
            queue.events.pop_front();
            queue.dropped += 1;
        }
        queue.events.push_back(event());
        if queue.events.len() == 1 {
            sys::event_fd_ring(bell);
        }
    }

    /// The next event, if one waits.
    pub fn next(&self) -> Option<Event> {
        let bell = self.bell.get()?;
        let mut queue = self.queue.lock();
        if queue.dropped > 0 {
            return Some(Event::Overflow(std::mem::take(&mut queue.dropped)));
        }
        let event = queue.events.pop_front();
        if queue.events.is_empty() {
            sys::event_fd_drain(bell);
        }
        event
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_queued_only_for_a_host_that_asked() {
        let events = Events::default();
        events.push(|| Event::Opened("a".into()));
        events.fd().unwrap();
        events.push(|| Event::Opened("b".into()));
        assert_eq!(events.next(), Some(Event::Opened("b".into())));
        assert_eq!(events.next(), None);
    }

    #[test]
    fn a_host_that_does_not_read_loses_the_oldest_and_is_told() {
        let events = Events::default();
        events.fd().unwrap();
        for i in 0..LIMIT + 5 {
            events.push(|| Event::Closed(i.to_string(), 1000));
        }
        assert_eq!(events.next(), Some(Event::Overflow(5)));
        assert_eq!(events.next(), Some(Event::Closed("5".into(), 1000)));
    }
}
