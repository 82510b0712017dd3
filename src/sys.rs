//! The few system calls std lacks, each behind a safe function.
//!
//! Everything here works on a descriptor that the caller owns. Nothing but [`pause_ms`] blocks;
//! nothing raises SIGPIPE.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use crate::error::{Error, Kind, Result};

/// The process has no descriptor left.
pub const EMFILE: i32 = libc::EMFILE;
/// The system has no descriptor left.
pub const ENFILE: i32 = libc::ENFILE;

/// Unacknowledged bytes end a TCP connection after this many milliseconds: a cable that was pulled
/// under a write.
const TCP_USER_TIMEOUT_MS: libc::c_int = 30_000;

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn get_option(fd: RawFd, level: libc::c_int, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: `value` and `len` outlive the call and `len` is the size of `value`.
    check(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &raw mut len) })?;
    Ok(value)
}

fn set_option(
    fd: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option value is a c_int that outlives the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) })?;
    Ok(())
}

/// Is `fd` a stream socket that is connected (TCP or AF_UNIX) and not listening? The text says what
/// it is instead.
pub fn check_stream_socket(fd: RawFd) -> Result<()> {
    let wrong = |what: &str| Error::new(Kind::Fd, format!("fd {fd} {what}"));
    match get_option(fd, libc::SOL_SOCKET, libc::SO_TYPE) {
        Ok(libc::SOCK_STREAM) => {}
        Ok(_) => return Err(wrong("is not a stream socket")),
        Err(error) => return Err(wrong(&format!("is not a socket: {error}"))),
    }
    if get_option(fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN).is_ok_and(|listens| listens != 0) {
        return Err(wrong("is a listening socket"));
    }
    match get_option(fd, libc::SOL_SOCKET, libc::SO_DOMAIN) {
        Ok(libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX) => Ok(()),
        _ => Err(wrong("is neither TCP nor AF_UNIX")),
    }
}

/// Takes `fd` into ownership.
///
/// The caller gives up the descriptor: nothing else may close it or use it from here on.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller hands over a descriptor that it owns; `check_stream_socket` has seen it
    // open.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Readies an adopted socket: non-blocking, closed on exec, no Nagle delay, and a bound on
/// unacknowledged bytes. The last two do not apply to AF_UNIX and are not errors there.
pub fn prepare_socket(fd: &OwnedFd) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    // SAFETY: fcntl with integer arguments on a descriptor we own.
    unsafe {
        let flags = check(libc::fcntl(raw, libc::F_GETFL))?;
        check(libc::fcntl(raw, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
        let flags = check(libc::fcntl(raw, libc::F_GETFD))?;
        check(libc::fcntl(raw, libc::F_SETFD, flags | libc::FD_CLOEXEC))?;
    }
    let _ = set_option(raw, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
    let _ = set_option(raw, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, TCP_USER_TIMEOUT_MS);
    Ok(())
}

/// Reads what is there; `Ok(0)` is the end of the stream, `WouldBlock` is nothing just now.
pub fn recv(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and length are of one live, writable slice.
        let n = unsafe {
            libc::recv(fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), libc::MSG_DONTWAIT)
        };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Writes what the kernel takes. Never raises SIGPIPE: in a C host its disposition is not ours.
pub fn send(fd: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and length are of one live slice.
        let n = unsafe {
            let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
            libc::send(fd.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags)
        };
        if n >= 0 {
            return Ok(n as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Ends the connection for every holder of the description, also for a child that inherited the
/// descriptor.
pub fn shutdown(fd: &impl AsRawFd) {
    // SAFETY: shutdown takes integers only; an error means that the peer was faster.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Says that nothing more will be sent, and goes on reading.
pub fn shutdown_write(fd: &impl AsRawFd) {
    // SAFETY: as in `shutdown`.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// Makes the coming close a reset: for a peer that does not read, so that the kernel keeps nothing
/// for it.
pub fn reset_on_close(fd: &impl AsRawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option value is a `linger` that outlives the call.
    unsafe {
        libc::setsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_LINGER,
            (&raw const linger).cast(),
            size_of::<libc::linger>() as libc::socklen_t,
        )
    };
}

/// Blocks all signals of the calling thread: they are the host's, and a loop must not be
/// interrupted by them.
pub fn block_signals() {
    // SAFETY: `set` is initialised by sigfillset before it is read.
    unsafe {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(set.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
    }
}

/// 64 random bits from the kernel. Safe after a fork, unlike a generator that lives in the process.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the pointer and length are of one live, writable array. Reads of up to 256 bytes are
    // never short.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(n, 8, "getrandom of 8 bytes is never short");
    u64::from_ne_bytes(bytes)
}

/// The soft limit of open descriptors.
pub fn max_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    match check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) }) {
        Ok(_) => limit.rlim_cur,
        Err(_) => 1024,
    }
}

/// A counter that poll(2) can wait for: non-blocking, closed on exec.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes integers; the result is checked and owned by nobody else.
    unsafe {
        let fd = check(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Makes an [`event_fd`] readable.
pub fn event_fd_ring(fd: &OwnedFd) {
    let one: u64 = 1;
    // SAFETY: eight bytes of a live integer. It fails only when the counter is full, and then it is
    // readable.
    unsafe { libc::write(fd.as_raw_fd(), (&raw const one).cast(), 8) };
}

/// Makes an [`event_fd`] unreadable again.
pub fn event_fd_drain(fd: &OwnedFd) {
    let mut count: u64 = 0;
    // SAFETY: eight bytes of a live, writable integer. It fails only when there is nothing to read.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
}

/// Sleeps a moment; async-signal-safe, unlike the clock of std, and so allowed in a host's exit
/// handler.
pub fn pause_ms(ms: u32) {
    // SAFETY: poll with no descriptors is a plain sleep.
    unsafe { libc::poll(std::ptr::null_mut(), 0, ms as libc::c_int) };
}

/// The calling process.
pub fn process_id() -> u32 {
    std::process::id()
}
