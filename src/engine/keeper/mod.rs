//! The keeper: the same engine in a process of its own, behind a unix socket, so that sockets
//! outlive the workers, the reloads and the upgrades of their host.
//!
//! A keeper is found by its path, whoever started it. [`Remote`] is the host's end, `door` the
//! keeper's. Here is how a keeper comes to be: [`run`] is the keeper, [`start`] makes sure that one
//! runs, [`watch`] starts another when it has died, [`stop`] ends it in order. A host that holds a
//! lease keeps it alive; without one it ends by itself.

mod door;
mod handover;
mod peer;
mod remote;
mod voice;
mod wire;

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

pub use remote::Remote;

use super::local::Local;
use crate::config::{Config, Keeper, keys};
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::sys;
use door::{Door, End};
use handover::Taken;
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

/// The path, and what makes it this keeper's. Both go to a successor.
struct Entrance {
    path: PathBuf,
    listener: OwnedFd,
    /// Locked for as long as any keeper is at this path.
    lock: OwnedFd,
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
fn greeting(connection: &OwnedFd) -> Result<Welcome> {
    let silent = || Error::new(Kind::Busy, "the keeper says nothing: it stands still");
    if !sys::wait_readable(connection, WELCOME_MS).unwrap_or(false) {
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

fn visit(path: &Path) -> Result<(OwnedFd, Welcome)> {
    let connection = connect(path)?;
    let welcome = greeting(&connection)?;
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
    let path = path_of(config)?.to_owned();
    let signals = sys::end_signals().map_err(|error| Error::io("waiting for signals", &error))?;
    let voice = Voice::new(sink);
    let log = voice.log(config.log_level);
    let identity = Identity::of(config);
    let begin = Instant::now();
    let (predecessor, taken) = take_place(&path, &log)?;
    let handed = begin.elapsed();
    let (Some(listener), Some(lock)) = (taken.listener, taken.lock) else {
        return Err(Error::new(Kind::Io, "there is no way to listen")); // take_place has both.
    };
    let engine = Local::new(config.clone(), log.clone(), Arc::default())?;
    let entrance = Entrance { path, listener, lock };
    let same_redis = taken.redis == identity.redis;
    let mut door = Door::new(entrance, signals, engine, identity, voice, leased)?;
    let path = door.entrance.path.clone();
    let text = format!("wsredis: keeper {} at {}", env!("CARGO_PKG_VERSION"), path.display());
    log.line(Level::Info, &text);
    if let Some(predecessor) = predecessor {
        handover::confirm(&predecessor);
        let count: usize = taken.engine.loops.iter().map(|state| state.sockets.len()).sum();
        for peer in taken.peers {
            door.admit(peer); // Before the sockets: who watches hears of all that happens to them.
        }
        door.engine.import(taken.engine, same_redis)?;
        let took = (begin.elapsed().max(handed)).as_millis();
        log.line(Level::Info, &format!("wsredis: keeper took over {count} sockets in {took} ms"));
    }
    if let End::Closed = door.serve()? {
        // Their absence is what a stopped keeper looks like; nobody else uses them.
        let _ = fs::remove_file(&path);
        let _ = fs::remove_file(lock_path(&path));
    }
    Ok(())
}

/// Finds the place of a new keeper: taken over, or free. The connection to the predecessor, if it
/// has handed over.
fn take_place(path: &Path, log: &Log) -> Result<(Option<OwnedFd>, Taken)> {
    let until = Instant::now() + Duration::from_millis(WELCOME_MS.into());
    loop {
        match visit(path) {
            Ok((keeper, welcome)) if welcome.version == wire::VERSION => {
                let mut taken = handover::take(&keeper, &welcome)?;
                if taken.lock.is_none() {
                    let text = "wsredis: the keeper before this one died while it handed over";
                    log.line(Level::Error, text);
                    (taken.listener, taken.lock) = settle_down(path)?.unzip();
                }
                return Ok((Some(keeper), taken));
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
                let place = replace(path)?;
                tell(&keeper, &Message::Retire)?;
                return Ok((None, place));
            }
            Err(error) if error.kind == Kind::Stopped => {
                if let Some((listener, lock)) = settle_down(path)? {
                    let taken =
                        Taken { listener: Some(listener), lock: Some(lock), ..Taken::default() };
                    return Ok((None, taken));
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

fn lock_path(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    name.into()
}

fn open_lock(path: &Path) -> Result<File> {
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(lock_path(path))
        .map_err(|error| Error::io(&format!("opening {}", lock_path(path).display()), &error))
}

/// Listens at a path where nobody does. `None`: somebody else is about to.
fn settle_down(path: &Path) -> Result<Option<(OwnedFd, OwnedFd)>> {
    let lock = open_lock(path)?;
    if !sys::try_lock(&lock).map_err(|error| Error::io("locking the keeper's path", &error))? {
        return Ok(None);
    }
    // Whoever left it does not run any more: the lock says so.
    let _ = fs::remove_file(path);
    Ok(Some((listen(path)?, lock.into())))
}

fn listen(path: &Path) -> Result<OwnedFd> {
    sys::packet_listen(path)
        .map_err(|error| Error::io(&format!("listening at {}", path.display()), &error))
}

/// Takes the path from a keeper that still listens there.
fn replace(path: &Path) -> Result<Taken> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    let _ = fs::remove_file(&beside);
    let listener = listen(&beside)?;
    let _ = fs::remove_file(lock_path(path)); // The old keeper holds the old file's lock.
    let lock = open_lock(path)?;
    let moved = sys::try_lock(&lock).and_then(|_| fs::rename(&beside, path));
    moved.map_err(|error| Error::io(&format!("taking {}", path.display()), &error))?;
    Ok(Taken { listener: Some(listener), lock: Some(lock.into()), ..Taken::default() })
}

// Having a keeper.

/// Makes sure that the keeper that `config` describes runs: starts it, which takes over from one
/// that was built or configured otherwise. This process holds its lease from here on, until it ends
/// or executes another program.
pub fn start(config: &Config, command: &Command, timeout: Duration, log: &Log) -> Result<()> {
    let path = path_of(config)?;
    let fingerprint = Identity::of(config).fingerprint;
    let until = Instant::now() + timeout;
    let mut launched = false;
    loop {
        let found = visit(path);
        match &found {
            Ok((keeper, welcome)) if welcome.fingerprint == fingerprint => {
                tell(keeper, &Message::Lease { logs: false })?;
                std::mem::forget(found); // Closed with the process: that is what the lease says.
                return Ok(());
            }
            Ok((_, welcome)) if !launched => {
                let text = format!(
                    "wsredis: keeper {} was built or configured otherwise: a new one takes over",
                    welcome.library
                );
                log.line(Level::Info, &text);
            }
            _ => {}
        }
        if !launched {
            launch(config, command)?;
            launched = true;
        }
        if Instant::now() > until {
            let why = match found {
                Err(error) => error.text,
                Ok(_) => "the one that runs was not replaced".into(),
            };
            let text = format!("the keeper has not started in {} s: {why}", timeout.as_secs());
            return Err(Error::new(Kind::Stopped, text));
        }
        thread::sleep(LOOK);
    }
}

/// Holds a lease of the keeper that `config` describes, writes its log lines, and starts another
/// when it has died. Never returns but on an error of its arguments.
pub fn watch(config: &Config, command: &Command, log: &Log) -> Result<()> {
    let path = path_of(config)?;
    let fingerprint = Identity::of(config).fingerprint;
    let mut backoff = FIRST_BACKOFF;
    let mut seen = false;
    loop {
        if let Ok((keeper, welcome)) = visit(path)
            && welcome.fingerprint == fingerprint
            && tell(&keeper, &Message::Lease { logs: true }).is_ok()
        {
            let begin = Instant::now();
            listen_to(&keeper, log);
            log.line(Level::Error, "wsredis: the keeper has ended: starting another");
            seen = true;
            if begin.elapsed() > LONGEST_BACKOFF {
                backoff = FIRST_BACKOFF;
            }
        }
        if let Err(error) = launch(config, command) {
            log.line(Level::Error, &format!("wsredis: the keeper can not be started: {error}"));
        }
        // It has this long to come up; then it is tried again.
        let until = Instant::now() + backoff.max(Duration::from_secs(u64::from(!seen)));
        while Instant::now() < until && !is_there(path, fingerprint) {
            thread::sleep(LOOK);
        }
        backoff = (backoff * 2).min(LONGEST_BACKOFF);
    }
}

fn is_there(path: &Path, fingerprint: u64) -> bool {
    visit(path).is_ok_and(|(_, welcome)| welcome.fingerprint == fingerprint)
}

/// Writes a keeper's log lines until it is gone.
fn listen_to(keeper: &OwnedFd, log: &Log) {
    let mut buffer = Vec::new();
    loop {
        match wire::receive(keeper, &mut buffer) {
            Ok(packet) => {
                if let Ok(Message::Log { level, line }) = packet.message() {
                    log.line(Level::of(level), line);
                }
            }
            Err(Fault::Nothing) => {
                let _ = sys::wait_readable(keeper, u32::MAX >> 1);
            }
            Err(Fault::End | Fault::Garbage(..)) => return,
        }
    }
}

/// Tells the keeper that `config` names to close all sockets with 1012 and to end, and waits for
/// that. OK also if there is none.
pub fn stop(config: &Config, timeout: Duration) -> Result<()> {
    let until = Instant::now() + timeout;
    let (keeper, _) = match visit(path_of(config)?) {
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
                let left = until.saturating_duration_since(Instant::now()).as_millis();
                if left == 0 {
                    return Err(Error::new(Kind::Busy, "the keeper has not ended in time"));
                }
                let _ = sys::wait_readable(&keeper, left as u32);
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
