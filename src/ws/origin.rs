//! May a page of this origin open a websocket here? The defence against cross-site websocket
//! hijacking: browsers send cookies along with every handshake, whichever page began it, and name
//! the page's origin (RFC 6454, RFC 6455 §10.2).
//!
//! Made once from the configuration and read by whoever answers a handshake, on any thread. Origins
//! are parsed whole and compared part by part; never by suffix, pattern or substring.

use core::net::{IpAddr, Ipv6Addr};

use crate::error::{Error, Kind, Result};

/// A longer name than DNS allows is no host.
const MAX_HOST: usize = 253;

/// What a person can do about a refusal, whichever of the two cases it is.
const CURE: &str = "if its page may connect, list it in allowed-origins; if it is this site behind a \
                    proxy, let the proxy pass Host on with its port, or set trusted-proxies and let \
                    it send X-Forwarded-Host and X-Forwarded-Proto";

/// An origin as browsers write it: `scheme://host[:port]`, nothing before or behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// In lower case.
    scheme: String,
    host: Host,
    /// The port that is meant, also where it is not written. Only `http` and `https` have one by
    /// default.
    port: Option<u16>,
}

/// A host name in lower case, or an address. `[::1]` and `[0::1]` are one host.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    V6(Ipv6Addr),
}

impl Origin {
    /// Parses an origin. `None` for all else: `null`, a path, a user, white space, an empty or odd
    /// port.
    ///
    /// Scheme and host are compared without case (RFC 3986 §6.2.2.1). A dot at the end stays a part
    /// of the name, as it does for browsers. International names are written in ASCII (`xn--…`), as
    /// browsers send them.
    pub fn parse(text: &str) -> Option<Origin> {
        let (scheme, authority) = text.split_once("://")?;
        let mut letters = scheme.bytes();
        if !letters.next()?.is_ascii_alphabetic()
            || !letters.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte))
        {
            return None;
        }
        let scheme = scheme.to_ascii_lowercase();
        let (host, port) = parse_authority(authority)?;
        let port = port.or_else(|| default_port(&scheme));
        Some(Origin { scheme, host, port })
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" => Some(80),
        "https" => Some(443),
        _ => None,
    }
}

/// Parses `host[:port]`, of an origin or of a `Host` header.
fn parse_authority(text: &str) -> Option<(Host, Option<u16>)> {
    let (host, port) = match text.strip_prefix('[') {
        Some(text) => {
            let (address, port) = text.split_once(']')?;
            (Host::V6(address.parse().ok()?), port)
        }
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            // "_" is in no host name of the RFCs and in many of Docker's.
            let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
            if name.is_empty()
                || name.len() > MAX_HOST
                || !name.bytes().all(legal)
                || name.starts_with('.')
                || name.contains("..")
            {
                return None;
            }
            (Host::Name(name.to_ascii_lowercase()), port)
        }
    };
    let port = match port.strip_prefix(':') {
        // `parse` alone would also take "+80" and "0080".
        Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(digits.parse().ok().filter(|_| !digits.starts_with('0'))?)
        }
        Some(_) => return None,
        None if port.is_empty() => None,
        None => return None,
    };
    Some((host, port))
}

/// One entry of `allowed-origins`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// The page came from the host that the handshake goes to.
    SameHost,
    /// Every page, and none: nothing is checked.
    Any,
    /// The page has exactly this scheme, host and port.
    Listed(Origin),
}

