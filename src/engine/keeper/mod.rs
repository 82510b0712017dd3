//! The keeper: the same engine in a process of its own, behind a unix socket, so that sockets
//! outlive the workers, the reloads and the upgrades of their host.
//!
//! A keeper is found by its path, whoever started it. [`Remote`] is the host's end, `door` the
//! keeper's. Here is how a keeper comes to be: [`run`] is the keeper, [`start`] makes sure that one
//! runs, [`watch`] starts another when it has died, [`stop`] ends it in order. A host that holds a
//! lease keeps it alive; without one it ends by itself.

mod door;
mod ending;
mod handover;
mod peer;
mod place;
mod remote;
mod voice;
/// Reachable for `fuzz/` only; no part of what this library promises.
#[doc(hidden)]
pub mod wire;

use std::ffi::{CString, OsString};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub use remote::Remote;

use super::local::Local;
use crate::config::{Config, Keeper, keys};
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::sys;
use door::Door;
use handover::Taken;
use place::Place;
use voice::Voice;
use wire::{Fault, Message};

/// Two builds of one version are told apart.
const BUILD: &str = env!("WSREDIS_BUILD");
/// How long a keeper has to say its first word.
const WELCOME_MS: u32 = 5_000;
/// How long to wait between two looks at whether a keeper is there.
const LOOK: Duration = Duration::from_millis(5);
/// A keeper that does not stay up is started again after this, doubled each time, at most
/// [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// One that is not replaced is tried again after at most this.
const UPGRADE_BACKOFF: Duration = Duration::from_secs(60);
/// How long a keeper has to come up before it is started again.
const AGAIN: Duration = Duration::from_secs(2);
/// The variables of the host's environment that a keeper gets. Nothing else of an app is its business.
const VARIABLES: &[&str] = &[
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
    "LOCALDOMAIN",
    "RES_OPTIONS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "RUST_BACKTRACE",
    "ASAN_OPTIONS",
];
/// Names the ini file of the keeper that a process is to be.
const INI: &str = "WSREDIS_KEEPER";
/// Set if it is to end when nobody holds its lease, also if nobody ever does.
const LEASED: &str = "WSREDIS_KEEPER_LEASED";

/// What tells keepers apart.
struct Identity {
    library: &'static str,
    /// Equal only if another keeper would do the same.
    fingerprint: u64,
    /// Equal only if another keeper can hear on where this one stops: the same channels of the same
    /// Redis in as many loops.
    redis: u64,
}

impl Identity {
    fn of(config: &Config) -> Self {
        // What only the host looks at does not make another keeper.
        let of_the_host = ["keeper", "allowed-origins", "trusted-proxies"];
        let digest = |keys: &mut dyn Iterator<Item = &str>| {
            let mut hasher = DefaultHasher::new();
            for key in keys {
                (key, config.text(key)).hash(&mut hasher);
            }
            hasher
        };
        let mut all =
            digest(&mut keys().iter().map(|key| key.name).filter(|key| !of_the_host.contains(key)));
        BUILD.hash(&mut all);
        // On the embedded broker nothing is missed meanwhile, whatever the number of loops.
        let redis = match config.redis_url {
            Some(_) => digest(&mut ["redis-url", "channel-prefix", "loops"].into_iter()),
            None => digest(&mut ["redis-url"].into_iter()),
        };
        Identity {
            library: env!("CARGO_PKG_VERSION"),
            fingerprint: all.finish(),
            redis: redis.finish(),
        }
    }
}

/// How a keeper is started: a program that calls [`run`], with the variable `WSREDIS_KEEPER` as the
/// path of its ini file.
pub struct Command {
    /// The program and its arguments.
    pub argv: Vec<CString>,
    /// The user and group that it runs as, if not the caller's.
    pub user: Option<(u32, u32)>,
}

/// What a keeper says first.
struct Welcome {
    /// Of the messages.
    version: u8,
    library: String,
    fingerprint: u64,
    process: u32,
}

fn path_of(config: &Config) -> Result<&Path> {
    match &config.keeper {
        Keeper::At(path) => Ok(path),
        _ => Err(Error::new(Kind::Config, "a keeper needs a path: set keeper = /run/…")),
    }
}

