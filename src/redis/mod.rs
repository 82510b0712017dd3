//! A link: one non-blocking connection to Redis. It connects, authenticates, backs off, carries
//! bytes both ways and notices when the other side is silent. What the bytes mean is the
//! subscriber's and the publisher's business.
//!
//! Owned by a loop, which tells it when its descriptor is ready and when its deadline has come. It
//! never blocks: host names are looked up by whoever owns the loop ([`Link::take_lookup`]), because
//! the system's resolver does block.

pub mod publisher;
pub mod subscriber;
mod transfer;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::config::{Config, RedisAddress, RedisUrl};
use crate::resp::{self, Decoder, Reply};
use crate::sys;
use crate::timer::Millis;
use crate::write_queue::WriteQueue;

pub use transfer::LinkState;

/// After a failed attempt: the first retry is at once, then a random time up to this, doubled each
/// time.
const FIRST_BACKOFF_MS: u64 = 50;
/// An answer that another attempt will not change (a wrong password) is not asked for more often
/// than this.
const REFUSED_BACKOFF_MS: u64 = 5_000;
/// A link that was up for less than this did not work: one that Redis kicks at once must not come
/// back at once.
const STABLE_MS: u64 = 5_000;

/// How far the connection is.
#[derive(Debug)]
enum Phase {
    /// Nothing is open; the next attempt is due at this time.
    Waiting(Millis),
    /// The host's addresses are being looked up elsewhere, until this time at most.
    LookingUp(Millis),
    /// A connection is being opened, until this time at most.
    Connecting(Millis),
    /// AUTH, SELECT and PING are under way, until this time at most; so many answers are missing.
    Greeting(Millis, u32),
    /// Commands flow.
    Up,
}

/// What happened to a link while it was served.
#[derive(Debug, PartialEq, Eq)]
pub enum Change {
    /// It is up: commands may be sent.
    Up,
    /// It was up and is not any more.
    Down(String),
    /// An attempt to bring it up failed.
    Failed(String),
}

/// One non-blocking connection to Redis.
#[derive(Debug)]
pub struct Link {
    url: RedisUrl,
    token: Token,
    connect_timeout: Duration,
    ping_interval: Duration,
    backoff_limit: Duration,
    max_reply: usize,
    phase: Phase,
    stream: Option<Stream>,
    /// Addresses of the host that were not tried yet.
    addresses: VecDeque<SocketAddr>,
    decoder: Decoder,
    queue: WriteQueue,
    /// The host and port that somebody else is to look up.
    lookup: Option<(String, u16)>,
    /// Attempts since the link last worked.
    attempts: u32,
    up_since: Millis,
    heard_at: Millis,
    /// A PING was sent into the silence, at this time.
    pinged_at: Option<Millis>,
    /// The other side has closed: a short read is not the last one.
    is_ending: bool,
}

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    fn source(&mut self) -> &mut dyn Source {
        match self {
            Stream::Tcp(stream) => stream,
            Stream::Unix(stream) => stream,
        }
    }

    /// `Ok(true)` when connected, `Ok(false)` while that is under way.
    fn is_connected(&self) -> io::Result<bool> {
        let (error, peer) = match self {
            Stream::Tcp(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
            Stream::Unix(stream) => (stream.take_error()?, stream.peer_addr().map(drop)),
        };
        match (error, peer) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(true),
            (None, Err(error)) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            (None, Err(error)) => Err(error),
        }
    }
}

impl AsRawFd for Stream {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Stream::Tcp(stream) => stream.as_raw_fd(),
            Stream::Unix(stream) => stream.as_raw_fd(),
        }
    }
}

impl Link {
    /// A link that is not open yet and wants its first attempt at once.
    pub fn new(url: &RedisUrl, token: Token, config: &Config) -> Self {
        Link {
            url: url.clone(),
            token,
            connect_timeout: config.redis_connect_timeout,
            ping_interval: config.redis_ping_interval,
            backoff_limit: config.redis_backoff_limit,
            max_reply: config.max_redis_message_size,
            phase: Phase::Waiting(0),
            stream: None,
            addresses: VecDeque::new(),
            decoder: Decoder::new(config.max_redis_message_size),
            queue: WriteQueue::default(),
            lookup: None,
            attempts: 0,
            up_since: 0,
            heard_at: 0,
            pinged_at: None,
            is_ending: false,
        }
    }

