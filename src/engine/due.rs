//! What is due in a loop: for its sockets, its channels and its links, and what is done then.

use std::collections::HashMap;

use super::event_loop::{EventLoop, find};
use super::inbox::Wire;
use crate::cause::Cause;
use crate::hub::ChannelId;
use crate::socket::{Due, Key};
use crate::timer;

/// While its sockets are about to go, a loop lets no channel go before this has passed again.
const SETTLING_LINGER_MS: u64 = 100;
/// Owners of deadlines, beside the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Timer {
    Link(Wire),
    Resubscribe,
    Linger(ChannelId),
    /// The time at which a raw socket that lost continuity is closed.
    Gap(Key),
    /// The time at which a socket is sent away, after [`super::inbox::Command::Disperse`].
    Disperse(Key),
}

impl EventLoop {
    /// Moves a socket's place among the deadlines to where it belongs now.
    pub(super) fn rearm(&mut self, key: Key) {
        let Some(socket) = find(&mut self.sockets, key) else { return };
        let at = socket.deadline(&self.shared.config, self.now);
        let at = at.map(|at| timer::rounded(at, self.now));
        self.deadlines.set(&mut socket.alarm, key.index() as u32, at);
    }

    /// Lets a channel that nobody hears any more go after so many milliseconds.
    pub(super) fn linger(&mut self, channel: ChannelId, ms: u64) {
        let at = Some(self.now + ms);
        self.timers.set(self.lingers.entry(channel).or_default(), Timer::Linger(channel), at);
    }

    /// Does everything whose time has come.
    pub(super) fn timers_due(&mut self) {
        while let Some(index) = self.deadlines.due(self.now) {
            self.socket_due(index);
        }
        while let Some(timer) = self.timers.due(self.now) {
            match timer {
                Timer::Gap(key) => self.doom(key, Cause::Gap),
                Timer::Disperse(key) => self.doom(key, self.dispersing.unwrap_or(Cause::Restart)),
                Timer::Linger(channel) => self.linger_over(channel),
                Timer::Resubscribe => {
                    self.resubscribe.rang();
                    self.hub.want_all();
                }
                Timer::Link(wire) => self.link_due(wire),
            }
        }
    }

    fn socket_due(&mut self, index: u32) {
        let Some(socket) = self.sockets.get_mut(index as usize) else { return };
        let key = socket.key;
        socket.alarm.rang();
        match socket.on_deadline(&self.shared.config, self.now) {
            Due::Nothing => {}
            Due::Release => self.release(key),
            Due::Queued => self.make_dirty(key),
            Due::Close(cause) => return self.doom(key, cause),
            Due::Cut => return self.finish(key, Cause::Lost),
        }
        self.rearm(key);
    }

    fn linger_over(&mut self, channel: ChannelId) {
        if self.moving.settling {
            // Nothing is asked of Redis now that would have to be waited for.
            self.lingers.remove(&channel);
            return self.linger(channel, SETTLING_LINGER_MS);
        }
        self.lingers.remove(&channel);
        if self.lingers.is_empty() {
            self.lingers = HashMap::new(); // Its table may have been that of a hundred thousand.
        }
        let Some(name) = self.hub.linger_over(channel) else { return };
        if !self.unsubscribe(&name) {
            // Nobody to ask: it is gone at once.
            self.hub.unsubscribed(&name);
            self.echo.forget_channel(channel);
        }
    }
}
