//! The functions of `wsredis_engine`.

use std::ffi::{c_char, c_void};
use std::mem::offset_of;
use std::os::fd::IntoRawFd;
use std::sync::Arc;

use super::config::wsredis_config;
use super::guard::{
    copy_whole, guard, guard_or, object, put, read_sized, room, slice, text, wsredis_status,
};
use crate::config::Config;
use crate::engine::{Adoption, Engine, Who};
use crate::error::{Error, Kind, Result};
use crate::log::{Level, Log};
use crate::sys;

/// What holds the sockets. Made by `wsredis_engine_start`, freed by `wsredis_engine_free`. It
/// belongs to the process that started it: after a fork, in the child, its functions return
/// `WRONG_PROCESS`.
pub struct wsredis_engine {
    engine: Engine,
    process: u32,
}

/// The engine behind a handle of C, in the process that it belongs to.
///
/// # Safety
/// `pointer` is NULL or a live engine.
pub(super) unsafe fn engine_of<'a>(pointer: *const wsredis_engine) -> Result<&'a Engine> {
    // SAFETY: the caller's promise.
    let engine = unsafe { object(pointer, "engine")? };
    if engine.process != std::process::id() {
        // Its locks may have been held by threads that this process does not have.
        let text = "the engine was started in another process: start it after the fork";
        return Err(Error::new(Kind::WrongProcess, text));
    }
    Ok(&engine.engine)
}

/// Where log lines go: `level` is 1 error, 2 warning, 3 information, 4 debug; `line` has `line_len`
/// bytes of UTF-8, no line end and no NUL. Called with no lock held, also on the engine's own
/// threads; it must not block, not call wsredis, and not unwind (no exception, no longjmp).
pub type wsredis_log_sink = Option<
    unsafe extern "C" fn(userdata: *mut c_void, level: u8, line: *const c_char, line_len: usize),
>;

/// A sink of C and its userdata.
struct Sink(unsafe extern "C" fn(*mut c_void, u8, *const c_char, usize), *mut c_void);

// SAFETY: the header asks for a sink that any thread may call; the userdata is only ever handed
// back to it.
unsafe impl Send for Sink {}
// SAFETY: as above.
unsafe impl Sync for Sink {}

impl Sink {
    fn call(&self, level: Level, line: &str) {
        // SAFETY: the sink and its userdata live as long as the engine: the header says so.
        unsafe { (self.0)(self.1, level as u8, line.as_ptr().cast(), line.len()) }
    }
}

/// The log that `sink` stands for.
pub(super) fn log_of(sink: wsredis_log_sink, userdata: *mut c_void, config: &Config) -> Log {
    match sink {
        Some(sink) => {
            let sink = Sink(sink, userdata);
            Log::new(Arc::new(move |level, line: &str| sink.call(level, line)), config.log_level)
        }
        None => Log::none(),
    }
}

/// Starts an engine with a copy of `config`. Its threads, descriptors and connections come with the
/// first adopt or publish, so this never waits for Redis. If `config` has `keeper` as a path, the
/// engine is the keeper's there: the functions and the ownership are the same, and none of them
/// waits for the keeper, but `send`, `kick`, `stats` and `health` for its answer, at most a second.
/// `sink` may be NULL: then nothing is logged.
///
/// *Returns:* `CONFIG` if the settings do not hold together.
///
/// *Ownership:* `*out_engine` is the caller's, to be freed by `wsredis_engine_free`. `config` stays
/// the caller's. `sink` and `userdata` must live until the engine is freed.
///
/// *Threads:* any.
///
/// # Safety
/// `config` is live; `out_engine` has room; `sink` may be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_start(
    config: *const wsredis_config,
    sink: wsredis_log_sink,
    userdata: *mut c_void,
    out_engine: *mut *mut wsredis_engine,
) -> wsredis_status {
    guard(|| {
        room(out_engine, "out_engine")?;
        // SAFETY: the caller's promise.
        let config = unsafe { object(config, "config")? };
        config.policy()?;
        let log = log_of(sink, userdata, &config.config);
        let engine = Engine::new(config.config.clone(), log, Arc::clone(&config.refusals))?;
        let engine = wsredis_engine { engine, process: std::process::id() };
        // SAFETY: the caller's promise.
        unsafe { put(out_engine, Box::into_raw(Box::new(engine)), "out_engine") }
    })
}

