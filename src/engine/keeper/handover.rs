//! From a keeper to its successor: sockets, what waits in them, subscriptions, hosts and the path.
//!
//! Both ends are here. The predecessor keeps a copy of everything until the successor has it all
//! (`Ready`), was told that it is its own now (`Go`) and has said that it knows (`Taken`): only one
//! of the two ever serves a socket. Whatever fails before that, the predecessor goes on with what it
//! had. If the predecessor dies, the successor serves what it was given.

use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::super::transfer::{EngineState, LoopState, Waiting};
use super::door::{Door, End};
use super::peer::{Held, Peer, PeerState};
use super::wire::{self, Fault, Message, Packet};
use super::{Welcome, is_full};
use crate::cause::Refusal;
use crate::error::{Error, Kind, Result};
use crate::hub::ChannelState;
use crate::log::Level;
use crate::redis::LinkState;
use crate::socket::SocketState;
use crate::sys;

/// How long the loops may take to finish what is under way with Redis. Nobody is served meanwhile.
const SETTLE: Duration = Duration::from_millis(100);
/// How long one side waits for the other's next word.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a process takes to die once its connections are closed.
const DEATH_MS: u32 = 1_000;
/// A packet is full when so many bytes wait in its sockets.
const CHUNK: usize = 16 << 20;

/// What goes over, in this order.
#[derive(Serialize, Deserialize)]
enum Part {
    /// By what its Redis is known.
    Begin { redis: u64 },
    /// A loop begins: its channels, its subscription with its connection, and what waits for Redis.
    Loop(Vec<ChannelState>, Option<LinkState>, Vec<Waiting>),
    /// Sockets of that loop, a descriptor each.
    Sockets(Vec<SocketState>),
    /// Connections of hosts, a descriptor each.
    Peers(Vec<PeerState>),
    /// The listener and the lock: everything is said.
    Entrance,
    /// The successor has it all.
    Ready,
    /// It is the successor's.
    Go,
    /// The successor serves from here on.
    Taken,
    /// The predecessor goes on.
    Abort(String),
}

/// What a successor was given.
#[derive(Default)]
pub(super) struct Taken {
    pub engine: EngineState,
    /// By what the Redis of the predecessor is known.
    pub redis: u64,
    pub peers: Vec<Peer>,
    pub listener: Option<OwnedFd>,
    pub lock: Option<OwnedFd>,
}

/// The predecessor's end. `None`: it could not be done, and the keeper goes on.
pub(super) fn give(door: &mut Door, index: usize) -> Option<End> {
    let successor = door.dismiss(index)?.connection;
    let begin = Instant::now();
    let state = match door.engine.export(SETTLE) {
        Ok(state) => state,
        Err(error) => {
            let _ = say(&successor, &Part::Abort(error.text.clone()), &[]);
            door.log.line(Level::Warn, &format!("wsredis: nothing can be handed over: {error}"));
            return None;
        }
    };
    let count: usize = state.loops.iter().map(|state| state.sockets.len()).sum();
    let given = give_all(door, &successor, &state).and_then(|()| wait_until_taken(&successor));
    match given {
        Ok(()) => {
            for index in 0..door.peers.capacity() {
                if let Some(Held::Socket(adoption)) = held_of(door, index) {
                    door.refuse(&adoption.fd, Refusal::Full);
                }
            }
            let took = begin.elapsed().as_millis();
            let text = format!("wsredis: keeper handed {count} sockets over in {took} ms");
            door.log.line(Level::Info, &text);
            Some(End::HandedOver)
        }
        Err(error) => {
            let text = format!("wsredis: keeper goes on, its successor has failed: {error}");
            door.log.line(Level::Error, &text);
            // Without room for it the end of the connection says so: nobody waits any longer.
            let _ = wire::send(&successor, &Part::Abort(error.text), &[]);
            if let Err(error) = door.engine.import(state, true) {
                door.log.line(Level::Error, &format!("wsredis: taking them back: {error}"));
            }
            None
        }
    }
}

fn held_of(door: &mut Door, index: usize) -> Option<Held> {
    door.peers.get_mut(index)?.held.take()
}

