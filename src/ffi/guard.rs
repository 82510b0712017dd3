//! The boundary: status codes, the last error's text, and the guard that no panic passes.
//!
//! Every exported function does its work inside [`guard`]; strings and structs of C are read by the
//! functions here, which check what can be checked.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::error::{Error, Kind, Result};

/// What a function says of its work. Numbers are never reused.
#[allow(non_camel_case_types)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub enum wsredis_status {
    /// Done.
    WSREDIS_STATUS_OK = 0,
    /// An argument is wrong: NULL, out of range, not UTF-8, a struct of the wrong size.
    WSREDIS_STATUS_INVALID = 1,
    /// The configuration is wrong.
    WSREDIS_STATUS_CONFIG = 2,
    /// The grant is wrong.
    WSREDIS_STATUS_GRANT = 3,
    /// The descriptor is not a connected stream socket.
    WSREDIS_STATUS_FD = 4,
    /// The process has no descriptor left.
    WSREDIS_STATUS_NO_FILE = 5,
    /// A limit that the configuration names, or the size of a buffer, is exceeded.
    WSREDIS_STATUS_LIMIT = 6,
    /// A bounded queue is full just now; trying later can help.
    WSREDIS_STATUS_BUSY = 7,
    /// The engine was stopped, or has ended after an internal error.
    WSREDIS_STATUS_STOPPED = 8,
    /// The engine belongs to another process: it was started before a fork.
    WSREDIS_STATUS_WRONG_PROCESS = 9,
    /// The caller is newer than this library and asks for what it does not know.
    WSREDIS_STATUS_UNSUPPORTED = 10,
    /// There is nothing of that name, or nothing waiting.
    WSREDIS_STATUS_NOT_FOUND = 11,
    /// The engine runs but does not hear every channel it should.
    WSREDIS_STATUS_UNHEALTHY = 12,
    /// The operating system refused.
    WSREDIS_STATUS_IO = 13,
    /// A bug of this library was caught at the boundary; the call did nothing or half of its work.
    WSREDIS_STATUS_PANIC = 14,
}

use wsredis_status::*;

impl From<Kind> for wsredis_status {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Invalid => WSREDIS_STATUS_INVALID,
            Kind::Config => WSREDIS_STATUS_CONFIG,
            Kind::Grant => WSREDIS_STATUS_GRANT,
            Kind::Fd => WSREDIS_STATUS_FD,
            Kind::NoFile => WSREDIS_STATUS_NO_FILE,
            Kind::Limit => WSREDIS_STATUS_LIMIT,
            Kind::Busy => WSREDIS_STATUS_BUSY,
            Kind::Stopped => WSREDIS_STATUS_STOPPED,
            Kind::WrongProcess => WSREDIS_STATUS_WRONG_PROCESS,
            Kind::Unsupported => WSREDIS_STATUS_UNSUPPORTED,
            Kind::NotFound => WSREDIS_STATUS_NOT_FOUND,
            Kind::Unhealthy => WSREDIS_STATUS_UNHEALTHY,
            Kind::Io => WSREDIS_STATUS_IO,
            Kind::Panic => WSREDIS_STATUS_PANIC,
        }
    }
}

/// The name of each status, NUL-terminated, in the order of their numbers.
pub(super) const STATUS_NAMES: [&std::ffi::CStr; 15] = [
    c"WSREDIS_STATUS_OK",
    c"WSREDIS_STATUS_INVALID",
    c"WSREDIS_STATUS_CONFIG",
    c"WSREDIS_STATUS_GRANT",
    c"WSREDIS_STATUS_FD",
    c"WSREDIS_STATUS_NO_FILE",
    c"WSREDIS_STATUS_LIMIT",
    c"WSREDIS_STATUS_BUSY",
    c"WSREDIS_STATUS_STOPPED",
    c"WSREDIS_STATUS_WRONG_PROCESS",
    c"WSREDIS_STATUS_UNSUPPORTED",
    c"WSREDIS_STATUS_NOT_FOUND",
    c"WSREDIS_STATUS_UNHEALTHY",
    c"WSREDIS_STATUS_IO",
    c"WSREDIS_STATUS_PANIC",
];

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Remembers a text for this thread's [`last_error`]. A thread that is ending has none any more.
pub(super) fn set_last_error(text: String) {
    let _ = LAST_ERROR.try_with(|last| last.replace(text));
}

/// The text of this thread's last error.
pub(super) fn last_error() -> String {
    LAST_ERROR.try_with(|last| last.borrow().clone()).unwrap_or_default()
}

/// Runs the body of an exported function: errors become a status and a text, and so do panics.
pub(super) fn guard(body: impl FnOnce() -> Result<()>) -> wsredis_status {
    match caught(body) {
        Ok(()) => WSREDIS_STATUS_OK,
        Err(error) => {
            let status = error.kind.into();
            set_last_error(error.text);
            status
        }
    }
}

