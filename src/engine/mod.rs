//! The engine: what a host starts and stops, in the calling process or in a keeper.
//!
//! The functions and their promises are the same in both places; only [`Local`] has loops. See the
//! file of each for who owns what.

mod admission;
mod adoption;
mod commands;
mod due;
mod embedded;
mod event_loop;
mod events;
mod fanout;
mod ids;
mod inbound;
mod inbox;
pub mod keeper;
mod links;
mod local;
mod memory;
mod panics;
mod stats;
mod transfer;

use std::os::fd::RawFd;
use std::sync::Arc;

pub use events::Event;
pub use inbox::{Adoption, Who};
pub use keeper::Remote;
pub use local::Local;
pub use stats::Refusals;
pub use transfer::{EngineState, LoopState, Waiting};

use crate::config::{Config, Keeper};
use crate::error::{Error, Result};
use crate::log::Log;

/// A handle to an engine. All functions may be called by any thread.
pub enum Engine {
    /// Its loops run in this process.
    Here(Box<Local>),
    /// They run in a keeper.
    Kept(Box<Remote>),
}

impl Engine {
    /// The engine that `config` asks for. Nothing is started or connected yet. `refusals` may be
    /// counted by the host as well.
    pub fn new(config: Config, log: Log, refusals: Arc<Refusals>) -> Result<Self> {
        if let Keeper::At(path) = &config.keeper {
            let path = path.clone();
            return Ok(Engine::Kept(Box::new(Remote::new(config, path, log, refusals)?)));
        }
        Ok(Engine::Here(Box::new(Local::new(config, log, refusals)?)))
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        match self {
            Engine::Here(local) => local.config(),
            Engine::Kept(remote) => remote.config(),
        }
    }

    /// Hands a socket over. On an error it is given back and nothing was written to it.
    pub fn adopt(&self, adoption: Adoption) -> std::result::Result<(), (Error, Box<Adoption>)> {
        match self {
            Engine::Here(local) => local.adopt(adoption),
            Engine::Kept(remote) => remote.adopt(adoption),
        }
    }

    /// Publishes a message to everyone who hears the channel, in this engine and, with Redis,
    /// everywhere. OK: it is queued; messages of one channel keep their order.
    pub fn publish(&self, channel: &str, payload: &[u8]) -> Result<()> {
        match self {
            Engine::Here(local) => local.publish(channel, payload),
            Engine::Kept(remote) => remote.publish(channel, payload),
        }
    }

    /// Sends to one socket only. OK: it is queued; a socket that is gone meanwhile is no error.
    pub fn send(&self, socket_id: &str, payload: &[u8]) -> Result<()> {
        match self {
            Engine::Here(local) => local.send(socket_id, payload),
            Engine::Kept(remote) => remote.send(socket_id, payload),
        }
    }

    /// Closes sockets with 4403. OK: it is queued; none of that name is no error, but an id that is
    /// not of this engine is.
    pub fn kick(&self, who: &Who) -> Result<()> {
        match self {
            Engine::Here(local) => local.kick(who),
            Engine::Kept(remote) => remote.kick(who),
        }
    }

    /// Counters as one JSON object.
    pub fn stats(&self) -> Result<String> {
        match self {
            Engine::Here(local) => Ok(local.stats()),
            Engine::Kept(remote) => remote.stats(),
        }
    }

    /// Does it hear everything it should? Says why not.
    pub fn health(&self) -> Result<()> {
        match self {
            Engine::Here(local) => local.health(),
            Engine::Kept(remote) => remote.health(),
        }
    }

    /// The descriptor that is readable while events wait.
    pub fn events_fd(&self) -> Result<RawFd> {
        match self {
            Engine::Here(local) => local.events_fd(),
            Engine::Kept(remote) => remote.events_fd(),
        }
    }

    /// The next event.
    pub fn next_event(&self) -> Result<Option<Event>> {
        match self {
            Engine::Here(local) => Ok(local.next_event()),
            Engine::Kept(remote) => remote.next_event(),
        }
    }

    /// Ends what runs in this process: with loops here, all sockets are closed with 1012, and this
    /// waits for the end of the loops, at most so long and no longer than `stop-timeout`. Returns
    /// whether they have ended. Takes no lock and allocates nothing: it may be called from a signal
    /// handler or at the exit of the process.
    pub fn stop(&self, timeout_ms: u32) -> bool {
        match self {
            Engine::Here(local) => local.stop(timeout_ms),
            Engine::Kept(remote) => {
                remote.stop();
                true
            }
        }
    }
}