fn give_all(door: &mut Door, successor: &OwnedFd, state: &EngineState) -> Result<()> {
    say(successor, &Part::Begin { redis: door.identity.redis }, &[])?;
    for state in &state.loops {
        let link = state.subscriber.as_ref();
        let (fds, link): (Vec<RawFd>, _) =
            (link.iter().map(|(fd, _)| fd.as_raw_fd()).collect(), link.map(|(_, link)| link));
        say(successor, &BorrowedPart::Loop(&state.channels, link, &state.waiting), &fds)?;
        for sockets in chunks(&state.sockets) {
            let fds: Vec<RawFd> = sockets.iter().map(|(fd, _)| fd.as_raw_fd()).collect();
            let states = sockets.iter().map(|(_, state)| state).collect();
            say(successor, &BorrowedPart::Sockets(states), &fds)?;
        }
    }
    door.tell_events();
    let peers: Vec<usize> = door.peers.iter().map(|(index, _)| index).collect();
    for peers in peers.chunks(sys::MAX_DESCRIPTORS - 1) {
        let mut states = Vec::new();
        let mut fds = Vec::new();
        for index in peers {
            let peer = &door.peers[*index];
            states.push(peer.state());
            fds.push(peer.connection.as_raw_fd());
        }
        say(successor, &Part::Peers(states), &fds)?;
    }
    let fds = [door.entrance.listener.as_raw_fd(), door.entrance.lock.as_raw_fd()];
    say(successor, &Part::Entrance, &fds)
}

/// As many sockets as go with one packet: by their number, and by what waits in them.
fn chunks(sockets: &[(OwnedFd, SocketState)]) -> impl Iterator<Item = &[(OwnedFd, SocketState)]> {
    let mut rest = sockets;
    std::iter::from_fn(move || {
        let (mut count, mut bytes) = (0, 0);
        while count < rest.len() && count < sys::MAX_DESCRIPTORS - 1 && bytes < CHUNK {
            bytes += rest[count].1.bytes();
            count += 1;
        }
        let chunk;
        (chunk, rest) = rest.split_at(count);
        (count > 0).then_some(chunk)
    })
}

fn wait_until_taken(successor: &OwnedFd) -> Result<()> {
    let expect = |what: &Part, got: Result<Option<Part>>| match got? {
        Some(part) if std::mem::discriminant(&part) == std::mem::discriminant(what) => Ok(()),
        Some(_) => Err(Error::new(Kind::Io, "it said something else than was expected")),
        None => Err(Error::new(Kind::Io, "it has died")),
    };
    expect(&Part::Ready, hear(successor).map(|heard| heard.map(|(part, _)| part)))?;
    say(successor, &Part::Go, &[])?;
    match hear(successor) {
        // It stands still, but it has everything: it goes on when it wakes.
        Err(error) if error.kind == Kind::Busy => Ok(()),
        heard => expect(&Part::Taken, heard.map(|heard| heard.map(|(part, _)| part))),
    }
}

/// The successor's end: asks `predecessor`, whose welcome was heard, for everything. When this
/// returns something, it is the caller's. `None`: it was about to end, and nothing came.
pub(super) fn take(predecessor: &OwnedFd, welcome: &Welcome) -> Result<Option<Taken>> {
    // Only this says for sure that it has died.
    let process = match sys::process_handle(welcome.process) {
        Ok(process) => process,
        Err(error) if error.raw_os_error() == Some(sys::ESRCH) => return Ok(None),
        Err(error) => return Err(Error::io("watching the running keeper", &error)),
    };
    if wire::send(predecessor, &Message::TakeOver, &[]).is_err() {
        return Ok(None);
    }
    let mut taken = Taken::default();
    let mut has_begun = false;
    loop {
        let Some((part, descriptors)) = hear(predecessor)? else {
            // Two must never serve the same sockets.
            if !sys::wait_readable(&process, DEATH_MS).unwrap_or(false) {
                return Err(Error::new(Kind::Io, "the running keeper broke off the handing over"));
            }
            return Ok(has_begun.then_some(taken));
        };
        has_begun = true;
        if !taken.add(part, descriptors)? {
            return Ok(Some(taken));
        }
        if taken.lock.is_some() {
            // An error here is an end of the connection, which is heard next.
            let _ = say(predecessor, &Part::Ready, &[]);
        }
    }
}

impl Taken {
    /// Adds what came. False: it is ours.
    fn add(&mut self, part: Part, descriptors: Vec<OwnedFd>) -> Result<bool> {
        let cut = || Error::new(Kind::Io, "descriptors are missing: is the limit too low here?");
        let count = descriptors.len();
        let mut descriptors = descriptors.into_iter();
        match part {
            Part::Begin { redis } => self.redis = redis,
            Part::Loop(channels, link, waiting) => {
                let subscriber = match link {
                    Some(link) => Some((descriptors.next().ok_or_else(cut)?, link)),
                    None => None,
                };
                let sockets = Vec::new();
                self.engine.loops.push(LoopState { sockets, channels, subscriber, waiting });
            }
            Part::Sockets(states) => {
                let last = self.engine.loops.last_mut().ok_or_else(cut)?;
                if states.len() != count {
                    return Err(cut());
                }
                last.sockets.extend(descriptors.zip(states));
            }
            Part::Peers(states) => {
                if states.len() != count {
                    return Err(cut());
                }
                let peers = descriptors.zip(states);
                self.peers.extend(peers.map(|(fd, state)| Peer::of_state(fd, state)));
            }
            Part::Entrance => {
                self.listener = Some(descriptors.next().ok_or_else(cut)?);
                self.lock = Some(descriptors.next().ok_or_else(cut)?);
            }
            Part::Go => return Ok(false),
            Part::Abort(why) => {
                let text = format!("the running keeper goes on: {why}");
                return Err(Error::new(Kind::Io, text));
            }
            Part::Ready | Part::Taken => {}
        }
        Ok(true)
    }
}