/// Opens a connection to the keeper at `path`, without waiting.
fn connect(path: &Path) -> Result<OwnedFd> {
    let at = path.display();
    let connection = sys::packet_connect(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            Error::new(Kind::Stopped, format!("no keeper listens at {at}"))
        }
        io::ErrorKind::WouldBlock => {
            Error::new(Kind::Busy, format!("the keeper at {at} is busy or stands still"))
        }
        _ => Error::io(&format!("connecting to the keeper at {at}"), &error),
    })?;
    if sys::user_id() != 0 {
        check_user(&connection)?; // Root may have a keeper of another user.
    }
    Ok(connection)
}

/// Is the other side a process of this user, or of root?
fn check_user(connection: &OwnedFd) -> Result<()> {
    match sys::peer_credentials(connection) {
        Ok((_, user)) if user == sys::user_id() || user == 0 => Ok(()),
        Ok((process, user)) => {
            let text = format!("process {process} at the keeper's path is of user {user}");
            Err(Error::new(Kind::Invalid, text))
        }
        Err(error) => Err(Error::io("asking whose process it is", &error)),
    }
}

/// The other side's queue, or what this user may have under way, is full.
fn is_full(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(sys::ETOOMANYREFS)
}

/// Waits for a keeper's first word.
fn greeting(connection: &OwnedFd, patience_ms: u32) -> Result<Welcome> {
    let silent = || Error::new(Kind::Busy, "the running keeper says nothing: it stands still");
    if !sys::wait_readable(connection, patience_ms).unwrap_or(false) {
        return Err(silent());
    }
    let packet = wire::receive(connection, &mut Vec::new()).map_err(|fault| match fault {
        Fault::Nothing => silent(),
        Fault::End => Error::new(Kind::Stopped, "the keeper has closed the connection"),
        Fault::Garbage(why, _) => Error::new(Kind::Io, why),
    })?;
    match packet.message() {
        Ok(Message::Welcome { library, fingerprint, process }) => Ok(Welcome {
            version: packet.version(),
            library: library.to_owned(),
            fingerprint,
            process,
        }),
        _ => Err(Error::new(Kind::Io, "what answers at the keeper's path is no keeper")),
    }
}

/// Finds the keeper at `path`, and waits so long for its first word.
fn visit(path: &Path, patience_ms: u32) -> Result<(OwnedFd, Welcome)> {
    let connection = connect(path)?;
    let welcome = greeting(&connection, patience_ms)?;
    Ok((connection, welcome))
}

/// Sends a small message to a keeper.
fn tell(keeper: &OwnedFd, message: &Message) -> Result<()> {
    wire::send(keeper, message, &[]).map_err(|error| Error::io("telling the keeper", &error))
}

// Being the keeper.

/// Is the keeper that `config` describes, until its end: takes over from the one that runs there,
/// if there is one. `leased`: it ends when nobody holds its lease for `keeper-grace`, also if nobody
/// ever does. The process must be its own: signals are blocked. `sink`, or standard error, is its
/// log while no lease wants the lines.
pub fn run(config: &Config, leased: bool, sink: Option<Log>) -> Result<()> {
    sys::fill_standard_descriptors();
    let path = path_of(config)?.to_owned();
    let signals = sys::end_signals().map_err(|error| Error::io("waiting for signals", &error))?;
    let voice = Voice::new(sink);
    let log = voice.log(config.log_level);
    let identity = Identity::of(config);
    let begin = Instant::now();
    let (place, taken) = take_place(&path, &log)?;
    let engine = Local::new(config.clone(), log.clone(), Arc::default())?;
    let same_redis = taken.as_ref().is_some_and(|(_, taken)| taken.redis == identity.redis);
    let mut door = Door::new(place, signals, engine, identity, voice, leased)?;
    let text = format!("wsredis: keeper {} at {}", env!("CARGO_PKG_VERSION"), path.display());
    log.line(Level::Info, &text);
    if let Some((predecessor, taken)) = taken {
        handover::confirm(&predecessor);
        let count: usize = taken.engine.loops.iter().map(|state| state.sockets.len()).sum();
        for peer in taken.peers {
            door.admit(peer); // Before the sockets: who watches hears of all that happens to them.
        }
        if let Err(error) = door.engine.import(taken.engine, same_redis) {
            log.line(Level::Error, &format!("wsredis: taking sockets over: {error}"));
        }
        let took = begin.elapsed().as_millis();
        log.line(Level::Info, &format!("wsredis: keeper took over {count} sockets in {took} ms"));
    }
    door.serve().map(drop)
}

