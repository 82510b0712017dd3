//! The websocket handshake, RFC 6455 §4.2: is this request an upgrade that may pass, and the 101
//! that answers it.
//!
//! Called by whoever parsed the HTTP request, on any thread, before anything is written: it judges
//! and builds bytes and never sends them. The accept value is tungstenite's. It would look at the
//! first line of a header only, so lines are counted and joined here.

use data_encoding::BASE64;
use tungstenite::handshake::derive_accept_key;

use super::deflate::{self, Agreed, Window};
use super::envelope;
use super::origin::{self, Claim, Origin};
use crate::cause::Refusal;
use crate::error::{Error, Kind, Result};

/// All `Sec-WebSocket-Protocol` lines together.
const MAX_OFFER: usize = 1024;

/// A subprotocol that is named in an answer: with it a 101 without extra headers stays within 1
/// KiB.
const MAX_SUBPROTOCOL: usize = 512;

/// Extra headers of a 101.
const MAX_EXTRA_HEADERS: usize = 100;

/// Headers of a 101 that is read back: the extra ones and those of the handshake.
const MAX_HEADERS: usize = MAX_EXTRA_HEADERS + 28;

/// An HTTP request, parsed by the host. Each header line is an entry of its own; names come in any
/// case.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `GET`
    pub method: &'a [u8],
    /// `HTTP/1.1`
    pub protocol: &'a [u8],
    /// Names and values.
    pub headers: &'a [(&'a [u8], &'a [u8])],
    /// Text of the peer's address; empty for a unix socket.
    pub remote_address: &'a [u8],
    /// Whether the *browser* speaks https. Behind a proxy that does not tell, `None`.
    pub https: Option<bool>,
}

/// What the grant and the configuration say about the handshake.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allowed<'a> {
    /// May permessage-deflate be agreed on?
    pub compression: bool,
    /// The subprotocol to answer with; the browser must have offered it.
    pub subprotocol: Option<&'a str>,
    /// Origins that are allowed beside those of the configuration.
    pub origins: &'a [String],
}

/// The answer to a handshake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The whole 101.
    Accept(Vec<u8>),
    /// What to refuse with, and why, for the log only.
    Refuse(Refusal, String),
}

/// Judges `request` and builds the 101. `extra_headers` are raw header lines, each ended by CRLF,
/// for the 101 alone.
///
/// # Errors
/// `Invalid` for an extra header that is none, or that would change the handshake; `Grant` for an
/// origin in the grant that is none.
pub fn answer(
    request: &Request<'_>,
    allowed: &Allowed<'_>,
    policy: &origin::Policy,
    extra_headers: &[u8],
) -> Result<Verdict> {
    check_extra_headers(extra_headers)?;
    let mut origins = Vec::with_capacity(allowed.origins.len());
    for text in allowed.origins {
        origins.push(Origin::parse(text).ok_or_else(|| {
            let text = text.escape_default();
            Error::new(Kind::Grant, format!("origins: \"{text}\" is not scheme://host[:port]"))
        })?);
    }
    let judged = upgrade(request).and_then(|accept| {
        judge_origin(request, policy, &origins)?;
        let subprotocol = choose_subprotocol(request, allowed.subprotocol)?;
        let deflate = choose_deflate(request)?.filter(|_| allowed.compression);
        Ok((accept, subprotocol, deflate))
    });
    Ok(match judged {
        Ok((accept, subprotocol, deflate)) => {
            let mut out = Vec::with_capacity(200 + extra_headers.len());
            out.extend_from_slice(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                  Sec-WebSocket-Accept: ",
            );
            out.extend_from_slice(accept.as_bytes());
            if let Some(subprotocol) = subprotocol {
                out.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
                out.extend_from_slice(subprotocol.as_bytes());
            }
            if let Some(agreed) = deflate {
                out.extend_from_slice(b"\r\nSec-WebSocket-Extensions: ");
                out.extend_from_slice(agreed.answer().as_bytes());
            }
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(extra_headers);
            out.extend_from_slice(b"\r\n");
            Verdict::Accept(out)
        }
        Err((refusal, why)) => Verdict::Refuse(refusal, why),
    })
}

