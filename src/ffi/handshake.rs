//! The handshake's functions: a parsed request becomes the whole HTTP answer.

use std::ffi::c_char;
use std::mem::offset_of;

use super::config::wsredis_config;
use super::guard::{
    copy_whole, guard, object, put, read_sized, room, set_last_error, slice, wsredis_status,
};
use crate::cause::Refusal;
use crate::error::{Error, Kind, Result};
use crate::grant::Grant;
use crate::ws::handshake::{self, Allowed, Request, Verdict};

/// Room for an answer of `wsredis_handshake_answer` without the extra headers.
pub const WSREDIS_ANSWER_SIZE: usize = 1024;

/// One header line of a request.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct wsredis_header {
    /// Its name, in any case.
    pub name: *const c_char,
    /// Its length.
    pub name_len: usize,
    /// Its value, without the white space around it.
    pub value: *const c_char,
    /// Its length.
    pub value_len: usize,
}

/// A parsed HTTP request. The texts are borrowed for the call.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct wsredis_request {
    /// `sizeof(wsredis_request)`.
    pub struct_size: usize,
    /// `GET`.
    pub method: *const c_char,
    /// Its length.
    pub method_len: usize,
    /// `HTTP/1.1`.
    pub protocol: *const c_char,
    /// Its length.
    pub protocol_len: usize,
    /// Every header line of the request, each as an entry of its own also where a name is repeated.
    pub headers: *const wsredis_header,
    /// How many there are.
    pub headers_len: usize,
    /// The peer's address as text, for `trusted-proxies`; empty for AF_UNIX.
    pub remote_address: *const c_char,
    /// Its length.
    pub remote_address_len: usize,
    /// How the browser came here, as far as the host knows: 0 unknown, 1 http, 2 https.
    pub https: u8,
}

/// What every caller's request has at least: that of the first header.
const REQUEST_SIZE: usize = offset_of!(wsredis_request, https) + size_of::<u8>();

/// Judges an upgrade and its Origin, chooses subprotocol and compression, and writes the whole HTTP answer to
/// `buf`: a 101, or the refusal with its body. The host writes a refusal itself and hands a 101 to
/// `wsredis_engine_adopt`.
///
/// `grant` may be NULL with length 0: then the request alone is judged. `extra_headers` are raw
/// lines, each ended by CRLF, that a 101 carries (the app's Set-Cookie); a line that would change
/// the handshake is refused.
///
/// Any size of a request is judged, at a cost that grows with it and no faster. How much of one is
/// read, and for how long, is for the host to limit: it answers 431 and 408.
///
/// *Returns:* `OK` also for a refusal: `*out_http` says which, and unless it is 101 the last
/// error's text has the reason, for the log. `GRANT` for a bad grant; `INVALID` for bad extra
/// headers; `CONFIG` for bad `allowed-origins`; `LIMIT` if `buf_len` is less than
/// `WSREDIS_ANSWER_SIZE` + `extra_headers_len`.
///
/// *Ownership:* nothing is kept.
///
/// *Threads:* any.
///
/// # Safety
/// All pointers are as long as they say; `buf`, `out_len` and `out_http` have room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_handshake_answer(
    config: *const wsredis_config,
    request: *const wsredis_request,
    grant: *const c_char,
    grant_len: usize,
    extra_headers: *const c_char,
    extra_headers_len: usize,
    buf: *mut c_char,
    buf_len: usize,
    out_len: *mut usize,
    out_http: *mut u16,
) -> wsredis_status {
    guard(|| {
        room(out_http, "out_http")?;
        // SAFETY: the caller's promise.
        let (config, request, grant, extra) = unsafe {
            (
                object(config, "config")?,
                read_sized(request, REQUEST_SIZE, "request")?,
                slice(grant.cast::<u8>(), grant_len, "grant")?,
                slice(extra_headers.cast::<u8>(), extra_headers_len, "extra_headers")?,
            )
        };
        if buf_len < WSREDIS_ANSWER_SIZE.saturating_add(extra.len()) {
            let text = "buf_len must be at least WSREDIS_ANSWER_SIZE + extra_headers_len";
            return Err(Error::new(Kind::Limit, text));
        }
        let grant = match grant {
            b"" => Grant::default(),
            json => Grant::parse(json, config.config.max_channels_per_socket)
                .inspect_err(|_| config.refusals.of(Refusal::Grant).add_shared(1))?,
        };
        // SAFETY: the caller's promise.
        let headers = unsafe { headers_of(&request)? };
        // SAFETY: the caller's promise.
        let request = unsafe {
            Request {
                method: slice(request.method.cast::<u8>(), request.method_len, "method")?,
                protocol: slice(request.protocol.cast::<u8>(), request.protocol_len, "protocol")?,
                headers: &headers,
                remote_address: slice(
                    request.remote_address.cast::<u8>(),
                    request.remote_address_len,
                    "remote_address",
                )?,
                https: match request.https {
                    0 => None,
                    1 => Some(false),
                    2 => Some(true),
                    _ => return Err(Error::new(Kind::Invalid, "request.https is 0, 1 or 2")),
                },
            }
        };
        let allowed = Allowed {
            compression: config.config.compression,
            subprotocol: grant.subprotocol.as_deref(),
            origins: &grant.origins,
        };
        let (answer, http) = match handshake::answer(&request, &allowed, config.policy()?, extra)? {
            Verdict::Accept(answer) => (answer, 101),
            Verdict::Refuse(refusal, why) => {
                set_last_error(why);
                config.refusals.of(refusal).add_shared(1);
                (refusal.answer().into_bytes(), refusal.status())
            }
        };
        // SAFETY: the caller's promise.
        unsafe {
            copy_whole(&answer, buf, buf_len, out_len)?;
            put(out_http, http, "out_http")
        }
    })
}

/// The header lines of a request.
///
/// # Safety
/// They are as long as they say.
unsafe fn headers_of<'a>(request: &wsredis_request) -> Result<Vec<(&'a [u8], &'a [u8])>> {
    // SAFETY: the caller's promise.
    let headers = unsafe { slice(request.headers, request.headers_len, "headers")? };
    let pair = |header: &wsredis_header| {
        // SAFETY: the caller's promise.
        unsafe {
            Ok((
                slice(header.name.cast::<u8>(), header.name_len, "a header's name")?,
                slice(header.value.cast::<u8>(), header.value_len, "a header's value")?,
            ))
        }
    };
    headers.iter().map(pair).collect()
}

/// Writes the HTTP answer of a refusal that the host found out itself (400, 403, 408, 426, 431, 500,
/// 501 or 503), and counts it in the statistics.
///
/// *Returns:* `INVALID` for another number; `LIMIT` if `buf_len` is too small
/// (`WSREDIS_ANSWER_SIZE` is enough).
///
/// *Ownership:* nothing is kept.
///
/// *Threads:* any.
///
/// # Safety
/// `config` is live; `buf` has `buf_len` bytes; `out_len` has room.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn wsredis_handshake_refusal(
    config: *const wsredis_config,
    http: u16,
    buf: *mut c_char,
    buf_len: usize,
    out_len: *mut usize,
) -> wsredis_status {
    guard(|| {
        let refusal = Refusal::of_status(http)
            .ok_or_else(|| Error::new(Kind::Invalid, format!("{http} is none of our refusals")))?;
        // SAFETY: the caller's promise.
        unsafe {
            let config = object(config, "config")?;
            copy_whole(refusal.answer().as_bytes(), buf, buf_len, out_len)?;
            config.refusals.of(refusal).add_shared(1);
        }
        Ok(())
    })
}
