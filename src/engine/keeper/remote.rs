//! The host's end: an engine that lives in a keeper, behind the same functions.
//!
//! Any thread may call. Three connections, one each to adopt, to publish and to ask, so that a
//! message the keeper holds back does not hold up a handshake; each is opened at its first use and
//! once more when it was lost. Handing over never waits: a full queue is `Busy`, at once. Only a
//! question waits for its turn and its answer, at most [`ANSWER`]. A fourth brings events.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Interest, Poll, Token};
use parking_lot::Mutex;

use super::super::events::Event;
use super::super::inbox::{Adoption, Who, check_publish};
use super::super::local;
use super::super::stats::Refusals;
use super::wire::{self, Fault, Message, Packet, Question};
use crate::cause::Refusal;
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::sys;

/// How long a question waits for its turn and its answer.
const ANSWER: Duration = Duration::from_secs(1);

/// A handle to an engine that lives in a keeper.
pub struct Remote {
    config: Config,
    log: Log,
    path: PathBuf,
    process: u32,
    stopped: AtomicBool,
    /// The keeper last heard was of another version: a new connection waits for its Welcome.
    mismatched: AtomicBool,
    adopting: Mutex<Line>,
    publishing: Mutex<Line>,
    asking: Mutex<Line>,
    watching: Mutex<Option<Watcher>>,
    /// What this host refuses, and what of it the keeper knows.
    refusals: Arc<Refusals>,
    told: Mutex<[u64; Refusal::ALL.len()]>,
}

/// One connection, if it is open.
#[derive(Default)]
struct Line {
    connection: Option<OwnedFd>,
    /// Of the keeper behind it, once it has said so.
    version: Option<u8>,
    buffer: Vec<u8>,
    /// The number of the last question.
    asked: u64,
}

impl Line {
    fn close(&mut self) {
        self.connection = None;
        self.version = None;
    }
}

/// What brings events. The host polls the set, which stays whatever becomes of the keeper.
struct Watcher {
    /// Holds the connection or, while there is none, the clock.
    set: Poll,
    /// Wakes the host now and then to look for another keeper.
    clock: OwnedFd,
    connection: Option<OwnedFd>,
    /// The keeper was asked for events.
    watches: bool,
    buffer: Vec<u8>,
}

impl Watcher {
    fn new() -> io::Result<Self> {
        let (set, clock) = (Poll::new()?, sys::clock()?);
        add(&set, &clock)?;
        Ok(Watcher { set, clock, connection: None, watches: false, buffer: Vec::new() })
    }

    /// Puts a connection into the set instead of the clock, or the clock instead of a lost one.
    fn hold(&mut self, connection: Option<OwnedFd>) -> Result<()> {
        add(&self.set, connection.as_ref().unwrap_or(&self.clock)).map_err(|e| not_watching(&e))?;
        // Before it is closed: a child's copy would keep it in the set.
        let old = self.connection.as_ref().unwrap_or(&self.clock).as_raw_fd();
        let _ = self.set.registry().deregister(&mut SourceFd(&old));
        self.connection = connection;
        self.watches = false;
        Ok(())
    }
}

fn add(set: &Poll, fd: &OwnedFd) -> io::Result<()> {
    set.registry().register(&mut SourceFd(&fd.as_raw_fd()), Token(0), Interest::READABLE)
}

fn not_watching(error: &io::Error) -> Error {
    Error::io("watching the keeper", error)
}

impl Remote {
    /// An engine that lives in the keeper that listens at `path`. Nothing is connected yet.
    pub fn new(config: Config, path: PathBuf, log: Log, refusals: Arc<Refusals>) -> Result<Self> {
        config.check(1)?;
        Ok(Remote {
            config,
            log,
            path,
            process: std::process::id(),
            stopped: AtomicBool::new(false),
            mismatched: AtomicBool::new(false),
            adopting: Mutex::default(),
            publishing: Mutex::default(),
            asking: Mutex::default(),
            watching: Mutex::default(),
            refusals,
            told: Mutex::default(),
        })
    }