/// What a 101 tells the browser that it will speak.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// The subprotocol that was chosen.
    pub subprotocol: Option<String>,
    /// The window of permessage-deflate, if that was agreed on.
    pub deflate: Option<Window>,
}

/// What `answer`, a whole 101, promises.
///
/// # Errors
/// `Invalid` if it is no 101 to a websocket upgrade, or promises an extension that nobody here
/// speaks.
pub fn spoken_of(answer: &[u8]) -> Result<Spoken> {
    let invalid = |why: &str| Error::new(Kind::Invalid, format!("the answer {why}"));
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    match response.parse(answer) {
        Ok(httparse::Status::Complete(size)) if size == answer.len() => {}
        Ok(httparse::Status::Complete(_)) => return Err(invalid("has bytes behind its headers")),
        Ok(httparse::Status::Partial) => return Err(invalid("does not end with an empty line")),
        Err(error) => return Err(invalid(&format!("is no HTTP response: {error}"))),
    }
    if response.code != Some(101) {
        return Err(invalid("is no 101"));
    }
    let lines: Vec<_> = response.headers.iter().map(|h| (h.name.as_bytes(), h.value)).collect();
    let lines = Lines(&lines);
    if !lines.has_token("Upgrade", b"websocket")
        || !lines.has_token("Connection", b"upgrade")
        || lines.all("Sec-WebSocket-Accept").count() != 1
    {
        return Err(invalid("is no 101 to a websocket upgrade"));
    }
    let read_one = |name| {
        let mut found = lines.all(name);
        (found.next(), found.next().is_none())
    };
    let deflate = match read_one("Sec-WebSocket-Extensions") {
        (None, _) => None,
        (Some(line), is_only) => {
            let window = deflate::read_answer(line).filter(|_| is_only).ok_or_else(|| {
                invalid(
                    "promises an extension; only permessage-deflate is spoken here, without \
                         context takeover",
                )
            })?;
            Some(window)
        }
    };
    let subprotocol = match read_one("Sec-WebSocket-Protocol") {
        (None, _) => None,
        (Some(name), true) if is_token(name) => Some(String::from_utf8_lossy(name).into()),
        _ => return Err(invalid("names more than one subprotocol")),
    };
    Ok(Spoken { subprotocol, deflate })
}

/// A refusal and its reason.
type Refused<T> = std::result::Result<T, (Refusal, String)>;

fn malformed<T>(why: impl Into<String>) -> Refused<T> {
    Err((Refusal::Malformed, why.into()))
}

/// Judges the upgrade itself and gives the value of `Sec-WebSocket-Accept`.
fn upgrade(request: &Request<'_>) -> Refused<String> {
    let lines = Lines(request.headers);
    if !lines.has_token("Upgrade", b"websocket") {
        return Err((Refusal::NotUpgrade, "the request is no websocket upgrade".into()));
    }
    // Two lines of which two readers, a proxy and we, might each believe another one.
    for name in ["Host", "Sec-WebSocket-Key", "Sec-WebSocket-Version"] {
        if lines.all(name).count() > 1 {
            return malformed(format!("two {name} headers"));
        }
    }
    if lines.first("Sec-WebSocket-Version") != Some(b"13") {
        return Err((Refusal::NotUpgrade, "the websocket version is not 13".into()));
    }
    if request.method != b"GET" {
        return malformed("the method of an upgrade is not GET");
    }
    if request.protocol != b"HTTP/1.1" {
        return malformed("the protocol of an upgrade is not HTTP/1.1");
    }
    if lines.first("Host").is_none_or(<[u8]>::is_empty) {
        return malformed("no Host header");
    }
    if !lines.has_token("Connection", b"upgrade") {
        return malformed("no Connection: Upgrade (a proxy may have dropped it)");
    }
    // A body would be read as the first frames.
    if lines.first("Transfer-Encoding").is_some()
        || lines.all("Content-Length").any(|length| length != b"0")
    {
        return malformed("an upgrade with a body");
    }
    let is_nonce =
        |key: &&[u8]| key.len() == 24 && BASE64.decode(key).is_ok_and(|nonce| nonce.len() == 16);
    match lines.first("Sec-WebSocket-Key").filter(is_nonce) {
        Some(key) => Ok(derive_accept_key(key)),
        None => malformed("Sec-WebSocket-Key is not 16 bytes in base64"),
    }
}

