//! Values: the text behind a key becomes a number of bytes, a time, a list, or a reason why not.
//!
//! Each parser takes the text and its row's range. Ranges of numbers are `LOW to HIGH`, with `, or
//! 0` behind where zero stands outside and means "off"; they are read by the same parser as the
//! text.

use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::time::Duration;

use super::RedisUrl;
use crate::log::Level;

/// What a key's text becomes, or why not.
type Parsed<T> = Result<T, String>;

/// What happens to sockets without the envelope when a channel loses continuity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnGap {
    /// They are closed with 1012, and their browsers come back.
    Close,
    /// It is counted.
    Ignore,
}

/// Where the engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// The host decides: the uWSGI plugin starts a keeper where there is a master; the library alone
    /// runs the engine in the calling process.
    Auto,
    /// In the calling process.
    Off,
    /// In the keeper that listens at this path.
    At(PathBuf),
}

/// A plain number.
pub(super) fn count(text: &str, range: &str) -> Parsed<usize> {
    in_range(text, range, "a number", digits)
}

/// A number of bytes: `100`, `64k`, `16m`, `1g`.
pub(super) fn size(text: &str, range: &str) -> Parsed<usize> {
    in_range(text, range, "a size (like 64k)", |text| {
        let (number, shift) = match text.as_bytes().last()? {
            b'k' | b'K' => (&text[..text.len() - 1], 10),
            b'm' | b'M' => (&text[..text.len() - 1], 20),
            b'g' | b'G' => (&text[..text.len() - 1], 30),
            _ => (text, 0),
        };
        digits(number)?.checked_mul(1 << shift)
    })
}

/// A time: `250ms`, `30s`, `5m`, `1h`, or `0`. Another number without a unit is refused: guessing
/// seconds where milliseconds were meant is a fault that shows only under load.
pub(super) fn time(text: &str, range: &str) -> Parsed<Duration> {
    in_range(text, range, "a time (like 250ms, 30s, 5m, 1h)", |text| {
        if text == "0" {
            return Some(Duration::ZERO);
        }
        let unit = text.find(|c: char| !c.is_ascii_digit())?;
        let ms = match &text[unit..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 60 * 60 * 1000,
            _ => return None,
        };
        Some(Duration::from_millis((digits(&text[..unit])? as u64).checked_mul(ms)?))
    })
}

/// Digits only: no sign, no underscore, no overflow.
fn digits(text: &str) -> Option<usize> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// Reads `text` with `parse` and holds it against `range`. What overflows `parse` is no such value
/// either.
fn in_range<T: PartialOrd + Default>(
    text: &str,
    range: &str,
    what: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Parsed<T> {
    let (span, zero) = match range.strip_suffix(", or 0") {
        Some(span) => (span, true),
        None => (range, false),
    };
    let Some(value) = parse(text) else {
        return Err(format!("{} is not {what}; {range}", shown(text)));
    };
    let (low, high) = span.split_once(" to ").unwrap_or((span, span));
    let inside =
        parse(low).is_some_and(|low| low <= value) && parse(high).is_some_and(|high| value <= high);
    if inside || (zero && value == T::default()) {
        return Ok(value);
    }
    Err(format!("{} is out of range; {range}", shown(text)))
}

/// `none`, or the URL of a server. An empty value is refused: a variable that came out empty must
/// not silently become the embedded broker.
pub(super) fn redis_url(text: &str, _range: &str) -> Parsed<Option<RedisUrl>> {
    match text {
        "none" => Ok(None),
        text => RedisUrl::parse(text).map(Some),
    }
}

/// A prefix of channel names. Those that begin with `__` belong to Redis (keyspace notifications).
pub(super) fn channel_prefix(text: &str, _range: &str) -> Parsed<String> {
    if text.len() > 128 {
        return Err(format!("it has {} bytes; up to 128", text.len()));
    }
    if text.starts_with("__") {
        return Err("it begins with __, which Redis keeps for itself; choose another".to_owned());
    }
    if text.chars().any(char::is_control) {
        return Err("it holds a control character".to_owned());
    }
    Ok(text.to_owned())
}

/// The longest path of a unix socket, without its NUL.
const MAX_SOCKET_PATH: usize = 107;

/// `auto`, `off`, or the absolute path of a keeper's socket.
pub(super) fn keeper(text: &str, range: &str) -> Parsed<Keeper> {
    match text {
        "auto" => Ok(Keeper::Auto),
        "off" => Ok(Keeper::Off),
        path if !path.starts_with('/') => {
            Err(format!("{} is no absolute path; {range}", shown(text)))
        }
        path if path.len() > MAX_SOCKET_PATH => {
            Err(format!("the path has {} bytes; up to {MAX_SOCKET_PATH}", path.len()))
        }
        path if path.chars().any(char::is_control) => {
            Err("it holds a control character".to_owned())
        }
        path => Ok(Keeper::At(path.into())),
    }
}

/// `on` or `off`.
pub(super) fn switch(text: &str, range: &str) -> Parsed<bool> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{} is not known; {range}", shown(text))),
    }
}