    /// Its settings. Those of the keeper are the keeper's own.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn check_alive(&self) -> Result<()> {
        if self.process != std::process::id() {
            return Err(local::wrong_process());
        }
        if self.stopped.load(SeqCst) {
            return Err(local::stopped());
        }
        Ok(())
    }

    /// Hands a socket to the keeper. On an error it is given back and nothing was written to it.
    pub fn adopt(&self, adoption: Adoption) -> std::result::Result<(), (Error, Box<Adoption>)> {
        let message = Message::Adopt {
            grant: &adoption.grant,
            answer: &adoption.answer,
            leftover: &adoption.leftover,
            remote_address: &adoption.remote_address,
            host: &adoption.host,
            path_digest: adoption.path_digest,
            mirror: adoption.mirror,
        };
        // What the keeper would refuse is refused here, where the host can still say why.
        let sent = adoption.check(&self.config).and_then(|_| {
            let line = &mut self.adopting.lock();
            self.tell_refusals(line);
            self.post(line, &message, &[adoption.fd.as_raw_fd()])
        });
        sent.map_err(|error| (error, Box::new(adoption)))
    }

    /// Publishes a message. OK: it waits for the keeper, which takes it as soon as its engine has
    /// room.
    pub fn publish(&self, channel: &str, payload: &[u8]) -> Result<()> {
        check_publish(&self.config, channel, payload)?;
        let line = &mut self.publishing.lock();
        self.post(line, &Message::Publish { channel, payload }, &[])
    }

    /// Sends to one socket only.
    pub fn send(&self, socket: &str, payload: &[u8]) -> Result<()> {
        self.ask(Question::Send { socket, payload }).map(drop)
    }

    /// Closes sockets with 4403.
    pub fn kick(&self, who: &Who) -> Result<()> {
        self.ask(Question::Kick(who.clone())).map(drop)
    }

    /// The keeper's counters as one JSON object.
    pub fn stats(&self) -> Result<String> {
        self.ask(Question::Stats)
    }

    /// Does the keeper's engine hear everything it should? Says why not.
    pub fn health(&self) -> Result<()> {
        self.ask(Question::Health).map(drop)
    }

    /// The descriptor that is readable while events wait and, while there is no keeper, about once
    /// a second: then [`Remote::next_event`] looks for one.
    pub fn events_fd(&self) -> Result<RawFd> {
        self.check_alive()?;
        let watching = &mut *self.watching.lock();
        if watching.is_none() {
            let mut watcher = Watcher::new().map_err(|e| not_watching(&e))?;
            self.look(&mut watcher)?;
            // Not to miss what happens until its Welcome is heard.
            if let Some(connection) = &watcher.connection
                && !self.mismatched.load(SeqCst)
            {
                watcher.watches = wire::send(connection, &Message::Watch, &[]).is_ok();
            }
            *watching = Some(watcher);
        }
        watching.as_ref().map(|watcher| watcher.set.as_raw_fd()).ok_or_else(local::stopped)
    }

    /// The next event. While the keeper is gone there is none; an overflow says that another one is
    /// there and that events are missing.
    pub fn next_event(&self) -> Result<Option<Event>> {
        self.check_alive()?;
        let Some(watcher) = &mut *self.watching.lock() else { return Ok(None) };
        self.look(watcher)?;
        while let Some(connection) = &watcher.connection {
            let packet = match wire::receive(connection, &mut watcher.buffer) {
                Ok(packet) => packet,
                Err(Fault::Nothing) => break,
                Err(Fault::End | Fault::Garbage(..)) => {
                    watcher.hold(None)?;
                    break;
                }
            };
            match packet.message() {
                Ok(Message::Opened(id)) => return Ok(Some(Event::Opened(id.into()))),
                Ok(Message::Closed(id, code)) => return Ok(Some(Event::Closed(id.into(), code))),
                Ok(Message::Overflow(n)) => return Ok(Some(Event::Overflow(n))),
                Ok(Message::Welcome { .. }) => {
                    let known = self.note_version(packet.version());
                    let watches = watcher.watches;
                    let ask = || watches || wire::send(connection, &Message::Watch, &[]).is_ok();
                    if known.is_err() || !ask() {
                        watcher.hold(None)?;
                        return known.map(|()| None);
                    }
                    watcher.watches = true;
                    if !watches {
                        return Ok(Some(Event::Overflow(0)));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Looks for a keeper, if none is watched. That there is none is no error.
    fn look(&self, watcher: &mut Watcher) -> Result<()> {
        if watcher.connection.is_some() {
            return Ok(());
        }
        sys::event_fd_drain(&watcher.clock);
        match self.connect() {
            Ok(connection) => watcher.hold(Some(connection)),
            Err(error) if matches!(error.kind, Kind::Stopped | Kind::Busy) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Later calls are told that it was stopped; the keeper and its sockets stay. Async-signal-safe.
    pub fn stop(&self) {
        self.stopped.store(true, SeqCst);
    }

    /// Sends one message. A connection that was lost is opened once more.
    fn post(&self, line: &mut Line, message: &Message, descriptors: &[RawFd]) -> Result<()> {
        self.check_alive()?;
        for _ in 0..2 {
            if line.connection.is_none() {
                line.connection = Some(self.connect()?);
            }
            self.hear(line)?;
            let Some(connection) = &line.connection else { continue };
            match line.version {
                Some(version) => check_version(version)?,
                None if self.mismatched.load(SeqCst) => {
                    let text = "the keeper was of another version and has not said yet what it is";
                    return Err(Error::new(Kind::Busy, text));
                }
                None => {}
            }
            match wire::send(connection, message, descriptors) {
                Ok(()) => return Ok(()),
                Err(error) if super::is_full(&error) => {
                    let text = "the keeper's queue is full: it is busy or stands still";
                    return Err(Error::new(Kind::Busy, text));
                }
                Err(error) if is_lost(&error) => line.close(),
                Err(error) => return Err(Error::io("handing over to the keeper", &error)),
            }
        }
        Err(self.lost(&io::ErrorKind::BrokenPipe.into()))
    }

    /// Takes what the keeper has said without being asked, which may be its end.
    fn hear(&self, line: &mut Line) -> Result<()> {
        while let Some(connection) = &line.connection {
            match wire::receive(connection, &mut line.buffer) {
                Ok(packet) => self.heed(line, &packet)?,
                Err(Fault::Nothing) => break,
                Err(Fault::End | Fault::Garbage(..)) => line.close(),
            }
        }
        Ok(())
    }

    /// Tells what was refused here since the last time. It can wait for the next one.
    fn tell_refusals(&self, line: &mut Line) {
        let mut told = self.told.lock();
        let mut counts = Vec::new();
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            let count = self.refusals.of(*refusal).get();
            if count > told[index] {
                counts.push((index as u8, count - told[index]));
            }
        }
        if counts.is_empty() {
            return;
        }
        let message = Message::Refused(counts);
        if self.post(line, &message, &[]).is_ok()
            && let Message::Refused(counts) = message
        {
            for (index, count) in counts {
                told[usize::from(index)] += count;
            }
        }
    }

    fn ask(&self, question: Question) -> Result<String> {
        let until = Instant::now() + ANSWER;
        let line = &mut *self.asking.try_lock_until(until).ok_or_else(no_answer)?;
        self.tell_refusals(line);
        line.asked += 1;
        let message = Message::Ask { number: line.asked, question };
        for _ in 0..2 {
            self.post(line, &message, &[])?;
            if let Some(answer) = self.answer(line, until)? {
                return answer;
            }
        }
        Err(self.lost(&io::ErrorKind::BrokenPipe.into()))
    }

    /// Waits for the answer to the last question. `None` if the connection was lost.
    fn answer(&self, line: &mut Line, until: Instant) -> Result<Option<Result<String>>> {
        while let Some(connection) = &line.connection {
            match wire::receive(connection, &mut line.buffer) {
                Ok(packet) => match packet.message() {
                    Ok(Message::Answer { number, answer }) if number == line.asked => {
                        let failed = |(kind, text): (Kind, &str)| Error::new(kind, text);
                        return Ok(Some(answer.map(str::to_owned).map_err(failed)));
                    }
                    _ => self.heed(line, &packet)?,
                },
                Err(Fault::End | Fault::Garbage(..)) => line.close(),
                Err(Fault::Nothing) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if !sys::wait_readable(connection, left.as_millis() as u32).unwrap_or(false) {
                        line.close(); // Nobody waits for its answer any more.
                        return Err(no_answer());
                    }
                }
            }
        }
        Ok(None)
    }

    /// Notes what the keeper says of itself.
    fn heed(&self, line: &mut Line, packet: &Packet) -> Result<()> {
        match packet.message() {
            Ok(Message::Welcome { .. }) => {
                line.version = Some(packet.version());
                self.note_version(packet.version())
            }
            _ => Ok(()),
        }
    }

    /// Is the keeper that says so of our version? Connections to come are warned.
    fn note_version(&self, version: u8) -> Result<()> {
        self.mismatched.store(version != wire::VERSION, SeqCst);
        check_version(version)
    }

    fn connect(&self) -> Result<OwnedFd> {
        let connected = super::connect(&self.path);
        if let Err(error) = &connected {
            self.log.limited(Level::Error, "keeper_unreachable", || format!("wsredis: {error}"));
        }
        connected
    }

    fn lost(&self, error: &io::Error) -> Error {
        let path = self.path.display();
        Error::new(Kind::Stopped, format!("the keeper at {path} was lost: {error}"))
    }
}

fn check_version(version: u8) -> Result<()> {
    if version == wire::VERSION {
        return Ok(());
    }
    let text = "the keeper is of another version of wsredis: restart the older side";
    Err(Error::new(Kind::Unsupported, text))
}

fn no_answer() -> Error {
    Error::new(Kind::Busy, "the keeper does not answer: it is busy or stands still")
}

fn is_lost(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionRefused, ConnectionReset, NotConnected};
    matches!(error.kind(), BrokenPipe | ConnectionRefused | ConnectionReset | NotConnected)
}