/// Finds the place of a new keeper: handed over with everything else, or free.
fn take_place(path: &Path, log: &Log) -> Result<(Place, Option<(OwnedFd, Taken)>)> {
    let until = Instant::now() + Duration::from_millis(WELCOME_MS.into());
    // What a predecessor gave that died before it gave its place.
    let mut inherited = None;
    loop {
        match visit(path, WELCOME_MS) {
            Ok((keeper, welcome)) if welcome.version == wire::VERSION => {
                if let Some(mut taken) = handover::take(&keeper, &welcome)? {
                    if let (Some(listener), Some(lock)) = (taken.listener.take(), taken.lock.take())
                    {
                        let place = Place { path: path.to_owned(), listener, lock };
                        return Ok((place, Some((keeper, taken))));
                    }
                    let text = "wsredis: the keeper before this one died while it handed over";
                    log.line(Level::Error, text);
                    inherited = Some((keeper, taken));
                }
            }
            Ok((keeper, welcome)) => {
                log.line(
                    Level::Warn,
                    &format!(
                        "wsredis: the keeper of version {} can not hand its sockets over to this \
                         one: their browsers are told to come back",
                        welcome.library
                    ),
                );
                let place = Place::replace(path)?;
                let _ = tell(&keeper, &Message::Retire); // It may have ended just now.
                return Ok((place, None));
            }
            Err(error) if error.kind == Kind::Stopped => {
                if let Some(place) = Place::settle_down(path)? {
                    return Ok((place, inherited));
                }
            }
            Err(error) if error.kind == Kind::Busy && Instant::now() < until => {}
            Err(error) => return Err(error),
        }
        if Instant::now() > until {
            let text = format!("another keeper is starting or ending at {}", path.display());
            return Err(Error::new(Kind::Busy, text));
        }
        thread::sleep(LOOK);
    }
}

// Having a keeper.

/// The lease that this process holds: closed with it, or when it executes another program. Children
/// that it forks hold it, too.
static LEASE: Mutex<Option<OwnedFd>> = Mutex::new(None);

/// Makes sure that the keeper that `config` describes runs: starts it, which takes over from one
/// that was built or configured otherwise. This process holds its lease from here on; if the one
/// that runs can not be replaced, of that one.
pub fn start(config: &Config, command: &Command, timeout: Duration, log: &Log) -> Result<()> {
    let path = path_of(config)?;
    let fingerprint = Identity::of(config).fingerprint;
    let until = Instant::now() + timeout;
    let mut launched: Option<Instant> = None;
    loop {
        let found = visit(path, left_of(until));
        match &found {
            Ok((_, welcome)) if welcome.fingerprint != fingerprint && launched.is_none() => {
                let text = format!(
                    "wsredis: keeper {} was built or configured otherwise: a new one takes over",
                    welcome.library
                );
                log.line(Level::Info, &text);
            }
            _ => {}
        }
        let is_late = Instant::now() >= until;
        let why = match found {
            Ok((keeper, welcome)) if is_late || welcome.fingerprint == fingerprint => {
                tell(&keeper, &Message::Lease { logs: false })?;
                *LEASE.lock() = Some(keeper);
                if welcome.fingerprint == fingerprint {
                    return Ok(());
                }
                "the one that runs was not replaced and goes on".into()
            }
            Ok(_) => String::new(),
            Err(error) => error.text,
        };
        if is_late {
            let text = format!("the keeper has not started in {} s: {why}", timeout.as_secs());
            return Err(Error::new(Kind::Stopped, text));
        }
        // Once more if it has not come up: it may have met one that was just ending.
        if launched.is_none_or(|at| at.elapsed() > AGAIN) {
            launch(config, command)?;
            launched = Some(Instant::now());
        }
        thread::sleep(LOOK);
    }
}

/// Takes the lease anew if the keeper that had it is gone. Never waits.
pub fn hold(config: &Config) -> Result<()> {
    let path = path_of(config)?;
    let mut lease = LEASE.lock();
    if let Some(keeper) = &*lease {
        let mut buffer = Vec::new();
        loop {
            match wire::receive(keeper, &mut buffer) {
                Ok(_) => {}
                Err(Fault::Nothing) => return Ok(()),
                Err(Fault::End | Fault::Garbage(..)) => break,
            }
        }
        *lease = None;
    }
    let keeper = connect(path)?;
    tell(&keeper, &Message::Lease { logs: false })?;
    *lease = Some(keeper);
    Ok(())
}

