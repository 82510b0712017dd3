//! How a socket comes into a loop: admitted or refused, joined to its channels, and answered once
//! they are heard.
//!
//! The handshake's answer waits until Redis has confirmed the socket's channels: a browser whose
//! `onopen` has run misses nothing. It does not wait while Redis is away, nor longer than
//! `join-timeout`; then the channels that were not heard have a gap, and the socket is told as soon
//! as they are.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};

use super::due::Timer;
use super::event_loop::EventLoop;
use super::events::Event;
use super::inbox::Newcomer;
use crate::cause::{Cause, Refusal};
use crate::config::OnGap;
use crate::grant::{Grant, Slow};
use crate::hub::{ChannelId, Form, Variant};
use crate::log::Level;
use crate::socket::{Identity, Key, Phase, Rights, Socket};
use crate::sys;
use crate::timer::{Alarm, Millis};
use crate::write_queue::{NO_CHANNEL, Segment};
use crate::ws::envelope::{self, Notice};
use crate::ws::frame::{self, Data, OpCode};

impl Rights {
    /// `shared_name` finds the names that are known already.
    fn of(grant: &Grant, mirror: bool, shared_name: impl Fn(&str) -> Rc<str>) -> Self {
        Rights {
            publish: grant.publish.iter().map(|name| shared_name(name)).collect(),
            echo: grant.echo,
            mirror,
            latest: grant.slow == Slow::Latest,
            heartbeat: grant.heartbeat.as_deref().map(Box::from),
        }
    }
}

/// By which epoll tells of a socket.
fn token(key: Key) -> Token {
    Token(u64::from(key) as usize)
}

/// Lets epoll also tell, from now on, that a socket takes bytes.
pub(super) fn watch_room(registry: &Registry, socket: &Socket) -> io::Result<()> {
    let interest = Interest::READABLE | Interest::WRITABLE;
    registry.reregister(&mut SourceFd(&socket.as_raw_fd()), token(socket.key), interest)
}

impl EventLoop {
    /// Takes a socket over. Whatever happens here, its browser gets an HTTP answer.
    pub(super) fn adopt(&mut self, newcomer: Newcomer) {
        let Newcomer { mut adoption, grant, variant } = newcomer;
        let fd = adoption.fd.as_raw_fd();
        let key = self.next_key();
        let ready = self.watch(&adoption.fd, key);
        let admitted = match &ready {
            Ok(()) if self.stop_by.is_some() || self.dispersing.is_some() => {
                Err((Refusal::Full, "the engine is stopping"))
            }
            Ok(()) if self.is_nearly_full() => Err((Refusal::Full, "max-memory is nearly reached")),
            Ok(()) => {
                let (user, address) = (grant.user.as_deref(), &adoption.remote_address);
                self.shared.admission.enter(fd, user, address)
            }
            Err(_) => Err((Refusal::Full, "the kernel refused to watch the descriptor")),
        };
        let identity = Identity {
            sender: grant.sender.as_deref(),
            user: grant.user.as_deref(),
            session: grant.session.as_deref(),
            address: self.shared.admission.minded(&adoption.remote_address),
        };
        let rights = match admitted {
            Ok(()) => self.hear(key, variant, &grant, adoption.mirror),
            Err(_) => Rc::default(),
        };
        let answer = std::mem::take(&mut adoption.answer);
        let mut socket =
            Socket::new(adoption.fd, key, variant, rights, identity.into(), answer, self.now);
        if let Err((refusal, why)) = admitted {
            self.shared.refusals.of(refusal).add_shared(1);
            self.shared.log.limited(Level::Warn, why, || {
                format!("wsredis: handshake refused with {}: {why}", refusal.status())
            });
            socket.refuse(refusal, self.now);
            if ready.is_err() {
                // No event will ever come: what the kernel takes now is all.
                let _ = socket.flush(&mut Vec::new(), self.now);
                return;
            }
        } else {
            socket.admitted = true;
            self.seat(&mut socket, &grant);
        }
        let is_held = socket.phase == Phase::Held;
        self.keep(socket);
        if is_held {
            if !adoption.leftover.is_empty() {
                self.leftovers.insert(key, adoption.leftover);
            }
            self.hold_or_release(
                key,
                self.now + self.shared.config.join_timeout.as_millis() as u64,
            );
        }
        self.rearm(key);
        self.make_dirty(key);
    }

