//! The C ABI: every function of `include/wsredis.h`, in five groups. Each checks, converts, calls
//! the floor below and converts back; nothing is decided here.
//!
//! An argument that is an enum in C comes as an integer and is checked: C can pass any.
#![allow(unsafe_code, non_camel_case_types)]

mod config;
mod engine;
mod events;
mod guard;
mod handshake;
mod keeper;

use std::ffi::c_char;

pub use config::*;
pub use engine::*;
pub use events::*;
pub use guard::wsredis_status;
pub use handshake::*;
pub use keeper::*;

/// The number of this ABI. It changes only when something that was there is gone or different; what
/// is new does not change it.
pub const WSREDIS_ABI_VERSION: u32 = 0;

/// The number of the ABI of the library that is loaded: to be compared with `WSREDIS_ABI_VERSION`.
///
/// *Returns:* the number.
///
/// *Threads:* any.
#[unsafe(no_mangle)]
pub extern "C" fn wsredis_abi_version() -> u32 {
    WSREDIS_ABI_VERSION
}

/// The version of the library that is loaded, like `0.1.0`.
///
/// *Returns:* static text.
///
/// *Threads:* any.
#[unsafe(no_mangle)]
pub extern "C" fn wsredis_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// The name of a status, like `WSREDIS_STATUS_BUSY`. Takes any number.
///
/// *Returns:* static text.
///
/// *Threads:* any.
#[unsafe(no_mangle)]
pub extern "C" fn wsredis_status_name(status: u32) -> *const c_char {
    guard::STATUS_NAMES.get(status as usize).unwrap_or(&c"unknown status").as_ptr()
}

/// Copies the text of this thread's last error to `buf`, always with a NUL behind it if `buf_len`
/// is not 0. A function that succeeds leaves the text as it is. It never holds a payload or a
/// password.
///
/// *Returns:* the length of the whole text, also if `buf` had less room.
///
/// *Ownership:* `buf` stays the caller's.
///
/// *Threads:* any; each has its own text.
///
/// # Safety
/// `buf` is NULL or has `buf_len` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_last_error(buf: *mut c_char, buf_len: usize) -> usize {
    // SAFETY: the caller's promise.
    guard::guard_or(0, || unsafe { guard::copy_out(guard::last_error().as_bytes(), buf, buf_len) })
}
