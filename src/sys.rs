//! The few system calls std lacks, each behind a safe function.
//!
//! In order: stream sockets, packet sockets, files in memory, waiting, signals, the process and
//! others. Everything here works on a descriptor that the caller owns. Nothing blocks but
//! [`pause_ms`], `wait_…` and [`launch`], each bounded; nothing raises SIGPIPE.
#![allow(unsafe_code)]

use std::ffi::{CString, OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, IoSlice, Seek, Write};
use std::mem::{ManuallyDrop, zeroed};
use std::os::unix::prelude::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use libc::{F_SEAL_GROW, F_SEAL_SEAL, F_SEAL_SHRINK, F_SEAL_WRITE, SCM_RIGHTS, SOL_SOCKET, c_int};

use crate::error::{Error, Kind, Result};

/// No descriptor is left in the process, in the system, on the way in messages; no such process.
pub use libc::{EMFILE, ENFILE, ESRCH, ETOOMANYREFS};

/// Unacknowledged bytes end a TCP connection after this long: a cable was pulled under a write.
const TCP_USER_TIMEOUT_MS: c_int = 30_000;

/// How everything is sent: without waiting, nor SIGPIPE, whose disposition is a C host's.
const SEND: c_int = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes the descriptor that a system call just made.
fn made(result: c_int) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is new: nobody else knows it.
    check(result).map(|fd| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a system call again for as long as a signal interrupts it.
fn retried(mut call: impl FnMut() -> isize) -> io::Result<usize> {
    loop {
        match usize::try_from(call()).map_err(|_| io::Error::last_os_error()) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// The value of an option, of a type that consists of integers.
fn get_option<T>(fd: RawFd, level: c_int, name: c_int) -> io::Result<T> {
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: all zeros are a value of each `T` below; it and its size outlive the call.
    unsafe {
        let mut value: T = zeroed();
        let to = (&raw mut value).cast();
        check(libc::getsockopt(fd, level, name, to, &raw mut len)).map(|_| value)
    }
}

fn set_option<T>(fd: RawFd, level: c_int, name: c_int, value: &T) -> io::Result<()> {
    let len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the option value outlives the call and `len` is its size.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const *value).cast(), len) }).map(drop)
}

/// Is `fd` a stream socket that is connected (TCP or AF_UNIX) and not listening? The text says what
/// it is instead.
pub fn check_stream_socket(fd: RawFd) -> Result<()> {
    let wrong = |what: &str| Error::new(Kind::Fd, format!("fd {fd} {what}"));
    let option = |name| get_option::<c_int>(fd, SOL_SOCKET, name);
    // That answers two questions at once.
    if !option(libc::SO_PROTOCOL).is_ok_and(|protocol| protocol == libc::IPPROTO_TCP) {
        match option(libc::SO_TYPE) {
            Ok(libc::SOCK_STREAM) => {}
            Ok(_) => return Err(wrong("is not a stream socket")),
            Err(error) => return Err(wrong(&format!("is not a socket: {error}"))),
        }
        match option(libc::SO_DOMAIN) {
            Ok(libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX) => {}
            _ => return Err(wrong("is neither TCP nor AF_UNIX")),
        }
    }
    if option(libc::SO_ACCEPTCONN).is_ok_and(|listens| listens != 0) {
        return Err(wrong("is a listening socket"));
    }
    Ok(())
}

/// Takes `fd` into ownership: nothing else may close it or use it from here on.
pub fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: every caller owns it, and `check_stream_socket` has seen it open.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// Readies an adopted socket: closed on exec, no Nagle delay, and a bound on unacknowledged bytes. The
/// last two do not apply to AF_UNIX and are not errors there. It may stay blocking: [`recv`] and
/// [`send`] say each time that they do not wait.
pub fn prepare_socket(fd: &OwnedFd) -> io::Result<()> {
    let raw = fd.as_raw_fd();
    // SAFETY: fcntl with integer arguments on a descriptor we own.
    check(unsafe { libc::fcntl(raw, libc::F_SETFD, libc::FD_CLOEXEC) })?; // There is no other such flag.
    let _ = set_option(raw, libc::IPPROTO_TCP, libc::TCP_NODELAY, &1);
    let _ = set_option(raw, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &TCP_USER_TIMEOUT_MS);
    Ok(())
}

