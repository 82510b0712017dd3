//! The functions that make a keeper: be one, have one started, watch it, end it.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem::offset_of;
use std::time::Duration;

use super::config::wsredis_config;
use super::engine::{log_of, wsredis_log_sink};
use super::guard::{guard, object, read_sized, wsredis_status};
use crate::engine::keeper::{self, Command};
use crate::error::{Error, Kind, Result};

/// How a keeper is started: a program that calls `wsredis_keeper_run` with the settings of the ini
/// file that its environment variable `WSREDIS_KEEPER` names, and with `leased` 1 if
/// `WSREDIS_KEEPER_LEASED` is set.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct wsredis_keeper_command {
    /// `sizeof(wsredis_keeper_command)`.
    pub struct_size: usize,
    /// The program, an absolute path, and its arguments; ends with NULL.
    pub argv: *const *const c_char,
    /// The user that it runs as; 0: the caller's.
    pub uid: u32,
    /// The group that it runs as; looked at only with `uid`.
    pub gid: u32,
}

/// What every caller's command has at least: that of the first header.
const COMMAND_SIZE: usize = offset_of!(wsredis_keeper_command, gid) + size_of::<u32>();

/// More arguments than any program here needs: a list without its NULL must end somewhere.
const MAX_ARGUMENTS: usize = 64;

/// The command of C, copied.
///
/// # Safety
/// `command` is NULL or live for as long as it says, and its texts are NUL-terminated.
unsafe fn command_of(command: *const wsredis_keeper_command) -> Result<Command> {
    let wrong = |text: &str| Error::new(Kind::Invalid, text);
    // SAFETY: the caller's promise.
    let command = unsafe { read_sized(command, COMMAND_SIZE, "command")? };
    if command.argv.is_null() {
        return Err(wrong("command.argv is NULL"));
    }
    let mut argv: Vec<CString> = Vec::new();
    loop {
        // SAFETY: the caller's promise: everything up to the NULL is readable.
        let argument = unsafe { *command.argv.add(argv.len()) };
        if argument.is_null() {
            break;
        }
        if argv.len() == MAX_ARGUMENTS {
            return Err(wrong("command.argv has more than 64 arguments, or no NULL at its end"));
        }
        // SAFETY: the caller's promise: it is NUL-terminated.
        argv.push(unsafe { CStr::from_ptr(argument) }.to_owned());
    }
    if argv.first().is_none_or(|program| program.to_bytes().first() != Some(&b'/')) {
        return Err(wrong("command.argv does not begin with an absolute path"));
    }
    Ok(Command { argv, user: (command.uid != 0).then_some((command.uid, command.gid)) })
}

/// Is a keeper until its end: it holds the sockets of every host whose settings have the same
/// `keeper` path. It takes over from a keeper that runs there. SIGTERM, SIGINT and SIGQUIT end it in
/// order: every socket is closed with 1012 within `stop-timeout`. With `leased` 1, and once a host
/// held its lease, it ends when nobody has held one for `keeper-grace`, with 1001.
///
/// For a process of its own: signals are blocked, SIGHUP and SIGPIPE are ignored from here on.
///
/// *Returns:* `OK` at its end; `CONFIG` for settings that do not hold together or have no path;
/// `IO` or `BUSY` if it can not have its place.
///
/// *Ownership:* `config` stays the caller's. `sink` may be NULL: lines go to standard error. It gets
/// what could not be told to a host.
///
/// *Threads:* the process's first, before there are others.
///
/// # Safety
/// `config` is live; `sink` may be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_keeper_run(
    config: *const wsredis_config,
    leased: u8,
    sink: wsredis_log_sink,
    userdata: *mut c_void,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let config = unsafe { object(config, "config")? };
        config.policy()?;
        let sink = sink.map(|_| log_of(sink, userdata, &config.config));
        keeper::run(&config.config, leased != 0, sink)
    })
}

/// Makes sure that the keeper of these settings runs, and holds its lease until this process ends or
/// executes another program; children that it forks hold it, too. A keeper that was built or
/// configured otherwise hands everything over to the new one.
///
/// *Returns:* `STOPPED` if it does not run after `timeout_ms`; the text says why. `CONFIG` without a
/// path; `INVALID`; `IO`.
///
/// *Ownership:* everything stays the caller's. One descriptor stays open, closed on exec.
///
/// *Threads:* any; blocks for at most `timeout_ms` and a few seconds.
///
/// # Safety
/// `config` is live; `command` is as its struct says; `sink` may be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_keeper_start(
    config: *const wsredis_config,
    command: *const wsredis_keeper_command,
    timeout_ms: u32,
    sink: wsredis_log_sink,
    userdata: *mut c_void,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, command) = unsafe { (object(config, "config")?, command_of(command)?) };
        config.policy()?;
        config.config.check(2)?;
        let log = log_of(sink, userdata, &config.config);
        let timeout = Duration::from_millis(timeout_ms.into());
        keeper::start(&config.config, &command, timeout, &log)
    })
}

/// Takes the lease of the keeper of these settings anew, if the keeper that
/// `wsredis_keeper_start` had it of is gone. To be called now and then by who called that.
///
/// *Returns:* `OK` also if it is held already; `STOPPED` if no keeper is there; `BUSY` if it does
/// not accept anybody just now; `CONFIG` without a path.
///
/// *Ownership:* as of `wsredis_keeper_start`.
///
/// *Threads:* any; never blocks.
///
/// # Safety
/// `config` is live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_keeper_hold(config: *const wsredis_config) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let config = unsafe { object(config, "config")? };
        keeper::hold(&config.config)
    })
}

/// Holds a lease of the keeper of these settings, gives its log lines to `sink`, and starts another
/// one when it has died. For a process or thread of its own: it returns only on a wrong argument.
///
/// *Returns:* `CONFIG` without a path; `INVALID`.
///
/// *Ownership:* everything stays the caller's.
///
/// *Threads:* any; blocks for ever.
///
/// # Safety
/// `config` is live; `command` is as its struct says; `sink` may be called from any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_keeper_watch(
    config: *const wsredis_config,
    command: *const wsredis_keeper_command,
    sink: wsredis_log_sink,
    userdata: *mut c_void,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (config, command) = unsafe { (object(config, "config")?, command_of(command)?) };
        keeper::watch(&config.config, &command, &log_of(sink, userdata, &config.config))
    })
}

/// Tells the keeper of these settings to close all sockets with 1012 and to end, and waits for that,
/// at most `timeout_ms` and no longer than its `stop-timeout`.
///
/// *Returns:* `OK` also if none runs; `BUSY` if the time was not enough; `CONFIG` without a path.
///
/// *Ownership:* nothing changes hands.
///
/// *Threads:* any; blocks.
///
/// # Safety
/// `config` is live.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_keeper_stop(
    config: *const wsredis_config,
    timeout_ms: u32,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let config = unsafe { object(config, "config")? };
        keeper::stop(&config.config, Duration::from_millis(timeout_ms.into()))
    })
}