/// Runs a body that has no status to return; a panic becomes `otherwise`.
pub(super) fn guard_or<T>(otherwise: T, body: impl FnOnce() -> T) -> T {
    caught(|| Ok(body())).unwrap_or(otherwise)
}

fn caught<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|payload| {
        let text = match payload.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => payload.downcast_ref::<String>().cloned().unwrap_or_default(),
        };
        // The payload's own destructor may panic as well.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
        Err(Error::new(Kind::Panic, format!("a bug of wsredis: {text}; please report it")))
    })
}

fn invalid(text: impl Into<String>) -> Error {
    Error::new(Kind::Invalid, text)
}

/// The object behind a handle of C.
///
/// # Safety
/// `pointer` is NULL or a live object of that type.
pub(super) unsafe fn object<'a, T>(pointer: *const T, name: &str) -> Result<&'a T> {
    // SAFETY: the caller's promise; NULL is checked here.
    unsafe { pointer.as_ref() }.ok_or_else(|| invalid(format!("{name} is NULL")))
}

/// As [`object`], for a function that changes it.
///
/// # Safety
/// As for [`object`], and nobody else uses the object during the call.
pub(super) unsafe fn object_mut<'a, T>(pointer: *mut T, name: &str) -> Result<&'a mut T> {
    // SAFETY: the caller's promise; NULL is checked here.
    unsafe { pointer.as_mut() }.ok_or_else(|| invalid(format!("{name} is NULL")))
}

/// Is there room behind an out-parameter? Asked before anything is done that an error would have to
/// undo, and before another out-parameter is written: they are written all or none.
pub(super) fn room<T>(pointer: *const T, name: &str) -> Result<()> {
    if pointer.is_null() { Err(invalid(format!("{name} is NULL"))) } else { Ok(()) }
}

/// Writes through an out-parameter.
///
/// # Safety
/// `pointer` is NULL or room for a `T`, which need not be initialised.
pub(super) unsafe fn put<T>(pointer: *mut T, value: T, name: &str) -> Result<()> {
    room(pointer, name)?;
    // SAFETY: the caller's promise; NULL is checked above.
    unsafe { pointer.write(value) };
    Ok(())
}

/// Bytes of C, borrowed for the call. NULL is allowed for no bytes.
///
/// # Safety
/// `pointer` is NULL or `len` readable elements that nobody changes during the call.
pub(super) unsafe fn slice<'a, T>(pointer: *const T, len: usize, name: &str) -> Result<&'a [T]> {
    if len == 0 {
        return Ok(&[]);
    }
    if pointer.is_null() {
        return Err(invalid(format!("{name} is NULL and its length is not 0")));
    }
    if !pointer.is_aligned() || len > isize::MAX as usize / size_of::<T>().max(1) {
        return Err(invalid(format!("{name} can not be that long, or is not aligned")));
    }
    // SAFETY: the caller's promise; NULL, alignment and the total size are checked above.
    Ok(unsafe { std::slice::from_raw_parts(pointer, len) })
}

/// Text of C, borrowed for the call.
///
/// # Safety
/// As for [`slice`].
pub(super) unsafe fn text<'a>(
    pointer: *const std::ffi::c_char,
    len: usize,
    name: &str,
) -> Result<&'a str> {
    // SAFETY: the caller's promise; char and u8 have the same layout.
    let bytes = unsafe { slice(pointer.cast::<u8>(), len, name) }?;
    std::str::from_utf8(bytes).map_err(|_| invalid(format!("{name} is not UTF-8")))
}

/// Copies text out to a buffer of C, with a NUL behind it where it fits; returns the full length.
///
/// # Safety
/// `buf` is NULL or `len` writable bytes.
pub(super) unsafe fn copy_out(bytes: &[u8], buf: *mut std::ffi::c_char, len: usize) -> usize {
    if !buf.is_null() && len > 0 {
        let n = bytes.len().min(len - 1);
        // SAFETY: `n` < `len` bytes are writable, and `bytes` is ours: they can not overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), buf.cast(), n);
            buf.add(n).write(0);
        }
    }
    bytes.len()
}

/// Copies all of `bytes` out, or says how much room they need.
///
/// # Safety
/// As for [`copy_out`]; `out_len` is NULL or room for a size.
pub(super) unsafe fn copy_whole(
    bytes: &[u8],
    buf: *mut std::ffi::c_char,
    len: usize,
    out_len: *mut usize,
) -> Result<()> {
    if out_len.is_null() || (buf.is_null() && len > 0) {
        return Err(invalid("buf or out_len is NULL"));
    }
    if bytes.len() >= len {
        let text = format!("buf_len is {len} and must be at least {}", bytes.len() + 1);
        return Err(Error::new(Kind::Limit, text));
    }
    // SAFETY: the caller's promise; the pointers are checked above.
    unsafe {
        copy_out(bytes, buf, len);
        put(out_len, bytes.len(), "out_len")
    }
}