/// Says that the successor serves from here on.
pub(super) fn confirm(predecessor: &OwnedFd) {
    let _ = say(predecessor, &Part::Taken, &[]);
}

/// The parts that are too large to be copied before they are sent. The same on the wire as
/// [`Part`]'s: the order of the names is what counts.
#[derive(Serialize)]
enum BorrowedPart<'a> {
    #[allow(dead_code, reason = "keeps the place of Begin")]
    Begin,
    Loop(&'a [ChannelState], Option<&'a LinkState>, &'a [Waiting]),
    Sockets(Vec<&'a SocketState>),
}

/// Sends, waiting for room.
fn say<T: Serialize>(to: &OwnedFd, value: &T, descriptors: &[RawFd]) -> Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        match wire::send(to, value, descriptors) {
            Ok(()) => return Ok(()),
            Err(error) if is_full(&error) && Instant::now() < until => {
                let _ = sys::wait_writable(to, 10);
                // Too many descriptors are under way: that is no matter of the queue's room.
                std::thread::sleep(Duration::from_micros(100));
            }
            Err(error) => return Err(Error::io("handing over", &error)),
        }
    }
}

/// Waits for the next part and what came with it. `None`: the other side is gone. `Busy`: it says
/// nothing.
fn hear(from: &OwnedFd) -> Result<Option<(Part, Vec<OwnedFd>)>> {
    let mut buffer = Vec::new();
    loop {
        let mut packet: Packet = match wire::receive(from, &mut buffer) {
            Ok(packet) => packet,
            Err(Fault::End) => return Ok(None),
            Err(Fault::Garbage(why, _)) => return Err(Error::new(Kind::Io, why)),
            Err(Fault::Nothing) => match sys::wait_readable(from, PATIENCE.as_millis() as u32) {
                Ok(true) => continue,
                _ => return Err(Error::new(Kind::Busy, "the other side says nothing")),
            },
        };
        let descriptors = std::mem::take(&mut packet.descriptors);
        match packet.value::<Part>() {
            Some(part) => return Ok(Some((part, descriptors))),
            None => return Err(Error::new(Kind::Io, "what it said was not understood")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keeper::wire::golden;

    fn waiting() -> Vec<Waiting> {
        let (channel, payload) = ("a".to_owned(), vec![1, 2]);
        vec![Waiting { socket: Some("id".into()), channel, payload }]
    }

    fn channels() -> Vec<ChannelState> {
        let channel =
            |name: &str, confirmed, gap| ChannelState { name: name.into(), confirmed, gap };
        vec![channel("a", true, false), channel("b", false, true)]
    }

    #[test]
    fn a_change_of_what_goes_over_is_another_version() {
        let parts = [
            Part::Begin { redis: 300 },
            Part::Loop(channels(), Some(LinkState::sample()), waiting()),
            Part::Sockets(vec![SocketState::sample()]),
            Part::Peers(PeerState::samples()),
            Part::Entrance,
            Part::Ready,
            Part::Go,
            Part::Taken,
            Part::Abort("why".into()),
        ];
        golden::check(&parts, 0x87cd_05ff_0f8e_052e);
    }

    #[test]
    fn what_is_borrowed_is_the_same_on_the_wire() {
        let encoded = |part: &Part| postcard::to_allocvec(part).unwrap();
        for link in [None, Some(LinkState::sample())] {
            let borrowed = BorrowedPart::Loop(&channels(), link.as_ref(), &waiting());
            let borrowed = postcard::to_allocvec(&borrowed).unwrap();
            assert_eq!(borrowed, encoded(&Part::Loop(channels(), link, waiting())));
        }
        let socket = SocketState::sample();
        let borrowed = postcard::to_allocvec(&BorrowedPart::Sockets(vec![&socket, &socket]));
        let sockets = vec![SocketState::sample(), SocketState::sample()];
        assert_eq!(borrowed.unwrap(), encoded(&Part::Sockets(sockets)));
    }
}
