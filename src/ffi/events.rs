//! The functions of an engine's events.

use std::ffi::c_char;
use std::mem::offset_of;

use super::engine::{engine_of, wsredis_engine};
use super::guard::{guard, put, size_at, write_sized, wsredis_status};
use crate::engine::Event;
use crate::error::{Error, Kind};

/// A descriptor that is readable while events wait. Events are kept from the first call on, up to
/// 65,536. While its keeper is gone there are no events; the descriptor stays, and is readable
/// about once a second: then `wsredis_engine_next_event` looks for another keeper.
///
/// *Returns:* `STOPPED`; `WRONG_PROCESS`; `NO_FILE`; `IO`.
///
/// *Ownership:* the descriptor stays the engine's: poll it, do not read or close it.
///
/// *Threads:* any.
///
/// # Safety
/// `engine` is live; `out_fd` has room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_events_fd(
    engine: *mut wsredis_engine,
    out_fd: *mut i32,
) -> wsredis_status {
    // SAFETY: the caller's promise.
    guard(|| unsafe { put(out_fd, engine_of(engine)?.events_fd()?, "out_fd") })
}

/// What happened to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum wsredis_event_kind {
    /// A socket was adopted.
    WSREDIS_EVENT_OPENED = 1,
    /// A socket ended; `code` is the close code, 1006 if there was no close frame.
    WSREDIS_EVENT_CLOSED = 2,
    /// Nobody read for too long: `code` events were dropped. 0: there is another keeper, and the
    /// events of the time between are missing.
    WSREDIS_EVENT_OVERFLOW = 3,
}

/// An event. The host sets `struct_size` before the call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct wsredis_event {
    /// `sizeof(wsredis_event)`.
    pub struct_size: usize,
    /// A `wsredis_event_kind`.
    pub kind: u32,
    /// By kind.
    pub code: u32,
    /// The socket's id, NUL-terminated.
    pub socket_id: [c_char; 64],
}

/// What every caller's event has at least: that of the first header.
const EVENT_SIZE: usize = offset_of!(wsredis_event, socket_id) + 64;

/// Takes the next event.
///
/// *Returns:* `NOT_FOUND` if none waits, also while there is no keeper; `INVALID` for a wrong
/// `struct_size`; `WRONG_PROCESS`; with a keeper also `STOPPED` once the engine was; `UNSUPPORTED`
/// if it is of another version; `NO_FILE` or `IO` if it can not be reached.
///
/// *Ownership:* the event is copied out.
///
/// *Threads:* any; each event is given out once.
///
/// # Safety
/// `engine` is live; `out_event` has room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_engine_next_event(
    engine: *mut wsredis_engine,
    out_event: *mut wsredis_event,
) -> wsredis_status {
    guard(|| {
        // SAFETY: the caller's promise.
        let (engine, size) =
            unsafe { (engine_of(engine)?, size_at(out_event, EVENT_SIZE, "out_event")?) };
        let event = engine.next_event()?;
        let event = event.ok_or_else(|| Error::new(Kind::NotFound, "no event waits"))?;
        // SAFETY: the caller's promise.
        unsafe { write_sized(out_event, size, &converted(event)) };
        Ok(())
    })
}

fn converted(event: Event) -> wsredis_event {
    let (kind, code, id) = match event {
        Event::Opened(id) => (wsredis_event_kind::WSREDIS_EVENT_OPENED, 0, id),
        Event::Closed(id, code) => (wsredis_event_kind::WSREDIS_EVENT_CLOSED, code.into(), id),
        Event::Overflow(n) => {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            (wsredis_event_kind::WSREDIS_EVENT_OVERFLOW, n, String::new())
        }
    };
    let mut socket_id = [0; 64];
    for (to, from) in socket_id.iter_mut().take(63).zip(id.bytes()) {
        *to = from as c_char;
    }
    wsredis_event { struct_size: size_of::<wsredis_event>(), kind: kind as u32, code, socket_id }
}