/// Reads what is there; `Ok(0)` is the end of the stream, `WouldBlock` is nothing just now.
pub fn recv(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (fd, to, len) = (fd.as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
    // SAFETY: the pointer and length are of one live, writable slice.
    retried(|| unsafe { libc::recv(fd, to.cast(), len, libc::MSG_DONTWAIT) })
}

/// Writes what the kernel takes.
pub fn send(fd: &impl AsRawFd, bytes: &[u8]) -> io::Result<usize> {
    let (fd, from) = (fd.as_raw_fd(), bytes.as_ptr());
    // SAFETY: the pointer and length are of one live slice.
    retried(|| unsafe { libc::send(fd, from.cast(), bytes.len(), SEND) })
}

/// Ends the connection for every holder of the description, also for a child that inherited it.
pub fn shutdown(fd: &impl AsRawFd) {
    // SAFETY: shutdown takes integers only; an error means that the peer was faster.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_RDWR) };
}

/// Says that nothing more will be sent, and goes on reading.
pub fn shutdown_write(fd: &impl AsRawFd) {
    // SAFETY: as in `shutdown`.
    unsafe { libc::shutdown(fd.as_raw_fd(), libc::SHUT_WR) };
}

/// Makes the coming close a reset: the kernel keeps nothing for a peer that does not read.
pub fn reset_on_close(fd: &impl AsRawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = set_option(fd.as_raw_fd(), SOL_SOCKET, libc::SO_LINGER, &linger);
}

/// The most descriptors that go with one message. The kernel's own bound is 253 (SCM_MAX_FD).
pub const MAX_DESCRIPTORS: usize = 250;

/// Room for a control part: a header of two words, so it is aligned, and [`MAX_DESCRIPTORS`].
const CONTROL: [u64; 2 + MAX_DESCRIPTORS / 2] = [0; 2 + MAX_DESCRIPTORS / 2];

/// One message as it was received.
pub struct Received {
    /// Bytes at the beginning of the buffer.
    pub len: usize,
    /// In the order in which they were sent, closed on exec.
    pub descriptors: Vec<OwnedFd>,
    /// Bytes or descriptors are missing: no room in the buffer or the table of open files.
    pub is_cut: bool,
}

/// A new packet socket, non-blocking and closed on exec, and the address of `path`.
fn packet_socket(path: &Path) -> io::Result<(OwnedFd, libc::sockaddr_un)> {
    // SAFETY: all zeros are an address.
    let mut address: libc::sockaddr_un = unsafe { zeroed() };
    address.sun_family = libc::AF_UNIX as libc::sa_family_t;
    let bytes = path.as_os_str().as_bytes();
    let most = address.sun_path.len() - 1; // and the terminating zero
    if bytes.is_empty() || bytes.len() > most || bytes.contains(&0) {
        let what = format!("the path of a socket has 1 to {most} bytes: choose a shorter one");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    for (to, from) in address.sun_path.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: socket takes integers.
    Ok((made(unsafe { libc::socket(libc::AF_UNIX, kind, 0) })?, address))
}

/// Listens at `path`, which from its first moment on nobody but its owner can open; never waits.
/// AddrInUse: there is something at `path`.
pub fn packet_listen(path: &Path) -> io::Result<OwnedFd> {
    let (socket, address) = packet_socket(path)?;
    let (fd, len) = (socket.as_raw_fd(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: the descriptor is ours; `address` outlives the call and its size is given.
    unsafe {
        // Linux gives the file the mode of the socket, less the umask, which is the process's.
        check(libc::fchmod(fd, 0o600))?;
        check(libc::bind(fd, (&raw const address).cast(), len))?;
    }
    // A umask may have taken something from the owner, too.
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))
        // SAFETY: listen takes integers.
        .and_then(|()| check(unsafe { libc::listen(fd, 1024) }))
        .inspect_err(|_| drop(fs::remove_file(path)))?;
    Ok(socket)
}

/// Connects to the listener at `path`; never waits. WouldBlock: its backlog is full.
/// ConnectionRefused: nobody listens there any more. NotFound: nobody does yet.
pub fn packet_connect(path: &Path) -> io::Result<OwnedFd> {
    let (socket, address) = packet_socket(path)?;
    let (fd, len) = (socket.as_raw_fd(), size_of_val(&address) as libc::socklen_t);
    // SAFETY: `address` outlives the call and its size is given.
    retried(|| unsafe { libc::connect(fd, (&raw const address).cast(), len) as isize })?;
    Ok(socket)
}

/// The next connection, non-blocking and closed on exec; never waits. WouldBlock: there is none.
pub fn packet_accept(listener: &impl AsRawFd) -> io::Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: without room for an address accept4 takes integers.
    let accept = || unsafe { libc::accept4(listener.as_raw_fd(), null_mut(), null_mut(), flags) };
    made(retried(|| accept() as isize)? as c_int)
}

/// Process and user at the other end of a connection: who connected or, seen from there, who
/// listened, as of that moment. The process may be gone, and its number another's.
pub fn peer_credentials(fd: &impl AsRawFd) -> io::Result<(u32, u32)> {
    let peer: libc::ucred = get_option(fd.as_raw_fd(), SOL_SOCKET, libc::SO_PEERCRED)?;
    Ok((peer.pid as u32, peer.uid))
}

/// Sends one message, the slices one behind the other, with copies of at most [`MAX_DESCRIPTORS`]
/// descriptors; never waits. It goes whole or, with an error, not at all.
///
/// WouldBlock: the receiver has not read yet what it has. EMSGSIZE: more than the socket's send
/// buffer. ETOOMANYREFS: this user has too many descriptors on their way. InvalidInput: too many
/// descriptors, or no bytes, which would look like the end of the connection.
pub fn send_packet(fd: &impl AsRawFd, bytes: &[&[u8]], descriptors: &[RawFd]) -> io::Result<()> {
    if descriptors.len() > MAX_DESCRIPTORS || bytes.iter().all(|slice| slice.is_empty()) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let slices: Vec<_> = bytes.iter().map(|slice| IoSlice::new(slice)).collect();
    let mut control = CONTROL;
    // SAFETY: all zeros are a message of nothing. An `IoSlice` is an iovec; it, the control part
    // and what they point to outlive the call, and their sizes are given. The header and at most
    // MAX_DESCRIPTORS lie within the control part.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = slices.as_ptr().cast_mut().cast();
        message.msg_iovlen = slices.len() as _;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = libc::CMSG_LEN(size_of_val(descriptors) as u32) as _;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = SOL_SOCKET;
        (*header).cmsg_type = SCM_RIGHTS;
        (*header).cmsg_len = message.msg_controllen;
        let data = libc::CMSG_DATA(header).cast::<RawFd>();
        data.copy_from_nonoverlapping(descriptors.as_ptr(), descriptors.len());
        retried(|| libc::sendmsg(fd.as_raw_fd(), &raw const message, SEND)).map(drop)
    }
}

