//! One loop: a thread, a `mio::Poll`, and everything it owns.
//!
//! A turn is: sleep, take what is ready, write everything that became due, close what is to end.
//! epoll is edge-triggered here: whoever stops early (a budget, a batch) stays on a list of this
//! loop and the next poll does not sleep, because nobody tells us twice. Sockets are closed only at
//! the end of a turn, never while something is being walked. Adoption, fan-out and what browsers
//! send are in the files beside this one.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::event::Event;
use mio::{Events, Poll, Token};
use slab::Slab;

use super::adoption::watch_room;
use super::due::Timer;
use super::events;
use super::fanout::Run;
use super::inbox::Wire;
use super::links::Links;
use super::local::Shared;
use super::panics::Panics;
use super::stats::Counters;
use super::transfer::Moving;
use crate::cause::Cause;
use crate::echo::Notes;
use crate::error::Result;
use crate::hub::{ChannelId, Hub, Left, Variant};
use crate::log::Level;
use crate::meter;
use crate::socket::{Key, Phase, SharedRights, Socket};
use crate::sys;
use crate::timer::{Alarm, Millis, Timers};
use crate::write_queue::Segment;
use crate::ws::deflate::{Deflater, Inflater};

/// Tokens that are no socket's: no socket's key gets this high.
pub(super) const WAKER: Token = Token(usize::MAX);
pub(super) const SUBSCRIBER: Token = Token(usize::MAX - 1);
pub(super) const PUBLISHER: Token = Token(usize::MAX - 2);

/// What a loop's clock says when it begins: so that what happened before, to a socket that came from
/// another loop, has a time too.
const DAWN: Millis = 1 << 40;
/// What is read from one socket at a time; the buffer is the loop's, for all of them.
pub(super) const READ_BUFFER: usize = 64 * 1024;
/// After so many sockets have come and gone, the kernel gets back what the allocator has kept. It takes
/// less than a millisecond.
const MANY: usize = 1_000;
/// Readiness taken from the kernel in one turn.
const EVENTS: usize = 1024;

/// Everything one loop owns.
pub struct EventLoop {
    pub(super) shared: Arc<Shared>,
    pub(super) number: usize,
    pub(super) poll: Poll,
    started: Instant,
    pub(super) now: Millis,
    pub(super) sockets: Slab<Socket>,
    /// How many sockets came so far: no two have the same key.
    pub(super) came: u64,
    /// What they may do.
    pub(super) rights: SharedRights,
    /// When something is due for a socket, by its index.
    pub(super) deadlines: Timers<u32>,
    pub(super) hub: Hub,
    pub(super) echo: Notes,
    /// When anything else is due.
    pub(super) timers: Timers<Timer>,
    /// When the linger of a channel ends. It rings in vain for a channel that has listeners again.
    pub(super) lingers: HashMap<ChannelId, Alarm>,
    /// `None` with the embedded broker.
    pub(super) links: Option<Box<Links>>,
    /// The segments of this turn.
    pub(super) segments: HashMap<(ChannelId, Variant), Segment>,
    /// Messages that are in their segments and in nobody's queue yet: only while a batch is read.
    pub(super) run: Run,
    /// Sockets with something to write.
    pub(super) dirty: Vec<Key>,
    /// Sockets to be closed at the end of the turn.
    pub(super) doomed: Vec<(Key, Cause)>,
    /// Sockets that may have more to read.
    pub(super) unread: Vec<Key>,
    /// Sockets whose answer waits for their channels.
    pub(super) held: Vec<Key>,
    /// What browsers sent behind their requests, until they are released.
    pub(super) leftovers: HashMap<Key, Vec<u8>>,
    /// When channels that Redis refused are asked for again.
    pub(super) resubscribe: Alarm,
    /// More waits in the embedded broker's feed.
    pub(super) feed_waits: bool,
    pub(super) read_buffer: Vec<u8>,
    /// Compresses for all its sockets.
    pub(super) deflater: Deflater,
    /// Decompresses for all its sockets.
    pub(super) inflater: Inflater,
    scratch: Vec<u8>,
    /// The time by which a loop that was told to stop has ended.
    pub(super) stop_by: Option<Millis>,
    /// Everybody is being sent away, for this cause, and nobody may come.
    pub(super) dispersing: Option<Cause>,
    /// Its sockets are about to go to another engine.
    pub(super) moving: Moving,
    pub(super) panics: Panics,
}