/// A socket that the host hands over.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct wsredis_adoption {
    /// `sizeof(wsredis_adoption)`.
    pub struct_size: usize,
    /// The connection: a TCP or AF_UNIX stream socket whose request was read and not answered.
    pub fd: i32,
    /// 1: return every message as it came; the grant must be `{}`.
    pub mirror: u8,
    /// The grant, JSON.
    pub grant: *const c_char,
    /// Its length.
    pub grant_len: usize,
    /// The 101 of `wsredis_handshake_answer`. The engine reads from it what was agreed with the
    /// browser.
    pub answer: *const c_char,
    /// Its length.
    pub answer_len: usize,
    /// What the host has read behind the request; may be NULL.
    pub leftover: *const u8,
    /// Its length.
    pub leftover_len: usize,
    /// The browser's address as text, for limits; may be empty.
    pub remote_address: *const c_char,
    /// Its length.
    pub remote_address_len: usize,
    /// The request's Host, for logs; may be empty.
    pub host: *const c_char,
    /// Its length.
    pub host_len: usize,
    /// A digest of the request's path, for statistics by route; 0 if none.
    pub path_digest: u64,
}

/// What every caller's adoption has at least: that of the first header.
const ADOPTION_SIZE: usize = offset_of!(wsredis_adoption, path_digest) + size_of::<u64>();

/// Hands a socket over. The engine writes the answer once the socket's channels are heard, or
/// writes a 503 itself if the socket does not fit. Never blocks on the network.
///
/// *Returns:* `FD` if `fd` is no stream socket, or a listening one; `GRANT`; `INVALID` for an
/// answer that is no 101; `BUSY` if the loop's inbox or the keeper's queue is full; `STOPPED`, also
/// if no keeper is there; `UNSUPPORTED` if it is of another version; `WRONG_PROCESS`; `NO_FILE` or
/// `IO` if the engine could not begin or the keeper not be reached. After `OK` a keeper may still
/// refuse the socket by the limits of its own settings: it answers 503, and logs and counts it
/// there.
///
/// *Ownership:* on `OK` the descriptor is the engine's: the host must not use or close it. On an
/// error it is still the host's, nothing was written, and the host should answer 503. Everything
/// else is copied.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live; the texts are as long as they say; nobody else uses `fd`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_adopt(
    engine: *mut wsredis_engine,
    adoption: *const wsredis_adoption,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (engine, a) =
            unsafe { (engine_of(engine)?, read_sized(adoption, ADOPTION_SIZE, "adoption")?) };
        // SAFETY: the caller's promise.
        let (grant, answer, leftover, address, host) = unsafe {
            (
                slice(a.grant.cast::<u8>(), a.grant_len, "grant")?,
                slice(a.answer.cast::<u8>(), a.answer_len, "answer")?,
                slice(a.leftover, a.leftover_len, "leftover")?,
                text(a.remote_address, a.remote_address_len, "remote_address")?,
                text(a.host, a.host_len, "host")?,
            )
        };
        if a.mirror > 1 {
            return Err(Error::new(Kind::Invalid, "mirror is 0 or 1"));
        }
        sys::check_stream_socket(a.fd)?;
        let adoption = Adoption {
            fd: sys::own(a.fd),
            grant: grant.to_vec(),
            answer: answer.to_vec(),
            leftover: leftover.to_vec(),
            remote_address: address.to_owned(),
            host: host.to_owned(),
            path_digest: a.path_digest,
            mirror: a.mirror == 1,
        };
        engine.adopt(adoption).map_err(|(error, adoption)| {
            let _ = adoption.fd.into_raw_fd(); // Still the host's.
            error
        })
    })
}

/// Publishes a message to everyone who hears `channel`: in this engine, and with Redis everywhere.
///
/// *Returns:* `OK` when it is queued; messages of one channel keep their order. `INVALID` for a bad
/// channel name; `LIMIT` for a payload that is too large; `BUSY` if a queue is full, also the
/// keeper's; `STOPPED`, also if no keeper is there; `UNSUPPORTED` if it is of another version;
/// `WRONG_PROCESS`; `NO_FILE`; `IO`. After `OK` a keeper may still drop the message by the limits
/// of its own settings, and logs and counts it there.
///
/// *Ownership:* channel and payload are copied.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live; channel and payload are as long as they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_publish(
    engine: *mut wsredis_engine,
    channel: *const c_char,
    channel_len: usize,
    payload: *const u8,
    payload_len: usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let channel = text(channel, channel_len, "channel")?;
            let payload = slice(payload, payload_len, "payload")?;
            engine_of(engine)?.publish(channel, payload)
        }
    })
}

/// Sends a message to one socket, past all channels: a text frame if it is UTF-8, else a binary
/// one.
///
/// *Returns:* `OK` when it is queued, also if the socket is gone meanwhile; `NOT_FOUND` for an id
/// that is not of this engine; `BUSY`; `STOPPED`; `WRONG_PROCESS`.
///
/// *Ownership:* id and payload are copied.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live; id and payload are as long as they say.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_send(
    engine: *mut wsredis_engine,
    socket_id: *const c_char,
    socket_id_len: usize,
    payload: *const u8,
    payload_len: usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let id = text(socket_id, socket_id_len, "socket_id")?;
            let payload = slice(payload, payload_len, "payload")?;
            engine_of(engine)?.send(id, payload)
        }
    })
}

