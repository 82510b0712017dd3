//! The answer to a handshake, against a twin that gathers every reason to refuse it, and the 101
//! read back by two readers.

use data_encoding::BASE64;
use sha1::{Digest, Sha1};
use wsredis::cause::Refusal;
use wsredis::error::Kind;
use wsredis::ws::deflate::Window;
use wsredis::ws::handshake::{Allowed, Request, Spoken, Verdict, answer, spoken_of};
use wsredis::ws::origin::{Claim, Policy};

use crate::input::Input;
use crate::origin;

type Header<'a> = (&'a [u8], &'a [u8]);

/// What a handshake is asked with.
struct Question<'a> {
    request: Request<'a>,
    allowed: Allowed<'a>,
    policy: (&'a str, &'a str),
    extra: &'a [u8],
}

fn is_token(text: &[u8]) -> bool {
    let legal = |c: char| c.is_ascii_graphic() && !"\"(),/:;<=>?@[\\]{}".contains(c);
    !text.is_empty() && text.iter().all(|byte| legal(char::from(*byte)))
}

fn trim(text: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| [b' ', b'\t'].contains(byte);
    let begin = text.iter().position(|byte| !is_blank(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !is_blank(byte)).map_or(begin, |at| at + 1);
    &text[begin..end]
}

fn values<'a>(headers: &[Header<'a>], name: &str) -> Vec<&'a [u8]> {
    let same = |other: &[u8]| String::from_utf8_lossy(other).to_ascii_lowercase() == name;
    headers.iter().filter(|(other, _)| same(other)).map(|(_, value)| trim(value)).collect()
}

fn elements<'a>(headers: &[Header<'a>], name: &str) -> Vec<&'a [u8]> {
    let lines = values(headers, name).into_iter();
    let all = lines.flat_map(|line| line.split(|byte| *byte == b',')).map(trim);
    all.filter(|element| !element.is_empty()).collect()
}

fn holds(headers: &[Header<'_>], name: &str, word: &str) -> bool {
    elements(headers, name).iter().any(|element| element.eq_ignore_ascii_case(word.as_bytes()))
}

/// The extra headers one by one; `None` if one is none, or is the handshake's own.
fn extra_headers(mut lines: &[u8]) -> Option<Vec<Header<'_>>> {
    let mut headers = Vec::new();
    while !lines.is_empty() {
        let end = lines.windows(2).position(|two| two == b"\r\n")?;
        let colon = lines[..end].iter().position(|byte| *byte == b':')?;
        let (name, value) = (&lines[..colon], &lines[colon + 1..end]);
        let lower = String::from_utf8_lossy(name).to_ascii_lowercase();
        let own = ["connection", "upgrade", "content-length", "transfer-encoding"];
        if !is_token(name) || own.contains(&&*lower) || lower.starts_with("sec-websocket-") {
            return None;
        }
        if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7F) {
            return None;
        }
        headers.push((name, value));
        lines = &lines[end + 2..];
    }
    (headers.len() <= 100).then_some(headers)
}