    /// May commands be sent?
    pub fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Up)
    }

    /// Is there reason to expect it up in a moment? Not while it waits after a failure.
    pub fn is_promising(&self) -> bool {
        match self.phase {
            Phase::Up => true,
            Phase::Waiting(_) => self.attempts == 0,
            _ => self.attempts <= 1,
        }
    }

    /// Is a descriptor open?
    pub fn is_open(&self) -> bool {
        self.stream.is_some()
    }

    /// How many bytes wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// When [`Link::on_deadline`] wants to be called.
    pub fn deadline(&self) -> Option<Millis> {
        match self.phase {
            Phase::Waiting(at)
            | Phase::LookingUp(at)
            | Phase::Connecting(at)
            | Phase::Greeting(at, _) => Some(at),
            Phase::Up => Some(
                self.pinged_at.unwrap_or(self.heard_at) + self.ping_interval.as_millis() as u64,
            ),
        }
    }

    /// Its deadline has come: an attempt is due, took too long, or the other side is silent.
    pub fn on_deadline(&mut self, registry: &Registry, now: Millis) -> Option<Change> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        match self.phase {
            Phase::Waiting(_) => self.attempt(registry, now),
            Phase::LookingUp(_) => {
                Some(self.fail(registry, now, "looking up the host took too long"))
            }
            Phase::Connecting(_) => {
                self.try_next_address(registry, now, "connecting took too long")
            }
            Phase::Greeting(..) => Some(self.fail(registry, now, "no answer to the greeting")),
            Phase::Up if self.pinged_at.is_some() => {
                Some(self.fail(registry, now, "no answer to PING"))
            }
            Phase::Up => {
                self.pinged_at = Some(now);
                let mut ping = Vec::new();
                resp::command(&mut ping, &[b"PING"]);
                self.send(ping, now);
                self.flush(registry, now)
            }
        }
    }

    fn attempt(&mut self, registry: &Registry, now: Millis) -> Option<Change> {
        self.attempts = self.attempts.saturating_add(1);
        let by = now + self.connect_timeout.as_millis() as u64;
        match &self.url.address {
            RedisAddress::Unix(path) => {
                let opened = UnixStream::connect(path).map(Stream::Unix);
                self.opening(registry, now, opened)
            }
            RedisAddress::Tcp { host, port } => {
                self.phase = Phase::LookingUp(by);
                match host.parse() {
                    Ok(ip) => self.looked_up(registry, now, Ok(vec![SocketAddr::new(ip, *port)])),
                    Err(_) => {
                        self.lookup = Some((host.clone(), *port));
                        None
                    }
                }
            }
        }
    }

    /// The host and port whose addresses are to be handed to [`Link::looked_up`]; given out once an
    /// attempt.
    pub fn take_lookup(&mut self) -> Option<(String, u16)> {
        self.lookup.take()
    }

    /// The addresses of the host, or why there are none.
    pub fn looked_up(
        &mut self,
        registry: &Registry,
        now: Millis,
        addresses: io::Result<Vec<SocketAddr>>,
    ) -> Option<Change> {
        if !matches!(self.phase, Phase::LookingUp(_)) {
            return None; // The answer to an attempt that was given up.
        }
        match addresses {
            Ok(addresses) => {
                self.addresses = addresses.into();
                self.try_next_address(registry, now, "the host has no address")
            }
            Err(error) => {
                Some(self.fail(registry, now, &format!("looking up the host failed: {error}")))
            }
        }
    }

    fn try_next_address(&mut self, registry: &Registry, now: Millis, why: &str) -> Option<Change> {
        self.close(registry);
        match self.addresses.pop_front() {
            Some(address) => {
                let opened = TcpStream::connect(address).map(Stream::Tcp);
                self.opening(registry, now, opened)
            }
            None => Some(self.fail(registry, now, why)),
        }
    }

    fn opening(
        &mut self,
        registry: &Registry,
        now: Millis,
        opened: io::Result<Stream>,
    ) -> Option<Change> {
        let registered = opened.and_then(|mut stream| {
            let interest = Interest::READABLE | Interest::WRITABLE;
            registry.register(stream.source(), self.token, interest)?;
            Ok(stream)
        });
        match registered {
            Ok(stream) => {
                self.stream = Some(stream);
                self.phase = Phase::Connecting(now + self.connect_timeout.as_millis() as u64);
                None
            }
            Err(error) => self.try_next_address(registry, now, &error.to_string()),
        }
    }

    /// Its descriptor is writable: a connection may be open now, or waiting bytes may go.
    pub fn on_writable(&mut self, registry: &Registry, now: Millis) -> Option<Change> {
        if matches!(self.phase, Phase::Connecting(_)) {
            let connected = self.stream.as_ref().map_or(Ok(false), Stream::is_connected);
            return match connected {
                Ok(true) => {
                    if let Some(Stream::Tcp(stream)) = &self.stream {
                        let _ = stream.set_nodelay(true);
                    }
                    self.greet(registry, now)
                }
                Ok(false) => None,
                Err(error) => self.try_next_address(registry, now, &error.to_string()),
            };
        }
        self.flush(registry, now)
    }

    fn greet(&mut self, registry: &Registry, now: Millis) -> Option<Change> {
        let mut bytes = Vec::new();
        let mut answers = 1;
        match (&self.url.username, &self.url.password) {
            (Some(user), Some(password)) => {
                resp::command(&mut bytes, &[b"AUTH", user.as_bytes(), password.as_bytes()]);
                answers += 1;
            }
            (None, Some(password)) => {
                resp::command(&mut bytes, &[b"AUTH", password.as_bytes()]);
                answers += 1;
            }
            (_, None) => {}
        }
        if self.url.database != 0 {
            let database = self.url.database.to_string();
            resp::command(&mut bytes, &[b"SELECT", database.as_bytes()]);
            answers += 1;
        }
        // Only this shows that a server that wants no password, or is still loading, will do what
        // it is asked.
        resp::command(&mut bytes, &[b"PING"]);
        self.phase = Phase::Greeting(now + self.connect_timeout.as_millis() as u64, answers);
        self.send(bytes, now);
        self.flush(registry, now)
    }

    /// Queues commands; [`Link::flush`] writes them.
    pub fn send(&mut self, commands: Vec<u8>, now: Millis) {
        if self.stream.is_some() && !commands.is_empty() {
            self.queue.push_bytes(commands, now);
        }
    }

    /// Writes what waits.
    pub fn flush(&mut self, registry: &Registry, now: Millis) -> Option<Change> {
        let stream = self.stream.as_ref()?;
        if self.queue.is_empty() || matches!(self.phase, Phase::Connecting(_)) {
            return None;
        }
        match self.queue.flush(&mut Vec::new(), |bytes| sys::send(stream, bytes)) {
            Ok(_) => None,
            Err(error) => Some(self.fail(registry, now, &error.to_string())),
        }
    }

    /// Its descriptor says that the other side has closed. It says so only once, perhaps together
    /// with the last bytes, and then the end behind them is still to be read.
    pub fn on_ending(&mut self) {
        self.is_ending = self.stream.is_some();
    }

    /// Reads once, at most what `buffer` holds, and calls `each` for every whole reply to a command
    /// (not to the greeting or a PING of the link's own). Returns whether there may be more to
    /// read, and what changed.
    pub fn read(
        &mut self,
        registry: &Registry,
        now: Millis,
        buffer: &mut [u8],
        mut each: impl FnMut(Reply<'_>),
    ) -> (bool, Option<Change>) {
        let Some(stream) = &self.stream else { return (false, None) };
        let n = match sys::recv(stream, buffer) {
            Ok(0) => return (false, Some(self.fail(registry, now, "Redis closed the connection"))),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (false, None),
            Err(error) if matches!(self.phase, Phase::Connecting(_)) => {
                return (false, self.try_next_address(registry, now, &error.to_string()));
            }
            Err(error) => return (false, Some(self.fail(registry, now, &error.to_string()))),
        };
        self.heard_at = now;
        self.pinged_at = None;
        let mut refused = None;
        let mut up = false;
        let phase = &mut self.phase;
        let fed = self.decoder.feed(&buffer[..n], &mut |reply| match (&mut *phase, reply) {
            (Phase::Greeting(..), Reply::Error { code, text }) => {
                refused.get_or_insert(format!("Redis refused the greeting: {code} {text}"));
            }
            (Phase::Greeting(_, missing), _) => {
                *missing -= 1;
                if *missing == 0 {
                    *phase = Phase::Up;
                    up = true;
                }
            }
            (_, Reply::Pong) => {}
            (_, reply) => each(reply),
        });
        if let Some(why) = refused {
            let change = self.fail(registry, now, &why);
            self.phase = Phase::Waiting(now + REFUSED_BACKOFF_MS);
            return (false, Some(change));
        }
        if let Err(error) = fed {
            return (false, Some(self.fail(registry, now, &error.text)));
        }
        if up {
            self.up_since = now;
        }
        (n == buffer.len() || self.is_ending, up.then_some(Change::Up))
    }

    /// Gives the connection up and says when to try again: at once after a link that worked, else
    /// after a random time whose bound doubles (full jitter: many processes must not come back
    /// together).
    fn fail(&mut self, registry: &Registry, now: Millis, why: &str) -> Change {
        let was_up = self.is_up();
        self.close(registry);
        if was_up && now >= self.up_since + STABLE_MS {
            self.attempts = 0;
        }
        let bound = match self.attempts {
            0 => 0,
            n => (FIRST_BACKOFF_MS << (n - 1).min(20)).min(self.backoff_limit.as_millis() as u64),
        };
        self.phase = Phase::Waiting(now + sys::random() % (bound + 1));
        if was_up { Change::Down(why.into()) } else { Change::Failed(why.into()) }
    }

    /// Closes the connection at the safe side: deregistered before the descriptor is closed.
    pub fn close(&mut self, registry: &Registry) {
        if let Some(mut stream) = self.stream.take() {
            let _ = registry.deregister(stream.source());
        }
        self.queue.clear();
        self.decoder = Decoder::new(self.max_reply);
        self.pinged_at = None;
        self.is_ending = false;
    }
}