/// Receives one message; never waits. No bytes and no descriptors are the end of the connection,
/// WouldBlock is nothing just now. Bytes for which `buffer` has no room are lost.
pub fn receive_packet(fd: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Received> {
    let mut control = CONTROL;
    let mut slice = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let mut descriptors = Vec::new();
    // SAFETY: all zeros are a message of nothing. The slice, the control part and what they point
    // to outlive the call, and their sizes are given. The kernel leaves whole headers in a control
    // part that is aligned for them, and behind each as many new descriptors as its length says; an
    // `OwnedFd` is such a number, and is read once.
    unsafe {
        let mut message: libc::msghdr = zeroed();
        message.msg_iov = &raw mut slice;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control) as _;
        let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC;
        let len = retried(|| libc::recvmsg(fd.as_raw_fd(), &raw mut message, flags))?;
        let mut header = libc::CMSG_FIRSTHDR(&raw const message);
        while !header.is_null() {
            if ((*header).cmsg_level, (*header).cmsg_type) == (SOL_SOCKET, SCM_RIGHTS) {
                let data = libc::CMSG_DATA(header).cast::<OwnedFd>();
                let bytes = (*header).cmsg_len as usize - libc::CMSG_LEN(0) as usize;
                descriptors.extend((0..bytes / size_of::<RawFd>()).map(|n| data.add(n).read()));
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
        let is_cut = message.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        Ok(Received { len, descriptors, is_cut })
    }
}

/// No byte of a file in memory changes any more, nor its length, nor this promise.
const SEALS: c_int = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL;

/// A file that is in memory only, holds the slices one behind the other and is sealed for good: who
/// is given it need not trust the giver.
pub fn memory_file(parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string; the rest are integers.
    let create = |more| made(unsafe { libc::memfd_create(c"wsredis".as_ptr(), flags | more) });
    // vm.memfd_noexec can demand the flag; kernels before 6.3 do not know it.
    let mut file = File::from(create(libc::MFD_NOEXEC_SEAL).or_else(|_| create(0))?);
    for part in parts {
        file.write_all(part)?;
    }
    file.rewind()?;
    // SAFETY: fcntl with integer arguments on a descriptor we own.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(file.into())
}

/// The content of a [`memory_file`] that somebody gave us. InvalidData: it is none, is not sealed or
/// has not exactly `len` bytes; so it neither blocks nor changes. The caller bounds `len`.
pub fn read_memory_file(fd: &OwnedFd, len: usize) -> io::Result<Vec<u8>> {
    // SAFETY: the descriptor is open while `fd` is borrowed, and this `File` never closes it.
    let file = ManuallyDrop::new(unsafe { File::from_raw_fd(fd.as_raw_fd()) });
    // SAFETY: fcntl with integer arguments on an open descriptor. Only a file in memory has seals.
    let seals = check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) });
    if !seals.is_ok_and(|seals| seals & SEALS == SEALS) || file.metadata()?.len() != len as u64 {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Waits until there is something to read (also an end or an error), for at most that many
/// milliseconds. False: the time is up.
pub fn wait_readable(fd: &impl AsRawFd, timeout_ms: u32) -> io::Result<bool> {
    wait(fd.as_raw_fd(), libc::POLLIN, timeout_ms)
}

/// As [`wait_readable`], until a write would not block.
pub fn wait_writable(fd: &impl AsRawFd, timeout_ms: u32) -> io::Result<bool> {
    wait(fd.as_raw_fd(), libc::POLLOUT, timeout_ms)
}

fn wait(fd: RawFd, events: libc::c_short, timeout_ms: u32) -> io::Result<bool> {
    let end = Instant::now() + Duration::from_millis(timeout_ms.into());
    let mut entry = libc::pollfd { fd, events, revents: 0 };
    let ready = retried(|| {
        let left = end.saturating_duration_since(Instant::now()).as_micros().div_ceil(1000);
        let left = c_int::try_from(left).unwrap_or(c_int::MAX);
        // SAFETY: one entry, which outlives the call.
        unsafe { libc::poll(&raw mut entry, 1, left) as isize }
    })?;
    Ok(ready > 0)
}

/// Takes the lock of an open file; never waits. False: somebody else holds it. A descriptor that is
/// handed over carries the lock with it, and it ends with the last copy.
pub fn try_lock(file: &impl AsRawFd) -> io::Result<bool> {
    // SAFETY: flock takes integers.
    match check(unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) }) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        result => result.map(|_| true),
    }
}