fn judge_origin(request: &Request<'_>, policy: &origin::Policy, extra: &[Origin]) -> Refused<()> {
    let lines = Lines(request.headers);
    if lines.all("Origin").count() > 1 {
        return Err((Refusal::Origin, "two Origin headers".into()));
    }
    let claim = Claim {
        origin: lines.first("Origin"),
        cookie: lines.first("Cookie").is_some(),
        host: lines.first("Host").unwrap_or_default(),
        forwarded_host: lines.all("X-Forwarded-Host").last(),
        forwarded_proto: lines.all("X-Forwarded-Proto").last(),
        remote_address: request.remote_address,
        https: request.https,
    };
    policy.judge(&claim, extra).map_err(|why| (Refusal::Origin, why))
}

/// The subprotocol to answer with: what the grant names, else ours if it was offered.
fn choose_subprotocol<'a>(request: &Request<'a>, named: Option<&str>) -> Refused<Option<&'a str>> {
    let lines = Lines(request.headers);
    let mut chosen = None;
    let mut size = 0;
    let wanted = named.unwrap_or(envelope::PROTOCOL);
    for line in lines.all("Sec-WebSocket-Protocol") {
        // One pass over at most a kilobyte, whatever it holds (CVE-2021-32640 of another library).
        size += line.len();
        if size > MAX_OFFER {
            return malformed(format!("Sec-WebSocket-Protocol is over {MAX_OFFER} bytes"));
        }
        for offered in elements(line) {
            match std::str::from_utf8(offered) {
                Ok(text) if is_token(offered) => {
                    if text == wanted {
                        chosen = Some(text);
                    }
                }
                _ => return malformed("Sec-WebSocket-Protocol is no list of tokens"),
            }
        }
    }
    match (named, chosen) {
        (Some(_), Some(chosen)) if chosen.len() > MAX_SUBPROTOCOL => {
            Err((Refusal::Grant, format!("subprotocol: longer than {MAX_SUBPROTOCOL} bytes")))
        }
        (Some(named), None) => Err((
            Refusal::Grant,
            format!(
                "subprotocol: \"{}\" is not among those that the browser offered; name one of \
                 Sec-WebSocket-Protocol or none",
                named.escape_default()
            ),
        )),
        _ => Ok(chosen),
    }
}

/// The compression to answer with, if one of the browser's offers can be met.
fn choose_deflate(request: &Request<'_>) -> Refused<Option<Agreed>> {
    deflate::negotiate(Lines(request.headers).all("Sec-WebSocket-Extensions")).or_else(|_| {
        malformed("Sec-WebSocket-Extensions is no list of extensions, or over a kilobyte")
    })
}

/// Header lines, looked up without case.
#[derive(Clone, Copy)]
struct Lines<'a>(&'a [(&'a [u8], &'a [u8])]);

impl<'a> Lines<'a> {
    /// The values of all lines of this name, without the white space that does not belong to them
    /// (RFC 9110 §5.5).
    fn all(self, name: &str) -> impl Iterator<Item = &'a [u8]> {
        self.0
            .iter()
            .filter(move |(line, _)| line.eq_ignore_ascii_case(name.as_bytes()))
            .map(|(_, value)| trim(value))
    }

    fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Whether one of the lines, read as comma lists, has this element in any case.
    fn has_token(self, name: &str, token: &[u8]) -> bool {
        self.all(name).flat_map(elements).any(|element| element.eq_ignore_ascii_case(token))
    }
}

