//! All sockets of an engine go to another one, in this process or in the next: nothing is closed,
//! and nothing is lost, doubled or told twice.
//!
//! First every loop settles: it stops reading browsers, and what they said before comes to its end.
//! Then each gives its sockets away, with the connection that hears for them; its successor need not
//! subscribe to anything. Where that connection can not move, every channel's gap is told, as after
//! a lost link. The loops that have given everything away run on and may take it back.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, SendError, Sender};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::due::Timer;
use super::event_loop::{EventLoop, find};
use super::inbox::Command;
use super::local::{Local, Shared};
use crate::cause::Cause;
use crate::error::{Error, Kind, Result};
use crate::hub::{ChannelState, Hub};
use crate::log::Level;
use crate::redis::LinkState;
use crate::redis::publisher::Receipt;
use crate::socket::{Key, Phase, Socket, SocketState};
use crate::timer::{Alarm, Millis, Timers};

/// How long a loop may take to answer. Each turn of a loop is short: one that does not answer hangs.
const PATIENCE: Duration = Duration::from_secs(5);
/// A loop that has given its subscriber link away opens no other before this has passed: mostly its
/// process ends, or everything comes back.
const PAUSE_MS: u64 = 1_000;

/// Everything that a running engine hands to its successor. The descriptors are beside the plain
/// values, which can be written down.
#[derive(Debug, Default)]
pub struct EngineState {
    /// The engine's number, as in the ids of its sockets.
    pub id: u64,
    /// What each loop had.
    pub loops: Vec<LoopState>,
}

/// Everything that a loop hands on.
#[derive(Debug, Default)]
pub struct LoopState {
    /// Its sockets.
    pub sockets: Vec<(OwnedFd, SocketState)>,
    /// Its channels.
    pub channels: Vec<ChannelState>,
    /// The link that hears, if it can go on elsewhere.
    pub subscriber: Option<(OwnedFd, LinkState)>,
    /// Messages that Redis was never told of, in their order.
    pub waiting: Vec<Waiting>,
}

/// A message that was accepted and waits for Redis.
#[derive(Debug, Serialize, Deserialize)]
pub struct Waiting {
    /// The id of the socket that sent it. `None`: the host did, or the socket is gone.
    pub socket: Option<String>,
    /// Where it is to go.
    pub channel: String,
    /// What is published.
    pub payload: Vec<u8>,
}

/// How far a loop is with giving its sockets away.
#[derive(Debug, Default)]
pub(super) struct Moving {
    /// Browsers are not read.
    pub settling: bool,
    /// When everything is to be given away at the latest, and to whom.
    export: Option<(Millis, Sender<(usize, LoopState)>)>,
    /// What came along and is to be published before anything new.
    waiting: Vec<Waiting>,
}

impl Moving {
    /// When the loop has to wake up for it.
    pub fn export_by(&self) -> Option<Millis> {
        self.export.as_ref().map(|(by, _)| *by)
    }
}

impl Local {
    /// Takes everything out of the loops, after at most `settle` for what is under way. The loops
    /// are empty then, run on, and can import. Who has sent a message that Redis was told of and
    /// has not answered by then is told, as when the link is lost; what Redis was never told of
    /// goes along. Nobody may publish, adopt, export or import meanwhile.
    ///
    /// # Errors
    /// `Stopped`, or `Busy` if a loop does not answer: then all sockets are still here.
    pub fn export(&self, settle: Duration) -> Result<EngineState> {
        if !self.has_begun() {
            return Ok(EngineState::default());
        }
        let shared = &self.running()?.shared;
        // All stop reading before the first gives its sockets away: what one says, all hear.
        let settled = ask_all(shared, Command::Settle);
        let mut loops = Vec::new();
        if collect(&settled, PATIENCE).len() == shared.ports.len() {
            let by = Instant::now() + settle;
            let exported = ask_all(shared, |answer| Command::Export(by, answer));
            loops = collect(&exported, settle + PATIENCE);
            if loops.len() < shared.ports.len() {
                // Those that wait give up; one that has answered meanwhile gets back what it gave.
                let _ = ask_all(shared, Command::GoOn);
                loops.extend(collect(&exported, PATIENCE));
            }
        } else {
            let _ = ask_all(shared, Command::GoOn);
        }
        let is_whole = loops.len() == shared.ports.len();
        let mut state = EngineState { id: shared.id, loops: Vec::new() };
        state.loops.resize_with(shared.ports.len(), LoopState::default);
        for (number, exported) in loops {
            state.loops[number] = exported;
        }
        if is_whole {
            return Ok(state);
        }
        self.import(state, true)?;
        Err(Error::new(Kind::Busy, "a loop did not give its sockets away in time; try again"))
    }

