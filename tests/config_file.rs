//! The configuration from outside: keys and values, the ini file's section, and what is wrong
//! where.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wsredis::config::{Config, Keeper, OnGap, RedisAddress, keys};
use wsredis::error::{Kind, Result};
use wsredis::log::Level;
use wsredis::ws::origin::Policy;

/// A file of its own for a test, removed at its end.
struct Ini(PathBuf);

impl Ini {
    fn new(test: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = std::env::temp_dir().join(format!("wsredis-{}-{test}.ini", std::process::id()));
        fs::write(&path, bytes).expect("the temporary folder takes a file");
        Ini(path)
    }

    fn load(&self) -> Result<Config> {
        let mut config = Config::new();
        config.load_ini(&self.0).map(|()| config)
    }

    /// The error of loading it, with the file's path cut off.
    #[track_caller]
    fn error(&self) -> String {
        let error = self.load().expect_err("this file is wrong");
        assert_eq!(error.kind, Kind::Config);
        assert!(error.text.len() < 600, "too long: {}", error.text.len());
        let path = self.0.display().to_string();
        error.text.strip_prefix(&path).expect("the error begins with the file").to_owned()
    }
}

impl Drop for Ini {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// The defaults with one key set, or the error's text.
fn set(key: &str, value: &str) -> std::result::Result<Config, String> {
    let mut config = Config::new();
    config.set(key, value).map(|()| config).map_err(|error| {
        assert_eq!(error.kind, Kind::Config);
        assert!(!error.text.contains(char::is_control), "not one line: {error}");
        assert!(error.text.len() < 600, "too long: {error}");
        error.text
    })
}

/// A generator that gives the same numbers in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

#[test]
fn defaults_are_what_they_were() {
    let config = Config::default();
    let seconds = Duration::from_secs;
    assert_eq!(config.redis_url, None);
    assert_eq!(config.channel_prefix, "");
    assert_eq!(config.keeper, Keeper::Auto);
    assert_eq!(config.keeper_grace, seconds(10));
    assert_eq!(config.loops, 1);
    assert_eq!(config.read_batch, 256 << 10);
    assert_eq!(config.max_message_size, 64 << 10);
    assert_eq!(config.max_redis_message_size, 16 << 20);
    assert!(config.compression);
    assert_eq!(config.compression_threshold, 1 << 10);
    assert_eq!(config.write_queue_limit, 256 << 10);
    assert_eq!(config.write_queue_age, seconds(10));
    assert_eq!(config.max_memory, 0);
    assert_eq!(config.publish_queue_limit, 8 << 20);
    assert_eq!(config.feed_limit, 8 << 20);
    assert_eq!(config.inbox_limit, 1024);
    assert_eq!(config.max_sockets, 0);
    assert_eq!(config.max_sockets_per_user, 0);
    assert_eq!(config.max_sockets_per_address, 0);
    assert_eq!(config.max_message_rate, 100);
    assert_eq!(config.max_control_rate, 20);
    assert_eq!(config.message_timeout, seconds(30));
    assert_eq!(config.max_adopt_rate, 0);
    assert_eq!(config.max_channels_per_socket, 100);
    assert_eq!(config.fd_reserve, 64);
    assert_eq!(config.ping_interval, seconds(25));
    assert_eq!(config.pong_timeout, seconds(10));
    assert_eq!(config.close_timeout, seconds(5));
    assert_eq!(config.heartbeat_interval, seconds(4));
    assert_eq!(config.channel_linger, seconds(1));
    assert_eq!(config.join_timeout, seconds(1));
    assert_eq!(config.on_gap, OnGap::Close);
    assert_eq!(config.gap_spread, seconds(2));
    assert_eq!(config.redis_connect_timeout, seconds(5));
    assert_eq!(config.redis_ping_interval, seconds(5));
    assert_eq!(config.redis_backoff_limit, seconds(5));
    assert_eq!(config.allowed_origins, "same-host");
    assert_eq!(config.trusted_proxies, "");
    assert_eq!(config.stop_timeout, seconds(5));
    assert_eq!(config.log_level, Level::Info);
    assert_eq!(keys().len(), 40);
}

#[test]
fn a_keeper_is_auto_off_or_an_absolute_path() {
    assert_eq!(set("keeper", "off").unwrap().keeper, Keeper::Off);
    assert_eq!(set("keeper", "/run/a").unwrap().keeper, Keeper::At("/run/a".into()));
    let longest = format!("/{}", "a".repeat(106));
    assert!(set("keeper", &longest).is_ok());
    for wrong in ["", "on", "run/a", "/a\u{7f}", &format!("{longest}a")] {
        assert!(set("keeper", wrong).is_err(), "{wrong}");
    }
}

#[test]
fn every_key_takes_its_own_default_and_refuses_a_second_value() {
    // Everything but where keys were set, which stands last.
    let values = |config: &Config| format!("{config:?}").split(", set:").next().map(str::to_owned);
    for key in keys() {
        let mut config = Config::new();
        config.set(key.name, key.default).unwrap_or_else(|why| panic!("{}: {why}", key.name));
        assert_eq!(values(&config), values(&Config::new()));
        let text = config.set(key.name, key.default).unwrap_err().text;
        assert_eq!(text, format!("{} is set twice; it was first set by the host", key.name));
    }
}

#[test]
fn every_range_of_numbers_holds_at_its_edges() {
    let mut ranges = 0;
    for key in keys() {
        let Some((low, high)) = key.range.trim_end_matches(", or 0").split_once(" to ") else {
            continue;
        };
        if !low.starts_with(|c: char| c.is_ascii_digit()) {
            continue;
        }
        ranges += 1;
        for edge in [low, high] {
            set(key.name, edge).unwrap_or_else(|why| panic!("{why}"));
        }
        let zero = low == "0" || key.range.ends_with(", or 0");
        assert_eq!(set(key.name, "0").is_ok(), zero, "{}", key.name);
        let unit = high.find(|c: char| !c.is_ascii_digit()).unwrap_or(high.len());
        let above = high[..unit].parse::<u64>().unwrap() + 1;
        let text = set(key.name, &format!("{above}{}", &high[unit..])).unwrap_err();
        assert!(text.contains("out of range") && text.contains(key.range), "{text}");
    }
    assert_eq!(ranges, 32);
    assert!(set("max-message-size", "124").is_err());
    assert!(set("ping-interval", "99ms").is_err());
    assert_eq!(set("ping-interval", "0").unwrap().ping_interval, Duration::ZERO);
}

#[test]
fn sizes_and_times_are_read_with_their_units() {
    for (text, bytes) in
        [("125", 125), ("4096", 4096), ("1k", 1 << 10), ("64K", 64 << 10), (" 64m ", 64 << 20)]
    {
        assert_eq!(set("max-message-size", text).unwrap().max_message_size, bytes);
    }
    assert_eq!(set("feed-limit", "1g").unwrap().feed_limit, 1 << 30);
    for (text, ms) in [("250ms", 250), ("30s", 30_000), ("5m", 300_000), (" 1h ", 3_600_000)] {
        let expected = Duration::from_millis(ms);
        assert_eq!(set("ping-interval", text).unwrap().ping_interval, expected);
    }
    assert_eq!(
        set("max-message-size", "3x").unwrap_err(),
        "max-message-size: 3x is not a size (like 64k); 125 to 64m"
    );
}

/// Checks that each value is refused, and that the error holds the text beside it and no secret.
#[track_caller]
fn refuses(key: &str, cases: &[(&str, &str)]) {
    for (value, part) in cases {
        let text = set(key, value).map(|_| ()).expect_err(value);
        assert!(text.starts_with(&format!("{key}: ")), "{text}");
        assert!(text.contains(part), "{key} = {value}: {text:?} lacks {part:?}");
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[test]
fn bad_numbers_are_refused_with_the_cure() {
    let huge = "9".repeat(40);
    let long = "x".repeat(60_000);
    refuses(
        "loops",
        &[
            ("", "nothing is not a number; 1 to 64"),
            ("0", "out of range"),
            ("65", "out of range"),
            ("-1", "not a number"),
            ("+1", "not a number"),
            ("1.0", "not a number"),
            ("0x1", "not a number"),
            ("1_0", "not a number"),
            ("1 0", "not a number"),
            ("two", "two is not a number"),
            ("1k", "not a number"),
            ("１", "not a number"),
            ("1\n2", "1\\n2 is not a number"),
            ("18446744073709551615", "out of range"),
            ("18446744073709551616", "not a number"),
            (&huge, "not a number"),
            (&long, "xxx… is not a number"),
        ],
    );
    refuses(
        "read-batch",
        &[
            ("", "a size (like 64k)"),
            ("k", "not a size"),
            ("64kb", "not a size"),
            ("64 k", "not a size"),
            ("1.5m", "not a size"),
            ("-1m", "not a size"),
            ("1t", "not a size"),
            ("é", "not a size"),
            ("4095", "4k to 16m"),
            ("17179869183g", "out of range"),
            ("17179869184g", "not a size"),
            ("18014398509481984k", "not a size"),
        ],
    );
    refuses(
        "write-queue-age",
        &[
            ("", "a time (like 250ms"),
            ("10", "not a time"),
            ("00", "not a time"),
            ("0", "out of range"),
            ("0s", "out of range"),
            ("s", "not a time"),
            ("1S", "not a time"),
            ("1 s", "not a time"),
            ("1d", "not a time"),
            ("1sec", "not a time"),
            ("-1s", "not a time"),
            ("1.5s", "not a time"),
            ("1é", "not a time"),
            ("99ms", "100ms to 10m"),
            ("18446744073709551615ms", "out of range"),
            ("18446744073709551615h", "not a time"),
            ("30s ; comment", "not a time"),
        ],
    );
}

#[test]
fn bad_words_and_lists_are_refused_with_the_cure() {
    let prefix = "x".repeat(129);
    refuses("on-gap", &[("", "close or ignore"), ("Close", "close or"), ("reset", "reset is not")]);
    refuses(
        "log-level",
        &[("", "info or debug"), ("warning", "warn, info"), ("3", "3 is not known")],
    );
    refuses(
        "channel-prefix",
        &[
            (&prefix, "129 bytes"),
            ("__x", "keeps for itself"),
            ("a\u{7}b", "control"),
            ("a\0b", "control"),
        ],
    );
    refuses(
        "allowed-origins",
        &[
            ("", "empty"),
            (" , ,", "empty"),
            ("**", "** is not an origin"),
            ("wss://a", "not an origin"),
            ("https://.a", "not an origin"),
            ("https://a..b", "not an origin"),
            ("https://a:080", "not an origin"),
            ("https://[::1]8", "not an origin"),
            ("null", "not an origin"),
            ("example.org", "not an origin"),
            ("https://", "not an origin"),
            ("://a", "not an origin"),
            ("https://a/", "not an origin"),
            ("https://a/path", "not an origin"),
            ("https://*.a", "not an origin"),
            ("https://u@a", "not an origin"),
            ("https://a:", "not an origin"),
            ("https://a:0", "not an origin"),
            ("https://a:65536", "not an origin"),
            ("https://a:b", "not an origin"),
            ("https://é", "not an origin"),
            ("https://[::1", "not an origin"),
            ("https://[x]", "not an origin"),
            ("https://::1", "not an origin"),
            ("1http://a", "not an origin"),
            ("same-host, https://a b", "b is not an origin"),
        ],
    );
    refuses(
        "trusted-proxies",
        &[
            ("localhost", "localhost is not an address"),
            ("1.2.3", "not an address"),
            ("Unix", "not an address"),
            ("unix/1", "not an address"),
            ("1.2.3.4/33", "not an address"),
            ("1.2.3.4/", "not an address"),
            ("1.2.3.4/-1", "not an address"),
            ("1.2.3.4/99999999999", "not an address"),
            ("::1/129", "not an address"),
            ("[::1]", "not an address"),
            ("1.2.3.4:80", "not an address"),
        ],
    );
}

#[test]
fn bad_redis_urls_are_refused_without_a_word_of_the_password() {
    let path = format!("unix:///{}", "x".repeat(200));
    refuses(
        "redis-url",
        &[
            ("", "not a URL"),
            ("None", "not a URL"),
            ("SECRET", "write redis://"),
            ("SECRET:6379", "not a URL"),
            ("redis:SECRET", "not a URL"),
            ("$(SECRET)", "not a URL"),
            ("http://SECRET", "scheme"),
            ("redis-sentinel://SECRET", "scheme"),
            ("redis ://SECRET", "scheme"),
            ("rediss://:SECRET@h", "TLS to Redis is not supported yet"),
            ("valkeys://:SECRET@h", "TLS to Redis is not supported yet"),
            ("redis://", "does not parse"),
            ("redis://:SECRET@", "does not parse"),
            ("redis://:SECRET@:6379", "does not parse"),
            ("redis://:SECRET@0.0.0.0", "does not parse"),
            ("redis://:SECRET@h:65536", "does not parse"),
            ("redis://:SECRET@h:x", "does not parse"),
            ("redis://:SECRET@h:0", "port is 0"),
            ("redis://:SECRET@h/x", "does not parse"),
            ("redis://:SECRET@h/-1", "negative"),
            ("redis://:SECRET@h/99999999999999999999", "does not parse"),
            ("redis://:SECRET@a,b:6379", "several hosts"),
            ("redis://:SECRET@a:1,b:6379", "several hosts"),
            ("redis://:SECRET@a b", "does not parse"),
            ("redis://:SECRET@é.org", "host is not a name"),
            ("redis://:SECRET@h%41", "host is not a name"),
            ("redis://user:12?SECRET@h", "a ? or a #"),
            ("redis://user:12#SECRET@h", "a ? or a #"),
            ("redis://user:12/SECRET@h", "does not parse"),
            ("redis://:SECRET@h?protocol=resp3", "a ? or a #"),
            ("redis://:SECRET@h/0?timeout=5", "a ? or a #"),
            ("redis://SECRET@h", "without a password"),
            ("redis://:%ffSECRET@h", "does not parse"),
            ("unix://SECRET/redis.sock", "does not parse"),
            ("unix:///r.sock?pass=SECRET&x=1", "a ? or a #"),
            ("unix:///r.sock?pass=SECRET&db=", "a ? or a #"),
            ("unix:///r.sock?pass=SECRET&db=x", "does not parse"),
            ("unix:///r.sock?user=SECRET", "without a password"),
            (&path, "longer than 107"),
        ],
    );
}

#[test]
fn redis_urls_become_an_address_and_a_login() {
    let tcp = |host: &str, port| RedisAddress::Tcp { host: host.to_owned(), port };
    let unix = |path: &str| RedisAddress::Unix(PathBuf::from(path));
    for (text, address, username, password, database) in [
        ("redis://127.0.0.1", tcp("127.0.0.1", 6379), None, None, 0),
        ("redis://localhost:7000/3", tcp("localhost", 7000), None, None, 3),
        ("valkey://my_host-1.example:1/", tcp("my_host-1.example", 1), None, None, 0),
        ("redis://[::1]:7000", tcp("::1", 7000), None, None, 0),
        ("redis://:SECRET@h", tcp("h", 6379), None, Some("SECRET"), 0),
        ("redis://u:SECRET@h/0", tcp("h", 6379), Some("u"), Some("SECRET"), 0),
        ("redis://u%40:SE%40CRET%3F@h", tcp("h", 6379), Some("u@"), Some("SE@CRET?"), 0),
        ("redis://:SE,CRET@h", tcp("h", 6379), None, Some("SE,CRET"), 0),
        ("unix:///run/redis.sock", unix("/run/redis.sock"), None, None, 0),
        ("redis+unix:///r.sock?db=2", unix("/r.sock"), None, None, 2),
        ("unix:///r?db=2&user=u&pass=SECRET", unix("/r"), Some("u"), Some("SECRET"), 2),
    ] {
        let config = set("redis-url", text).unwrap();
        let all = format!("{config:?}");
        let url = config.redis_url.expect(text);
        assert_eq!(url.address, address, "{text}");
        assert_eq!(url.username.as_deref(), username, "{text}");
        assert_eq!(url.password.as_deref(), password, "{text}");
        assert_eq!(url.database, database, "{text}");
        for shown in [url.to_string(), format!("{url:?}"), all] {
            assert!(!shown.contains("SE"), "{shown}");
            assert_eq!(shown.contains("***"), password.is_some(), "{shown}");
        }
    }
    let shown = |text| set("redis-url", text).unwrap().redis_url.unwrap().to_string();
    assert_eq!(shown("redis://u:p@[::1]/3"), "redis://u:***@[::1]:6379/3");
    assert_eq!(shown("unix:///r.sock?user=u&pass=p"), "unix:///r.sock?db=0&user=u&pass=***");
    assert_eq!(set("redis-url", "none").unwrap().redis_url, None);
}

#[test]
fn lists_are_separated_by_commas_or_spaces_and_stay_as_they_were_written() {
    let text =
        "same-host,https://a.example  http://[::1]:8000 , capacitor://localhost https://a_b.c:1";
    assert_eq!(set("allowed-origins", text).unwrap().allowed_origins, text);
    assert_eq!(set("allowed-origins", " * ").unwrap().allowed_origins, "*");
    let text = "127.0.0.1, 10.0.0.0/8 fd00::/8,unix ::ffff:1.2.3.4, 0.0.0.0/0";
    assert_eq!(set("trusted-proxies", text).unwrap().trusted_proxies, text);
}

#[test]
fn a_network_that_the_configuration_takes_can_be_used() {
    for (text, good) in [
        ("::ffff:10.0.0.0/104", true),
        ("::ffff:10.0.0.0/96", true),
        ("::ffff:10.0.0.0/128", true),
        ("::ffff:10.0.0.0", true),
        ("::ffff:10.0.0.0/95", false),
        ("::ffff:10.0.0.0/8", false),
        ("::ffff:10.0.0.0/129", false),
        ("::/0", true),
        ("10.0.0.0/33", false),
    ] {
        assert_eq!(set("trusted-proxies", text).is_ok(), good, "{text}");
        assert_eq!(Policy::parse("same-host", text).is_ok(), good, "{text}");
    }
}

#[test]
fn unknown_keys_are_refused_with_the_nearest_one() {
    for (key, nearest) in [
        ("max_message_size", "max-message-size"),
        ("redis-ulr", "redis-url"),
        ("wsredis-redis-url", "redis-url"),
        ("Loops", "loops"),
        ("pong-interval", "ping-interval"),
        ("max-socket", "max-sockets"),
    ] {
        let text = set(key, "1").unwrap_err();
        assert_eq!(text, format!("unknown key {key}; did you mean {nearest}?"));
    }
    let long = "x".repeat(65);
    for key in ["", " ", "redis://u:SECRET@h/", "a\nb", "é", "loops ", &long] {
        assert_eq!(set(key, "1").unwrap_err(), "what stands before the = is not a key");
    }
}

#[test]
fn a_section_is_read_from_a_file_that_belongs_to_others_too() {
    let mut bytes =
        b"\xEF\xBB\xBF; the site\n[uwsgi]\nmaster = true\nmaster = false\n[\n]\nno pair\n\
        # ours\n  [ wsredis ]\r\n\n  ; comment\r\n# comment = 1\n redis-url=redis://h/1\n\
        loops\t=  4  \r\nchannel-prefix = a=b #c\n[other]\nloops = x\n\xff\0"
            .to_vec();
    bytes.extend([b'y'; 100_000]);
    let config = Ini::new("others", bytes).load().unwrap();
    assert_eq!(config.redis_url.unwrap().database, 1);
    assert_eq!(config.loops, 4);
    assert_eq!(config.channel_prefix, "a=b #c");
    assert_eq!(config.max_message_size, Config::new().max_message_size);
    assert!(Ini::new("bare", "[wsredis]").load().is_ok());
}

#[test]
fn a_wrong_file_is_refused_with_file_and_line() {
    let long = format!("[wsredis]\nloops = 1\n; {}\n", "x".repeat(1 << 20));
    let none = ": there is no [wsredis] section";
    let cases: &[(&[u8], &str)] = &[
        (b"", none),
        (b"\n\n[uwsgi]\nloops = 1\n", none),
        (b"loops = 1\n", none),
        (b"[WSREDIS]\n", none),
        (b"\xff\xfe[\0w\0", none),
        (
            b"[wsredis]\n[uwsgi]\n\n[wsredis]\n",
            ":4: a second [wsredis] section; the first is in line 1",
        ),
        (b"[wsredis]\n[wsredis]\n", ":2: a second [wsredis] section"),
        (b"\n[wsredis\nloops = 1\n", ":2: [wsredis lacks its ]"),
        (b"[wsredis] ; ours\n", ":1: something stands behind [wsredis]"),
        (b"[wsredis]\nloops\n", ":2: not a key = value"),
        (b"[wsredis]\nloops: 4\n", ":2: not a key = value"),
        (b"[wsredis]\n\nloops = 0\n", ":3: loops: 0 is out of range; 1 to 64"),
        (b"[wsredis]\nloops =\n", ":2: loops: nothing is not a number"),
        (b"[wsredis]\nloops = 1 # one\n", ":2: loops: 1 # one is not a number"),
        (b"[wsredis]\n= 4\n", ":2: what stands before the = is not a key"),
        (b"[wsredis]\r\nlops = 4\r\n", ":2: unknown key lops; did you mean loops?"),
        (b"[wsredis]\nloops = 1\n\nloops = 1\n", ":4: loops is set twice; it was first set at "),
        (b"[wsredis]\nloops = \0\n", ":2: a zero byte"),
        (b"[wsredis]\nloops = \xff\n", ":2: a byte that is not UTF-8"),
        (b"[wsredis]\n# \xff\n", ":2: a byte that is not UTF-8"),
        (b"[wsredis]\nchannel-prefix = a\x07b\n", ":2: channel-prefix: it holds a control"),
        (b"[wsredis]\nchannel-prefix = $(ENV)\n", ":2: $("),
        (b"[wsredis]\nchannel-prefix = %(x)\n", ":2: $("),
        (b"[wsredis]\nredis-url redis://u:SECRET@h?a=b\n", ":2: what stands before the ="),
        (b"[wsredis]\nredis-url redis://u:SECRET@h\n", ":2: not a key = value"),
        (b"[wsredis]\nredis-url = redis://u:SECRET@h:x\n", ":2: redis-url: it does not parse"),
        (long.as_bytes(), ":3: a line is longer than 64k"),
    ];
    for (bytes, part) in cases {
        let text = Ini::new("wrong", bytes).error();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(99)]);
        assert!(text.starts_with(part), "{shown:?}: {text:?}");
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[test]
fn a_line_may_have_64k_and_a_file_16m() {
    let line = |len: usize| format!("[wsredis]\n;{}\nloops = 2\n", "x".repeat(len - 1));
    assert_eq!(Ini::new("line", line(64 << 10)).load().unwrap().loops, 2);
    assert!(Ini::new("line", line((64 << 10) + 1)).load().is_err());
    let endless = Config::new().load_ini(Path::new("/dev/zero")).unwrap_err();
    assert_eq!(endless.text, "/dev/zero: longer than 16m");
}

#[test]
fn a_file_that_can_not_be_read_says_why() {
    let error = Config::new().load_ini(Path::new("/nonexistent/wsredis.ini")).unwrap_err();
    assert_eq!(error.kind, Kind::Config);
    assert!(error.text.starts_with("/nonexistent/wsredis.ini: No such file"), "{error}");
    let error = Config::new().load_ini(&std::env::temp_dir()).unwrap_err();
    assert!(error.text.contains("directory"), "{error}");
}

#[test]
fn a_key_in_the_file_and_by_the_host_is_an_error_that_says_where_it_was_first() {
    let ini = Ini::new("both", "[wsredis]\nloops = 2\n");
    let mut config = Config::new();
    config.set("loops", "3").unwrap();
    let text = config.load_ini(&ini.0).unwrap_err().text;
    assert!(text.ends_with(":2: loops is set twice; it was first set by the host"), "{text}");

    let mut config = ini.load().unwrap();
    let text = config.set("loops", "3").unwrap_err().text;
    let first = format!("loops is set twice; it was first set at {}:2", ini.0.display());
    assert_eq!(text, first);
    assert!(config.load_ini(&ini.0).unwrap_err().text.ends_with(&first), "the same file twice");
}

#[test]
fn a_wrong_file_or_value_changes_nothing() {
    let ini = Ini::new("nothing", "[wsredis]\nloops = 2\nlog-level = x\n");
    let mut config = Config::new();
    assert!(config.load_ini(&ini.0).is_err());
    assert!(config.set("loops", "99").is_err());
    assert_eq!(config.loops, 1);
    config.set("loops", "3").expect("a key that was refused may be set");
    assert_eq!(config.loops, 3);
}

#[test]
fn the_embedded_broker_is_for_one_process() {
    let config = Config::new();
    assert_eq!(config.check(1), Ok(Vec::new()));
    let error = config.check(2).unwrap_err();
    assert_eq!(error.kind, Kind::Config);
    assert!(error.text.contains("redis-url") && error.text.contains("there are 2"), "{error}");
    assert_eq!(set("redis-url", "redis://h").unwrap().check(8), Ok(Vec::new()));
}

#[test]
fn a_database_without_a_prefix_is_warned_about() {
    let mut config = set("redis-url", "redis://:SECRET@h/3").unwrap();
    let warnings = config.check(2).unwrap();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0].contains("database 3") && warnings[0].contains("channel-prefix"));
    assert!(!warnings[0].contains("SECRET"));
    config.set("channel-prefix", "staging:").unwrap();
    assert_eq!(config.check(2), Ok(Vec::new()));
}

#[test]
fn a_message_that_is_accepted_must_fit_its_way_to_the_others() {
    for (name, url) in [
        ("feed-limit", "none"),
        ("publish-queue-limit", "redis://h"),
        ("max-redis-message-size", "redis://h"),
    ] {
        let mut config = set(name, "128k").unwrap();
        config.set("redis-url", url).unwrap();
        config.set("max-message-size", "128k").unwrap();
        assert_eq!(config.check(1), Ok(Vec::new()));
        config.max_message_size += 1;
        let text = config.check(1).unwrap_err().text;
        assert!(text.contains(name) && text.contains("131073"), "{text}");
    }
}

#[test]
fn random_bytes_never_panic() {
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let seed = b"[uwsgi]\nx\n[wsredis]\n; c\nredis-url = redis://u:p@h:1/2\nloops = 2\n\
        ping-interval = 5s\nmax-message-size = 64k\nallowed-origins = same-host, https://a:1\n\
        trusted-proxies = ::1/8\n";
    let pieces: [&[u8]; 8] = [b"[", b"]", b"=", b"\n", b"\0", b"\xff", b"\xc3\xa9", b"99999999999"];
    for _ in 0..2000 {
        let mut bytes = seed.to_vec();
        for _ in 0..random.below(8) {
            let at = random.below(bytes.len());
            match random.below(3) {
                0 => bytes[at] = random.below(256) as u8,
                1 => drop(bytes.splice(at..at, pieces[random.below(pieces.len())].iter().copied())),
                _ => drop(bytes.remove(at)),
            }
        }
        let _ = Ini::new("random", &bytes).load();
    }
    let alphabet = b"0123456789kmgshredis:/@?#%[],.-ux";
    for _ in 0..50_000 {
        let key = keys()[random.below(keys().len())].name;
        let bytes: Vec<u8> = (0..random.below(12))
            .map(|_| match random.below(3) {
                0 => random.below(256) as u8,
                _ => alphabet[random.below(alphabet.len())],
            })
            .collect();
        let text = String::from_utf8_lossy(&bytes);
        let _ = Config::new().set(key, &text);
        let _ = Config::new().set("redis-url", &format!("redis://{text}"));
    }
}