/// The window that is agreed on, and whether the browser has named it; `Err`: what was offered is no
/// list of extensions. RFC 7692 §7.1 with what is said of ours: no window of 2^8.
fn deflate(headers: &[Header<'_>]) -> Result<Option<(u8, bool)>, ()> {
    let lines = values(headers, "sec-websocket-extensions");
    if lines.iter().map(|line| line.len()).sum::<usize>() > 1024 {
        return Err(());
    }
    let mut agreed = None;
    for element in elements(headers, "sec-websocket-extensions") {
        let mut parts = element.split(|byte| *byte == b';').map(trim);
        let name = parts.next().filter(|name| is_token(name)).ok_or(())?;
        let mut parameters = Vec::new();
        for part in parts {
            let (name, value) = match part.iter().position(|byte| *byte == b'=') {
                Some(at) => (trim(&part[..at]), Some(unquoted(trim(&part[at + 1..]))?)),
                None => (part, None),
            };
            if !is_token(name) || value.as_ref().is_some_and(|value| !is_token(value)) {
                return Err(());
            }
            parameters.push((name, value));
        }
        let is_twice = (1..parameters.len())
            .any(|at| parameters[..at].iter().any(|(name, _)| *name == parameters[at].0));
        let bits = |value: &[u8]| (8..=15).find(|bits: &u8| bits.to_string().as_bytes() == value);
        let mut window = (15, false);
        let is_good = parameters.iter().all(|(name, value)| match (*name, value) {
            (b"server_no_context_takeover" | b"client_no_context_takeover", None) => true,
            (b"client_max_window_bits", value) => {
                value.as_ref().is_none_or(|value| bits(value).is_some())
            }
            (b"server_max_window_bits", Some(value)) => {
                window = (bits(value).unwrap_or(0), true);
                window.0 >= 9
            }
            _ => false,
        });
        if agreed.is_none() && name == b"permessage-deflate" && is_good && !is_twice {
            agreed = Some(window);
        }
    }
    Ok(agreed)
}

/// A value without its quotes, if it has them.
fn unquoted(value: &[u8]) -> Result<Vec<u8>, ()> {
    let Some(inner) = value.strip_prefix(b"\"") else { return Ok(value.into()) };
    let inner = inner.strip_suffix(b"\"").ok_or(())?;
    let mut plain = Vec::new();
    let mut bytes = inner.iter();
    while let Some(byte) = bytes.next() {
        plain.push(if *byte == b'\\' { *bytes.next().ok_or(())? } else { *byte });
    }
    Ok(plain)
}

/// Every reason to refuse.
fn reasons(question: &Question<'_>) -> Vec<Refusal> {
    let Request { method, protocol, headers, remote_address, https } = question.request;
    let mut reasons = Vec::new();
    let mut unless = |good: bool, refusal| {
        if !good {
            reasons.push(refusal);
        }
    };
    let one = |name: &str| match &values(headers, name)[..] {
        [value] => Some(*value),
        _ => None,
    };
    let count = |name: &str| values(headers, name).len();

    unless(holds(headers, "upgrade", "websocket"), Refusal::NotUpgrade);
    let versions = values(headers, "sec-websocket-version");
    unless(versions.first() == Some(&&b"13"[..]), Refusal::NotUpgrade);
    unless(versions.len() <= 1, Refusal::Malformed);
    unless(method == b"GET" && protocol == b"HTTP/1.1", Refusal::Malformed);
    unless(one("host").is_some_and(|host| !host.is_empty()), Refusal::Malformed);
    unless(holds(headers, "connection", "upgrade"), Refusal::Malformed);
    unless(count("transfer-encoding") == 0, Refusal::Malformed);
    let lengths = values(headers, "content-length");
    unless(lengths.iter().all(|length| *length == b"0"), Refusal::Malformed);
    let key = one("sec-websocket-key").and_then(|key| BASE64.decode(key).ok());
    unless(key.is_some_and(|key| key.len() == 16), Refusal::Malformed);

    let offers = values(headers, "sec-websocket-protocol");
    unless(offers.iter().map(|line| line.len()).sum::<usize>() <= 1024, Refusal::Malformed);
    let offered = elements(headers, "sec-websocket-protocol");
    unless(offered.iter().all(|offer| is_token(offer)), Refusal::Malformed);
    if let Some(named) = question.allowed.subprotocol {
        unless(offered.contains(&named.as_bytes()) && named.len() <= 512, Refusal::Grant);
    }

    unless(deflate(headers).is_ok(), Refusal::Malformed);

    let claim = Claim {
        origin: values(headers, "origin").first().copied(),
        cookie: count("cookie") > 0,
        host: values(headers, "host").first().copied().unwrap_or_default(),
        forwarded_host: values(headers, "x-forwarded-host").last().copied(),
        forwarded_proto: values(headers, "x-forwarded-proto").last().copied(),
        remote_address,
        https,
    };
    let extra: Vec<&str> = question.allowed.origins.iter().map(String::as_str).collect();
    let (allowed, proxies) = question.policy;
    unless(count("origin") <= 1, Refusal::Origin);
    unless(origin::twin(allowed, proxies, &claim, &extra), Refusal::Origin);
    reasons
}

/// The 101 that the RFC wants.
fn expected(question: &Question<'_>) -> (Vec<u8>, Spoken) {
    let headers = question.request.headers;
    let key = values(headers, "sec-websocket-key")[0];
    let digest = Sha1::digest([key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat());
    let wanted = question.allowed.subprotocol.unwrap_or("wsredis.v1");
    let offered = elements(headers, "sec-websocket-protocol");
    let chosen = offered.contains(&wanted.as_bytes()).then(|| wanted.to_owned());
    let mut out = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {}\r\n",
        BASE64.encode(&digest)
    );
    if let Some(chosen) = &chosen {
        out += &format!("Sec-WebSocket-Protocol: {chosen}\r\n");
    }
    let agreed = deflate(headers).expect("no reason to refuse");
    let agreed = agreed.filter(|_| question.allowed.compression);
    if let Some((bits, is_named)) = agreed {
        out += "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; \
                client_no_context_takeover";
        if is_named {
            out += &format!("; server_max_window_bits={bits}");
        }
        out += "\r\n";
    }
    let window = agreed.map(|(bits, _)| Window::new(bits).expect("9 to 15 bits"));
    let spoken = Spoken { subprotocol: chosen, deflate: window };
    ([out.as_bytes(), question.extra, b"\r\n"].concat(), spoken)
}

/// The headers of a 101, as another reader sees them.
fn read_back(answer: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut headers = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut headers);
    let read = response.parse(answer).expect("the answer is HTTP");
    assert_eq!(read, httparse::Status::Complete(answer.len()));
    assert_eq!(response.code, Some(101));
    response.headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect()
}