    /// Takes over what another engine has exported. `same_redis`: redis-url, channel-prefix and the
    /// number of loops are those of that engine, so that its links may be taken over, or both have
    /// the embedded broker; else every channel with listeners gets its gap told once it is heard.
    pub fn import(&self, state: EngineState, same_redis: bool) -> Result<()> {
        let is_empty = |one: &LoopState| {
            one.sockets.is_empty() && one.subscriber.is_none() && one.waiting.is_empty()
        };
        if state.loops.iter().all(is_empty) {
            return Ok(());
        }
        let (shared, count) = (&self.running()?.shared, state.loops.len());
        let (answer, answers) = mpsc::channel();
        for (number, state) in state.loops.into_iter().enumerate() {
            let import = Command::Import(Box::new(state), same_redis, answer.clone());
            shared.ports[number % shared.ports.len()].inbox.push_own(import);
        }
        drop(answer);
        let is_done = collect(&answers, PATIENCE).len() == count;
        // Only now is anybody read: what one says, all hear. What waited goes before anything new.
        let on = ask_all(shared, Command::GoOn);
        if is_done && collect(&on, PATIENCE).len() == shared.ports.len() {
            return Ok(());
        }
        Err(Error::new(Kind::Busy, "a loop is slow to take its sockets over"))
    }

    /// Closes all sockets with this cause, spread over that time. New ones are refused from here on.
    pub fn disperse(&self, cause: Cause, over: Duration) -> Result<()> {
        let shared = &self.running()?.shared;
        tell_all(shared, || Command::Disperse(cause, over));
        Ok(())
    }
}

fn tell_all(shared: &Shared, command: impl Fn() -> Command) {
    for port in &shared.ports {
        port.inbox.push_own(command());
    }
}

/// Asks all loops for something. The answers end when no loop has anything left to say.
fn ask_all<T>(
    shared: &Shared,
    command: impl Fn(Sender<(usize, T)>) -> Command,
) -> Receiver<(usize, T)> {
    let (answer, answers) = mpsc::channel();
    tell_all(shared, || command(answer.clone()));
    answers
}

/// All answers, or those that came in time.
fn collect<T>(answers: &Receiver<(usize, T)>, limit: Duration) -> Vec<(usize, T)> {
    let by = Instant::now() + limit;
    let next = || answers.recv_timeout(by.saturating_duration_since(Instant::now())).ok();
    std::iter::from_fn(next).collect()
}

impl EventLoop {
    /// Stops reading browsers: they stay on the list of those to be read.
    pub(super) fn settle(&mut self, answer: &Sender<(usize, ())>) {
        self.moving.settling = self.stop_by.is_none();
        let _ = answer.send((self.number, ())); // Who asked may have given up.
    }

    /// Gives everything away at the end of the first turn that leaves nothing under way, or at that
    /// time.
    pub(super) fn export_by(&mut self, by: Instant, answer: Sender<(usize, LoopState)>) {
        let left = by.saturating_duration_since(Instant::now()).as_millis() as u64;
        self.moving.export = self.stop_by.is_none().then_some((self.now + left, answer));
    }

    /// Goes on, with what came along and waits to be published: now all hear it.
    pub(super) fn go_on(&mut self) {
        for message in std::mem::take(&mut self.moving).waiting {
            let place = message.socket.and_then(|id| self.shared.foreign.place(&id));
            let sender = place.filter(|(number, _)| *number == self.number).map(|(_, key)| key);
            self.publish_moved(sender, &message.channel, &message.payload);
        }
    }

    pub(super) fn export_if_due(&mut self) {
        let Some(by) = self.moving.export_by() else { return };
        // What was published before the first loop gave its sockets away is for all of them.
        self.read_waiting_feed();
        self.write_and_close();
        if !self.is_settled() {
            if self.now < by {
                return;
            }
            self.give_up_publishes();
            self.write_and_close();
        }
        let Some((_, answer)) = std::mem::take(&mut self.moving).export else { return };
        let state = self.export();
        if let Err(SendError((_, state))) = answer.send((self.number, state)) {
            self.import(state, true); // Who asked has given up.
            self.go_on();
        }
        self.serve_links();
    }

    /// Is nothing under way that could be lost?
    fn is_settled(&self) -> bool {
        self.echo.is_empty() && self.links.as_ref().is_none_or(|links| links.is_settled())
    }

    fn give_up_publishes(&mut self) {
        let Some(links) = &mut self.links else { return };
        for receipt in links.give_up_publishes(self.now) {
            self.publish_failed(&receipt, "the sockets go to another process before Redis answers");
        }
    }

    /// Takes everything out of the loop.
    fn export(&mut self) -> LoopState {
        let now = self.now;
        let subscriber = match &mut self.links {
            Some(links) => links.give_subscriber(now, PAUSE_MS),
            None => None,
        };
        let deadlines =
            self.timers.take(|timer| !matches!(timer, Timer::Link(_) | Timer::Resubscribe));
        let gaps: HashMap<Key, u64> = deadlines
            .into_iter()
            .filter_map(|(at, timer)| match timer {
                Timer::Gap(key) => Some((key, at.saturating_sub(now))),
                _ => None,
            })
            .collect();
        let (channels, waiting) = (self.hub.export(), self.take_waiting());
        let mut state = LoopState { channels, subscriber, waiting, ..LoopState::default() };
        for key in self.keys() {
            let channels = self.hub.channels_of(key.index() as u32);
            let channels = channels.map(|id| self.hub.name(id).to_owned()).collect();
            let leftover = self.leftovers.remove(&key).unwrap_or_default();
            let id = self.shared.socket_id(self.number, key);
            let socket = self.let_go(key);
            state.sockets.push(socket.export(
                id,
                channels,
                &leftover,
                gaps.get(&key).copied(),
                now,
            ));
        }
        self.hub = Hub::default();
        self.deadlines = Timers::default();
        self.echo.clear();
        self.lingers.clear();
        for list in [&mut self.dirty, &mut self.unread, &mut self.held] {
            list.clear();
        }
        self.give_memory_back();
        state
    }

