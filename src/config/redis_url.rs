//! Where Redis is: a URL becomes an address and a login.
//!
//! The redis crate parses; what it would accept and then ignore is refused here. No error text
//! repeats any part of the URL, because any part may be a misplaced piece of the password.

use std::fmt;
use std::path::PathBuf;

use ::redis::{ConnectionAddr, IntoConnectionInfo};

/// A Redis or Valkey server and how to log in. Shown with its password masked.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    /// Where it listens.
    pub address: RedisAddress,
    /// The user of `AUTH`; without one it is Redis's `default`.
    pub username: Option<String>,
    /// The password of `AUTH`.
    pub password: Option<String>,
    /// The database of `SELECT`. Pub/sub ignores it.
    pub database: i64,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisAddress {
    /// A host by name or address, and a port.
    Tcp {
        /// A name, an IPv4 address, or an IPv6 address without brackets.
        host: String,
        /// The port.
        port: u16,
    },
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// The longest path that fits `sockaddr_un` with its final zero, unix(7).
const MAX_UNIX_PATH: usize = 107;

const SYNTAX: &str = "write redis://[[user]:password@]host[:port][/database] or \
     unix:///path[?db=…&user=…&pass=…], with special characters percent-encoded (@ is %40)";

impl RedisUrl {
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let syntax = |why: &str| Err(format!("{why}; {SYNTAX}"));
        let Some((scheme, rest)) = text.split_once("://") else {
            return syntax("it is not a URL");
        };
        let unix = match scheme {
            "redis" | "valkey" => false,
            "unix" | "redis+unix" | "valkey+unix" => true,
            "rediss" | "valkeys" => return Err("TLS to Redis is not supported yet".to_owned()),
            _ => return syntax("its scheme is not known"),
        };
        // The redis crate ignores what it does not know here, and a raw ? or # in a password would
        // cut the URL short and make the user name the host.
        let query = rest.split_once('?').map_or("", |(_, query)| query);
        let known = |pair: &str| {
            let (key, value) = pair.split_once('=').unwrap_or_default();
            ["db", "user", "pass"].contains(&key) && !value.is_empty()
        };
        let query_is_good = match unix {
            true => query.is_empty() || query.split('&').all(known),
            false => !rest.contains('?'),
        };
        if !query_is_good || rest.contains('#') {
            return syntax("it holds a ? or a # that is not understood");
        }

        // The redis crate would take `a,b:6379` as one host's name.
        let authority = rest.split('/').next().unwrap_or_default();
        if authority.rsplit('@').next().is_some_and(|hosts| hosts.contains(',')) {
            return Err("it lists several hosts; name one server".to_owned());
        }

        let Ok(info) = text.into_connection_info() else {
            return syntax("it does not parse");
        };
        let address = match info.addr() {
            ConnectionAddr::Tcp(host, port) => {
                let name = |c: u8| c.is_ascii_alphanumeric() || b"-._:".contains(&c);
                if host.len() > 253 || !host.bytes().all(name) {
                    return syntax("its host is not a name or an address");
                }
                if *port == 0 {
                    return syntax("its port is 0");
                }
                RedisAddress::Tcp { host: host.clone(), port: *port }
            }
            ConnectionAddr::Unix(path) => {
                let bytes = path.as_os_str().as_encoded_bytes();
                if bytes.len() > MAX_UNIX_PATH || bytes.contains(&0) {
                    return Err(format!(
                        "its path is longer than {MAX_UNIX_PATH} bytes or holds a zero"
                    ));
                }
                RedisAddress::Unix(path.clone())
            }
            _ => return syntax("its address is of an unknown kind"),
        };
        let login = info.redis_settings();
        if login.db() < 0 {
            return syntax("its database is negative");
        }
        if login.username().is_some() && login.password().is_none() {
            return syntax("it names a user without a password (a password alone is :password@)");
        }
        Ok(RedisUrl {
            address,
            username: login.username().map(str::to_owned),
            password: login.password().map(str::to_owned),
            database: login.db(),
        })
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = self.username.as_deref().unwrap_or("");
        let password = self.password.as_ref().map(|_| "***");
        match &self.address {
            RedisAddress::Tcp { host, port } => {
                f.write_str("redis://")?;
                if let Some(password) = password {
                    write!(f, "{user}:{password}@")?;
                }
                let brackets = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "{}{host}{}:{port}/{}", brackets.0, brackets.1, self.database)
            }
            RedisAddress::Unix(path) => {
                write!(f, "unix://{}?db={}", path.display(), self.database)?;
                if !user.is_empty() {
                    write!(f, "&user={user}")?;
                }
                match password {
                    Some(password) => write!(f, "&pass={password}"),
                    None => Ok(()),
                }
            }
        }
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
