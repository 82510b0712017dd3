//! The link that hears: it SUBSCRIBEs to what the hub wants and brings the messages.
//!
//! Owned by a loop. Channels are asked for one command each, in one pipeline: Redis answers an
//! error for the whole command, and one channel that an ACL forbids must not silence the others.
//! Answers come in the order of the commands, so an error is matched to its channel by position.
//! PSUBSCRIBE is never used.

use std::collections::VecDeque;
use std::rc::Rc;

use mio::Registry;

use super::{Change, Link};
use crate::config::Config;
use crate::resp::{self, Reply};
use crate::timer::Millis;

/// What the link brings, with names as the hub knows them (without `channel-prefix`).
#[derive(Debug, PartialEq, Eq)]
pub enum Heard<'a> {
    /// A message of a channel.
    Message(&'a str, &'a [u8]),
    /// The channel is heard from here on.
    Subscribed(&'a str),
    /// The channel is not heard any more.
    Unsubscribed(&'a str),
    /// Redis refused the channel, for the reason given.
    Refused(&'a str, String),
}

/// The subscribing link of one loop.
#[derive(Debug)]
pub struct Subscriber {
    /// The connection. Its deadline and changes are the loop's to serve.
    pub link: Link,
    prefix: String,
    /// Channels whose command is unanswered, oldest first.
    unanswered: VecDeque<Rc<str>>,
}

impl Subscriber {
    /// A subscriber that is not connected yet.
    pub fn new(config: &Config, link: Link) -> Self {
        Subscriber { link, prefix: config.channel_prefix.clone(), unanswered: VecDeque::new() }
    }

    /// Asks to hear these channels.
    pub fn subscribe(&mut self, channels: impl IntoIterator<Item = Rc<str>>, now: Millis) {
        self.command(b"SUBSCRIBE", channels, now);
    }

    /// Asks not to hear these channels any more.
    pub fn unsubscribe(&mut self, channels: impl IntoIterator<Item = Rc<str>>, now: Millis) {
        self.command(b"UNSUBSCRIBE", channels, now);
    }

    fn command(&mut self, verb: &[u8], channels: impl IntoIterator<Item = Rc<str>>, now: Millis) {
        let mut bytes = Vec::new();
        for channel in channels {
            let name = [self.prefix.as_bytes(), channel.as_bytes()].concat();
            resp::command(&mut bytes, &[verb, &name]);
            self.unanswered.push_back(channel);
        }
        self.link.send(bytes, now);
    }

    /// Reads once and hands on what was heard. Returns whether there may be more, and what changed.
    pub fn read(
        &mut self,
        registry: &Registry,
        now: Millis,
        buffer: &mut [u8],
        mut each: impl FnMut(Heard<'_>),
    ) -> (bool, Option<Change>) {
        let (prefix, unanswered) = (self.prefix.as_bytes(), &mut self.unanswered);
        // A name that is not under our prefix or not UTF-8 is none that we asked for.
        fn own<'a>(prefix: &[u8], name: &'a [u8]) -> Option<&'a str> {
            std::str::from_utf8(name.strip_prefix(prefix)?).ok()
        }
        let result = self.link.read(registry, now, buffer, |reply| match reply {
            Reply::Message { channel, payload } => {
                if let Some(channel) = own(prefix, &channel) {
                    each(Heard::Message(channel, &payload));
                }
            }
            Reply::Subscribed(name) => {
                unanswered.pop_front();
                if let Some(name) = own(prefix, &name) {
                    each(Heard::Subscribed(name));
                }
            }
            Reply::Unsubscribed(name) => {
                unanswered.pop_front();
                if let Some(name) = own(prefix, &name) {
                    each(Heard::Unsubscribed(name));
                }
            }
            Reply::Error { code, text } => {
                if let Some(name) = unanswered.pop_front() {
                    each(Heard::Refused(&name, format!("{code} {text}")));
                }
            }
            Reply::Pong | Reply::Other(_) => {}
        });
        if matches!(result.1, Some(Change::Down(_) | Change::Failed(_))) {
            self.unanswered.clear();
        }
        result
    }

    /// Does nothing wait for Redis or for its answer?
    pub fn is_settled(&self) -> bool {
        self.unanswered.is_empty() && (!self.link.is_up() || self.link.queued_bytes() == 0)
    }

    /// The link was lost or is given up: nothing that was asked will be answered.
    pub fn forget(&mut self) {
        self.unanswered.clear();
    }
}
