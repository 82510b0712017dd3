//! How a keeper's life ends: what its hosts had handed over before is served or answered, then all
//! sockets are closed.

use std::time::{Duration, Instant};

use super::door::{Door, End};
use super::peer::Held;
use super::wire::{self, Message};
use crate::cause::{Cause, Refusal};
use crate::log::Level;

/// More packets than the kernel lets wait of one peer: what comes behind them comes too late.
const QUEUE: usize = 1024;
/// How long what waits already may take to be published.
const DRAIN: Duration = Duration::from_millis(200);

impl Door {
    /// Closes all sockets and waits for that.
    pub(super) fn close(&mut self, cause: Cause, timeout_ms: u32) -> End {
        self.is_ending = true;
        self.drain();
        if !self.engine.stop_with(cause, timeout_ms) {
            self.log.line(Level::Warn, "wsredis: keeper ends with sockets that were not closed");
        }
        self.turn_away();
        self.entrance.leave();
        End::Closed
    }

    /// Makes room for a successor that can not take over: it has the path already.
    pub(super) fn retire(&mut self) -> End {
        let over = self.engine.config().gap_spread;
        let text = "wsredis: keeper makes room for one of another version: its browsers come back";
        self.log.line(Level::Warn, text);
        self.is_ending = true;
        let _ = self.engine.disperse(Cause::Restart, over); // Not begun: there is none to close.
        let until = Instant::now() + over;
        while self.engine.sockets() > 0 && Instant::now() < until {
            self.read_all();
            std::thread::sleep(Duration::from_millis(10));
        }
        self.drain();
        self.engine.stop_with(Cause::Restart, u32::MAX);
        self.turn_away();
        End::HandedOver
    }

    /// Publishes what waits from before, and answers the handshakes.
    fn drain(&mut self) {
        let until = Instant::now() + DRAIN;
        self.accept();
        while self.read_all() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// What came too late: a handshake gets its 503, a message is counted as lost.
    fn turn_away(&mut self) {
        let mut lost = 0;
        for index in 0..self.peers.capacity() {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            let mut sockets = Vec::new();
            match peer.held.take() {
                Some(Held::Socket(adoption)) => sockets.push(adoption.fd),
                Some(Held::Message(..)) => lost += 1,
                None => {}
            }
            for _ in 0..QUEUE {
                let Ok(packet) = wire::receive(&peer.connection, &mut self.buffer) else { break };
                lost += u32::from(matches!(packet.message(), Ok(Message::Publish { .. })));
                sockets.extend(packet.descriptors);
            }
            for socket in sockets {
                self.refuse(&socket, Refusal::Full);
            }
        }
        if lost > 0 {
            (0..lost).for_each(|_| self.engine.count_unpublished());
            let text = format!("wsredis: keeper ends before {lost} message(s) were published");
            self.log.line(Level::Error, &text);
        }
    }
}
