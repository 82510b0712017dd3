//! The keeper's end: who may come in, what each peer asks for, and when the keeper ends.
//!
//! Runs on the main thread of the keeper's process with a poll of its own; the loops of the engine
//! have theirs. A message or a socket that the engine is too busy for is held, and its peer is not
//! read until the engine has taken it: what a peer was allowed to send is never dropped. What a peer
//! sends wrongly costs only that peer its connection.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;

use super::super::inbox::Adoption;
use super::super::local::Local;
use super::super::stats::Refusals;
use super::peer::{Held, Peer};
use super::place::Place;
use super::voice::Voice;
use super::wire::{self, Fault, Message, Packet, Question};
use super::{Identity, check_user, handover};
use crate::cause::{Cause, Refusal};
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::sys;

const LISTENER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
const EVENTS: Token = Token(usize::MAX - 2);

/// How soon something that is held, or could not be accepted, is tried again.
const RETRY: Duration = Duration::from_millis(2);
/// Packets of one peer in a row; then the others have their turn.
const BUDGET: usize = 64;

/// How a keeper's life ends.
pub(super) enum End {
    /// Its sockets are closed and its path is removed.
    Closed,
    /// Everything is a successor's, the path too.
    HandedOver,
}

/// The keeper, while it serves.
pub(super) struct Door {
    poll: Poll,
    pub entrance: Place,
    /// Kept open: its end is what the poll waits for.
    _signals: OwnedFd,
    pub engine: Local,
    refusals: Arc<Refusals>,
    pub identity: Identity,
    pub log: Log,
    voice: Voice,
    pub peers: Slab<Peer>,
    /// Peers that may have more to read.
    unread: Vec<usize>,
    /// It ends when no lease is held for a while: it was started for one, or had one.
    leased: bool,
    /// When a keeper without a lease ends.
    ends_at: Option<Instant>,
    /// A connection could not be accepted.
    accept_again: bool,
    watched: bool,
    pub buffer: Vec<u8>,
    /// Descriptors are nearly used up: no more are taken in.
    is_short: bool,
    /// No socket is taken any more.
    pub is_ending: bool,
}

impl Door {
    /// A keeper that has its place and does not serve yet.
    pub fn new(
        entrance: Place,
        signals: OwnedFd,
        engine: Local,
        identity: Identity,
        voice: Voice,
        leased: bool,
    ) -> Result<Self> {
        let failed = |error: io::Error| Error::io("opening the keeper's door", &error);
        let poll = Poll::new().map_err(failed)?;
        for (fd, token) in [(&entrance.listener, LISTENER), (&signals, SIGNALS)] {
            let fd = fd.as_raw_fd();
            poll.registry()
                .register(&mut SourceFd(&fd), token, Interest::READABLE)
                .map_err(failed)?;
        }
        Ok(Door {
            poll,
            entrance,
            _signals: signals,
            refusals: Arc::clone(engine.refusals()),
            log: engine.log().clone(),
            engine,
            identity,
            voice,
            peers: Slab::new(),
            unread: Vec::new(),
            leased,
            ends_at: None,
            accept_again: true,
            watched: false,
            buffer: Vec::new(),
            is_short: false,
            is_ending: false,
        })
    }