    /// Puts a socket at the place that its key tells of.
    pub(super) fn keep(&mut self, socket: Socket) {
        let count = self.sockets.len();
        if count == self.sockets.capacity() {
            // An eighth more, where the slab alone would double: what is not used is memory, too.
            self.sockets.reserve_exact(count / 8 + 16);
        }
        self.sockets.insert(socket);
    }

    /// The key of the next socket.
    pub(super) fn next_key(&mut self) -> Key {
        let key = Key::new(self.came, self.sockets.vacant_key());
        self.came += 1;
        key
    }

    /// Lets epoll tell what comes for a socket. That it takes more is asked for only by one that has
    /// refused bytes, [`watch_room`]: a new one would tell at once, and one of AF_UNIX after each
    /// write.
    pub(super) fn watch(&self, fd: &OwnedFd, key: Key) -> io::Result<()> {
        sys::prepare_socket(fd)?;
        let raw = fd.as_raw_fd();
        let mut source = SourceFd(&raw);
        self.poll.registry().register(&mut source, token(key), Interest::READABLE)
    }

    /// Before the descriptor is closed or given away: epoll would go on reporting a description that
    /// somebody else still holds.
    pub(super) fn unwatch(&self, socket: &Socket) {
        let _ = self.poll.registry().deregister(&mut SourceFd(&socket.as_raw_fd()));
    }

    /// The rights of a socket that is here from now on.
    pub(super) fn share_rights(&mut self, rights: Rights) -> Rc<Rights> {
        let (rights, bytes) = self.rights.share(rights);
        self.counters().socket_bytes.add(bytes as u64);
        rights
    }

    /// Counts a socket that is here from now on.
    pub(super) fn take_seat(&self, socket: &Socket) {
        if socket.admitted {
            let counters = self.counters();
            counters.sockets.add(1);
            counters.socket_bytes.add(socket.bytes() as u64);
        }
    }

    /// Counts a socket no more that goes or ends.
    pub(super) fn give_seat_back(&mut self, socket: &Socket) {
        if socket.admitted {
            let rights = self.rights.give_back(&socket.rights);
            let counters = self.counters();
            counters.sockets.sub(1);
            counters.socket_bytes.sub((socket.bytes() + rights) as u64);
            let identity = socket.identity();
            self.shared.admission.leave(identity.user, identity.address);
            self.shared.foreign.forget((self.number, socket.key));
        }
    }

    /// Lets the socket that is about to come hear its channels. Returns its rights.
    fn hear(&mut self, key: Key, variant: Variant, grant: &Grant, mirror: bool) -> Rc<Rights> {
        // What was published before it came is not for it.
        self.read_waiting_feed();
        self.join_channels(key, variant, &grant.subscribe);
        self.share_rights(Rights::of(grant, mirror, |name| self.hub.shared_name(name)))
    }

    /// Gives an admitted socket its seat, and queues what it is to read first.
    fn seat(&mut self, socket: &mut Socket, grant: &Grant) {
        if let Some(after) = grant.expires_in {
            socket.expire_at(self.now.saturating_add(after.as_millis() as u64));
        }
        let id = self.shared.socket_id(self.number, socket.key);
        if socket.variant.form == Form::Envelope {
            let mut hello = Vec::new();
            envelope::hello(&mut hello, &id);
            socket.queue_frame(OpCode::Data(Data::Text), &hello, self.now);
        }
        self.counters().adopted.add(1);
        self.take_seat(socket);
        self.shared.events.push(|| Event::Opened(id));
    }

    /// Lets a socket hear its channels from here on, or once they are confirmed.
    pub(super) fn join_channels(&mut self, key: Key, variant: Variant, names: &[String]) {
        self.hub.join(key.index() as u32, variant, names);
        if self.links.is_none() {
            // The embedded broker hears everything already.
            for (_, name) in self.hub.take_wanted() {
                self.hub.subscribed(&name);
            }
        }
    }

