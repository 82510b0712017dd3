//! The table of keys, and what is made of it: the struct with its defaults, the list, the README's
//! reference.
//!
//! A field's name is its key with `_` for `-`. Defaults and ranges are written the way a user
//! writes them and are read by the parser that reads the user's text, so that the reference can not
//! differ from the code.

use std::fmt::Write;
use std::time::Duration;

use super::{Keeper, Key, OnGap, RedisUrl, value};
use crate::log::Level;

/// Makes `Config`, its defaults and the rows of the table from one list of
/// `field: type = default, parser in range, help;`.
macro_rules! table {
    ($(
        $field:ident: $type:ty = $default:literal, $parser:ident in $range:literal, $help:literal;
    )*) => {
        /// Every setting of an engine. The fields may be read and written freely; text comes in by
        /// [`Config::set`] and [`Config::load_ini`], which keep to the ranges.
        #[derive(Clone, Debug)]
        pub struct Config {
            $(
                #[doc = $help]
                #[doc = concat!("\n\nDefault: `", $default, "`. Takes: `", $range, "`.")]
                pub $field: $type,
            )*
            /// The keys that were set.
            pub(super) set: Vec<super::Set>,
        }

        impl Config {
            /// The defaults.
            pub fn new() -> Self {
                // A unit test reads every default, so none of these can fail for a user.
                Config {
                    $($field: value::$parser($default, $range).expect("a default is valid"),)*
                    set: Vec::new(),
                }
            }
        }

        const KEYS: &[Key] = &[$(
            Key {
                name: {
                    const NAME: [u8; stringify!($field).len()] = kebab(stringify!($field));
                    match std::str::from_utf8(&NAME) {
                        Ok(name) => name,
                        Err(_) => panic!("an identifier is UTF-8"),
                    }
                },
                default: $default,
                range: $range,
                help: $help,
                apply: |config, text| {
                    config.$field = value::$parser(text, $range)?;
                    Ok(())
                },
            },
        )*];
    };
}

/// A field's name as a key.
const fn kebab<const N: usize>(field: &str) -> [u8; N] {
    let mut name = [0; N];
    let mut i = 0;
    while i < N {
        let byte = field.as_bytes()[i];
        name[i] = if byte == b'_' { b'-' } else { byte };
        i += 1;
    }
    name
}