/// Blocks all signals of the calling thread: they are the host's, and must not interrupt a loop.
pub fn block_signals() {
    // SAFETY: all zeros are a set, which outlives the calls.
    unsafe {
        let mut all: libc::sigset_t = zeroed();
        libc::sigfillset(&raw mut all);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, null_mut());
    }
}

/// Makes SIGTERM, SIGINT and SIGQUIT, blocked for this thread and those that it makes, a descriptor
/// that is readable once one came, and ignores SIGHUP and SIGPIPE. For a process of our own only.
pub fn end_signals() -> io::Result<OwnedFd> {
    // SAFETY: all zeros are a set, which outlives the calls; the rest are integers.
    unsafe {
        let mut ends: libc::sigset_t = zeroed();
        for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
            libc::sigaddset(&raw mut ends, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const ends, null_mut());
        libc::signal(libc::SIGHUP, libc::SIG_IGN);
        libc::signal(libc::SIGPIPE, libc::SIG_IGN);
        made(libc::signalfd(-1, &raw const ends, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC))
    }
}

/// 64 random bits from the kernel. Safe after a fork, unlike a generator that lives in the process.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // SAFETY: the pointer and length are of one live, writable array.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    assert_eq!(n, 8, "getrandom of 8 bytes is never short");
    u64::from_ne_bytes(bytes)
}