    /// Takes the messages that Redis was never told of.
    fn take_waiting(&mut self) -> Vec<Waiting> {
        let Some(links) = &mut self.links else { return Vec::new() };
        let waiting = links.publisher.take_waiting().into_iter();
        let outward = |(payload, receipt): (Vec<u8>, Receipt)| {
            let sender = receipt.socket.and_then(|key| find(&mut self.sockets, key.into()));
            let socket = sender.map(|socket| self.shared.socket_id(self.number, socket.key));
            Waiting { socket, channel: receipt.channel.as_ref().into(), payload }
        };
        waiting.map(outward).collect()
    }

    /// Takes one socket out of the loop and leaves its connection as it is.
    fn let_go(&mut self, key: Key) -> Socket {
        let socket = self.sockets.remove(key.index());
        self.unwatch(&socket);
        self.give_seat_back(&socket);
        socket
    }

    /// Takes the sockets of another loop over. `same_redis`: its subscriber link may be used here;
    /// with the embedded broker: nothing was missed.
    pub(super) fn import(&mut self, state: LoopState, same_redis: bool) {
        let LoopState { sockets, channels, subscriber, waiting } = state;
        let continuous = match (&mut self.links, subscriber.filter(|_| same_redis)) {
            (None, _) => same_redis,
            (Some(links), Some((fd, link))) if self.hub.is_empty() => {
                match links.take_subscriber(self.now, fd, &link) {
                    Ok(()) => true,
                    Err(error) => {
                        let text = format!("wsredis: {error}; subscribing anew");
                        self.shared.log.line(Level::Warn, &text);
                        false
                    }
                }
            }
            (Some(_), _) => false,
        };
        if continuous && self.links.is_some() {
            for channel in channels.iter().filter(|channel| channel.confirmed) {
                self.hub.import_heard(&channel.name);
            }
        }
        for (fd, socket) in sockets {
            self.import_socket(fd, socket, continuous);
        }
        self.moving.waiting.extend(waiting);
        for channel in channels {
            let Some(id) = self.hub.find(&channel.name) else { continue };
            if self.hub.groups(id).is_empty() {
                self.linger(id, self.shared.config.channel_linger.as_millis() as u64);
            } else if !self.hub.is_confirmed(id) && (channel.gap || !continuous) {
                self.hub.mark_gap(id);
            }
        }
    }

    fn import_socket(&mut self, fd: OwnedFd, mut state: SocketState, continuous: bool) {
        let (now, number, max) = (self.now, self.number, self.shared.config.max_message_size);
        let key = self.next_key();
        let watched = self.watch(&fd, key);
        let (id, channels) = (std::mem::take(&mut state.id), std::mem::take(&mut state.channels));
        let (mut input, gap_in) = (std::mem::take(&mut state.input), state.gap_in);
        self.join_channels(key, state.variant(), &channels);
        let mut socket = Socket::import(fd, key, state, |rights| self.share_rights(rights), now);
        if socket.admitted {
            self.shared.foreign.add(&id, (number, key));
            let identity = socket.identity();
            self.shared.admission.reenter(identity.user, identity.address);
        }
        self.take_seat(&socket);
        let phase = socket.phase;
        let closed =
            phase == Phase::Closing && socket.hears_close(&mut input, max, &mut self.inflater);
        self.keep(socket);
        if watched.is_err() {
            return self.finish(key, Cause::Internal);
        }
        match phase {
            Phase::Held | Phase::Open if !input.is_empty() => {
                self.leftovers.insert(key, input);
                self.read_later(key);
            }
            _ if closed => self.answer_close(key, None),
            _ => {}
        }
        if phase == Phase::Held {
            let by = self.socket(key).map_or(now, |socket| socket.held_until(now));
            self.hold_or_release(key, by);
        } else if !continuous {
            self.tell_gaps(key);
        }
        if let Some(left) = gap_in {
            self.timers.set(&mut Alarm::default(), Timer::Gap(key), Some(now + left));
        }
        self.rearm(key);
        self.make_dirty(key);
    }

    /// Tells a socket of a gap in each channel that is heard already: it did not hear it meanwhile.
    fn tell_gaps(&mut self, key: Key) {
        let channels = self.hub.channels_of(key.index() as u32);
        let heard: Vec<_> = channels.filter(|id| self.hub.is_confirmed(*id)).collect();
        for channel in heard {
            // A raw socket is told by being closed: it hears nothing any more from the first on.
            if self.hub.hears(key.index() as u32, channel) {
                let name = self.hub.name(channel).to_owned();
                self.tell_gap(key, &name);
            }
        }
    }
}
