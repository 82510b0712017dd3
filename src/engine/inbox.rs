//! Commands: what another thread may ask of a loop, and the bounded queue they wait in.
//!
//! Any thread pushes, the loop drains all on each wake-up. The waker is a system call, so it is
//! rung only when the queue was empty. A full queue is an answer, at once, never a wait: the caller
//! may be a worker with a browser at the other end.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use mio::Waker;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::transfer::LoopState;
use crate::cause::Cause;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::grant::{Format, Grant};
use crate::hub::{Form, Variant};
use crate::redis::publisher;
use crate::socket::Key;
use crate::ws::{envelope, handshake};

/// A socket that the host hands over, with everything that the engine needs to know.
#[derive(Debug)]
pub struct Adoption {
    /// The connection.
    pub fd: OwnedFd,
    /// What it may hear and say, JSON.
    pub grant: Vec<u8>,
    /// The HTTP answer to be written, a 101.
    pub answer: Vec<u8>,
    /// What the browser sent behind its request.
    pub leftover: Vec<u8>,
    /// Where the browser is.
    pub remote_address: String,
    /// The request's Host.
    pub host: String,
    /// A digest of the request's path; 0 if none.
    pub path_digest: u64,
    /// Returns every message as it came.
    pub mirror: bool,
}

impl Adoption {
    /// The grant, and how the socket's messages are put on the wire, as its grant and the answer
    /// have it; or why it can not be adopted.
    pub fn check(&self, config: &Config) -> Result<(Grant, Variant)> {
        let grant = Grant::parse(&self.grant, config.max_channels_per_socket)?;
        if self.mirror && grant != Grant::default() {
            return Err(Error::new(Kind::Invalid, "a mirror has the grant {}"));
        }
        let spoken = handshake::spoken_of(&self.answer)?;
        let is_envelope = spoken.subprotocol.as_deref() == Some(envelope::PROTOCOL);
        let form = match grant.format {
            _ if is_envelope && !self.mirror => Form::Envelope,
            Format::Auto => Form::Raw,
            Format::Binary => Form::Binary,
        };
        Ok((grant, Variant { form, deflate: spoken.deflate }))
    }
}

/// An adoption that was checked.
#[derive(Debug)]
pub(super) struct Newcomer {
    pub adoption: Adoption,
    pub grant: Grant,
    /// How its messages are put on the wire.
    pub variant: Variant,
}

/// Can this ever be published?
pub(super) fn check_publish(config: &Config, channel: &str, payload: &[u8]) -> Result<()> {
    crate::grant::check_channel(channel).map_err(|why| Error::new(Kind::Invalid, why))?;
    let limit = config.publish_queue_limit.min(config.max_redis_message_size);
    if config.redis_url.is_none() || size_of_publish(config, channel, payload) <= limit as u64 {
        return Ok(());
    }
    let text = format!(
        "a message of {} bytes is too large (publish-queue-limit, max-redis-message-size)",
        payload.len()
    );
    Err(Error::new(Kind::Limit, text))
}

/// How many bytes a message takes on its way to Redis.
pub(super) fn size_of_publish(config: &Config, channel: &str, payload: &[u8]) -> u64 {
    publisher::size_of_publish(&config.channel_prefix, channel, payload) as u64
}

/// Whose sockets are meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// The socket with this id.
    Socket(String),
    /// All sockets of a user.
    User(String),
    /// All sockets of a session.
    Session(String),
    /// All sockets that hear a channel.
    Channel(String),
}

/// One of a loop's links.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Wire {
    /// The one that hears.
    Subscriber,
    /// The one that speaks.
    Publisher,
}

/// What another thread may ask of a loop.
#[derive(Debug)]
pub(super) enum Command {
    /// Take a socket.
    Adopt(Box<Newcomer>),
    /// Publish a message of the host.
    Publish(String, Vec<u8>),
    /// Send to one socket only.
    Send(Key, Vec<u8>),
    /// Close sockets with 4403, by anything but their id.
    Kick(Who),
    /// Close one socket with 4403.
    KickOne(Key),
    /// The addresses that a link asked for.
    LookedUp(Wire, io::Result<Vec<SocketAddr>>),
    /// Close all sockets for a cause, spread over a time.
    Disperse(Cause, Duration),
    /// Stop reading browsers: the sockets are about to go to another engine.
    Settle(Sender<(usize, ())>),
    /// Give all sockets away, once nothing is under way or at this time.
    Export(Instant, Sender<(usize, LoopState)>),
    /// The sockets stay, or all have come: publish what waited, and read them.
    GoOn(Sender<(usize, ())>),
    /// Take the sockets of another loop, and with the same Redis its subscriber link. Browsers are
    /// not read before [`Command::GoOn`].
    Import(Box<LoopState>, bool, Sender<(usize, ())>),
}

/// A loop's queue of commands.
#[derive(Debug)]
pub(super) struct Inbox {
    /// `None` once the loop has ended: nobody would look.
    commands: Mutex<Option<VecDeque<Command>>>,
    limit: usize,
    waker: Waker,
}

impl Inbox {
    /// An inbox that holds `limit` commands and wakes its loop by `waker`.
    pub fn new(limit: usize, waker: Waker) -> Self {
        Inbox { commands: Mutex::new(Some(VecDeque::new())), limit, waker }
    }

    /// Queues a command, or gives it back if the inbox is full or the loop has ended.
    pub fn push(&self, command: Command) -> std::result::Result<(), Command> {
        self.push_below(self.limit, command)
    }

    /// Queues a command of the engine's own, which must not be lost; there are at most a handful.
    pub fn push_own(&self, command: Command) {
        let _ = self.push_below(usize::MAX, command);
    }

    fn push_below(&self, limit: usize, command: Command) -> std::result::Result<(), Command> {
        let was_empty = {
            let mut commands = self.commands.lock();
            let Some(commands) = commands.as_mut().filter(|commands| commands.len() < limit) else {
                return Err(command);
            };
            commands.push_back(command);
            commands.len() == 1
        };
        if was_empty {
            self.wake();
        }
        Ok(())
    }

    /// Wakes the loop. Takes no lock: async-signal-safe.
    pub fn wake(&self) {
        // It fails only if the loop and its epoll are gone, and then there is nobody to wake.
        let _ = self.waker.wake();
    }

    /// Takes all commands.
    pub fn drain(&self) -> VecDeque<Command> {
        self.commands.lock().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Does no command wait?
    pub fn is_empty(&self) -> bool {
        self.commands.lock().as_ref().is_none_or(VecDeque::is_empty)
    }

    /// Takes what is left, and nothing any more.
    pub fn close(&self) -> VecDeque<Command> {
        self.commands.lock().take().unwrap_or_default()
    }
}
