//! Who may connect, against a twin that takes origins apart into three texts and compares those.

use std::net::{IpAddr, Ipv6Addr};

use wsredis::config::{Config, is_origin};
use wsredis::ws::origin::{Claim, Origin, Policy};

use crate::input::Input;

/// Scheme, host and port as texts; the port is the one that is meant.
type Parts = (String, String, String);

fn default_port(scheme: &str) -> &'static str {
    match scheme {
        "http" => "80",
        "https" => "443",
        _ => "",
    }
}

/// `host[:port]` in lower case; an address of version 6 in its one spelling.
fn authority(text: &str) -> Option<(String, String)> {
    let colon = match text.rfind(']') {
        Some(bracket) => text[bracket..].find(':').map(|at| bracket + at),
        None => text.find(':'),
    };
    let (host, port) = text.split_at(colon.unwrap_or(text.len()));
    let number: String = port.chars().skip(1).collect();
    let port_is_good = port.is_empty()
        || (number.parse::<u16>().is_ok_and(|port| port != 0 && port.to_string() == number));
    let host = if let Some(address) = host.strip_prefix('[') {
        address.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?.to_string()
    } else {
        let labels: Vec<&str> = host.strip_suffix('.').unwrap_or(host).split('.').collect();
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let label = |label: &&str| !label.is_empty() && label.chars().all(legal);
        if host.len() > 253 || !labels.iter().all(label) {
            return None;
        }
        host.to_ascii_lowercase()
    };
    port_is_good.then_some((host, number))
}

/// The parts of an origin.
pub fn parts(text: &str) -> Option<Parts> {
    let (scheme, rest) = text.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    if !scheme.starts_with(|c: char| c.is_ascii_lowercase()) || !scheme.chars().all(legal) {
        return None;
    }
    let (host, mut port) = authority(rest)?;
    if port.is_empty() {
        port = default_port(&scheme).into();
    }
    Some((scheme, host, port))
}

fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split([',', ' ', '\t', '\n', '\r', '\x0c']).filter(|word| !word.is_empty())
}

/// An address as a text of bits; version 4 inside version 6 is version 4.
fn bits(text: &str) -> Option<String> {
    Some(match text.parse::<IpAddr>().ok()?.to_canonical() {
        IpAddr::V4(address) => format!("4{:032b}", address.to_bits()),
        IpAddr::V6(address) => format!("6{:0128b}", address.to_bits()),
    })
}

fn is_inside(peer: &str, network: &str) -> bool {
    if network == "unix" {
        return peer.is_empty();
    }
    let (address, len) = network.split_once('/').unwrap_or((network, "128"));
    let (Some(base), Some(peer), Ok(len)) = (bits(address), bits(peer), len.parse::<usize>())
    else {
        return false;
    };
    let is_mapped = base.starts_with('4') && address.contains(':');
    let len = if is_mapped { len.saturating_sub(96) } else { len };
    let len = 1 + len.min(base.len() - 1);
    peer.len() == base.len() && peer[..len] == base[..len]
}

/// Whether the twin lets a handshake pass.
pub fn twin(allowed: &str, proxies: &str, claim: &Claim<'_>, extra: &[&str]) -> bool {
    if words(allowed).any(|word| word == "*") {
        return true;
    }
    let Some(origin) = claim.origin else { return !claim.cookie };
    let Some(origin) = std::str::from_utf8(origin).ok().and_then(parts) else { return false };
    if extra.iter().copied().chain(words(allowed)).any(|word| parts(word).as_ref() == Some(&origin))
    {
        return true;
    }
    if !words(allowed).any(|word| word == "same-host") {
        return false;
    }
    let peer = std::str::from_utf8(claim.remote_address).unwrap_or("?");
    let is_trusted = words(proxies).any(|network| is_inside(peer, network));
    // A line may hold any bytes and still end in a good element.
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap_or_else(|_| "?".into());
    let last = |line: &[u8]| {
        let comma = line.iter().rposition(|byte| *byte == b',').map_or(0, |at| at + 1);
        text(&line[comma..]).trim_matches([' ', '\t', '\n', '\r', '\x0c']).to_owned()
    };
    let host = match claim.forwarded_host.filter(|_| is_trusted) {
        Some(line) => last(line),
        None => text(claim.host),
    };
    let proto = claim.forwarded_proto.filter(|_| is_trusted).map(last);
    let proto = proto.map(|proto| proto.to_ascii_lowercase());
    let proto = proto.filter(|proto| ["http", "https"].contains(&&**proto));
    let known = claim.https.map(|https| if https { "https" } else { "http" }.to_owned());
    let scheme = proto.or(known).unwrap_or(origin.0.clone());
    ["http", "https"].contains(&&*scheme) && parts(&format!("{scheme}://{host}")) == Some(origin)
}

/// Somebody may connect only if the twin says so, and everybody of whom it does. What the
/// configuration takes can be used, and nothing else can.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let mut text = || std::str::from_utf8(input.line()).unwrap_or("\u{fffd}");
    let (allowed, proxies, extra) = (text(), text(), text());
    let (origin, host, forwarded_host) = (input.line(), input.line(), input.line());
    let (forwarded_proto, remote_address) = (input.line(), input.line());

    // As the text comes from a file.
    let (allowed, proxies) = (allowed.trim(), proxies.trim());
    let mut config = Config::new();
    let in_config = config.set("allowed-origins", allowed).is_ok()
        && config.set("trusted-proxies", proxies).is_ok();
    let policy = Policy::parse(allowed, proxies);
    assert_eq!(in_config, policy.is_ok(), "the configuration and its user differ");
    for word in words(extra).chain(words(allowed)) {
        let parsed = Origin::parse(word);
        let naive = parts(word);
        assert_eq!(parsed.is_some(), naive.is_some(), "{word:?}");
        let of_a_page = naive.is_some_and(|naive| !["ws", "wss"].contains(&&*naive.0));
        assert_eq!(is_origin(word), of_a_page, "{word:?}");
    }
    let Ok(policy) = policy else { return };

    let extra: Vec<&str> = words(extra).filter(|word| Origin::parse(word).is_some()).collect();
    let extra_origins: Vec<Origin> = extra.iter().filter_map(|word| Origin::parse(word)).collect();
    let claim = Claim {
        origin: (choice & 1 == 0).then_some(origin),
        cookie: choice & 2 != 0,
        host,
        forwarded_host: (choice & 4 != 0).then_some(forwarded_host),
        forwarded_proto: (choice & 8 != 0).then_some(forwarded_proto),
        remote_address,
        https: [None, Some(false), Some(true), None][usize::from(choice >> 4 & 3)],
    };
    let judged = policy.judge(&claim, &extra_origins);
    assert_eq!(judged.is_ok(), twin(allowed, proxies, &claim, &extra), "{judged:?}");
    if let Err(why) = judged {
        assert!(why.len() < 2000 && !why.chars().any(char::is_control), "{why:?}");
    }
}