fn judge(question: &Question<'_>) {
    let (allowed, proxies) = question.policy;
    let Ok(policy) = Policy::parse(allowed, proxies) else { return };
    let judged = answer(&question.request, &question.allowed, &policy, question.extra);

    let extra = extra_headers(question.extra);
    let origins_are_good = question.allowed.origins.iter().all(|o| origin::parts(o).is_some());
    let kind = match (&extra, origins_are_good) {
        (None, _) => Some(Kind::Invalid),
        (_, false) => Some(Kind::Grant),
        _ => None,
    };
    assert_eq!(judged.as_ref().err().map(|error| error.kind), kind);
    let (Ok(verdict), Some(extra)) = (judged, extra) else { return };

    let reasons = reasons(question);
    match verdict {
        Verdict::Refuse(refusal, why) => {
            assert!(reasons.contains(&refusal), "{refusal:?}: {why}");
            assert!(!why.chars().any(char::is_control), "{why:?}");
            assert!(why.len() < 8192, "{} bytes for the log", why.len());
        }
        Verdict::Accept(out) => {
            assert_eq!(reasons, []);
            let (expected, spoken) = expected(question);
            assert_eq!(out, expected);
            assert!(out.len() <= 1024 + question.extra.len());
            assert_eq!(spoken_of(&out).as_ref(), Ok(&spoken));
            let read = read_back(&out);
            let own = 3
                + usize::from(spoken.subprotocol.is_some())
                + usize::from(spoken.deflate.is_some());
            assert_eq!(read.len(), own + extra.len());
            for ((name, value), (n, v)) in extra.iter().zip(&read[own..]) {
                assert_eq!((*name, trim(value)), (n.as_bytes(), trim(v)));
            }
        }
    }
}

/// A handshake passes if there is no reason to refuse it, and is refused for one of them; the 101
/// is the expected one to the byte, and two readers find in it what was built.
pub fn check(data: &[u8]) {
    // An answer that somebody else built.
    if let Ok(Spoken { subprotocol: Some(name), .. }) = spoken_of(data) {
        assert!(is_token(name.as_bytes()) && data.trim_ascii_start().starts_with(b"HTTP/1."));
        assert!(data.windows(name.len()).any(|part| part == name.as_bytes()));
    }

    let mut input = Input(data);
    let text = |line| std::str::from_utf8(line).unwrap_or("\u{fffd}");
    let choice = input.byte();
    let policy = (text(input.line()), text(input.line()));
    let remote_address = input.line();
    let (named, origins) = (text(input.line()), text(input.line()));
    let origins: Vec<String> =
        origins.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let first = input.line();
    let mut words = first.splitn(2, |byte| *byte == b' ');
    let method = words.next().unwrap_or_default();
    let protocol = words.next().unwrap_or_default();
    // Values may hold anything, also a line break: it is written as 0x1F.
    let mut lines = Vec::new();
    loop {
        let line = input.line();
        if line.is_empty() {
            break;
        }
        lines.push(line.iter().map(|b| if *b == 0x1F { b'\n' } else { *b }).collect::<Vec<u8>>());
    }
    let mut headers: Vec<Header<'_>> = Vec::new();
    for line in &lines {
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        headers.push((&line[..colon], line.get(colon + 1..).unwrap_or_default()));
    }
    let request = Request {
        method,
        protocol,
        headers: &headers,
        remote_address,
        https: [None, Some(false), Some(true), None][usize::from(choice & 3)],
    };
    let allowed = Allowed {
        compression: choice & 8 != 0,
        subprotocol: (choice & 4 != 0).then_some(named),
        origins: &origins,
    };
    judge(&Question { request, allowed, policy, extra: input.0 });
}