    /// Lets a held socket wait for its channels until `at`, if they will be heard in a moment.
    pub(super) fn hold_or_release(&mut self, key: Key, at: Millis) {
        let index = key.index() as u32;
        let unheard = self.hub.channels_of(index).filter(|c| !self.hub.is_confirmed(*c)).count();
        if unheard == 0 || !self.is_promising() {
            self.let_answer_go(key);
            // What else has come, epoll is yet to tell.
            if self.leftovers.contains_key(&key) {
                self.read_later(key);
            }
            return;
        }
        if let Some(socket) = self.socket(key) {
            socket.unheard = unheard as u16;
            socket.hold_until(at);
            self.held.push(key);
        }
    }

    /// Lets a held socket's answer go, and begins to read.
    pub(super) fn release(&mut self, key: Key) {
        self.let_answer_go(key);
        self.read_later(key); // What it sent meanwhile, if anything, was announced long ago.
    }

    /// Lets a held socket's answer go. What it does not hear yet has a gap from here on.
    fn let_answer_go(&mut self, key: Key) {
        let now = self.now;
        let Some(socket) = self.socket(key).filter(|socket| socket.phase == Phase::Held) else {
            return;
        };
        socket.release(now);
        let unheard: Vec<_> = self
            .hub
            .channels_of(key.index() as u32)
            .filter(|c| !self.hub.is_confirmed(*c))
            .collect();
        for channel in unheard {
            self.hub.mark_gap(channel);
        }
        self.rearm(key);
        self.make_dirty(key);
    }

    /// Redis is away: nobody waits for it.
    pub(super) fn release_all(&mut self) {
        for key in std::mem::take(&mut self.held) {
            self.release(key);
        }
    }

    /// A channel is heard from here on: who waited for it may be answered, who was told too early
    /// has missed something.
    pub(super) fn confirmed(&mut self, channel: ChannelId) {
        let gap = self.hub.take_gap(channel);
        if !gap && self.held.is_empty() {
            return;
        }
        let mut notice = Vec::new();
        envelope::notice(&mut notice, Notice::Gap, self.hub.name(channel));
        let segment = Segment::default();
        let end = segment.append(|bytes| frame::append(bytes, OpCode::Data(Data::Text), &notice));
        let listeners: Vec<u32> = self.hub.listeners(channel).collect();
        for index in listeners {
            let now = self.now;
            let Some(socket) = self.sockets.get_mut(index as usize) else { continue };
            let key = socket.key;
            if socket.phase == Phase::Held {
                socket.unheard = socket.unheard.saturating_sub(1);
                if socket.unheard == 0 {
                    self.release(key);
                }
            } else if gap && socket.variant.form == Form::Envelope {
                socket.queue(&segment, (0, end), NO_CHANNEL, now);
                self.counters().gaps_told.add(1);
                self.make_dirty(key);
            } else if gap {
                self.raw_gap(key, Cause::Gap);
            }
        }
    }

    /// Tells one socket that a channel of its has lost continuity.
    pub(super) fn tell_gap(&mut self, key: Key, channel: &str) {
        let now = self.now;
        let Some(socket) = self.socket(key) else { return };
        if socket.variant.form != Form::Envelope {
            return self.raw_gap(key, Cause::Gap);
        }
        let mut notice = Vec::new();
        envelope::notice(&mut notice, Notice::Gap, channel);
        socket.queue_frame(OpCode::Data(Data::Text), &notice, now);
        self.counters().gaps_told.add(1);
        self.make_dirty(key);
    }

    /// A raw socket can only be told by closing it; `on-gap` says whether. It hears nothing from
    /// here on, and is closed within `gap-spread`, so that the browsers do not come back all at
    /// once.
    pub(super) fn raw_gap(&mut self, key: Key, cause: Cause) {
        match self.shared.config.on_gap {
            OnGap::Ignore => self.counters().gaps_ignored.add(1),
            OnGap::Close if cause == Cause::Gap => {
                self.counters().gaps_told.add(1);
                self.leave_channels(key);
                let spread = self.shared.config.gap_spread.as_millis() as u64;
                let at = self.now + sys::random() % (spread + 1);
                self.timers.set(&mut Alarm::default(), Timer::Gap(key), Some(at));
            }
            OnGap::Close => self.doom(key, cause),
        }
    }
}
