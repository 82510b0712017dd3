//! The engine that runs in the calling process: a handle that any thread may use, and the loops
//! behind it.
//!
//! Starting makes no thread, descriptor or connection: those come with the first adopt or publish,
//! in the process that asks for it, so that a host may start the engine and fork afterwards only at
//! the price of an error, never of a shared epoll. Loops share nothing on the hot path; what they
//! do share is in [`Shared`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::fd::RawFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};

use mio::{Poll, Waker};
use parking_lot::Mutex;

use super::admission::Admission;
use super::embedded::Embedded;
use super::event_loop::{self, EventLoop};
use super::events::{Event, Events};
use super::ids::ForeignIds;
use super::inbox::{Adoption, Command, Inbox, Newcomer, Who, check_publish, size_of_publish};
use super::stats::{self, Count, Counters, Refusals};
use crate::cause::{Cause, Refusal};
use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::socket::Key;
use crate::sys;

/// What others see of a loop.
#[derive(Debug)]
pub(super) struct Port {
    pub inbox: Inbox,
    pub counters: Counters,
    /// Bytes of the host's messages in the inbox.
    pub publishing: AtomicU64,
    /// Bytes that wait in the loop's publisher.
    pub unpublished: Count,
    /// Its thread has ended.
    pub ended: AtomicBool,
}

/// What the loops and the handle share.
pub(super) struct Shared {
    pub config: Config,
    pub log: Log,
    /// Random: the part of a socket id that no other engine of the fleet has.
    pub id: u64,
    pub foreign: ForeignIds,
    pub admission: Admission,
    pub events: Events,
    /// `None` with Redis.
    pub broker: Option<Embedded>,
    pub ports: Vec<Port>,
    /// Milliseconds that loops have to end, plus one; 0 while they are to go on.
    stop: AtomicU64,
    /// Why they end: the cause's place in [`Cause::ALL`].
    stop_cause: AtomicU8,
    pub refusals: Arc<Refusals>,
}

impl Shared {
    /// A socket's id: text, unique across the fleet, never reused.
    pub fn socket_id(&self, number: usize, key: Key) -> String {
        self.foreign.id((number, key)).unwrap_or_else(|| self.own_id(number, key))
    }

    /// The id of a socket that came to this engine first.
    fn own_id(&self, number: usize, key: Key) -> String {
        format!("{:016x}-{number:x}-{:x}", self.id, u64::from(key))
    }

    /// Why the sockets of a loop that is to end are closed.
    pub fn stop_cause(&self) -> Cause {
        Cause::ALL.get(self.stop_cause.load(SeqCst) as usize).copied().unwrap_or(Cause::Restart)
    }

    /// How many milliseconds a loop has to end, once it is to.
    pub fn told_to_stop(&self) -> Option<u64> {
        self.stop.load(SeqCst).checked_sub(1)
    }
}

/// The loops, once they run.
pub(super) struct Running {
    pub(super) shared: Arc<Shared>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

/// A handle to an engine. All functions may be called by any thread.
pub struct Local {
    config: Config,
    log: Log,
    process: u32,
    starting: Mutex<()>,
    running: OnceLock<Running>,
    stopped: AtomicBool,
    next_loop: AtomicU64,
    refusals: Arc<Refusals>,
}

impl Local {
    /// An engine that will run in the calling process. Nothing is started yet. `refusals` may be
    /// counted by the host as well.
    pub fn new(config: Config, log: Log, refusals: Arc<Refusals>) -> Result<Self> {
        for warning in config.check(1)? {
            log.line(Level::Warn, &format!("wsredis: {warning}"));
        }
        Ok(Local {
            config,
            log,
            process: std::process::id(),
            starting: Mutex::new(()),
            running: OnceLock::new(),
            stopped: AtomicBool::new(false),
            next_loop: AtomicU64::new(0),
            refusals,
        })
    }

    /// Its settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Where its lines go.
    pub(super) fn log(&self) -> &Log {
        &self.log
    }