/// Addresses of proxies whose `X-Forwarded-…` lines are believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// A peer without an address: a proxy on this machine that speaks over a unix socket.
    Unix,
    /// The addresses that agree with this one in the first so many bits.
    Addresses(IpAddr, u8),
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        if text == "unix" {
            return Some(Network::Unix);
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
                (address, Some(bits.parse::<u8>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(all);
        match address.to_canonical() {
            // ::ffff:10.0.0.0/104 is 10.0.0.0/8; peers are compared in that form.
            inner if inner != address => {
                let bits = bits.checked_sub(96).filter(|bits| *bits <= 32)?;
                Some(Network::Addresses(inner, bits))
            }
            _ => (bits <= all).then_some(Network::Addresses(address, bits)),
        }
    }

    /// Whether the peer with this address, "" for none, is in the network.
    fn contains(&self, peer: &str) -> bool {
        let Network::Addresses(base, bits) = *self else { return peer.is_empty() };
        // A socket that listens on both versions shows 10.0.0.1 as ::ffff:10.0.0.1.
        match (base, peer.parse::<IpAddr>().map(|peer| peer.to_canonical())) {
            (IpAddr::V4(base), Ok(IpAddr::V4(peer))) => {
                let different = base.to_bits() ^ peer.to_bits();
                different.leading_zeros() >= bits.into()
            }
            (IpAddr::V6(base), Ok(IpAddr::V6(peer))) => {
                let different = base.to_bits() ^ peer.to_bits();
                different.leading_zeros() >= bits.into()
            }
            _ => false,
        }
    }
}

/// Who may connect: `allowed-origins` and `trusted-proxies`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// A handshake that agrees with one of these is allowed.
    pub allowed: Vec<Allowed>,
    /// Whose `X-Forwarded-…` lines count.
    pub trusted_proxies: Vec<Network>,
}

/// What a handshake says about where it comes from. Values are without white space around them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Claim<'a> {
    /// The one `Origin`, if there is any.
    pub origin: Option<&'a [u8]>,
    /// A cookie came along.
    pub cookie: bool,
    /// The one `Host`.
    pub host: &'a [u8],
    /// The last `X-Forwarded-Host` line.
    pub forwarded_host: Option<&'a [u8]>,
    /// The last `X-Forwarded-Proto` line.
    pub forwarded_proto: Option<&'a [u8]>,
    /// Text of the peer's address, empty for a unix socket.
    pub remote_address: &'a [u8],
    /// Whether the page was asked for with https, where the host knows.
    pub https: Option<bool>,
}

impl Policy {
    /// Reads the two keys of the configuration: `allowed_origins` is a list of `same-host`, `*` and
    /// `scheme://host[:port]`; `trusted_proxies` one of addresses, networks (`10.0.0.0/8`) and
    /// `unix`, or empty. Commas or white space separate.
    ///
    /// # Errors
    /// `Config`, with the entry and what it should look like.
    pub fn parse(allowed_origins: &str, trusted_proxies: &str) -> Result<Policy> {
        let allowed = entries(allowed_origins).map(parse_allowed).collect::<Result<Vec<_>>>()?;
        if allowed.is_empty() {
            return Err(Error::new(
                Kind::Config,
                "allowed-origins is empty: say same-host, * or a list of origins",
            ));
        }
        let network = |text: &str| {
            Network::parse(text).ok_or_else(|| {
                let text = shown(text.as_bytes());
                let why = "is no address, no network like 10.0.0.0/8 and not the word unix";
                Error::new(Kind::Config, format!("trusted-proxies: {text} {why}"))
            })
        };
        let trusted_proxies = entries(trusted_proxies).map(network).collect::<Result<Vec<_>>>()?;
        Ok(Policy { allowed, trusted_proxies })
    }

    /// Judges a handshake; `extra` are origins that its grant allows too.
    ///
    /// # Errors
    /// The reason for the log, with both values and the cure.
    pub fn judge(&self, claim: &Claim<'_>, extra: &[Origin]) -> std::result::Result<(), String> {
        if self.allowed.contains(&Allowed::Any) {
            return Ok(());
        }
        let Some(raw) = claim.origin else {
            // No browser: it always sends an Origin. What has a cookie and hides it is not to be
            // believed.
            return if claim.cookie {
                Err("a Cookie but no Origin came along; a client that is no browser must send the \
                     site's Origin, or no cookie"
                    .into())
            } else {
                Ok(())
            };
        };
        let site = self.site(claim);
        let refused = |why: &str| {
            let (origin, host) = (shown(raw), shown(site.host));
            Err(format!("Origin {origin} {why} (host {host}); {CURE}"))
        };
        let Some(origin) = std::str::from_utf8(raw).ok().and_then(Origin::parse) else {
            return refused("is no origin of a page");
        };
        if extra.contains(&origin) || self.allowed.contains(&Allowed::Listed(origin.clone())) {
            return Ok(());
        }
        if !self.allowed.contains(&Allowed::SameHost) {
            return refused("is not in allowed-origins");
        }
        match site.is_home_of(&origin) {
            true => Ok(()),
            false => refused("is not the host that was asked"),
        }
    }

