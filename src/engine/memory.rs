//! `max-memory`: how much the sockets of a loop may take with all that waits in them, and whom it
//! costs the connection when that is used up.
//!
//! Each loop has an equal share and looks after its own at the end of a turn. Near the limit nobody
//! new comes in; at the limit the slowest are closed first: those whose oldest byte has waited
//! longest to be written, then those who have sent a part of a message. What is counted is exact
//! ([`meter`]), so a message that a thousand wait for counts once.

use super::event_loop::EventLoop;
use crate::cause::Cause;
use crate::log::Level;
use crate::meter;
use crate::socket::Key;

/// Per cent of the share above which handshakes are refused.
const REFUSE: usize = 80;
/// Above which sockets are closed.
const SHED: usize = 95;
/// Below which no more are closed: not one a turn, for ever.
const ENOUGH: usize = 90;
/// One that is closed may keep so many bytes for the second in which it may still read why; beyond
/// that it is cut at once.
const MAX_FAREWELL: usize = 4096;

impl EventLoop {
    /// Is so much used that nobody may come in?
    pub(super) fn is_nearly_full(&self) -> bool {
        self.uses_more_than(REFUSE)
    }

    fn uses_more_than(&self, per_cent: usize) -> bool {
        let config = &self.shared.config;
        let share = config.max_memory / config.loops;
        let used = || self.counters().socket_bytes.get() as usize + meter::held();
        share > 0 && used() > share / 100 * per_cent
    }

    /// Closes the slowest until there is room again.
    pub(super) fn shed(&mut self) {
        if !self.uses_more_than(SHED) {
            return;
        }
        let mut slowest: Vec<(u32, Key)> = Vec::new();
        for (_, socket) in &self.sockets {
            let waits = socket.waits_for(self.now).or(socket.is_amid_message().then_some(0));
            if let Some(waits) = waits.filter(|_| socket.is_listening()) {
                slowest.push((waits, socket.key));
            }
        }
        slowest.sort_unstable_by(|one, other| other.cmp(one));
        let mut shed = 0;
        for (_, key) in slowest {
            if !self.uses_more_than(ENOUGH) {
                break;
            }
            self.close_doomed(key, Cause::Shed);
            // It would read the rest of what is half written first, and it does not read.
            if self.socket(key).is_some_and(|socket| socket.queued_bytes() > MAX_FAREWELL) {
                self.finish(key, Cause::Shed);
            }
            shed += 1;
        }
        self.write_and_close();
        self.shared.log.limited(Level::Warn, "max_memory", || match shed {
            0 => "wsredis: max-memory is used up by sockets that are not slow: raise it".into(),
            _ => format!("wsredis: max-memory is used up: {shed} slow socket(s) are closed"),
        });
    }
}
