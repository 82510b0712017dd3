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

/// The process has no descriptor left.
pub const EMFILE: i32 = libc::EMFILE;
/// The system has no descriptor left.
pub const ENFILE: i32 = libc::ENFILE;
/// Too many descriptors of this user are under way in messages.
pub const ETOOMANYREFS: i32 = libc::ETOOMANYREFS;

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
        if let Ok(n) = usize::try_from(call()) {
            return Ok(n);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
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
    match option(libc::SO_TYPE) {
        Ok(libc::SOCK_STREAM) => {}
        Ok(_) => return Err(wrong("is not a stream socket")),
        Err(error) => return Err(wrong(&format!("is not a socket: {error}"))),
    }
    if option(libc::SO_ACCEPTCONN).is_ok_and(|listens| listens != 0) {
        return Err(wrong("is a listening socket"));
    }
    match option(libc::SO_DOMAIN) {
        Ok(libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX) => Ok(()),
        _ => Err(wrong("is neither TCP nor AF_UNIX")),
    }
}

/// Takes `fd` into ownership: nothing else may close it or use it from here on.
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
    // The last byte stays the terminating zero; a zero at the beginning would be another kind.
    let most = address.sun_path.len() - 1;
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

/// Listens at `path`, which must not exist yet and which nobody but its owner can open, from its
/// first moment on. AddrInUse: there is something at `path`.
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

/// Sends one message, the slices one behind the other, with at most [`MAX_DESCRIPTORS`] descriptors
/// of which the receiver gets copies; never waits. It goes whole or, with an error, not at all.
///
/// WouldBlock: the receiver has not read yet what it has. EMSGSIZE: more than the socket's send
/// buffer. ETOOMANYREFS: this user has too many descriptors on their way. An empty message is
/// InvalidInput: it would look like the end of the connection.
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
        if !descriptors.is_empty() {
            message.msg_control = control.as_mut_ptr().cast();
            message.msg_controllen = libc::CMSG_LEN(size_of_val(descriptors) as u32) as _;
            let header = libc::CMSG_FIRSTHDR(&raw const message);
            (*header).cmsg_level = SOL_SOCKET;
            (*header).cmsg_type = SCM_RIGHTS;
            (*header).cmsg_len = message.msg_controllen;
            let data = libc::CMSG_DATA(header).cast::<RawFd>();
            data.copy_from_nonoverlapping(descriptors.as_ptr(), descriptors.len());
        }
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

/// Blocks all signals of the calling thread: they are the host's, and a loop must not be
/// interrupted by them.
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

/// A counter that poll(2) can wait for: non-blocking, closed on exec.
pub fn event_fd() -> io::Result<OwnedFd> {
    // SAFETY: eventfd takes integers.
    made(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })
}

/// Makes an [`event_fd`] readable.
pub fn event_fd_ring(fd: &OwnedFd) {
    let one: u64 = 1;
    // SAFETY: eight bytes of a live integer. It fails only with a full counter: that is readable.
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
    unsafe { libc::poll(null_mut(), 0, ms as c_int) };
}

/// Makes `place` a copy of `fd`, under the number it has; what it was is closed.
pub fn replace(place: &OwnedFd, fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: dup3 takes integers; both descriptors are owned by the caller and stay so.
    check(unsafe { libc::dup3(fd.as_raw_fd(), place.as_raw_fd(), libc::O_CLOEXEC) }).map(drop)
}

/// Does a process of this number run? A number may be used again by another one.
pub fn is_alive(process: u32) -> bool {
    // SAFETY: signal 0 is sent to nobody; only the answer counts.
    let answer = check(unsafe { libc::kill(process as libc::pid_t, 0) });
    !answer.is_err_and(|error| error.raw_os_error() == Some(libc::ESRCH))
}

/// The calling process.
pub fn process_id() -> u32 {
    std::process::id()
}

/// The user whose rights the process has (its effective user id).
pub fn user_id() -> u32 {
    // SAFETY: geteuid takes nothing and always succeeds.
    unsafe { libc::geteuid() }
}

/// A program to be started apart from the calling process.
pub struct Launch<'a> {
    /// The program, by its path, and its arguments.
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
///
/// Returns when the program runs, or with the error why it could not be started.
pub fn launch(launch: Launch<'_>) -> io::Result<()> {
    let mut argv = launch.argv.iter().map(|word| OsStr::from_bytes(word.to_bytes()));
    let mut command = Command::new(argv.next().ok_or(io::ErrorKind::InvalidInput)?);
    command.args(argv).env_clear().envs(launch.env.iter().map(|(name, value)| (name, value)));
    command.stdin(launch.stdin.map_or_else(Stdio::null, Stdio::from));
    launch.user.map(|(user, group)| command.uid(user).gid(group));
    // SAFETY: `set_apart` allocates nothing and takes no lock of ours.
    unsafe { command.pre_exec(set_apart) };
    // std panics if a program can not be started in a host that ignores SIGCHLD: it finds nobody
    // to wait for.
    let spawned = catch_unwind(AssertUnwindSafe(|| command.spawn()))
        .unwrap_or_else(|_| Err(io::Error::other("the program can not be started")));
    // The process in between is over; that somebody else has reaped it is no error.
    let _ = spawned?.wait();
    Ok(())
}

/// Runs in the new process, before its exec; makes only calls that are safe after a fork.
fn set_apart() -> io::Result<()> {
    // SAFETY: integers, and a set of which all zeros are the empty one. The forking process was
    // just forked, so it has one thread and nobody holds a lock of libc.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let none: libc::sigset_t = zeroed();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const none, null_mut());
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