table! {
    redis_url: Option<RedisUrl> = "none",
        redis_url in "redis://, valkey:// or unix:// URL, or none",
        "The Redis or Valkey server; none: the embedded broker, inside one keeper or process.";
    channel_prefix: String = "", channel_prefix in "up to 128 bytes",
        "Put before every channel on Redis, unseen by browsers: keeps sites on one server apart.";
    keeper: Keeper = "auto", keeper in "auto, off or an absolute path",
        "The process that holds the sockets; auto: one of this uWSGI; a path: where one listens.";
    keeper_grace: Duration = "10s", time in "100ms to 1h",
        "How long a keeper waits for its uWSGI to come back before it closes its sockets and ends.";
    loops: usize = "1", count in "1 to 64",
        "Threads that hold sockets; each has its own Redis connections.";
    read_batch: usize = "256k", size in "4k to 16m",
        "The most bytes read from Redis before they are written to the sockets.";
    max_message_size: usize = "64k", size in "125 to 64m",
        "The largest message from a browser; a larger one closes its socket with 1009.";
    max_redis_message_size: usize = "16m", size in "1k to 512m",
        "The largest message from Redis; a larger one breaks the connection, and the gap is told.";
    compression: bool = "on", switch in "on or off",
        "Whether permessage-deflate is agreed on with browsers that offer it.";
    compression_threshold: usize = "1k", size in "0 to 1m",
        "Messages of fewer bytes are not compressed.";
    write_queue_limit: usize = "256k", size in "4k to 1g",
        "Bytes that may wait for a browser that does not read before it is closed with 4008.";
    write_queue_age: Duration = "10s", time in "100ms to 10m",
        "How long a byte may wait for a browser that does not read before it is closed with 4008.";
    max_memory: usize = "0", size in "1m to 1024g, or 0",
        "Memory for sockets and what waits in them; near it, the slowest are closed. 0: no limit.";
    publish_queue_limit: usize = "8m", size in "64k to 1g",
        "Bytes that may wait for Redis in each loop; beyond it, who publishes is closed with 1013.";
    feed_limit: usize = "8m", size in "64k to 1g",
        "Bytes that may wait for each loop in the embedded broker; beyond it, publishing fails.";
    inbox_limit: usize = "1024", count in "16 to 1000000",
        "Commands of the host that may wait for each loop; beyond it, the engine is busy.";
    max_sockets: usize = "0", count in "1 to 10000000, or 0",
        "Sockets of one engine; 0: as many as there are descriptors.";
    max_sockets_per_user: usize = "0", count in "1 to 1000000, or 0",
        "Sockets of one user, as the grant names it; 0: no limit.";
    max_sockets_per_address: usize = "0", count in "1 to 1000000, or 0",
        "Sockets of one remote address; 0: no limit.";
    max_message_rate: usize = "100", count in "0 to 1000000",
        "Messages a second from one browser, twice as many at once; beyond it: 4029; 0: no limit.";
    max_control_rate: usize = "20", count in "0 to 1000000",
        "The same for pings, pongs and tiny fragments, two and a half times as many at once.";
    message_timeout: Duration = "30s", time in "100ms to 10m",
        "How long a browser has to finish a message that it began, before it is closed with 1008.";
    max_adopt_rate: usize = "0", count in "0 to 1000000",
        "New sockets a second, as many at once; beyond it: 503; 0: no limit.";
    max_channels_per_socket: usize = "100", count in "1 to 10000",
        "Channels that a grant may list to hear, and to speak on.";
    fd_reserve: usize = "64", count in "0 to 65536",
        "Descriptors kept free for Redis and for the host's own work.";
    ping_interval: Duration = "25s", time in "100ms to 1h, or 0",
        "How long a socket may be silent before it is pinged; 0: never.";
    pong_timeout: Duration = "10s", time in "100ms to 10m",
        "How long a browser has to answer a ping before it is closed with 4012.";
    close_timeout: Duration = "5s", time in "100ms to 1m",
        "How long a browser has to answer a close frame.";
    heartbeat_interval: Duration = "4s", time in "100ms to 1h",
        "How long a socket whose grant has a heartbeat is idle before it is sent.";
    channel_linger: Duration = "1s", time in "0 to 1m",
        "How long a channel stays subscribed after its last listener, for pages that reload.";
    join_timeout: Duration = "1s", time in "10ms to 1m",
        "How long a handshake's answer waits for Redis to confirm its channels.";
    on_gap: OnGap = "close", on_gap in "close or ignore",
        "What happens to sockets without the envelope when messages may be lost; close: with 1012.";
    gap_spread: Duration = "2s", time in "0 to 5m",
        "Time over which closes are spread that strike many: browsers must not all return at once.";
    redis_connect_timeout: Duration = "5s", time in "100ms to 1m",
        "How long connecting to Redis and logging in may take.";
    redis_ping_interval: Duration = "5s", time in "100ms to 10m",
        "How long Redis may be silent before it is pinged; silent as long again, it is lost.";
    redis_backoff_limit: Duration = "5s", time in "50ms to 10m",
        "The longest wait between attempts to reach Redis.";
    allowed_origins: String = "same-host",
        origins in "same-host, *, scheme://host[:port], separated by commas",
        "Pages that may connect; same-host: those of the site itself; *: all, unchecked.";
    trusted_proxies: String = "", proxies in "addresses, networks, unix, separated by commas",
        "Proxies whose X-Forwarded-Host is believed: 127.0.0.1, 10.0.0.0/8; unix: by unix socket.";
    stop_timeout: Duration = "5s", time in "0 to 5m",
        "How long stopping waits for the close frames to be sent.";
    log_level: Level = "info", log_level in "error, warn, info or debug",
        "The least urgent lines that are logged.";
}

/// Every key, in the order of the reference.
pub fn keys() -> &'static [Key] {
    KEYS
}

/// The reference of the README: one row of a table per key.
pub fn markdown() -> String {
    let mut text = String::from("| Key | Default | Takes | What it does |\n|---|---|---|---|\n");
    for key in keys() {
        let default = match key.default {
            "" => String::new(),
            default => format!("`{default}`"),
        };
        // Writing into a String can not fail.
        let _ = writeln!(text, "| `{}` | {default} | {} | {} |", key.name, key.range, key.help);
    }
    text
}