    /// Is the peer with this address, "" for none, one of `trusted-proxies`?
    pub fn trusts(&self, peer: &str) -> bool {
        self.trusted_proxies.iter().any(|network| network.contains(peer))
    }

    /// Where the handshake went to, as the browser sees it.
    fn site<'a>(&self, claim: &Claim<'a>) -> Site<'a> {
        let peer = std::str::from_utf8(claim.remote_address).unwrap_or("unknown");
        let trusted = self.trusts(peer);
        let known = claim.https.map(|https| if https { "https" } else { "http" });
        if !trusted {
            return Site { host: claim.host, scheme: known };
        }
        // The trusted proxy saw the browser's side; this process may only have seen the hop between
        // the two.
        let scheme = match claim.forwarded_proto.map(last_element) {
            Some(proto) if proto.eq_ignore_ascii_case(b"https") => Some("https"),
            Some(proto) if proto.eq_ignore_ascii_case(b"http") => Some("http"),
            _ => known,
        };
        Site { host: claim.forwarded_host.map_or(claim.host, last_element), scheme }
    }
}

/// The host and, where it is known, the scheme that the browser asked.
struct Site<'a> {
    host: &'a [u8],
    scheme: Option<&'static str>,
}

impl Site<'_> {
    /// Whether a page of `origin` came from here: host and effective port are equal, the scheme
    /// where it is known.
    fn is_home_of(&self, origin: &Origin) -> bool {
        let host = std::str::from_utf8(self.host).ok().and_then(parse_authority);
        let (Some((host, port)), Some(origin_port)) = (host, origin.port) else { return false };
        // Which port a Host without one means depends on the scheme. Unknown, it is taken from the
        // Origin: a page on another port of this host then still differs, by the port that its
        // Origin has to name.
        let scheme = self.scheme.unwrap_or(&origin.scheme);
        scheme == origin.scheme
            && host == origin.host
            && port.or_else(|| default_port(scheme)) == Some(origin_port)
            && default_port(scheme).is_some()
    }
}

/// The last element of a comma list. Each proxy appends to what came in, so the last one was
/// written by the proxy that is connected to us, the only one we know to be trusted; the first may
/// be the browser's own invention. Behind a chain of proxies the inner ones must pass `Host` on, or
/// the site's origin be listed.
fn last_element(line: &[u8]) -> &[u8] {
    line.rsplit(|byte| *byte == b',').next().unwrap_or(line).trim_ascii()
}

fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|entry| !entry.is_empty())
}

fn parse_allowed(text: &str) -> Result<Allowed> {
    match text {
        "same-host" => return Ok(Allowed::SameHost),
        "*" => return Ok(Allowed::Any),
        _ => {}
    }
    let wrong = |why: &str| {
        Error::new(Kind::Config, format!("allowed-origins: {} {why}", shown(text.as_bytes())))
    };
    match Origin::parse(text) {
        Some(origin) if matches!(&*origin.scheme, "ws" | "wss") => {
            Err(wrong("is no page's origin: write http:// for ws://, https:// for wss://"))
        }
        Some(origin) => Ok(Allowed::Listed(origin)),
        None => Err(wrong(
            "is not same-host, not * and not scheme://host[:port] (no path, no wildcard, xn--… for \
             international names)",
        )),
    }
}