impl EventLoop {
    /// A loop that has not begun. Its inbox is `shared.ports[number]`.
    pub fn new(shared: Arc<Shared>, number: usize, poll: Poll) -> Result<Self> {
        let links = Links::new(&shared.config, poll.registry())?.map(Box::new);
        Ok(EventLoop {
            number,
            poll,
            started: Instant::now(),
            now: DAWN,
            sockets: Slab::new(),
            came: 0,
            rights: SharedRights::default(),
            deadlines: Timers::default(),
            hub: Hub::default(),
            echo: Notes::default(),
            timers: Timers::default(),
            lingers: HashMap::new(),
            segments: HashMap::new(),
            run: Run::default(),
            dirty: Vec::new(),
            doomed: Vec::new(),
            unread: Vec::new(),
            held: Vec::new(),
            leftovers: HashMap::new(),
            resubscribe: Alarm::default(),
            feed_waits: false,
            read_buffer: vec![0; READ_BUFFER],
            deflater: Deflater::default(),
            inflater: Inflater::default(),
            scratch: Vec::new(),
            stop_by: None,
            dispersing: None,
            moving: Moving::default(),
            panics: Panics::default(),
            links,
            shared,
        })
    }

    /// Runs until the engine stops. Called on the loop's own thread.
    pub fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS);
        self.serve_links();
        loop {
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let text = format!("wsredis: loop ends: epoll failed: {error}");
                    self.shared.log.line(Level::Error, &text);
                    return;
                }
            }
            self.now = DAWN + self.started.elapsed().as_millis() as Millis;
            for event in &events {
                self.ready(event);
            }
            self.turn();
            if self.has_ended() {
                return self.finish_all();
            }
        }
    }

    pub(super) fn counters(&self) -> &Counters {
        &self.shared.ports[self.number].counters
    }

    /// How long to sleep: not at all while something is left over.
    fn timeout(&self) -> Option<Duration> {
        let links_wait = self.links.as_ref().is_some_and(|links| links.has_more());
        let sockets_wait = !self.unread.is_empty() && !self.is_not_reading();
        if sockets_wait || links_wait || self.feed_waits {
            return Some(Duration::ZERO);
        }
        let ends = self.stop_by.into_iter().chain(self.moving.export_by());
        let next = self.timers.next().into_iter().chain(self.deadlines.next()).chain(ends).min()?;
        // The clock may have gone on since `now` was taken; poll rounds up, so that nothing fires
        // too early.
        let elapsed = self.started.elapsed();
        Some(Duration::from_millis(next.saturating_sub(DAWN)).saturating_sub(elapsed))
    }

    fn ready(&mut self, event: &Event) {
        match event.token() {
            WAKER => {} // The inbox is drained in every turn.
            SUBSCRIBER => self.link_ready(Wire::Subscriber, event),
            PUBLISHER => self.link_ready(Wire::Publisher, event),
            Token(token) => {
                let key = Key::from(token as u64);
                // An event of a socket that has ended meanwhile: its key is never used again.
                if self.socket(key).is_none() {
                    return;
                }
                if event.is_writable() {
                    self.make_dirty(key);
                }
                let is_ending = event.is_read_closed() || event.is_error();
                match event.is_readable() || is_ending {
                    true if self.is_not_reading() => self.read_later(key),
                    true => self.read_socket(key, is_ending),
                    false => {}
                }
            }
        }
    }

    /// Everything that is not readiness, in an order that lets each step's output leave in the same
    /// turn.
    fn turn(&mut self) {
        for command in self.shared.ports[self.number].inbox.drain() {
            self.command(command);
        }
        self.stop_if_told();
        self.read_waiting_sockets();
        // Links before timers: an answer that is there already is not late.
        self.read_links();
        self.timers_due();
        self.read_feed();
        self.serve_links();
        self.write_and_close();
        self.shed();
        self.export_if_due();
        let sockets = &mut self.sockets;
        self.held.retain(|key| find(sockets, *key).is_some_and(|s| s.phase == Phase::Held));
        self.publish_gauges();
    }

    /// Writes everything that became due, and closes what is to end.
    pub(super) fn write_and_close(&mut self) {
        self.flush_dirty();
        while !self.doomed.is_empty() {
            for (key, cause) in std::mem::take(&mut self.doomed) {
                self.close_doomed(key, cause);
            }
            self.flush_dirty();
        }
    }

    fn publish_gauges(&self) {
        let counters = self.counters();
        counters.waiting_bytes.set(meter::held() as u64);
        counters.channels.set(self.hub.len() as u64);
        counters.channels_unheard.set(self.hub.unheard() as u64);
        if let Some(links) = &self.links {
            counters.redis_connections.set(links.open());
            counters.redis_down.set(links.down());
            let port = &self.shared.ports[self.number];
            port.unpublished.set(links.publisher.waiting_bytes() as u64);
        }
    }

    // Sockets.

    pub(super) fn socket(&mut self, key: Key) -> Option<&mut Socket> {
        find(&mut self.sockets, key)
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.sockets.iter().map(|(_, socket)| socket.key).collect()
    }

    /// Puts a socket on the list of those to be flushed, once.
    pub(super) fn make_dirty(&mut self, key: Key) {
        let Some(socket) = self.socket(key) else { return };
        if !std::mem::replace(&mut socket.dirty, true) {
            self.dirty.push(key);
        }
    }

    /// Puts a socket on the list of those to be read in the next turn, once.
    pub(super) fn read_later(&mut self, key: Key) {
        let Some(socket) = self.socket(key) else { return };
        if !std::mem::replace(&mut socket.unread, true) {
            self.unread.push(key);
        }
    }

    /// Puts a socket on the list of those to be closed, once.
    pub(super) fn doom(&mut self, key: Key, cause: Cause) {
        let Some(socket) = self.socket(key) else { return };
        if socket.is_listening() {
            socket.doomed = true;
            self.doomed.push((key, cause));
        }
    }

    /// Writes what waits for the sockets on the list: one write for each, however many messages
    /// came.
    fn flush_dirty(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            let Some(socket) = find(&mut self.sockets, key) else { continue };
            socket.dirty = false;
            let mut flushed = socket.flush(&mut self.scratch, self.now);
            if socket.is_blocked() && !std::mem::replace(&mut socket.watches_room, true) {
                flushed = flushed.and(watch_room(self.poll.registry(), socket));
            }
            if flushed.is_err() {
                self.finish(key, Cause::Lost);
            }
        }
        if !self.sockets.is_empty() {
            self.dirty = dirty;
        }
        self.segments.drain().for_each(|(_, segment)| segment.seal());
    }

    pub(super) fn close_doomed(&mut self, key: Key, cause: Cause) {
        let shared = &self.shared;
        let Some(socket) = find(&mut self.sockets, key) else { return };
        socket.close(cause, &shared.config, self.now);
        if !matches!(cause, Cause::Normal | Cause::Restart | Cause::GoingAway | Cause::Gap) {
            shared.log.limited(Level::Info, cause.name(), || {
                let id = shared.socket_id(self.number, key);
                format!("wsredis: socket {id} closed: {} ({})", cause.name(), cause.code())
            });
        }
        self.leftovers.remove(&key);
        self.leave_channels(key);
        self.rearm(key);
        self.make_dirty(key);
    }

    /// The browser's close frame came: answers it and lets the connection end.
    pub(super) fn answer_close(&mut self, key: Key, code: Option<u16>) {
        let Some(socket) = find(&mut self.sockets, key) else { return };
        socket.answer_close(code, &self.shared.config, self.now);
        self.leave_channels(key);
        self.rearm(key);
        self.make_dirty(key);
    }

    /// Takes a socket out of the hub: it hears nothing any more.
    pub(super) fn leave_channels(&mut self, key: Key) {
        let linger = self.shared.config.channel_linger.as_millis() as u64;
        let (echo, mut lingering) = (&mut self.echo, Vec::new());
        self.hub.leave(key.index() as u32, |left| match left {
            Left::Gone(channel) => echo.forget_channel(channel),
            Left::Lingers(channel) => lingering.push(channel),
        });
        for channel in lingering {
            self.linger(channel, linger);
        }
    }

    /// The browser sends nothing more. It may still read: what was queued for it in this turn, such
    /// as the answer to its close frame, is not taken from it.
    pub(super) fn input_ended(&mut self, key: Key) {
        if let Some(socket) = find(&mut self.sockets, key) {
            // If the connection is gone, it is finished all the same.
            let _ = socket.flush(&mut self.scratch, self.now);
        }
        self.finish(key, Cause::Lost);
    }

    /// The end of a socket: the only place that frees one. `otherwise` is its cause if none was
    /// known before.
    pub(super) fn finish(&mut self, key: Key, otherwise: Cause) {
        if self.socket(key).is_none() {
            return;
        }
        self.leave_channels(key);
        let mut socket = self.sockets.remove(key.index());
        self.deadlines.set(&mut socket.alarm, key.index() as u32, None);
        self.leftovers.remove(&key);
        self.unwatch(&socket);
        if socket.admitted {
            let cause = socket.cause.unwrap_or(otherwise);
            self.counters().closed(cause).add(1);
            self.shared.events.push(|| {
                let id = self.shared.socket_id(self.number, key);
                events::Event::Closed(id, cause.code())
            });
        }
        self.give_seat_back(&socket);
        socket.cut();
        if self.sockets.is_empty() {
            self.give_memory_back();
        }
    }

    /// The time to stop is up: who has not answered ends like everybody else, told to the host and
    /// shut down also where a child of the host holds the connection.
    fn finish_all(mut self) {
        for key in self.keys() {
            self.finish(key, self.shared.stop_cause());
        }
    }

    /// Buffers that grew with many sockets are not kept for none.
    pub(super) fn give_memory_back(&mut self) {
        let were_many = self.sockets.capacity() > MANY;
        self.sockets = Slab::new();
        self.segments = HashMap::new();
        self.scratch = Vec::new();
        self.doomed.shrink_to_fit();
        self.unread.shrink_to_fit();
        self.held.shrink_to_fit();
        if were_many {
            sys::trim_heap();
        }
    }

    /// Told to stop, a loop closes all sockets with 1012 and ends when they are gone and everything
    /// is published, or when its time is up.
    fn stop_if_told(&mut self) {
        if self.stop_by.is_some() {
            return;
        }
        if let Some(timeout) = self.shared.told_to_stop() {
            self.stop_by = Some(self.now + timeout);
            self.moving = Moving::default();
            for key in self.keys() {
                self.doom(key, self.shared.stop_cause());
            }
        }
    }

    fn has_ended(&self) -> bool {
        let Some(by) = self.stop_by else { return false };
        let published = self.links.as_ref().is_none_or(|links| links.publisher.pending() == 0);
        let inbox = &self.shared.ports[self.number].inbox;
        (self.sockets.is_empty() && published && inbox.is_empty()) || self.now >= by
    }
}

/// The socket with this key, if it still lives. For where the loop's other fields are in use too.
pub(super) fn find(sockets: &mut Slab<Socket>, key: Key) -> Option<&mut Socket> {
    sockets.get_mut(key.index()).filter(|socket| socket.key == key)
}
