//! When something is due for a socket that nothing happens to: its answer, its end, a ping, a
//! heartbeat, the rest of a message.
//!
//! One alarm of the loop for each socket; it may ring earlier than needed, never later.

use super::{NEVER, Phase, Socket};
use crate::cause::Cause;
use crate::config::Config;
use crate::timer::Millis;
use crate::ws::frame::{self, OpCode};

/// What a socket's deadline asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Due {
    /// Nothing: something happened meanwhile.
    Nothing,
    /// Its channels took too long: send the answer now.
    Release,
    /// A ping or heartbeat was queued.
    Queued,
    /// It is to be closed.
    Close(Cause),
    /// It had its time: cut it.
    Cut,
}

impl Socket {
    /// When [`Socket::on_deadline`] wants to be called. It may be earlier than needed, never later.
    pub fn deadline(&self, config: &Config, now: Millis) -> Option<Millis> {
        match self.phase {
            Phase::Held | Phase::Closing | Phase::Ending => Some(self.limit_at.near(now)),
            Phase::Open => [
                Some(self.expires_at).filter(|at| *at != NEVER),
                self.unfinished_at(config),
                self.ping_at(config, now),
                self.heartbeat_at(config, now),
            ]
            .into_iter()
            .flatten()
            .min(),
        }
    }

    /// When what the browser has begun must be whole.
    pub(super) fn unfinished_at(&self, config: &Config) -> Option<Millis> {
        Some(self.assembler.begun()? + config.message_timeout.as_millis() as u64)
    }

    /// When silence is to be broken by a ping, or an unanswered ping ends the socket. Spread by a
    /// tenth around the interval, so that sockets that came together do not stay together.
    fn ping_at(&self, config: &Config, now: Millis) -> Option<Millis> {
        let heard_at = self.heard_at.near(now);
        if self.pinged {
            return Some(heard_at + config.pong_timeout.as_millis() as u64);
        }
        match config.ping_interval.as_millis() as u64 {
            0 => None,
            interval => {
                let spread = interval / 5;
                let jitter = u64::from(self.key).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
                Some(heard_at + interval - spread / 2 + jitter % (spread + 1))
            }
        }
    }

    fn heartbeat_at(&self, config: &Config, now: Millis) -> Option<Millis> {
        let interval = config.heartbeat_interval.as_millis() as u64;
        self.rights.heartbeat.as_ref().map(|_| self.sent_at.near(now) + interval)
    }

    /// Its deadline has come.
    pub fn on_deadline(&mut self, config: &Config, now: Millis) -> Due {
        let due = |at: Option<Millis>| at.is_some_and(|at| at <= now);
        match self.phase {
            Phase::Held if self.limit_at.near(now) <= now => Due::Release,
            Phase::Closing | Phase::Ending if self.limit_at.near(now) <= now => Due::Cut,
            Phase::Open if self.expires_at <= now => Due::Close(Cause::Expired),
            Phase::Open if due(self.unfinished_at(config)) => Due::Close(Cause::Unfinished),
            Phase::Open if due(self.ping_at(config, now)) => {
                if std::mem::replace(&mut self.pinged, true) {
                    return Due::Close(Cause::NoPong);
                }
                self.leak(now);
                self.queue_frame(OpCode::Control(frame::Control::Ping), b"", now);
                Due::Queued
            }
            Phase::Open if due(self.heartbeat_at(config, now)) => {
                if let Some(heartbeat) = self.rights.heartbeat.clone() {
                    self.queue_frame(OpCode::Data(frame::Data::Text), heartbeat.as_bytes(), now);
                }
                self.sent_at = now.into();
                Due::Queued
            }
            _ => Due::Nothing,
        }
    }
}