/// `close` or `ignore`.
pub(super) fn on_gap(text: &str, range: &str) -> Parsed<OnGap> {
    match text {
        "close" => Ok(OnGap::Close),
        "ignore" => Ok(OnGap::Ignore),
        _ => Err(format!("{} is not known; {range}", shown(text))),
    }
}

/// The name of a level.
pub(super) fn log_level(text: &str, range: &str) -> Parsed<Level> {
    match text {
        "error" => Ok(Level::Error),
        "warn" => Ok(Level::Warn),
        "info" => Ok(Level::Info),
        "debug" => Ok(Level::Debug),
        _ => Err(format!("{} is not known; {range}", shown(text))),
    }
}

/// A list of origins, `same-host` and `*`. Empty would lock everybody out, so it is refused.
pub(super) fn origins(text: &str, range: &str) -> Parsed<String> {
    if words(text).next().is_none() {
        return Err(format!("it is empty; {range}"));
    }
    let known = |word: &str| ["same-host", "*"].contains(&word) || is_origin(word);
    match words(text).find(|word| !known(word)) {
        Some(word) => Err(format!("{} is not an origin; {range}", shown(word))),
        None => Ok(text.to_owned()),
    }
}

/// A list of addresses and networks; it may be empty.
pub(super) fn proxies(text: &str, range: &str) -> Parsed<String> {
    match words(text).find(|word| !is_network(word)) {
        Some(word) => Err(format!("{} is not an address; {range}", shown(word))),
        None => Ok(text.to_owned()),
    }
}

/// The entries of a list: separated by commas, by white space, or by both.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// Does it look like what a browser sends as `Origin`: `scheme://host[:port]`, in ASCII, without a
/// path (RFC 6454 §6.2)? Names in other scripts come as punycode; a page is never at `ws://`.
pub fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return false };
    let (host_is_good, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (host, port) = rest.split_at(rest.find(':').unwrap_or(rest.len()));
            (is_host(host), port)
        }
    };
    let port_is_good = match port.strip_prefix(':') {
        Some(port) => {
            !port.starts_with('0') && digits(port).is_some_and(|port| port <= usize::from(u16::MAX))
        }
        None => port.is_empty(),
    };
    scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|c| c.is_ascii_alphanumeric() || b"+-.".contains(&c))
        && !["ws", "wss"].contains(&scheme.to_ascii_lowercase().as_str())
        && host_is_good
        && port_is_good
}

/// A name or an IPv4 address; `_` is in many of Docker's names. DNS allows 253 bytes.
fn is_host(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || b"-._".contains(&c);
    (1..=253).contains(&text.len())
        && text.bytes().all(legal)
        && !text.starts_with('.')
        && !text.contains("..")
}

/// An address, all that begin with the same bits (`10.0.0.0/8`), or `unix` for a peer without one.
fn is_network(text: &str) -> bool {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, digits(bits)),
        None => (text, Some(0)),
    };
    match address.parse() {
        Ok(IpAddr::V4(_)) => bits.is_some_and(|bits| bits <= 32),
        // ::ffff:10.0.0.0/104 is 10.0.0.0/8; fewer bits would be of both versions.
        Ok(IpAddr::V6(address)) if address.to_ipv4_mapped().is_some() => {
            bits.is_some_and(|bits| !text.contains('/') || (96..=128).contains(&bits))
        }
        Ok(IpAddr::V6(_)) => bits.is_some_and(|bits| bits <= 128),
        Err(_) => text == "unix",
    }
}

/// The most characters of somebody else's text in an error.
const MAX_SHOWN: usize = 40;

/// How somebody else's text stands in an error: escaped, on one line, and short.
pub fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(MAX_SHOWN).is_some() {
        shown.push('…');
    }
    if shown.is_empty() { "nothing".to_owned() } else { shown }
}