    /// The handshakes that were refused.
    pub(super) fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    pub(super) fn running(&self) -> Result<&Running> {
        if self.process != std::process::id() {
            return Err(wrong_process());
        }
        if self.stopped.load(SeqCst) {
            return Err(stopped());
        }
        if self.running.get().is_none() {
            let _one_at_a_time = self.starting.lock();
            if self.running.get().is_none() {
                let running = self.start_loops()?;
                let _ = self.running.set(running); // Nobody else sets it: the lock is held.
                if self.stopped.load(SeqCst) {
                    // A stop came in between and has seen nothing to stop.
                    stop_all(&self.running.get().expect("it was set above").shared, 0);
                }
            }
        }
        let running = self.running.get().expect("it was set above");
        if running.shared.ports.iter().any(|port| port.ended.load(SeqCst)) {
            return Err(Error::new(Kind::Stopped, "the engine has ended"));
        }
        Ok(running)
    }

    fn start_loops(&self) -> Result<Running> {
        let (mut polls, mut ports) = (Vec::new(), Vec::new());
        for _ in 0..self.config.loops {
            let failed = |error: std::io::Error| Error::io("starting a loop", &error);
            let poll = Poll::new().map_err(failed)?;
            let waker = Waker::new(poll.registry(), event_loop::WAKER).map_err(failed)?;
            let inbox = Inbox::new(self.config.inbox_limit, waker);
            ports.push(Port {
                inbox,
                counters: Counters::default(),
                publishing: AtomicU64::new(0),
                unpublished: Count::default(),
                ended: AtomicBool::new(false),
            });
            polls.push(poll);
        }
        let loops = self.config.loops;
        let embedded = self.config.redis_url.is_none();
        let shared = Arc::new(Shared {
            config: self.config.clone(),
            log: self.log.clone(),
            id: sys::random(),
            foreign: ForeignIds::default(),
            admission: Admission::new(&self.config)?,
            events: Events::default(),
            broker: embedded.then(|| Embedded::new(loops, self.config.feed_limit)),
            ports,
            stop: AtomicU64::new(0),
            stop_cause: AtomicU8::new(Cause::Restart as u8),
            refusals: Arc::clone(&self.refusals),
        });
        self.announce();
        let mut threads = Vec::new();
        for (number, poll) in polls.into_iter().enumerate() {
            let its_own = Arc::clone(&shared);
            let thread = thread::Builder::new()
                .name(format!("wsredis-{number}"))
                .spawn(move || run_loop(its_own, number, poll))
                .map_err(|error| Error::io("starting a loop's thread", &error));
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Those that run already are to end; nobody waits for them.
                    stop_all(&shared, 0);
                    return Err(error);
                }
            }
        }
        Ok(Running { shared, threads: Mutex::new(threads) })
    }

    /// Says once what this engine can hold.
    fn announce(&self) {
        let limit = sys::max_open_files();
        let room = limit.saturating_sub(self.config.fd_reserve as u64);
        let (level, cure) = match room {
            0..2000 => (Level::Warn, "; raise the limit of open files (ulimit -n, uWSGI: max-fd)"),
            _ => (Level::Info, ""),
        };
        let broker = match &self.config.redis_url {
            Some(url) => url.to_string(),
            None => "the embedded broker".into(),
        };
        let text = format!(
            "wsredis: engine {} with {} loop(s) on {broker}, room for about {room} sockets{cure}",
            env!("CARGO_PKG_VERSION"),
            self.config.loops
        );
        self.log.line(level, &text);
    }

    /// Hands a socket to a loop. On an error it is given back and nothing was written
    /// to it.
    pub fn adopt(&self, adoption: Adoption) -> std::result::Result<(), (Error, Box<Adoption>)> {
        let checked = adoption.check(&self.config).and_then(|checked| {
            let running = self.running()?;
            Ok((checked, running))
        });
        let ((grant, variant), running) = match checked {
            Ok(checked) => checked,
            Err(error) => return Err((error, Box::new(adoption))),
        };
        let ports = &running.shared.ports;
        let port = &ports[self.next_loop.fetch_add(1, Relaxed) as usize % ports.len()];
        let newcomer = Newcomer { adoption, grant, variant };
        port.inbox.push(Command::Adopt(Box::new(newcomer))).map_err(|command| match command {
            Command::Adopt(newcomer) => (busy(), Box::new(newcomer.adoption)),
            _ => unreachable!("the command that was pushed comes back"),
        })
    }

    /// Publishes a message to everyone who hears the channel, in this engine and, with Redis,
    /// everywhere. OK: it is queued; messages of one channel keep their order.
    pub fn publish(&self, channel: &str, payload: &[u8]) -> Result<()> {
        check_publish(&self.config, channel, payload)?;
        let running = self.running()?;
        let shared = &running.shared;
        if let Some(broker) = &shared.broker {
            let wake = broker.publish(channel, payload).ok_or_else(|| {
                Error::new(Kind::Busy, "a loop's feed is full (feed-limit); try again later")
            })?;
            for number in wake {
                shared.ports[number].inbox.wake();
            }
            shared.ports[0].counters.published.add_shared(1);
            return Ok(());
        }
        let size = size_of_publish(&self.config, channel, payload);
        let mut hasher = DefaultHasher::new();
        channel.hash(&mut hasher);
        let port = &shared.ports[hasher.finish() as usize % shared.ports.len()];
        // What was accepted and is not with Redis yet: in the inbox, and behind it in the
        // publisher.
        let waits = port.publishing.fetch_add(size, SeqCst) + port.unpublished.get();
        let accepted = if waits + size > self.config.publish_queue_limit as u64 {
            Err(Error::new(Kind::Busy, "publish-queue-limit is reached; try again later"))
        } else {
            let command = Command::Publish(channel.into(), payload.into());
            port.inbox.push(command).map_err(|_| busy())
        };
        if accepted.is_err() {
            port.publishing.fetch_sub(size, SeqCst);
        }
        accepted
    }

    /// Sends to one socket only. OK: it is queued; a socket that is gone meanwhile is no error.
    pub fn send(&self, socket_id: &str, payload: &[u8]) -> Result<()> {
        let (number, key) = self.place_of(socket_id)?;
        let port = &self.running()?.shared.ports[number];
        port.inbox.push(Command::Send(key, payload.into())).map_err(|_| busy())
    }

    /// Closes sockets with 4403. OK: it is queued; none of that name is no error, but an id that is
    /// not of this engine is.
    pub fn kick(&self, who: &Who) -> Result<()> {
        let ports = &self.running()?.shared.ports;
        if let Who::Socket(id) = who {
            let (number, key) = self.place_of(id)?;
            return ports[number].inbox.push(Command::KickOne(key)).map_err(|_| busy());
        }
        for port in ports {
            port.inbox.push(Command::Kick(who.clone())).map_err(|_| busy())?;
        }
        Ok(())
    }

    /// Where one of our sockets is, by its id: its loop, and its key there.
    fn place_of(&self, socket_id: &str) -> Result<(usize, Key)> {
        let shared = &self.running()?.shared;
        if let Some(place) = shared.foreign.place(socket_id) {
            return Ok(place);
        }
        let mut parts = socket_id.split('-').map(|part| u64::from_str_radix(part, 16).ok());
        match [parts.next(), parts.next(), parts.next(), parts.next()].map(Option::flatten) {
            // Written again it must be the same text: one socket has one id.
            [Some(_), Some(number), Some(key), None]
                if number < shared.ports.len() as u64
                    && shared.own_id(number as usize, key.into()) == socket_id =>
            {
                Ok((number as usize, key.into()))
            }
            _ => Err(Error::new(Kind::NotFound, "no socket of this engine has that id")),
        }
    }

    /// Has it begun to work? Then there may be sockets.
    pub(super) fn has_begun(&self) -> bool {
        self.running.get().is_some() || self.stopped.load(SeqCst)
    }

    /// Its loops, once they run.
    fn ports(&self) -> &[Port] {
        self.running.get().map_or(&[], |running| &running.shared.ports)
    }

    /// Has a loop ended by itself? Then nothing more can be adopted or published.
    pub(super) fn has_failed(&self) -> bool {
        self.ports().iter().any(|port| port.ended.load(SeqCst))
    }

    /// How many sockets there are now.
    pub fn sockets(&self) -> u64 {
        self.ports().iter().map(|port| port.counters.sockets.get()).sum()
    }

    /// Counters as one JSON object. An engine that has not begun to work has only zeros.
    pub fn stats(&self) -> String {
        let loops: Vec<&Counters> = self.ports().iter().map(|port| &port.counters).collect();
        stats::json(&loops, &self.refusals)
    }

    /// Counts a message that was taken and can not be published.
    pub(super) fn count_unpublished(&self) {
        if let Some(port) = self.ports().first() {
            port.counters.publish_failed.add_shared(1);
        }
    }

    /// Does it hear everything it should? Says why not.
    pub fn health(&self) -> Result<()> {
        let running = self.running()?;
        let sick = |text: String| Err(Error::new(Kind::Unhealthy, text));
        let sum = |of: &dyn Fn(&Counters) -> u64| -> u64 {
            running.shared.ports.iter().map(|port| of(&port.counters)).sum()
        };
        match (sum(&|c| c.redis_down.get()), sum(&|c| c.channels_unheard.get())) {
            (0, 0) => Ok(()),
            (0, unheard) => sick(format!("{unheard} channel(s) are not subscribed yet")),
            (down, _) => sick(format!("{down} link(s) to Redis are down")),
        }
    }

    /// The descriptor that is readable while events wait.
    pub fn events_fd(&self) -> Result<RawFd> {
        self.running()?.shared.events.fd()
    }

    /// The next event.
    pub fn next_event(&self) -> Option<Event> {
        self.running.get()?.shared.events.next()
    }

    /// Closes all sockets with 1012 and waits for the loops to end, at most so long and no longer
    /// than `stop-timeout`. Returns whether they have. Takes no lock and allocates nothing: it may
    /// be called from a signal handler or at the exit of the process.
    pub fn stop(&self, timeout_ms: u32) -> bool {
        self.stop_with(Cause::Restart, timeout_ms)
    }

    /// As [`Local::stop`], with another cause.
    pub fn stop_with(&self, cause: Cause, timeout_ms: u32) -> bool {
        self.stopped.store(true, SeqCst);
        if self.process != std::process::id() {
            return true;
        }
        let Some(running) = self.running.get() else { return true };
        let limit = self.config.stop_timeout.as_millis();
        let timeout_ms = timeout_ms.min(u32::try_from(limit).unwrap_or(u32::MAX));
        let ports = &running.shared.ports;
        running.shared.stop_cause.store(cause as u8, SeqCst);
        stop_all(&running.shared, timeout_ms);
        let mut waited = 0;
        loop {
            if ports.iter().all(|port| port.ended.load(SeqCst)) {
                return true;
            }
            if waited >= timeout_ms {
                return false;
            }
            sys::pause_ms(1);
            waited += 1;
        }
    }
}