/// How large the caller's struct is, by its first field, `struct_size`: at least `least` bytes.
///
/// # Safety
/// `T` begins with its `struct_size: usize`, and `pointer` is NULL or readable for that field.
pub(super) unsafe fn size_at<T>(pointer: *const T, least: usize, name: &str) -> Result<usize> {
    if pointer.is_null() || !pointer.is_aligned() {
        return Err(invalid(format!("{name} is NULL or not aligned")));
    }
    // SAFETY: the caller's promise: the first field is readable.
    let theirs = unsafe { pointer.cast::<usize>().read() };
    if theirs < least || theirs > 1 << 16 {
        return Err(invalid(format!("{name}.struct_size is {theirs}: set it to sizeof(struct)")));
    }
    Ok(theirs)
}

/// A struct that may grow: its first field says how large the caller's is. What the caller's does
/// not have yet is zero, which is every field's default; what ours does not have must be zero.
///
/// # Safety
/// `T` begins with its `struct_size: usize`, and all zeroes are a valid `T`. `pointer` is NULL or
/// readable for as many bytes as its first field says, at least `least`: the size in the first header that had
/// it.
pub(super) unsafe fn read_sized<T: Copy>(pointer: *const T, least: usize, name: &str) -> Result<T> {
    // SAFETY: the caller's promise.
    let theirs = unsafe { size_at(pointer, least, name)? };
    let mut value = std::mem::MaybeUninit::<T>::zeroed();
    let known = theirs.min(size_of::<T>());
    // SAFETY: `known` bytes are readable there and writable here; `T` is valid when zero and when
    // copied from a `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(pointer.cast::<u8>(), value.as_mut_ptr().cast::<u8>(), known);
        let tail = std::slice::from_raw_parts(pointer.cast::<u8>().add(known), theirs - known);
        if tail.iter().any(|byte| *byte != 0) {
            let text = format!("{name} has fields that this library does not know");
            return Err(Error::new(Kind::Unsupported, text));
        }
        Ok(value.assume_init())
    }
}

/// Writes a struct that may grow to a caller whose struct has `theirs` bytes: what the caller's
/// does not have is left out, what ours does not have becomes zero, and its `struct_size` stays.
///
/// # Safety
/// As for [`read_sized`], with `theirs` from [`size_at`] and every byte writable.
pub(super) unsafe fn write_sized<T: Copy>(pointer: *mut T, theirs: usize, value: &T) {
    let (first, known) = (size_of::<usize>(), theirs.min(size_of::<T>()));
    let (to, from) = (pointer.cast::<u8>(), std::ptr::from_ref(value).cast::<u8>());
    // SAFETY: the caller's promise; `value` is ours and as large as `T`.
    unsafe {
        std::ptr::copy_nonoverlapping(from.add(first), to.add(first), known - first);
        std::ptr::write_bytes(to.add(known), 0, theirs - known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status_and_a_text() {
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(|_| ()));
        let status = guard(|| panic!("planted"));
        std::panic::set_hook(hook);
        assert_eq!(status, WSREDIS_STATUS_PANIC);
        assert!(last_error().contains("planted"));
    }

    #[test]
    fn names_are_in_the_order_of_the_numbers() {
        assert_eq!(STATUS_NAMES[WSREDIS_STATUS_PANIC as usize], c"WSREDIS_STATUS_PANIC");
        for (number, name) in STATUS_NAMES.iter().enumerate() {
            let kinds = format!("{:?}", WSREDIS_STATUS_BUSY);
            assert_eq!(*name == c"WSREDIS_STATUS_BUSY", number == WSREDIS_STATUS_BUSY as usize);
            assert!(kinds.starts_with("WSREDIS_STATUS_"));
        }
    }

    #[derive(Clone, Copy, Debug, PartialEq)]
    #[repr(C)]
    struct Grown {
        struct_size: usize,
        old: u64,
        new: u64,
    }

    #[test]
    fn structs_of_older_and_newer_callers_are_read() {
        let read = |g: &Grown| {
            // SAFETY: `Grown` begins with its size, and sizes up to that of `Grown` are given.
            unsafe { read_sized(g, 16, "g") }
        };
        let mut g = Grown { struct_size: 16, old: 7, new: 9 };
        assert_eq!(read(&g).unwrap(), Grown { struct_size: 16, old: 7, new: 0 });
        g.struct_size = 24;
        assert_eq!(read(&g).unwrap(), g);
        g.struct_size = 8;
        assert_eq!(read(&g).unwrap_err().kind, Kind::Invalid);
        #[repr(C)]
        struct Newer {
            known: Grown,
            unknown: u64,
        }
        let mut newer = Newer { known: Grown { struct_size: 32, ..g }, unknown: 0 };
        let pointer = (&raw const newer).cast::<Grown>();
        // SAFETY: `pointer` is readable for the 32 bytes that its first field says.
        assert!(unsafe { read_sized(pointer, 16, "g") }.is_ok());
        newer.unknown = 1;
        let pointer = (&raw const newer).cast::<Grown>();
        // SAFETY: as above.
        assert_eq!(unsafe { read_sized(pointer, 16, "g") }.unwrap_err().kind, Kind::Unsupported);
    }
}