    /// Serves until the end.
    pub fn serve(&mut self) -> Result<End> {
        let mut events = Events::with_capacity(256);
        loop {
            self.mind_the_lease();
            if self.ends_at.is_some_and(|at| at <= Instant::now()) {
                self.log.line(Level::Warn, "wsredis: keeper ends: nobody holds its lease any more");
                return Ok(self.close(Cause::GoingAway, u32::MAX));
            }
            match self.poll.poll(&mut events, self.timeout()) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Error::io("the keeper's epoll", &error)),
            }
            for event in &events {
                match event.token() {
                    LISTENER => self.accept_again = true,
                    SIGNALS => {
                        self.log.line(Level::Info, "wsredis: keeper was told to end by a signal");
                        return Ok(self.close(Cause::Restart, u32::MAX));
                    }
                    EVENTS => self.tell_events(),
                    Token(index) => self.unread.push(index),
                }
            }
            if self.accept_again {
                self.accept();
            }
            self.look_at_descriptors();
            if let Some(end) = self.read_peers() {
                return Ok(end);
            }
            if self.engine.has_failed() {
                self.close(Cause::Restart, u32::MAX);
                return Err(Error::new(Kind::Stopped, "a loop has ended: see the line above"));
            }
        }
    }

    /// What is read may bring descriptors. While few are left nothing is read: the hosts' queues
    /// fill, and then they are the ones to answer 503.
    fn look_at_descriptors(&mut self) {
        if self.is_short {
            // The kernel gives the lowest free number.
            let lowest = self.entrance.lock.try_clone().map_or(RawFd::MAX, |fd| fd.as_raw_fd());
            self.is_short = self.is_scarce(lowest);
        }
    }

    fn is_scarce(&self, number: RawFd) -> bool {
        let spare = (self.engine.config().fd_reserve as u64 / 2).max(8);
        number as u64 + spare >= sys::max_open_files()
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.unread.is_empty() && !self.is_short {
            return Some(Duration::ZERO);
        }
        let waits = self.accept_again || self.is_short;
        let retry = waits || self.peers.iter().any(|(_, peer)| peer.held.is_some());
        let retry = retry.then_some(RETRY);
        let left = self.ends_at.map(|at| at.saturating_duration_since(Instant::now()));
        // Rounded up: waking too early would be waking twice.
        retry.into_iter().chain(left.map(|left| left + Duration::from_millis(1))).min()
    }

    fn mind_the_lease(&mut self) {
        let held = self.peers.iter().any(|(_, peer)| peer.lease);
        self.leased |= held;
        if held || !self.leased {
            self.ends_at = None;
        } else if self.ends_at.is_none() {
            self.ends_at = Some(Instant::now() + self.engine.config().keeper_grace);
        }
    }

    pub fn accept(&mut self) {
        loop {
            self.accept_again = false;
            let connection = match sys::packet_accept(&self.entrance.listener) {
                Ok(connection) => connection,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) => {
                    // No descriptor is left, most likely. Nobody tells us of it again.
                    self.accept_again = true;
                    self.log.limited(Level::Warn, "keeper_accept", || {
                        format!("wsredis: keeper can not accept a host: {error}")
                    });
                    return;
                }
            };
            if let Err(why) = check_user(&connection) {
                self.log.limited(Level::Warn, "keeper_user", || {
                    format!("wsredis: keeper refused a connection: {why}")
                });
                continue;
            }
            let welcome = Message::Welcome {
                library: self.identity.library,
                fingerprint: self.identity.fingerprint,
                process: std::process::id(),
            };
            // Who has gone already may have left something behind.
            let _ = wire::send(&connection, &welcome, &[]);
            self.admit(Peer::new(connection));
        }
    }

    /// Lets a peer in. It is read at once: what it said before is not told again.
    pub fn admit(&mut self, peer: Peer) {
        let fd = peer.connection.as_raw_fd();
        if peer.logs {
            self.voice.speak_to(&peer.connection);
        }
        let watches = peer.watches;
        let index = self.peers.insert(peer);
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut SourceFd(&fd), Token(index), interest).is_err() {
            self.peers.remove(index);
            return;
        }
        if watches {
            self.watch();
        }
        self.unread.push(index);
    }

    /// Lets a peer go. Nothing of it is held: it is not read while something is.
    pub fn dismiss(&mut self, index: usize) -> Option<Peer> {
        let peer = self.peers.try_remove(index)?;
        let fd = peer.connection.as_raw_fd();
        let _ = self.poll.registry().deregister(&mut SourceFd(&fd));
        Some(peer)
    }

    /// Reads all peers once. True if more waits: from them, or for the engine.
    pub fn read_all(&mut self) -> bool {
        self.unread.extend(self.peers.iter().map(|(index, _)| index));
        let _ = self.read_peers(); // Already ending.
        !self.unread.is_empty() || self.peers.iter().any(|(_, peer)| peer.held.is_some())
    }

    fn read_peers(&mut self) -> Option<End> {
        let held: Vec<usize> =
            self.peers.iter().filter(|(_, peer)| peer.held.is_some()).map(|(i, _)| i).collect();
        self.unread.extend(held);
        let mut unread = std::mem::take(&mut self.unread);
        unread.sort_unstable();
        unread.dedup();
        for index in unread {
            if let Some(end) = self.read_peer(index) {
                return Some(end);
            }
        }
        None
    }

    fn read_peer(&mut self, index: usize) -> Option<End> {
        for _ in 0..BUDGET {
            let peer = self.peers.get_mut(index)?;
            if let Some(held) = peer.held.take() {
                self.offer(index, held);
                if self.peers.get(index)?.held.is_some() {
                    return None;
                }
            }
            if self.is_short {
                break;
            }
            let peer = self.peers.get_mut(index)?;
            match wire::receive(&peer.connection, &mut self.buffer) {
                Ok(packet) => match self.heard(index, packet) {
                    Ok(None) => {}
                    Ok(end) => return end,
                    Err((why, descriptors)) => {
                        self.complain(index, why, descriptors);
                        return None;
                    }
                },
                Err(Fault::Nothing) => {
                    peer.flush_events(); // Its descriptor may have told of room, too.
                    return None;
                }
                Err(Fault::End) => {
                    self.dismiss(index);
                    return None;
                }
                Err(Fault::Garbage(why, descriptors)) => {
                    self.complain(index, why, descriptors);
                    return None;
                }
            }
        }
        self.unread.push(index);
        None
    }

    /// A peer that does not keep to the rules goes. Sockets that came with what was not understood,
    /// or wait behind it, still get their HTTP answer.
    fn complain(&mut self, index: usize, why: &str, mut descriptors: Vec<OwnedFd>) {
        self.log.limited(Level::Warn, "keeper_garbage", || {
            format!("wsredis: keeper closes the connection of a host: {why}")
        });
        let Some(peer) = self.dismiss(index) else { return };
        loop {
            for descriptor in descriptors {
                if sys::check_stream_socket(descriptor.as_raw_fd()).is_ok() {
                    self.refuse(&descriptor, Refusal::Full);
                }
            }
            descriptors = match wire::receive(&peer.connection, &mut self.buffer) {
                Ok(packet) => packet.descriptors,
                Err(Fault::Garbage(_, descriptors)) => descriptors,
                Err(Fault::Nothing | Fault::End) => return,
            };
        }
    }

    /// One packet of a peer. An error: it is not allowed, and what it brought is given back.
    fn heard(
        &mut self,
        index: usize,
        mut packet: Packet,
    ) -> std::result::Result<Option<End>, (&'static str, Vec<OwnedFd>)> {
        let mut descriptors = std::mem::take(&mut packet.descriptors);
        let message = match packet.message() {
            Ok(message) => message,
            Err(why) => return Err((why, descriptors)),
        };
        let wanted = usize::from(matches!(message, Message::Adopt { .. }));
        if descriptors.len() != wanted {
            return Err(("it sent too few or too many descriptors", descriptors));
        }
        match message {
            Message::Adopt {
                grant,
                answer,
                leftover,
                remote_address,
                host,
                path_digest,
                mirror,
            } => {
                if let Err(error) = sys::check_stream_socket(descriptors[0].as_raw_fd()) {
                    self.log.limited(Level::Warn, "keeper_descriptor", || {
                        format!("wsredis: a host sent something else than a connection: {error}")
                    });
                    return Err(("it sent a descriptor that is no connection", descriptors));
                }
                let fd = descriptors.remove(0);
                self.is_short |= self.is_scarce(fd.as_raw_fd());
                if self.is_ending {
                    self.refuse(&fd, Refusal::Full);
                    return Ok(None);
                }
                let adoption = Adoption {
                    fd,
                    grant: grant.to_vec(),
                    answer: answer.to_vec(),
                    leftover: leftover.to_vec(),
                    remote_address: remote_address.to_owned(),
                    host: host.to_owned(),
                    path_digest,
                    mirror,
                };
                self.offer(index, Held::Socket(Box::new(adoption)));
            }
            Message::Publish { channel, payload } => {
                self.offer(index, Held::Message(channel.to_owned(), payload.to_vec()));
            }
            Message::Refused(counts) => {
                for (refusal, count) in counts {
                    if let Some(refusal) = Refusal::ALL.get(usize::from(refusal)) {
                        self.refusals.of(*refusal).add(count);
                    }
                }
            }
            Message::Ask { number, question } => {
                let answer = self.answer(question);
                let answer = answer.as_deref().map_err(|error| (error.kind, error.text.as_str()));
                let message = Message::Answer { number, answer };
                let sent = wire::send(&self.peers[index].connection, &message, &[]);
                // Who did not wait has gone: its end is heard next.
                if sent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                    return Err(("it asks and does not read the answers", descriptors));
                }
            }
            Message::Watch => {
                self.peers[index].watches = true;
                self.watch();
            }
            Message::Lease { logs } => {
                let peer = &mut self.peers[index];
                (peer.lease, peer.logs) = (true, logs);
                self.leased = true; // Also if it is gone by the next look.
                if logs {
                    self.voice.speak_to(&peer.connection);
                }
            }
            Message::Stop { .. } | Message::Retire | Message::TakeOver if self.is_ending => {}
            Message::Stop { timeout_ms } => {
                self.log.line(Level::Info, "wsredis: keeper was told to end by its host");
                return Ok(Some(self.close(Cause::Restart, timeout_ms)));
            }
            Message::Retire => return Ok(Some(self.retire())),
            Message::TakeOver => return Ok(handover::give(self, index)),
            _ => return Err(("what it says is not for a keeper", descriptors)),
        }
        Ok(None)
    }

    /// Gives something to the engine; what it is too busy for is held.
    fn offer(&mut self, index: usize, offer: Held) {
        let busy = match offer {
            Held::Socket(adoption) => match self.engine.adopt(*adoption) {
                Ok(()) => None,
                Err((error, adoption)) if error.kind == Kind::Busy => Some(Held::Socket(adoption)),
                Err((error, adoption)) => {
                    self.log.limited(Level::Error, "keeper_refused", || {
                        format!("wsredis: keeper refused a handshake: {error}")
                    });
                    let is_grant = matches!(error.kind, Kind::Grant | Kind::Invalid);
                    let refusal = if is_grant { Refusal::Grant } else { Refusal::Full };
                    self.refuse(&adoption.fd, refusal);
                    None
                }
            },
            Held::Message(channel, payload) => match self.engine.publish(&channel, &payload) {
                Ok(()) => None,
                Err(error) if error.kind == Kind::Busy => Some(Held::Message(channel, payload)),
                Err(error) => {
                    self.engine.count_unpublished();
                    self.log.limited(Level::Error, "keeper_unpublished", || {
                        format!("wsredis: a message of a host was not published: {error}")
                    });
                    None
                }
            },
        };
        if let Some(peer) = self.peers.get_mut(index) {
            peer.held = busy;
        }
    }

    pub fn refuse(&self, connection: &OwnedFd, refusal: Refusal) {
        self.refusals.of(refusal).add_shared(1);
        let _ = sys::send(connection, refusal.answer().as_bytes());
    }

    fn answer(&self, question: Question) -> Result<String> {
        match question {
            Question::Send { socket, payload } => self.engine.send(socket, payload).map(drop)?,
            Question::Kick(who) => self.engine.kick(&who)?,
            Question::Health => self.engine.health()?,
            Question::Stats => return Ok(self.engine.stats()),
        }
        Ok(String::new())
    }

    // Events.

    /// Begins to listen to the engine's events, once.
    fn watch(&mut self) {
        if self.watched {
            return;
        }
        if let Ok(fd) = self.engine.events_fd() {
            let registered =
                self.poll.registry().register(&mut SourceFd(&fd), EVENTS, Interest::READABLE);
            self.watched = registered.is_ok();
        }
    }

    pub fn tell_events(&mut self) {
        while let Some(event) = self.engine.next_event() {
            for (_, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.watches) {
                peer.queue_event(&event);
            }
        }
        for (_, peer) in &mut self.peers {
            peer.flush_events();
        }
    }
}