/// A header's value for the log: quoted, escaped, not longer than a line.
fn shown(value: &[u8]) -> String {
    let cut = value.get(..100).unwrap_or(value);
    let dots = if cut.len() < value.len() { "…" } else { "" };
    format!("\"{}{dots}\"", cut.escape_ascii())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// A handshake of the site https://app.example with a cookie.
    fn claim(origin: &[u8]) -> Claim<'_> {
        Claim {
            origin: Some(origin),
            cookie: true,
            host: b"app.example",
            https: Some(true),
            remote_address: b"203.0.113.9",
            ..Claim::default()
        }
    }

    fn policy(allowed: &str, proxies: &str) -> Policy {
        Policy::parse(allowed, proxies).unwrap()
    }

    fn is_allowed(policy: &Policy, claim: &Claim<'_>) -> bool {
        policy.judge(claim, &[]).is_ok()
    }

    /// Origins that are not https://app.example.
    fn hostile() -> Vec<String> {
        let lines = include_str!("../../tests/vectors/origins.txt").lines();
        let lines = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn two_hundred_hostile_spellings_are_all_refused() {
        let hostile = hostile();
        let distinct: HashSet<_> = hostile.iter().collect();
        assert!(distinct.len() >= 200 && distinct.len() == hostile.len(), "{}", distinct.len());
        for policy in [
            policy("same-host", ""),
            policy("https://app.example", ""),
            policy("same-host, https://app.example:443, https://[::2]", "10.0.0.0/8"),
        ] {
            assert!(is_allowed(&policy, &claim(b"https://app.example")));
            for origin in &hostile {
                let refused = policy.judge(&claim(origin.as_bytes()), &[]);
                let reason = refused.expect_err(origin);
                assert!(reason.is_ascii() && !reason.contains(['\r', '\n', '\0']), "{reason}");
            }
        }
    }

    #[test]
    fn every_origin_one_byte_off_is_refused() {
        for good in ["https://app.example", "https://app.example:443"] {
            for policy in [policy("same-host", ""), policy("https://app.example", "")] {
                for at in 0..=good.len() {
                    for byte in 0..=255u8 {
                        let mut longer = good.as_bytes().to_vec();
                        longer.insert(at, byte);
                        assert!(!is_allowed(&policy, &claim(&longer)), "{longer:?}");
                        let mut other = good.as_bytes().to_vec();
                        if at < good.len() {
                            other[at] = byte;
                            let same = other.eq_ignore_ascii_case(good.as_bytes());
                            assert_eq!(is_allowed(&policy, &claim(&other)), same, "{other:?}");
                        }
                    }
                    if at < good.len() {
                        let mut shorter = good.as_bytes().to_vec();
                        shorter.remove(at);
                        assert!(!is_allowed(&policy, &claim(&shorter)), "{shorter:?}");
                    }
                }
            }
        }
    }

    #[test]
    fn good_origins_are_not_refused() {
        // (allowed-origins, Origin, Host, https)
        let table: &[(&str, &str, &str, Option<bool>)] = &[
            ("same-host", "https://app.example", "app.example", Some(true)),
            ("same-host", "https://app.example", "app.example", None),
            ("same-host", "http://app.example", "app.example", None),
            ("same-host", "http://app.example", "app.example", Some(false)),
            ("same-host", "https://app.example", "app.example:443", Some(true)),
            ("same-host", "https://app.example", "app.example:443", None),
            ("same-host", "http://app.example", "app.example:80", None),
            ("same-host", "https://app.example:443", "app.example", None),
            ("same-host", "https://app.example:8443", "app.example:8443", Some(true)),
            ("same-host", "http://localhost:8080", "localhost:8080", None),
            ("same-host", "http://127.0.0.1:8080", "127.0.0.1:8080", Some(false)),
            ("same-host", "http://[::1]:8080", "[::1]:8080", None),
            ("same-host", "https://[2001:db8::1]", "[2001:DB8:0::1]", None),
            ("same-host", "https://app.example", "APP.Example", None),
            ("same-host", "https://App.Example", "app.example", None),
            ("same-host", "https://xn--bcher-kva.example", "xn--bcher-kva.example", None),
            ("same-host", "https://app.example.", "app.example.", None),
            ("same-host", "http://web_1:8000", "web_1:8000", None),
            ("same-host", "http://a", "a", None),
            ("same-host", "https://1.2.3.4:65535", "1.2.3.4:65535", None),
            ("https://other.example", "https://other.example", "app.example", Some(false)),
            ("https://other.example:443", "https://other.example", "app.example", None),
            ("HTTPS://Other.Example", "https://other.example", "", None),
            ("same-host http://x:81\n\thttps://y", "https://y", "app.example", None),
            ("same-host http://x:81\n\thttps://y", "http://x:81", "app.example", None),
            ("capacitor://localhost", "capacitor://localhost", "app.example", None),
            ("http://[::1]:3000", "http://[0:0::1]:3000", "app.example", None),
            ("*", "null", "app.example", None),
            ("*", "https://anything.example", "app.example", Some(false)),
        ];
        assert!(table.len() >= 20);
        for (allowed, origin, host, https) in table {
            let claim = Claim { host: host.as_bytes(), https: *https, ..claim(origin.as_bytes()) };
            assert_eq!(policy(allowed, "").judge(&claim, &[]), Ok(()), "{origin} {host}");
        }
    }

    #[test]
    fn host_and_effective_port_decide_and_the_scheme_where_it_is_known() {
        let table: &[(&str, &str, Option<bool>)] = &[
            ("http://app.example", "app.example", Some(true)),
            ("https://app.example", "app.example", Some(false)),
            ("https://app.example", "app.example:80", None),
            ("http://app.example", "app.example:443", None),
            ("https://app.example:8443", "app.example", None),
            ("https://app.example", "app.example:8443", None),
            ("http://app.example:8443", "app.example:8443", Some(true)),
            ("https://app.example", "app.example.", None),
            ("https://app.example.", "app.example", None),
            ("https://app.example", "", None),
            ("https://app.example", "app.example:", None),
            ("https://app.example", "app.example, app.example", None),
            ("https://app.example", "evil@app.example", None),
            ("https://app.example", "app.example/", None),
            ("capacitor://app.example", "app.example", None),
            ("ws://app.example:80", "app.example:80", None),
        ];
        for (origin, host, https) in table {
            let claim = Claim { host: host.as_bytes(), https: *https, ..claim(origin.as_bytes()) };
            assert!(!is_allowed(&policy("same-host", ""), &claim), "{origin} {host}");
        }
    }

    #[test]
    fn without_an_origin_a_cookie_decides() {
        let policy = policy("same-host", "");
        let nobody = Claim { origin: None, ..claim(b"") };
        assert!(policy.judge(&nobody, &[]).unwrap_err().contains("Cookie"));
        assert!(is_allowed(&policy, &Claim { cookie: false, ..nobody }));
        // An empty Origin is one.
        assert!(!is_allowed(&policy, &Claim { cookie: false, ..claim(b"") }));
    }

    #[test]
    fn a_grant_may_add_origins_for_one_handshake() {
        let extra = [Origin::parse("https://partner.example").unwrap()];
        let policy = policy("same-host", "");
        assert_eq!(policy.judge(&claim(b"https://partner.example"), &extra), Ok(()));
        assert_eq!(policy.judge(&claim(b"https://app.example"), &extra), Ok(()));
        assert!(policy.judge(&claim(b"http://partner.example"), &extra).is_err());
        assert!(policy.judge(&claim(b"https://x.partner.example"), &extra).is_err());
    }

    #[test]
    fn forwarded_values_count_from_a_trusted_proxy_only() {
        let forwarded = |peer, host, proto| Claim {
            host: b"backend:9000",
            forwarded_host: host,
            forwarded_proto: proto,
            remote_address: peer,
            https: Some(false),
            ..claim(b"https://app.example")
        };
        let policy = policy("same-host", "10.1.2.3, 192.168.0.0/16 fd00::/8 unix");
        let (app, https) = (Some(&b"app.example"[..]), Some(&b"https"[..]));
        for peer in [
            &b"10.1.2.3"[..],
            b"192.168.0.0",
            b"192.168.255.255",
            b"fdff::1",
            b"",
            b"::ffff:10.1.2.3",
        ] {
            assert!(is_allowed(&policy, &forwarded(peer, app, https)), "{peer:?}");
            assert!(!is_allowed(&policy, &forwarded(peer, None, https)));
            // The scheme that this process saw was that of the hop behind the proxy.
            assert!(!is_allowed(&policy, &forwarded(peer, app, None)));
            assert!(!is_allowed(&policy, &forwarded(peer, app, Some(b"http"))));
            let unknown = Claim { https: None, ..forwarded(peer, app, None) };
            assert!(is_allowed(&policy, &unknown));
        }
        for peer in [
            &b"10.1.2.4"[..],
            b"192.169.0.0",
            b"192.167.255.255",
            b"fc00::1",
            b"127.0.0.1",
            b"::1",
            b"10.1.2.3:80",
            b" 10.1.2.3",
            b"10.1.2.3, 10.1.2.3",
            b"010.1.2.3",
            b"unix",
            b"\xff",
            b"fdff::1%eth0",
            b"localhost",
        ] {
            assert!(!is_allowed(&policy, &forwarded(peer, app, https)), "{peer:?}");
        }
        // Only what the proxy connected to us wrote, the last element.
        for (line, good) in [
            (&b"evil.example, app.example"[..], true),
            (b"evil.example,app.example", true),
            (b"app.example, evil.example", false),
            (b"app.example,", false),
            (b"", false),
            (b"app.example:443", true),
            (b"app.example:80", false),
        ] {
            let claim = forwarded(b"", Some(line), https);
            assert_eq!(is_allowed(&policy, &claim), good, "{line:?}");
        }
    }

    #[test]
    fn a_refusal_names_both_values_and_the_cure() {
        let reason = policy("same-host", "").judge(&claim(b"https://evil.example"), &[]);
        let reason = reason.unwrap_err();
        for part in ["\"https://evil.example\"", "\"app.example\"", "allowed-origins", "proxy"] {
            assert!(reason.contains(part), "{reason}");
        }
        let long = vec![b'\n'; 100_000];
        assert!(policy("same-host", "").judge(&claim(&long), &[]).unwrap_err().len() < 1000);
    }

    #[test]
    fn the_configuration_is_parsed_or_refused_with_the_entry_and_the_cure() {
        let parsed = policy(" same-host , https://a.example:444 ", " 10.0.0.0/8,::1 ");
        let listed = Origin::parse("https://a.example:444").unwrap();
        assert_eq!(parsed.allowed, [Allowed::SameHost, Allowed::Listed(listed)]);
        assert_eq!(parsed.trusted_proxies.len(), 2);
        for origins in [
            "",
            " , ",
            "app.example",
            "https://",
            "https://app.example/",
            "https://*.app.example",
            "null",
            "https://bücher.example",
            "wss://app.example",
            "ws://app.example",
            "Same-Host",
        ] {
            let error = Policy::parse(origins, "").unwrap_err();
            assert_eq!(error.kind, Kind::Config);
            assert!(error.text.starts_with("allowed-origins"), "{error}");
        }
        for proxies in [
            "localhost",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/",
            "10.0.0.0/+8",
            "*",
            "1.2.3",
            "::ffff:10.0.0.0/95",
        ] {
            let error = Policy::parse("same-host", proxies).unwrap_err();
            assert!(error.kind == Kind::Config && error.text.contains(proxies), "{error}");
        }
    }

    #[test]
    fn networks_hold_what_they_say_also_at_their_ends() {
        for (network, inside, outside) in [
            ("0.0.0.0/0", "255.255.255.255", "::1"),
            ("10.0.0.0/8", "10.255.255.255", "11.0.0.0"),
            ("10.9.9.9/8", "10.0.0.0", "9.255.255.255"),
            ("1.2.3.4/31", "1.2.3.5", "1.2.3.6"),
            ("::ffff:10.0.0.0/104", "10.1.1.1", "11.1.1.1"),
            ("::ffff:10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"),
            ("::/0", "ffff::", "1.1.1.1"),
            ("2001:db8::/32", "2001:db8:ffff::", "2001:db9::"),
            ("unix", "", "127.0.0.1"),
        ] {
            let parsed = Network::parse(network).unwrap();
            assert!(parsed.contains(inside) && !parsed.contains(outside), "{network}");
        }
    }
}