/// The soft limit of open descriptors.
pub fn max_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` outlives the call.
    let known = check(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) });
    known.map_or(1024, |_| limit.rlim_cur)
}

/// Gives the kernel back what the allocator keeps of memory that is free, of all threads.
pub fn trim_heap() {
    // SAFETY: it takes a number; other threads may allocate meanwhile.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0)
    };
}

/// A counter that poll(2) can wait for: non-blocking, closed on exec.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes integers.
    made(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// An [`event_fd`] that the kernel rings every second.
pub fn clock() -> io::Result<OwnedFd> {
    let second = libc::timespec { tv_sec: 1, tv_nsec: 0 };
    let times = libc::itimerspec { it_interval: second, it_value: second };
    let flags = libc::TFD_NONBLOCK | libc::TFD_CLOEXEC;
    // SAFETY: integers, and `times`, which outlives the call.
    unsafe {
        let clock = made(libc::timerfd_create(libc::CLOCK_MONOTONIC, flags))?;
        check(libc::timerfd_settime(clock.as_raw_fd(), 0, &raw const times, null_mut()))?;
        Ok(clock)
    }
}

/// Makes an [`event_fd`] readable.
pub fn event_fd_ring(fd: &OwnedFd) {
    // SAFETY: eight bytes of a live integer. It fails only with a full counter: that is readable.
    unsafe { libc::write(fd.as_raw_fd(), (&1u64 as *const u64).cast(), 8) };
}

/// Makes an [`event_fd`] unreadable again.
pub fn event_fd_drain(fd: &OwnedFd) {
    let mut count: u64 = 0;
    // SAFETY: eight bytes of a live, writable integer. It fails only when there is nothing to read.
    unsafe { libc::read(fd.as_raw_fd(), (&raw mut count).cast(), 8) };
}

/// Sleeps a moment; async-signal-safe, unlike the clock of std.
pub fn pause_ms(ms: u32) {
    // SAFETY: poll with no descriptors is a plain sleep.
    unsafe { libc::poll(null_mut(), 0, ms as c_int) };
}

/// A descriptor that becomes readable when this process ends.
pub fn process_handle(process: u32) -> io::Result<OwnedFd> {
    // SAFETY: pidfd_open takes integers.
    made(unsafe { libc::syscall(libc::SYS_pidfd_open, process, 0) } as c_int)
}

/// The user whose rights the process has (its effective user id).
pub fn user_id() -> u32 {
    // SAFETY: geteuid takes nothing and always succeeds.
    unsafe { libc::geteuid() }
}

/// Opens `/dev/null` as those of the three standard descriptors that are closed: else the next
/// socket would get such a number, and the lines of the log would be written to a browser.
pub fn fill_standard_descriptors() {
    while let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        if null.as_raw_fd() > libc::STDERR_FILENO {
            return;
        }
        let _ = null.into_raw_fd();
    }
}

/// A program to be started apart from the calling process.
pub struct Launch<'a> {
    /// The path of the program, and its arguments.
    pub argv: &'a [CString],
    /// The whole environment.
    pub env: &'a [(OsString, OsString)],
    /// `None`: `/dev/null`. Output and errors go where the caller's go.
    pub stdin: Option<OwnedFd>,
    /// User and group to become, with no further groups. `None`: those of the caller.
    pub user: Option<(u32, u32)>,
}

/// Starts a program that has nothing more of the calling process than its folder, limits, output
/// and errors: a session of its own, no other descriptors, all signals at their defaults and
/// unblocked. It is nobody's child, so a host that waits for all its children never meets it.
/// Returns when the program runs, or with the error why it could not be started.
pub fn launch(launch: Launch<'_>) -> io::Result<()> {
    let mut argv = launch.argv.iter().map(|word| OsStr::from_bytes(word.to_bytes()));
    let mut command = Command::new(argv.next().ok_or(io::ErrorKind::InvalidInput)?);
    command.args(argv).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.stdin(launch.stdin.map_or_else(Stdio::null, Stdio::from));
    launch.user.map(|(user, group)| command.uid(user).gid(group));
    // SAFETY: `set_apart` allocates nothing and takes no lock of ours.
    unsafe { command.pre_exec(set_apart) };
    // std panics if a program can not be started where SIGCHLD is ignored: nobody to wait for.
    let spawned = catch_unwind(AssertUnwindSafe(|| command.spawn()))
        .unwrap_or_else(|_| Err(io::Error::other("the program can not be started")));
    let _ = spawned?.wait(); // for the process in between; somebody else may have reaped it
    Ok(())
}

/// Runs in the new process before its exec, with the signal mask that std has emptied; makes only
/// calls that are safe after a fork.
fn set_apart() -> io::Result<()> {
    // SAFETY: integers, and zeros that are the kernel's default disposition. The forking process was
    // just forked, so it has one thread and nobody holds a lock of libc.
    unsafe {
        for signal in 1..=64 {
            // Not by libc: it refuses those that it keeps for itself, 32 and 33.
            let default = [0u64; 4];
            libc::syscall(libc::SYS_rt_sigaction, signal, &raw const default, null_mut::<u8>(), 8);
        }
        check(libc::setsid())?;
        if check(libc::fork())? > 0 {
            libc::_exit(0);
        }
        // On exec, because std still needs its pipe to tell that the exec failed.
        if libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) < 0 {
            // A kernel before 5.11. 2^20 is the most it allows, unless fs.nr_open was raised.
            for fd in 3..max_open_files().min(1 << 20) as RawFd {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, PipeReader, PipeWriter, Read, pipe};
    use std::path::PathBuf;

    use super::*;

    /// A folder for one test, which ends with it.
    struct Folder(PathBuf);

    impl Folder {
        fn new() -> Folder {
            let folder = std::env::temp_dir().join(format!("wsredis-sys-{:016x}", random()));
            fs::create_dir(&folder).unwrap();
            Folder(folder)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Both ends of a connection: who connected, who accepted.
    fn connection() -> (OwnedFd, OwnedFd) {
        let folder = Folder::new();
        let listener = packet_listen(&folder.path("door")).unwrap();
        let host = packet_connect(&folder.path("door")).unwrap();
        (host, packet_accept(&listener).unwrap())
    }

    /// Is nobody left who could write into the pipe?
    fn is_over(reader: &mut PipeReader) -> bool {
        wait_readable(reader, 0).unwrap() && reader.read(&mut [0]).unwrap() == 0
    }

    /// A program that another test starts has our descriptors, too, until it is executed.
    fn soon(mut condition: impl FnMut() -> bool) -> bool {
        let begin = Instant::now();
        while !condition() {
            if begin.elapsed() > Duration::from_secs(10) {
                return false;
            }
            pause_ms(1);
        }
        true
    }

    fn fails<T>(result: io::Result<T>) -> io::Error {
        result.err().expect("it fails")
    }

    /// Runs `act`, which changes what belongs to a process, as the only test of a process of its
    /// own: `name` is this test's.
    fn in_a_process(name: &str, act: impl FnOnce()) {
        const VARIABLE: &str = "WSREDIS_TEST_IN_A_PROCESS";
        if std::env::var_os(VARIABLE).is_some() {
            return act();
        }
        let mut tests = Command::new(std::env::current_exe().unwrap());
        tests.args(["--exact", &format!("sys::tests::{name}"), "--nocapture"]).env(VARIABLE, "1");
        let output = tests.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success() && text.contains("1 passed"),
            "{text}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    #[test]
    fn a_message_arrives_whole_with_its_descriptors_in_order() {
        let (host, keeper) = connection();
        let mut pipes: Vec<_> = (0..MAX_DESCRIPTORS).map(|_| pipe().unwrap()).collect();
        let numbers: Vec<_> = pipes.iter().map(|(_, writer)| writer.as_raw_fd()).collect();
        send_packet(&host, &[b"ab", b"", b"c"], &numbers).unwrap();
        send_packet(&host, &[b"next"], &[]).unwrap();

        let mut buffer = [0; 8];
        let received = receive_packet(&keeper, &mut buffer).unwrap();
        assert_eq!((&buffer[..received.len], received.is_cut), (&b"abc"[..], false));
        assert_eq!(received.descriptors.len(), MAX_DESCRIPTORS);
        for (n, (fd, (reader, _))) in received.descriptors.into_iter().zip(&mut pipes).enumerate() {
            // SAFETY: fcntl with integer arguments on a descriptor we own.
            let flags = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) };
            assert_eq!(flags, libc::FD_CLOEXEC);
            PipeWriter::from(fd).write_all(&[n as u8]).unwrap();
            let mut byte = [0];
            reader.read_exact(&mut byte).unwrap();
            assert_eq!(byte, [n as u8]);
        }
        // Neither end kept a copy.
        for (mut reader, writer) in pipes {
            drop(writer);
            assert!(soon(|| is_over(&mut reader)));
        }

        let received = receive_packet(&keeper, &mut buffer).unwrap();
        assert_eq!((&buffer[..received.len], received.descriptors.len()), (&b"next"[..], 0));
        let nothing = fails(receive_packet(&keeper, &mut buffer));
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        drop(host);
        let end = receive_packet(&keeper, &mut buffer).unwrap();
        assert_eq!((end.len, end.descriptors.len(), end.is_cut), (0, 0, false));
        assert_eq!(fails(send_packet(&keeper, &[b"a"], &[])).kind(), ErrorKind::BrokenPipe);
    }

    #[test]
    fn what_can_not_be_a_message_is_refused() {
        let (host, keeper) = connection();
        let numbers = [host.as_raw_fd(); MAX_DESCRIPTORS + 1];
        assert_eq!(fails(send_packet(&host, &[b"a"], &numbers)).kind(), ErrorKind::InvalidInput);
        assert_eq!(fails(send_packet(&host, &[b""], &[])).kind(), ErrorKind::InvalidInput);
        let closed = fails(send_packet(&host, &[b"a"], &[-1]));
        assert_eq!(closed.raw_os_error(), Some(libc::EBADF));
        let large = fails(send_packet(&host, &[&vec![0; 16 << 20]], &[]));
        assert_eq!(large.raw_os_error(), Some(libc::EMSGSIZE));
        assert_eq!(fails(receive_packet(&keeper, &mut [0])).kind(), ErrorKind::WouldBlock);
    }

    #[test]
    fn a_message_that_is_cut_says_so_and_leaks_nothing() {
        let (host, keeper) = connection();
        let (mut reader, writer) = pipe().unwrap();
        send_packet(&host, &[b"abc"], &[writer.as_raw_fd()]).unwrap();
        let mut buffer = [0; 2];
        let received = receive_packet(&keeper, &mut buffer).unwrap();
        assert_eq!((received.len, &buffer, received.is_cut), (2, b"ab", true));
        assert_eq!(received.descriptors.len(), 1);
        drop(received);

        // Three more than `send_packet` sends, as many as the kernel takes.
        let numbers = [writer.as_raw_fd(); 253];
        let mut control = [0u64; 2 + 253usize.div_ceil(2)];
        // SAFETY: as in `send_packet`, with room for 253 descriptors.
        let sent = unsafe {
            let slice = IoSlice::new(b"a");
            let mut message: libc::msghdr = zeroed();
            message.msg_iov = (&raw const slice).cast_mut().cast();
            message.msg_iovlen = 1;
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_LEN(size_of_val(&numbers) as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = SOL_SOCKET;
            (*header).cmsg_type = SCM_RIGHTS;
            (*header).cmsg_len = message.msg_controllen;
            libc::CMSG_DATA(header).cast::<RawFd>().copy_from(numbers.as_ptr(), numbers.len());
            libc::sendmsg(host.as_raw_fd(), &raw const message, SEND)
        };
        assert_eq!(sent, 1);
        let received = receive_packet(&keeper, &mut buffer).unwrap();
        assert_eq!((received.descriptors.len(), received.is_cut), (MAX_DESCRIPTORS, true));
        drop(writer);
        assert!(!wait_readable(&reader, 0).unwrap());
        drop(received);
        assert!(soon(|| is_over(&mut reader)));
    }

    #[test]
    fn a_receiver_that_does_not_read_makes_the_sender_wait_for_it() {
        let (host, keeper) = connection();
        let message = [7; 1000];
        let mut sent = 0;
        let full = loop {
            match send_packet(&host, &[&message], &[]) {
                Ok(()) => sent += 1,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), ErrorKind::WouldBlock);
        assert!(!wait_writable(&host, 0).unwrap());
        for _ in 0..sent {
            assert_eq!(receive_packet(&keeper, &mut [0; 1000]).unwrap().len, message.len());
        }
        assert!(wait_writable(&host, 0).unwrap());
    }

    #[test]
    fn a_wait_ends_with_its_time_and_with_the_peer() {
        let (host, keeper) = connection();
        let start = Instant::now();
        assert!(!wait_readable(&keeper, 30).unwrap());
        assert!(start.elapsed() >= Duration::from_millis(30));
        drop(host);
        assert!(wait_readable(&keeper, u32::MAX).unwrap());
    }

    #[test]
    fn only_the_owner_can_open_the_path() {
        in_a_process("only_the_owner_can_open_the_path", || {
            let folder = Folder::new();
            for umask in [0, 0o077, 0o777] {
                // SAFETY: umask takes an integer and always succeeds; the process is ours.
                unsafe { libc::umask(umask) };
                let path = folder.path(&umask.to_string());
                let _listener = packet_listen(&path).unwrap();
                let mode = fs::metadata(&path).unwrap().permissions().mode();
                assert_eq!(mode & 0o7777, 0o600, "umask {umask:o}");
            }
            // What the kernel makes of the socket's mode, before anything corrects it.
            // SAFETY: as above.
            unsafe { libc::umask(0) };
            let path = folder.path("bound");
            let (socket, address) = packet_socket(&path).unwrap();
            // SAFETY: as in `packet_listen`.
            unsafe {
                libc::fchmod(socket.as_raw_fd(), 0o600);
                let len = size_of_val(&address) as libc::socklen_t;
                libc::bind(socket.as_raw_fd(), (&raw const address).cast(), len);
            }
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o7777, 0o600);
        });
    }

    #[test]
    fn a_door_that_can_not_be_entered_says_why() {
        let folder = Folder::new();
        let path = folder.path("door");
        assert_eq!(fails(packet_connect(&path)).kind(), ErrorKind::NotFound);
        let listener = packet_listen(&path).unwrap();
        assert_eq!(fails(packet_listen(&path)).kind(), ErrorKind::AddrInUse);
        assert_eq!(fails(packet_accept(&listener)).kind(), ErrorKind::WouldBlock);

        // A shorter backlog, so that few descriptors fill it.
        // SAFETY: listen takes integers.
        assert_eq!(unsafe { libc::listen(listener.as_raw_fd(), 1) }, 0);
        let mut waiting = Vec::new();
        let full = loop {
            match packet_connect(&path) {
                Ok(host) => waiting.push(host),
                Err(error) => break error,
            }
        };
        assert_eq!((full.kind(), waiting.len()), (ErrorKind::WouldBlock, 2));
        packet_accept(&listener).unwrap();
        packet_connect(&path).unwrap();

        drop(listener);
        assert_eq!(fails(packet_connect(&path)).kind(), ErrorKind::ConnectionRefused);
        for path in ["", "a\0b", &"a".repeat(108)] {
            let error = fails(packet_listen(Path::new(path)));
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
        }
    }

    #[test]
    fn both_ends_know_process_and_user_of_the_other() {
        let (host, keeper) = connection();
        assert_eq!(peer_credentials(&keeper).unwrap(), (std::process::id(), user_id()));
        assert_eq!(peer_credentials(&host).unwrap(), (std::process::id(), user_id()));
    }

    #[test]
    fn a_file_in_memory_is_read_and_nobody_changes_it() {
        let fd = memory_file(&[b"ab", b"", b"c"]).unwrap();
        assert_eq!(read_memory_file(&fd, 3).unwrap(), b"abc");
        assert_eq!(read_memory_file(&fd, 3).unwrap(), b"abc");
        for len in [0, 2, 4, usize::MAX] {
            assert_eq!(fails(read_memory_file(&fd, len)).kind(), ErrorKind::InvalidData);
        }
        assert!(File::from(fd.try_clone().unwrap()).write_all(b"x").is_err());
        let file = File::from(fd);
        assert!(file.set_len(2).is_err() && file.set_len(4).is_err());
        assert!(read_memory_file(&memory_file(&[]).unwrap(), 0).unwrap().is_empty());
    }

    #[test]
    fn only_a_sealed_file_in_memory_is_read() {
        let folder = Folder::new();
        fs::write(folder.path("abc"), b"abc").unwrap();
        let file = File::open(folder.path("abc")).unwrap();
        let (reader, _writer) = pipe().unwrap();
        // SAFETY: the name is a C string.
        let unsealed = made(unsafe { libc::memfd_create(c"a".as_ptr(), libc::MFD_ALLOW_SEALING) });
        let unsealed = unsealed.unwrap();
        File::from(unsealed.try_clone().unwrap()).write_all(b"abc").unwrap();
        let growing = unsealed.try_clone().unwrap();
        for fd in [file.into(), reader.into(), connection().0, unsealed] {
            assert_eq!(fails(read_memory_file(&fd, 3)).kind(), ErrorKind::InvalidData);
        }
        // SAFETY: fcntl with integer arguments on a descriptor we own.
        let sealed = unsafe {
            libc::fcntl(growing.as_raw_fd(), libc::F_ADD_SEALS, SEALS & !F_SEAL_GROW & !F_SEAL_SEAL)
        };
        assert_eq!(sealed, 0);
        assert_eq!(fails(read_memory_file(&growing, 3)).kind(), ErrorKind::InvalidData);
    }

    #[test]
    fn a_lock_goes_with_the_descriptor_that_is_handed_over() {
        let folder = Folder::new();
        let path = folder.path("lock");
        let (owner, other) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        assert!(try_lock(&owner).unwrap() && try_lock(&owner).unwrap());
        assert!(!try_lock(&other).unwrap());

        let (host, keeper) = connection();
        send_packet(&host, &[b"lock"], &[owner.as_raw_fd()]).unwrap();
        drop(owner);
        assert!(!try_lock(&other).unwrap(), "it is on its way");
        let received = receive_packet(&keeper, &mut [0; 8]).unwrap();
        assert!(!try_lock(&other).unwrap());
        assert!(try_lock(&received.descriptors[0]).unwrap());
        drop(received);
        assert!(soon(|| try_lock(&other).unwrap()));
    }

    #[test]
    fn the_signals_that_end_a_process_become_readable() {
        in_a_process("the_signals_that_end_a_process_become_readable", || {
            let signals = end_signals().unwrap();
            // SAFETY: raise takes an integer, and signals this thread.
            let raise = |signal| assert_eq!(unsafe { libc::raise(signal) }, 0);
            raise(libc::SIGHUP);
            raise(libc::SIGPIPE);
            assert!(!wait_readable(&signals, 0).unwrap());
            let mut file = File::from(signals);
            for signal in [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT] {
                raise(signal);
                assert!(wait_readable(&file, 0).unwrap());
                let mut info = [0; size_of::<libc::signalfd_siginfo>()];
                file.read_exact(&mut info).unwrap();
                assert_eq!(u32::from_ne_bytes(*info.first_chunk().unwrap()), signal as u32);
            }
            assert_eq!(fails(file.read(&mut [0; 128])).kind(), ErrorKind::WouldBlock);
        });
    }

    fn words(words: &[&str]) -> Vec<CString> {
        words.iter().map(|word| CString::new(*word).unwrap()).collect()
    }

    /// The fields of a `/proc/PID/stat` behind the name: parent is 1, session 3, terminal 4.
    fn stat(text: &str) -> Vec<i64> {
        let behind = text.rsplit(')').next().unwrap().split_whitespace().skip(1);
        behind.map(|field| field.parse().unwrap_or_default()).collect()
    }

    #[test]
    fn a_launched_program_has_nothing_of_the_process_that_launched_it() {
        in_a_process("a_launched_program_has_nothing_of_the_process_that_launched_it", || {
            let folder = Folder::new();
            fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
            // SAFETY: integers; the set is all zeros before signals are added; the process is ours.
            unsafe {
                assert!(libc::fcntl(2, libc::F_DUPFD, 200) >= 200);
                for signal in [libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE, libc::SIGRTMAX()] {
                    libc::signal(signal, libc::SIG_IGN);
                }
                block_signals();
            }
            let root = user_id() == 0;
            // SAFETY: getgid takes nothing.
            let own = (user_id(), unsafe { libc::getgid() });
            let user = if root { (65_534, 65_533) } else { own };
            let script = "cd \"$1\" && /bin/ls /proc/self/fd > fds && /bin/cat /proc/$$/stat > stat \
                && /bin/cat /proc/$$/environ > environ && /bin/cat <&0 > stdin \
                && /bin/cat /proc/self/fd/0 > stdin-by-path && exec /bin/cat /proc/self/status > status";
            let argv = words(&["/bin/sh", "-c", script, "sh", folder.0.to_str().unwrap()]);
            let env = [("B", "2 3"), ("A", "1")].map(|(name, value)| (name.into(), value.into()));
            let stdin = Some(memory_file(&[b"[wsredis]\n"]).unwrap());
            launch(Launch { argv: &argv, env: &env, stdin, user: Some(user) }).unwrap();

            // SAFETY: without room for a status waitpid takes integers.
            assert_eq!(unsafe { libc::waitpid(-1, null_mut(), libc::WNOHANG) }, -1);
            assert_eq!(io::Error::last_os_error().raw_os_error(), Some(libc::ECHILD));

            let read = |name| fs::read_to_string(folder.path(name)).unwrap_or_default();
            let deadline = Instant::now() + Duration::from_secs(10);
            // The last line of the last file.
            while !read("status").contains("nonvoluntary_ctxt_switches") {
                assert!(Instant::now() < deadline, "it writes: {:?}", fs::read_dir(&folder.0));
                pause_ms(5);
            }
            assert_eq!(read("fds"), "0\n1\n2\n3\n", "3 is the folder that ls reads");
            assert_eq!(read("environ"), "A=1\0B=2 3\0");
            assert_eq!(read("stdin"), "[wsredis]\n");
            assert_eq!(read("stdin-by-path"), "[wsredis]\n");

            let (its, ours) = (stat(&read("stat")), fs::read_to_string("/proc/self/stat").unwrap());
            assert_ne!(its[0], std::process::id() as i64, "it is nobody's child");
            assert_ne!(its[2], stat(&ours)[2], "it has a session of its own");
            assert_eq!(its[3], 0, "it has no terminal");

            let status = read("status");
            let value = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
                line.split_whitespace().collect::<Vec<_>>().join(" ")
            };
            for set in ["SigIgn:", "SigBlk:", "SigCgt:"] {
                assert_eq!(value(set), "0".repeat(16), "{set}");
            }
            let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()];
            assert_eq!(value("Uid:"), four(user.0).join(" "));
            assert_eq!(value("Gid:"), four(user.1).join(" "));
            if root {
                assert_eq!(value("Groups:"), "");
            }
        });
    }

    #[test]
    fn a_program_that_can_not_be_started_is_an_error() {
        in_a_process("a_program_that_can_not_be_started_is_an_error", || {
            let start = |argv: &[&str]| {
                launch(Launch { argv: &words(argv), env: &[], stdin: None, user: None })
            };
            assert_eq!(fails(start(&["/does/not/exist"])).kind(), ErrorKind::NotFound);
            assert_eq!(fails(start(&["/dev/null"])).kind(), ErrorKind::PermissionDenied);
            assert_eq!(fails(start(&[])).kind(), ErrorKind::InvalidInput);
            start(&["/bin/true"]).unwrap();

            // A host that lets the kernel reap its children.
            // SAFETY: integers; the process is ours.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
            fails(start(&["/does/not/exist"]));
            start(&["/bin/true"]).unwrap();
        });
    }
}