/// Whose sockets `wsredis_engine_kick` closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum wsredis_who {
    /// The socket with this id.
    WSREDIS_WHO_SOCKET = 0,
    /// All sockets whose grant has this `user`.
    WSREDIS_WHO_USER = 1,
    /// All sockets whose grant has this `session`.
    WSREDIS_WHO_SESSION = 2,
    /// All sockets that hear this channel.
    WSREDIS_WHO_CHANNEL = 3,
}

/// Closes sockets of this engine with 4403.
///
/// *Returns:* `OK` when it is queued, also if there are none; `INVALID` for a `who` that is no
/// `wsredis_who`; `NOT_FOUND` for a socket id that is not of this engine; `BUSY`; `STOPPED`;
/// `WRONG_PROCESS`.
///
/// *Ownership:* the value is copied.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live; the value is as long as it says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_kick(
    engine: *mut wsredis_engine,
    who: u32,
    value: *const c_char,
    value_len: usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (engine, value) = unsafe { (engine_of(engine)?, text(value, value_len, "value")?) };
        let who = match who {
            0 => Who::Socket(value.into()),
            1 => Who::User(value.into()),
            2 => Who::Session(value.into()),
            3 => Who::Channel(value.into()),
            _ => return Err(Error::new(Kind::Invalid, "who is no wsredis_who")),
        };
        engine.kick(&who)
    })
}

/// Writes the engine's counters to `buf`: one JSON object, NUL-terminated. Before the first adopt
/// or publish all are 0.
///
/// *Returns:* `LIMIT` if `buf_len` is too small; 4096 bytes are enough. Of a keeper also `BUSY` if
/// it does not answer; `STOPPED` if it is gone; `UNSUPPORTED`; `WRONG_PROCESS`; `NO_FILE`; `IO`.
///
/// *Ownership:* nothing is kept.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live; `buf` has `buf_len` bytes; `out_len` has room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_stats(
    engine: *const wsredis_engine,
    buf: *mut c_char,
    buf_len: usize,
    out_len: *mut usize,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        unsafe {
            let stats = engine_of(engine)?.stats()?;
            copy_whole(stats.as_bytes(), buf, buf_len, out_len)
        }
    })
}

/// Does the engine hear every channel it should?
///
/// *Returns:* `OK`, or `UNHEALTHY` with the reason as the last error's text; `STOPPED`;
/// `WRONG_PROCESS`; of a keeper also `BUSY` if it does not answer; `UNSUPPORTED`; `NO_FILE`; `IO`.
///
/// *Ownership:* nothing changes hands.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_health(engine: *const wsredis_engine) -> wsredis_status {
    // SAFETY: the caller's promise.
    guard(|| unsafe { engine_of(engine)?.health() })
}

/// Closes all sockets with 1012 and waits until the engine has ended, at most `timeout_ms` and no
/// longer than the key `stop-timeout`. An engine in a keeper is only let go of: it and its sockets
/// stay. Later calls return `STOPPED`. Async-signal-safe: it may be called from a signal handler or
/// an exit handler.
///
/// *Returns:* `BUSY` if the time was not enough; the engine ends all the same. `WRONG_PROCESS`.
/// There is no text for its errors.
///
/// *Ownership:* `engine` stays the caller's, to be freed.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_stop(
    engine: *mut wsredis_engine,
    timeout_ms: u32,
) -> wsredis_status {
    // No guard and no text: both could allocate, and nothing here can panic.
    // SAFETY: the caller's promise; NULL is checked here.
    match unsafe { engine.as_ref() } {
        None => wsredis_status::WSREDIS_STATUS_INVALID,
        Some(engine) if engine.process != std::process::id() => {
            wsredis_status::WSREDIS_STATUS_WRONG_PROCESS
        }
        Some(engine) if engine.engine.stop(timeout_ms) => wsredis_status::WSREDIS_STATUS_OK,
        Some(_) => wsredis_status::WSREDIS_STATUS_BUSY,
    }
}

/// Frees an engine; what still runs is stopped at once. NULL is allowed. In another process than
/// the one that started it, the memory is left as it is on purpose: it is not that process's.
///
/// *Ownership:* `engine` is gone.
///
/// *Threads:* one at a time; no other function of this engine may run or follow. Not from a log
/// sink.
///
/// # Safety
/// `engine` is NULL or was made by `wsredis_engine_start` and not freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_free(engine: *mut wsredis_engine) {
    guard_or((), || {
        if engine.is_null() {
            return;
        }
        // SAFETY: the caller's promise: it came from `Box::into_raw` and is freed once.
        let engine = unsafe { Box::from_raw(engine) };
        if engine.process != std::process::id() {
            std::mem::forget(engine);
        }
    });
}
