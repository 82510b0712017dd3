//! Where a site is, and the URLs of its handshakes. Pure, but for the look-up of names.

use std::net::{SocketAddr, ToSocketAddrs};

use serde_json::Value;

/// The address in `http://HOST:PORT`.
pub fn address(url: &str) -> Result<SocketAddr, String> {
    let place = url.strip_prefix("http://").ok_or_else(|| format!("{url} is not http://"))?;
    let place = place.trim_end_matches('/');
    let found = place.to_socket_addrs().map_err(|error| format!("{url}: {error}"))?.next();
    found.ok_or_else(|| format!("{url} has no address"))
}

/// The JSON of a grant, as the query of a URL has it.
pub fn encoded(grant: &Value) -> String {
    let mut text = String::new();
    for byte in grant.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' => text.push(byte.into()),
            _ => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_grant_fits_a_url() {
        assert_eq!(encoded(&json!({ "a": ["b:c"] })), "%7B%22a%22%3A%5B%22b%3Ac%22%5D%7D");
    }

    #[test]
    fn a_site_is_at_an_address() {
        assert_eq!(address("http://127.0.0.1:80/"), Ok(SocketAddr::from(([127, 0, 0, 1], 80))));
        assert!(address("ftp://127.0.0.1:80").is_err());
    }
}
