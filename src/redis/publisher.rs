//! The link that speaks: pipelined PUBLISH, bounded, and an account of every message that did not
//! get through.
//!
//! Owned by a loop. While Redis is away messages wait up to `publish-queue-limit` and then are
//! refused, so that their sender can be told. A command that was written when the link broke may or
//! may not have been carried out: it is never sent again (that could double it) and reported as
//! failed.

use std::collections::VecDeque;
use std::rc::Rc;

use ::redis::Value;
use mio::Registry;

use super::{Change, Link};
use crate::config::Config;
use crate::resp::{self, Decoder, Reply};
use crate::timer::Millis;

/// Who wants to know if a message did not get through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The socket that sent it; `None` for the host.
    pub socket: Option<u64>,
    /// Where it was to go.
    pub channel: Rc<str>,
    /// The note that its echo was to take: the channel's number and the digest.
    pub note: Option<(u32, u64)>,
}

/// Room for the words and lengths around a channel and a payload in a command.
const COMMAND_ROOM: usize = 128;

/// How many bytes a message takes on its way to Redis.
pub fn size_of_publish(prefix: &str, channel: &str, payload: &[u8]) -> usize {
    payload.len() + channel.len() + prefix.len() + COMMAND_ROOM
}

/// Commands in the link's hands at a time, in bytes. The rest waits here, where a lost link does
/// not touch it.
const WINDOW: usize = 256 * 1024;

/// Commands one behind the other.
#[derive(Debug, Default)]
struct Pipeline {
    bytes: Vec<u8>,
    commands: usize,
}

/// The publishing link of one loop.
#[derive(Debug)]
pub struct Publisher {
    /// The connection. Its deadline and changes are the loop's to serve.
    pub link: Link,
    prefix: String,
    limit: usize,
    /// What the link does not have yet.
    waiting: VecDeque<Pipeline>,
    waiting_bytes: usize,
    /// One for each command that Redis has not answered, in their order.
    receipts: VecDeque<Receipt>,
    /// So many of them, the first, are of commands that the link has.
    sent: usize,
    /// The name of a channel on Redis, while it is needed.
    name: Vec<u8>,
}

impl Publisher {
    /// A publisher that is not connected yet.
    pub fn new(config: &Config, link: Link) -> Self {
        Publisher {
            link,
            prefix: config.channel_prefix.clone(),
            limit: config.publish_queue_limit,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            receipts: VecDeque::new(),
            sent: 0,
            name: Vec::new(),
        }
    }

    /// Queues a message, or gives the receipt back if `publish-queue-limit` is reached.
    pub fn publish(&mut self, payload: &[u8], receipt: Receipt) -> Result<(), Receipt> {
        if self.waiting_bytes + payload.len() > self.limit {
            return Err(receipt);
        }
        self.name.clear();
        self.name.extend_from_slice(self.prefix.as_bytes());
        self.name.extend_from_slice(receipt.channel.as_bytes());
        if self.waiting.back().is_none_or(|last| last.bytes.len() >= WINDOW) {
            self.waiting.push_back(Pipeline::default());
        }
        let last = self.waiting.back_mut().expect("there is one");
        let before = last.bytes.len();
        resp::command(&mut last.bytes, &[b"PUBLISH", &self.name, payload]);
        last.commands += 1;
        self.waiting_bytes += last.bytes.len() - before;
        self.receipts.push_back(receipt);
        Ok(())
    }

    /// Hands waiting commands to the link and writes them.
    pub fn flush(&mut self, registry: &Registry, now: Millis) -> Option<Change> {
        while self.link.is_up()
            && self.link.queued_bytes() < WINDOW
            && let Some(pipeline) = self.waiting.pop_front()
        {
            self.waiting_bytes -= pipeline.bytes.len();
            self.sent += pipeline.commands;
            self.link.send(pipeline.bytes, now);
            if let Some(change) = self.link.flush(registry, now) {
                return Some(change);
            }
        }
        self.link.flush(registry, now)
    }

    /// Reads once; `failed` hears of each message that Redis refused, and why. Returns whether
    /// there may be more to read, and what changed.
    pub fn read(
        &mut self,
        registry: &Registry,
        now: Millis,
        buffer: &mut [u8],
        mut failed: impl FnMut(Receipt, String),
    ) -> (bool, Option<Change>) {
        let (receipts, sent) = (&mut self.receipts, &mut self.sent);
        self.link.read(registry, now, buffer, |reply| {
            if *sent == 0 {
                return; // An answer to nothing.
            }
            *sent -= 1;
            let receipt = receipts.pop_front().expect("each command has one");
            if let Reply::Error { code, text } = reply {
                failed(receipt, format!("{code} {text}"));
            }
        })
    }

    /// Takes the receipts of everything that was written and not answered, after the link was lost.
    pub fn take_unanswered(&mut self) -> VecDeque<Receipt> {
        let waiting = self.receipts.split_off(std::mem::take(&mut self.sent));
        std::mem::replace(&mut self.receipts, waiting)
    }

    /// Gives up what is in doubt, and the link with it: what was written may still be carried out.
    pub fn give_up(&mut self, registry: &Registry, now: Millis) -> VecDeque<Receipt> {
        if self.sent > 0 {
            self.link.pause(registry, now, 0);
        }
        self.take_unanswered()
    }

    /// Takes the payloads that the link never had, in their order: nothing about them is in doubt.
    pub fn take_waiting(&mut self) -> Vec<(Vec<u8>, Receipt)> {
        self.waiting_bytes = 0;
        let mut payloads = Vec::new();
        for pipeline in std::mem::take(&mut self.waiting) {
            let read = Decoder::new(usize::MAX).feed(&pipeline.bytes, &mut |reply| {
                if let Reply::Other(Value::Array(mut words)) = reply
                    && let Some(Value::BulkString(payload)) = words.pop()
                {
                    payloads.push(payload);
                }
            });
            read.expect("our own commands are RESP");
        }
        payloads.into_iter().zip(self.receipts.split_off(self.sent)).collect()
    }

    /// How many bytes wait that the link does not have yet.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Does Redis take messages, but slower than they come? Whoever can let the senders wait should.
    /// Not while it is away: then they are to be told at some time.
    pub fn is_behind(&self) -> bool {
        self.link.is_up() && self.waiting_bytes > self.limit / 2
    }

    /// How many messages are not known to have got through.
    pub fn pending(&self) -> usize {
        self.receipts.len()
    }
}