impl Drop for Local {
    /// Stops at once and waits for the threads. In another process it leaves everything as it is:
    /// it is not ours.
    fn drop(&mut self) {
        if self.process != std::process::id() {
            return;
        }
        self.stop(0);
        if let Some(running) = self.running.get() {
            for thread in running.threads.lock().drain(..) {
                let _ = thread.join(); // A panic was caught and logged on the thread.
            }
        }
    }
}

/// Tells all loops to end within so many milliseconds.
fn stop_all(shared: &Shared, timeout_ms: u32) {
    shared.stop.store(u64::from(timeout_ms) + 1, SeqCst);
    for port in &shared.ports {
        port.inbox.wake();
    }
}

pub(super) fn wrong_process() -> Error {
    let text = "the engine was started in another process: start it after the fork";
    Error::new(Kind::WrongProcess, text)
}

pub(super) fn stopped() -> Error {
    Error::new(Kind::Stopped, "the engine was stopped")
}

fn busy() -> Error {
    Error::new(Kind::Busy, "the loop's inbox is full (inbox-limit); try again later")
}

/// The body of a loop's thread. A panic ends the engine, not the host: its sockets are closed by
/// being dropped, and every later call is told that it has ended.
fn run_loop(shared: Arc<Shared>, number: usize, poll: Poll) {
    sys::block_signals();
    let ran = catch_unwind(AssertUnwindSafe(|| {
        EventLoop::new(Arc::clone(&shared), number, poll).map(EventLoop::run)
    }));
    match &ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => shared.log.line(Level::Error, &format!("wsredis: loop ends: {error}")),
        Err(_) => shared.log.line(
            Level::Error,
            "wsredis: a bug of wsredis has ended a loop and all its sockets; please report it",
        ),
    }
    if !matches!(ran, Ok(Ok(()))) {
        // The other loops are no use without this one: everybody comes back to another engine.
        stop_all(&shared, 1_000);
    }
    shared.ports[number].ended.store(true, SeqCst);
    // Nobody has seen these; each still gets its HTTP answer.
    for command in shared.ports[number].inbox.close() {
        if let Command::Adopt(newcomer) = command {
            shared.refusals.of(Refusal::Full).add_shared(1);
            let _ = sys::send(&newcomer.adoption.fd, Refusal::Full.answer().as_bytes());
        }
    }
}
