//! What other threads ask of a loop, done.

use std::time::Duration;

use super::due::Timer;
use super::event_loop::{EventLoop, find};
use super::inbox::{Command, Who};
use crate::cause::Cause;
use crate::hub::Form;
use crate::socket::{Key, Socket};
use crate::sys;
use crate::timer::Alarm;
use crate::ws::frame::Data;

impl EventLoop {
    pub(super) fn command(&mut self, command: Command) {
        match command {
            Command::Adopt(newcomer) => self.adopt(*newcomer),
            Command::Publish(channel, payload) => self.publish_for_host(&channel, &payload),
            Command::Send(key, payload) => self.send_to(key, &payload),
            Command::Kick(who) => self.kick(&who),
            Command::KickOne(key) => self.doom(key, Cause::Kicked),
            Command::LookedUp(wire, addresses) => self.looked_up(wire, addresses),
            Command::Disperse(cause, over) => self.disperse(cause, over),
            Command::Settle(answer) => self.settle(&answer),
            Command::Export(by, answer) => self.export_by(by, answer),
            Command::GoOn(answer) => {
                self.go_on();
                let _ = answer.send((self.number, ())); // Who asked may not wait for it.
            }
            Command::Import(state, same_redis, answer) => {
                self.moving.settling = self.stop_by.is_none();
                self.import(*state, same_redis);
                let _ = answer.send((self.number, ())); // Who asked may have given up.
            }
        }
    }

    fn send_to(&mut self, key: Key, payload: &[u8]) {
        let now = self.now;
        let Some(socket) = find(&mut self.sockets, key) else { return };
        if socket.is_slow(&self.shared.config, now) {
            return self.doom(key, Cause::Slow);
        }
        let data = match std::str::from_utf8(payload) {
            Ok(_) if socket.variant.form != Form::Binary => Data::Text,
            _ => Data::Binary,
        };
        self.queue_data(key, data, payload);
    }

    /// Closes sockets for the app. By user or session this walks all sockets of the loop: it
    /// is rare.
    fn kick(&mut self, who: &Who) {
        let keys: Vec<Key> = match who {
            Who::Channel(name) => {
                let channel = self.hub.find(name);
                let indexes = channel.into_iter().flat_map(|channel| self.hub.listeners(channel));
                indexes.map(|index| self.sockets[index as usize].key).collect()
            }
            _ => {
                let is_meant = |socket: &Socket| match who {
                    Who::User(user) => socket.identity().user == Some(user),
                    Who::Session(session) => socket.identity().session == Some(session),
                    Who::Socket(_) | Who::Channel(_) => false,
                };
                self.sockets.iter().filter(|(_, s)| is_meant(s)).map(|(_, s)| s.key).collect()
            }
        };
        for key in keys {
            self.doom(key, Cause::Kicked);
        }
    }

    /// Closes all sockets, spread over that time; new ones are refused from here on.
    fn disperse(&mut self, cause: Cause, over: Duration) {
        self.dispersing = Some(cause);
        for key in self.keys() {
            let at = self.now + sys::random() % (over.as_millis() as u64).saturating_add(1);
            self.timers.set(&mut Alarm::default(), Timer::Disperse(key), Some(at));
        }
    }
}