/// Holds a lease of the keeper that `config` describes, writes its log lines, and starts another
/// when it has died. Never returns but on an error of its arguments.
pub fn watch(config: &Config, command: &Command, log: &Log) -> Result<()> {
    let path = path_of(config)?;
    let fingerprint = Identity::of(config).fingerprint;
    let mut backoff = FIRST_BACKOFF;
    loop {
        let found = visit(path, WELCOME_MS);
        let is_ours = found.as_ref().is_ok_and(|(_, found)| found.fingerprint == fingerprint);
        if !is_ours && let Err(error) = launch(config, command) {
            log.line(Level::Error, &format!("wsredis: the keeper can not be started: {error}"));
        }
        match found {
            // Also of one that is to be replaced: it must not end before.
            Ok((keeper, _)) if tell(&keeper, &Message::Lease { logs: true }).is_ok() => {
                let begin = Instant::now();
                let patience = (!is_ours).then_some(backoff.max(AGAIN));
                if listen_to(&keeper, log, patience) {
                    log.line(Level::Error, "wsredis: the keeper has ended: starting another");
                }
                if is_ours && begin.elapsed() > LONGEST_BACKOFF {
                    backoff = FIRST_BACKOFF;
                    continue;
                }
            }
            _ => {
                let until = Instant::now() + backoff.max(AGAIN);
                while Instant::now() < until && connect(path).is_err() {
                    thread::sleep(LOOK);
                }
            }
        }
        backoff = (backoff * 2).min(if is_ours { LONGEST_BACKOFF } else { UPGRADE_BACKOFF });
        if is_ours {
            thread::sleep(backoff);
        }
    }
}

fn left_of(until: Instant) -> u32 {
    until.saturating_duration_since(Instant::now()).as_millis() as u32
}

/// Writes a keeper's log lines, for so long or until it is gone. Returns whether it is.
fn listen_to(keeper: &OwnedFd, log: &Log, patience: Option<Duration>) -> bool {
    let until = patience.map(|patience| Instant::now() + patience);
    let mut buffer = Vec::new();
    loop {
        match wire::receive(keeper, &mut buffer) {
            Ok(packet) => {
                if let Ok(Message::Log { level, line }) = packet.message() {
                    log.line(Level::of(level), line);
                }
            }
            Err(Fault::Nothing) => {
                let left = until.map_or(u32::MAX >> 1, left_of);
                if left == 0 {
                    return false;
                }
                let _ = sys::wait_readable(keeper, left);
            }
            Err(Fault::End | Fault::Garbage(..)) => return true,
        }
    }
}

/// Tells the keeper that `config` names to close all sockets with 1012 and to end, and waits for
/// that. OK also if there is none.
pub fn stop(config: &Config, timeout: Duration) -> Result<()> {
    let until = Instant::now() + timeout;
    let (keeper, _) = match visit(path_of(config)?, left_of(until)) {
        Ok(found) => found,
        Err(error) if error.kind == Kind::Stopped => return Ok(()),
        Err(error) => return Err(error),
    };
    let timeout_ms = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    tell(&keeper, &Message::Stop { timeout_ms })?;
    let mut buffer = Vec::new();
    loop {
        match wire::receive(&keeper, &mut buffer) {
            Ok(_) => {}
            Err(Fault::End | Fault::Garbage(..)) => return Ok(()),
            Err(Fault::Nothing) => {
                let left = left_of(until);
                if left == 0 {
                    return Err(Error::new(Kind::Busy, "the keeper has not ended in time"));
                }
                let _ = sys::wait_readable(&keeper, left);
            }
        }
    }
}

fn launch(config: &Config, command: &Command) -> Result<()> {
    let failed = |error: io::Error| Error::io("starting the keeper", &error);
    let ini = sys::memory_file(&[config.ini().as_bytes()]).map_err(failed)?;
    let mut env: Vec<(OsString, OsString)> = VARIABLES
        .iter()
        .filter_map(|name| Some((OsString::from(name), std::env::var_os(name)?)))
        .collect();
    env.push((INI.into(), "/proc/self/fd/0".into()));
    env.push((LEASED.into(), "1".into()));
    let launch =
        sys::Launch { argv: &command.argv, env: &env, stdin: Some(ini), user: command.user };
    sys::launch(launch).map_err(failed)
}