/// The elements of a comma list; empty ones are skipped, RFC 9110 §5.6.1.
fn elements(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| *byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Without spaces and tabs at both ends; `trim_ascii` would take line breaks too, which are no
/// white space here.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// A token of RFC 9110 §5.6.2.
pub fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|byte| is_token_byte(*byte))
}

/// May it stand in a token?
pub(super) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Checks that each line is one header, and none of those that the handshake itself is made of.
fn check_extra_headers(mut lines: &[u8]) -> Result<()> {
    let invalid = |why: String| Err(Error::new(Kind::Invalid, format!("extra headers: {why}")));
    let mut count = 0;
    while !lines.is_empty() {
        count += 1;
        let Some(end) = lines.iter().position(|byte| *byte == b'\r') else {
            return invalid(format!("line {count} does not end with CRLF"));
        };
        let (line, rest) = lines.split_at(end);
        let Some(rest) = rest.strip_prefix(b"\r\n") else {
            return invalid(format!("line {count} does not end with CRLF"));
        };
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return invalid(format!("line {count} is no header"));
        };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        // Visible characters, blanks and, as ever in HTTP, bytes of no stated encoding.
        let legal = |byte: &u8| matches!(byte, b'\t' | b' '..=b'~' | 0x80..);
        if !is_token(name) || !value.iter().all(legal) {
            return invalid(format!("line {count} is no header"));
        }
        let name = String::from_utf8_lossy(name).to_ascii_lowercase();
        if name.starts_with("sec-websocket-")
            || ["connection", "upgrade", "content-length", "transfer-encoding"].contains(&&*name)
        {
            return invalid(format!("{name} belongs to the handshake and can not be set"));
        }
        lines = rest;
    }
    if count > MAX_EXTRA_HEADERS {
        return invalid(format!("more than {MAX_EXTRA_HEADERS} lines"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    type Header = (&'static str, &'static str);

    /// The handshake of RFC 6455 §1.3.
    const GOOD: [Header; 5] = [
        ("Host", "server.example.com"),
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Version", "13"),
    ];

    fn same_host() -> origin::Policy {
        origin::Policy::parse("same-host", "").unwrap()
    }

    fn ask(line: (&str, &str), headers: &[Header], allowed: &Allowed<'_>) -> Verdict {
        let headers: Vec<_> = headers.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let request = Request {
            method: line.0.as_bytes(),
            protocol: line.1.as_bytes(),
            headers: &headers,
            remote_address: b"203.0.113.9",
            https: None,
        };
        answer(&request, allowed, &same_host(), b"").unwrap()
    }

    const LINE: (&str, &str) = ("GET", "HTTP/1.1");

    /// The good handshake without the header `name`, then with `more`.
    fn changed(name: &str, more: &[Header]) -> Vec<Header> {
        let mut headers: Vec<_> = GOOD.into_iter().filter(|(n, _)| *n != name).collect();
        headers.extend_from_slice(more);
        headers
    }

    fn verdict(headers: &[Header]) -> std::result::Result<String, Refusal> {
        match ask(LINE, headers, &Allowed::default()) {
            Verdict::Accept(answer) => Ok(String::from_utf8(answer).unwrap()),
            Verdict::Refuse(refusal, why) => {
                assert!(!why.is_empty());
                Err(refusal)
            }
        }
    }

    #[test]
    fn the_handshake_of_the_rfc_gets_its_answer() {
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                        Connection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        assert_eq!(verdict(&GOOD), Ok(expected.into()));
        assert_eq!(spoken_of(expected.as_bytes()), Ok(Spoken::default()));
    }

    #[test]
    fn legal_ways_of_writing_an_upgrade_are_accepted() {
        for headers in [
            changed("Connection", &[("connection", "keep-alive, Upgrade")]),
            changed("Connection", &[("Connection", "keep-alive"), ("Connection", "upgrade")]),
            changed("Connection", &[("Connection", "keep-alive,\tUPGRADE ,")]),
            changed("Upgrade", &[("UPGRADE", "WebSocket")]),
            changed("Upgrade", &[("Upgrade", "h2c, websocket")]),
            changed("Upgrade", &[("Upgrade", "h2c"), ("Upgrade", "websocket")]),
            changed("Sec-WebSocket-Version", &[("sec-websocket-version", " 13\t")]),
            changed("", &[("Content-Length", "0")]),
            changed(
                "",
                &[("Sec-WebSocket-Extensions", "permessage-deflate; constructor, ,x;y=\"z\"")],
            ),
            changed("", &[("Cookie", "a=b"), ("Origin", "https://server.example.com")]),
            changed("", &[("Origin", "http://server.example.com")]),
        ] {
            assert!(verdict(&headers).is_ok(), "{headers:?}");
        }
    }

    #[test]
    fn compression_is_in_the_answer_if_it_is_offered_and_allowed() {
        let offered = changed("", &[("Sec-WebSocket-Extensions", "permessage-deflate")]);
        for (headers, compression, expected) in [
            (&offered[..], true, Some(Window::default())),
            (&offered, false, None),
            (&GOOD, true, None),
        ] {
            let allowed = Allowed { compression, ..Allowed::default() };
            let Verdict::Accept(bytes) = ask(LINE, headers, &allowed) else { panic!("refused") };
            assert_eq!(spoken_of(&bytes).unwrap().deflate, expected);
        }
    }

    #[test]
    fn each_refusal_has_its_status() {
        use Refusal::{Malformed, NotUpgrade, Origin};
        for (headers, refusal) in [
            (vec![], NotUpgrade),
            (vec![("Host", "server.example.com")], NotUpgrade),
            (changed("Upgrade", &[]), NotUpgrade),
            (changed("Upgrade", &[("Upgrade", "h2c")]), NotUpgrade),
            (changed("Upgrade", &[("Upgrade", "websocket/13")]), NotUpgrade),
            (changed("Upgrade", &[("Upgrade", "\u{17f}websocket")]), NotUpgrade),
            (changed("Sec-WebSocket-Version", &[]), NotUpgrade),
            (changed("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", "8")]), NotUpgrade),
            (changed("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", "13, 8")]), NotUpgrade),
            (changed("Sec-WebSocket-Version", &[("Sec-WebSocket-Version", "013")]), NotUpgrade),
            (changed("", &[("Sec-WebSocket-Version", "13")]), Malformed),
            (changed("", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")]), Malformed),
            (changed("", &[("Host", "evil.example")]), Malformed),
            (changed("Host", &[]), Malformed),
            (changed("Host", &[("Host", " ")]), Malformed),
            (changed("Connection", &[]), Malformed),
            (changed("Connection", &[("Connection", "keep-alive")]), Malformed),
            (changed("Connection", &[("Connection", "upgraded")]), Malformed),
            (changed("Sec-WebSocket-Key", &[]), Malformed),
            (changed("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "")]), Malformed),
            (changed("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "YWJj")]), Malformed),
            (
                changed("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "!!!!!!!!!!!!!!!!!!!!!!==")]),
                Malformed,
            ),
            (
                changed("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=\n")]),
                Malformed,
            ),
            (
                changed("Sec-WebSocket-Key", &[("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZTE=")]),
                Malformed,
            ),
            (changed("", &[("Sec-WebSocket-Extensions", "permessage-deflate;=")]), Malformed),
            (changed("", &[("Content-Length", "5")]), Malformed),
            (changed("", &[("Transfer-Encoding", "chunked")]), Malformed),
            (changed("", &[("Cookie", "a=b")]), Origin),
            (changed("", &[("Origin", "null")]), Origin),
            (changed("", &[("Origin", "https://evil.example")]), Origin),
            (
                changed(
                    "",
                    &[
                        ("Origin", "https://server.example.com"),
                        ("Origin", "https://server.example.com"),
                    ],
                ),
                Origin,
            ),
            (
                changed(
                    "",
                    &[("Origin", "https://evil.example"), ("X-Forwarded-Host", "evil.example")],
                ),
                Origin,
            ),
        ] {
            assert_eq!(verdict(&headers), Err(refusal), "{headers:?}");
        }
        for line in [
            ("POST", "HTTP/1.1"),
            ("get", "HTTP/1.1"),
            ("", "HTTP/1.1"),
            ("GET", "HTTP/1.0"),
            ("GET", "HTTP/2.0"),
            ("GET", ""),
        ] {
            let verdict = ask(line, &GOOD, &Allowed::default());
            assert!(matches!(verdict, Verdict::Refuse(Malformed, _)), "{line:?}");
        }
        // Not an upgrade: the method does not matter.
        let verdict = ask(("POST", "HTTP/1.1"), &changed("Upgrade", &[]), &Allowed::default());
        assert!(matches!(verdict, Verdict::Refuse(NotUpgrade, _)));
    }

    /// The subprotocol of the answer when these lines are offered.
    fn chosen(
        offered: &[&'static str],
        named: Option<&str>,
    ) -> std::result::Result<Option<String>, Refusal> {
        let lines: Vec<_> = offered.iter().map(|line| ("Sec-WebSocket-Protocol", *line)).collect();
        let allowed = Allowed { subprotocol: named, ..Allowed::default() };
        match ask(LINE, &changed("", &lines), &allowed) {
            Verdict::Accept(answer) => Ok(spoken_of(&answer).unwrap().subprotocol),
            Verdict::Refuse(refusal, _) => Err(refusal),
        }
    }

    #[test]
    fn a_subprotocol_is_answered_if_it_was_offered() {
        let ours = || Ok(Some("wsredis.v1".into()));
        assert_eq!(chosen(&[], None), Ok(None));
        assert_eq!(chosen(&["chat"], None), Ok(None));
        assert_eq!(chosen(&["wsredis.v1"], None), ours());
        assert_eq!(chosen(&["chat, wsredis.v1"], None), ours());
        assert_eq!(chosen(&["chat", ",, wsredis.v1 ,"], None), ours());
        assert_eq!(chosen(&["WSREDIS.V1"], None), Ok(None));
        assert_eq!(chosen(&["wsredis.v1, chat"], Some("chat")), Ok(Some("chat".into())));
        for (offered, named) in [("chat", "mqtt"), ("", "mqtt"), ("chats", "chat"), ("chat", "")] {
            assert_eq!(chosen(&[offered], Some(named)), Err(Refusal::Grant));
        }
        assert_eq!(chosen(&[], Some("a\r\nX: y")), Err(Refusal::Grant));
        for offered in ["a b", "a;b", "a/b", "\"a\"", "é", "a\r\nX: y", "(a)"] {
            assert_eq!(chosen(&[offered], None), Err(Refusal::Malformed), "{offered}");
        }
    }

    #[test]
    fn an_offer_of_subprotocols_is_bounded() {
        let line = |len: usize| -> &'static str { "a".repeat(len).leak() };
        assert_eq!(chosen(&[line(MAX_OFFER)], None), Ok(None));
        assert_eq!(chosen(&[line(MAX_OFFER + 1)], None), Err(Refusal::Malformed));
        assert_eq!(chosen(&[line(MAX_OFFER), "a"], None), Err(Refusal::Malformed));
        let longest = line(MAX_SUBPROTOCOL);
        assert_eq!(chosen(&[longest], Some(longest)), Ok(Some(longest.into())));
        let longer = line(MAX_SUBPROTOCOL + 1);
        assert_eq!(chosen(&[longer], Some(longer)), Err(Refusal::Grant));
    }

    /// The answer to a good request with these extra headers.
    fn with_extra(extra: &[u8]) -> Result<Vec<u8>> {
        let headers: Vec<_> = GOOD.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let request = Request {
            method: b"GET",
            protocol: b"HTTP/1.1",
            headers: &headers,
            remote_address: b"",
            https: None,
        };
        match answer(&request, &Allowed::default(), &same_host(), extra)? {
            Verdict::Accept(answer) => Ok(answer),
            refused => panic!("{refused:?}"),
        }
    }

    #[test]
    fn extra_headers_are_carried_into_the_101_as_they_are() {
        let cookies = b"Set-Cookie: a=b; Path=/\r\nset-cookie:c=\xe9\td\r\nX-Empty:\r\n";
        let answer = with_extra(cookies).unwrap();
        assert!(answer.ends_with(&[&cookies[..], b"\r\n"].concat()));
        assert_eq!(spoken_of(&answer), Ok(Spoken::default()));
        let many = b"Set-Cookie: a=b\r\n".repeat(MAX_EXTRA_HEADERS);
        assert_eq!(spoken_of(&with_extra(&many).unwrap()), Ok(Spoken::default()));
    }

    #[test]
    fn extra_headers_that_would_break_the_handshake_are_invalid() {
        let too_many = b"Set-Cookie: a=b\r\n".repeat(MAX_EXTRA_HEADERS + 1);
        for extra in [
            &b"Connection: close\r\n"[..],
            b"A: b\r\nUPGRADE: h2c\r\n",
            b"Sec-WebSocket-Protocol: x\r\n",
            b"sec-websocket-extensions: permessage-deflate\r\n",
            b"Sec-WebSocket-Anything: x\r\n",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"A: b",
            b"A: b\n",
            b"A: b\r",
            b"A: b\r\r\n",
            b"A: b\nB: c\r\n",
            b"A: b\r\n\r\n",
            b"\r\n",
            b"A\r\n",
            b": b\r\n",
            b"A : b\r\n",
            b" folded: b\r\n",
            b"A: b\r\n c\r\n",
            b"A: \0\r\n",
            b"A: \x7f\r\n",
            b"\xc3\xa9: b\r\n",
            &too_many,
        ] {
            assert_eq!(with_extra(extra).unwrap_err().kind, Kind::Invalid, "{extra:?}");
        }
    }

    #[test]
    fn origins_of_the_grant_count_and_a_wrong_one_is_the_grants_fault() {
        let headers = changed("", &[("Origin", "https://partner.example")]);
        let origins = ["https://partner.example".to_string()];
        let allowed = Allowed { origins: &origins, ..Allowed::default() };
        assert!(matches!(ask(LINE, &headers, &allowed), Verdict::Accept(_)));
        let origins = ["https://*.partner.example".to_string()];
        let allowed = Allowed { origins: &origins, ..Allowed::default() };
        let request = Request {
            method: b"GET",
            protocol: b"HTTP/1.1",
            headers: &[],
            remote_address: b"",
            https: None,
        };
        let error = answer(&request, &allowed, &same_host(), b"").unwrap_err();
        assert!(error.kind == Kind::Grant && error.text.starts_with("origins: "), "{error}");
    }

    #[test]
    fn only_a_whole_101_to_a_websocket_upgrade_is_read() {
        let head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                    Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n";
        let read = |more: &str| {
            spoken_of(format!("{head}{more}").as_bytes()).map(|spoken| spoken.subprotocol)
        };
        assert_eq!(read("\r\n"), Ok(None));
        assert_eq!(read("Sec-WebSocket-Protocol: a\r\n\r\n"), Ok(Some("a".into())));
        for more in [
            "",
            "\r\nx",
            "Sec-WebSocket-Protocol: a, b\r\n\r\n",
            "Sec-WebSocket-Protocol: a\r\nsec-websocket-protocol: b\r\n\r\n",
            "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
            "Sec-WebSocket-Accept: y\r\n\r\n",
            "bad line\r\n\r\n",
        ] {
            assert_eq!(read(more).unwrap_err().kind, Kind::Invalid, "{more:?}");
        }
        for answer in ["", "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.1 101 Switching Protocols\r\n\r\n"] {
            assert_eq!(spoken_of(answer.as_bytes()).unwrap_err().kind, Kind::Invalid);
        }
        let whole = format!("{head}\r\n");
        for cut in 0..whole.len() {
            assert!(spoken_of(&whole.as_bytes()[..cut]).is_err());
        }
        for refusal in Refusal::ALL {
            assert!(spoken_of(refusal.answer().as_bytes()).is_err());
        }
    }
}
