//! What the command line says.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};

use crate::{redis, site};

/// How a handshake's URL says what a socket may hear and speak on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The view answers with the grant that follows this path (tests/uwsgi/app.py).
    Grant(String),
    /// The name of the room follows this path; who is in it hears and speaks (examples/host.c).
    Room(String),
}

/// Whether and when those who are slow read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Not before they are closed.
    Never,
    /// One byte a second.
    Trickle,
    /// One after the other begins to read, spread over the time in which messages are said.
    Staggered,
}

/// Everything that a scenario may be told. Each takes what it needs.
#[derive(Clone, Debug)]
pub struct Options {
    pub scenario: String,
    pub address: SocketAddr,
    pub way: Way,
    /// Where the mirror is (`wsredis-echo:`).
    pub echo: String,
    pub redis: Option<SocketAddr>,
    /// Whose processor time and memory is measured.
    pub pid: Option<u32>,
    pub sockets: usize,
    pub channels: usize,
    /// Channels of each socket.
    pub hears: usize,
    /// Channels whose source is a socket; the others' is PUBLISH.
    pub speakers: usize,
    /// Messages a second, of all channels together; 0: as fast as they are taken.
    pub rate: f64,
    /// So many messages at a time.
    pub burst: u64,
    /// Whether a burst waits until everybody has heard the one before (fanout).
    pub waits: bool,
    /// Whether each message is for any channel, instead of one after the other.
    pub is_random: bool,
    /// Messages in all; 0: what the rate gives in `seconds`.
    pub messages: u64,
    pub seconds: f64,
    pub size: usize,
    /// Whether messages are filled with words; else with dots, which compress to nothing.
    pub has_words: bool,
    /// Whether permessage-deflate is offered.
    pub deflate: bool,
    /// Seconds between the last handshake and the first message, for sites that answer before they
    /// have subscribed (fanout).
    pub settle: f64,
    /// For sites that have a protocol of their own: what is said first, what comes before every
    /// message (fanout), and what is said then (speak).
    pub hello: String,
    pub prefix: String,
    pub text: String,
    /// Before every channel.
    pub group: String,
    pub slow: usize,
    pub reads: Reading,
    /// Bytes of a slow socket's receive buffer, as the kernel is asked for it; 0: as it likes.
    pub receive_buffer: usize,
    /// Sockets that begin messages and do not end them.
    pub half: usize,
    /// Bytes that they send of them.
    pub half_size: usize,
    /// Frames to send (isolation).
    pub frames: u64,
    /// One of so many writes is followed by a cut connection (isolation); 0: none.
    pub cut_one_in: u64,
    /// What flooders send.
    pub attack: String,
    /// Fragments of one byte that a flooder of them sends (attack).
    pub fragments: u64,
    /// Connections to make (resets, attacks); 0: as many as `seconds` allow.
    pub tries: u64,
    /// Handshakes on their way at the same time.
    pub asking: usize,
    /// Seconds between two looks at the memory.
    pub sample: f64,
    pub seed: u64,
    /// Seconds within which a herd comes back.
    pub jitter: f64,
    /// Seconds that the last messages may be on their way.
    pub drain: f64,
    /// Seconds after which it ends in any case.
    pub limit: f64,
}

impl Options {
    pub fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let scenario = args.next().ok_or("which scenario?")?;
        let mut options = Options {
            scenario,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            way: Way::Grant("/grant?g=".to_owned()),
            echo: "/echo".to_owned(),
            redis: None,
            pid: None,
            sockets: 100,
            channels: 1,
            hears: 1,
            speakers: 0,
            rate: 100.0,
            burst: 1,
            waits: false,
            is_random: false,
            messages: 0,
            seconds: 5.0,
            size: 0,
            has_words: false,
            deflate: false,
            settle: 0.0,
            hello: String::new(),
            prefix: String::new(),
            text: String::new(),
            group: format!("load{}:", std::process::id()),
            slow: 0,
            reads: Reading::Never,
            receive_buffer: 0,
            half: 0,
            half_size: 60_000,
            frames: 100_000,
            cut_one_in: 1000,
            attack: String::new(),
            fragments: 131_000,
            tries: 0,
            asking: 32,
            sample: 10.0,
            seed: 1,
            jitter: 10.0,
            drain: 20.0,
            limit: 600.0,
        };
        while let Some(name) = args.next() {
            let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
            let wrong = || format!("{name}: {value} is no number");
            let number = || value.parse::<usize>().map_err(|_| wrong());
            let large = || value.parse::<u64>().map_err(|_| wrong());
            let yes = || match value.as_str() {
                "yes" => Ok(true),
                "no" => Ok(false),
                _ => Err(format!("{name} yes or no, not {value}")),
            };
            let real = || match value.parse::<f64>() {
                Ok(number) if (0.0..1e9).contains(&number) => Ok(number),
                _ => Err(wrong()),
            };
            match name.as_str() {
                "--url" => options.address = site::address(&value)?,
                "--grant" => options.way = Way::Grant(value),
                "--room" => options.way = Way::Room(value),
                "--echo" => options.echo = value,
                "--redis" => options.redis = Some(redis::address(&value)?),
                "--pid" => options.pid = Some(value.parse().map_err(|_| wrong())?),
                "--sockets" => options.sockets = number()?,
                "--channels" => options.channels = number()?,
                "--hears" => options.hears = number()?,
                "--speakers" => options.speakers = number()?,
                "--rate" => options.rate = real()?,
                "--burst" => options.burst = large()?,
                "--waits" => options.waits = yes()?,
                "--random" => options.is_random = yes()?,
                "--messages" => options.messages = large()?,
                "--seconds" => options.seconds = real()?,
                "--size" => options.size = number()?,
                "--words" => options.has_words = yes()?,
                "--deflate" => options.deflate = yes()?,
                "--settle" => options.settle = real()?,
                "--hello" => options.hello = value,
                "--prefix" => options.prefix = value,
                "--text" => options.text = value,
                "--group" => options.group = value,
                "--slow" => options.slow = number()?,
                "--reads" => {
                    options.reads = match value.as_str() {
                        "never" => Reading::Never,
                        "trickle" => Reading::Trickle,
                        "staggered" => Reading::Staggered,
                        _ => {
                            let why = format!("--reads never, trickle or staggered, not {value}");
                            return Err(why);
                        }
                    }
                }
                "--receive-buffer" => options.receive_buffer = number()?,
                "--half" => options.half = number()?,
                "--half-size" => options.half_size = number()?,
                "--frames" => options.frames = large()?,
                "--cut-one-in" => options.cut_one_in = large()?,
                "--attack" => options.attack = value,
                "--fragments" => options.fragments = large()?,
                "--tries" => options.tries = large()?,
                "--asking" => options.asking = number()?,
                "--sample" => options.sample = real()?,
                "--jitter" => options.jitter = real()?,
                "--drain" => options.drain = real()?,
                "--limit" => options.limit = real()?,
                "--seed" => options.seed = large()?,
                _ => return Err(format!("there is no option {name}")),
            }
        }
        options.check()
    }

    fn check(self) -> Result<Options, String> {
        if self.address.port() == 0 {
            return Err("--url http://HOST:PORT is missing".to_owned());
        }
        if self.channels == 0 || self.hears == 0 || self.hears > self.channels {
            return Err("--channels is 1 at least, and --hears no more than that".to_owned());
        }
        if self.speakers > self.sockets.min(self.channels) {
            return Err("--speakers: no more than channels, and than sockets".to_owned());
        }
        if matches!(self.way, Way::Room(_)) && self.hears > 1 {
            return Err("who is in a room hears one channel: --hears 1".to_owned());
        }
        if self.burst == 0 || self.asking == 0 || self.sockets == 0 {
            return Err("--burst, --asking and --sockets are 1 at least".to_owned());
        }
        Ok(self)
    }

    /// How long the last messages may be on their way.
    pub fn drain(&self) -> Duration {
        Duration::from_secs_f64(self.drain)
    }

    /// The name of a channel.
    pub fn channel(&self, number: usize) -> String {
        format!("{}{number}", self.group)
    }

    /// The URL of a handshake that is granted this.
    pub fn path(&self, hears: &[String], speaks: &[String], more: Value) -> String {
        match &self.way {
            Way::Room(path) => format!("{path}{}", hears.first().map_or("", String::as_str)),
            Way::Grant(path) => {
                let mut grant = more;
                grant["subscribe"] = json!(hears);
                if !speaks.is_empty() {
                    grant["publish"] = json!(speaks);
                }
                format!("{path}{}", site::encoded(&grant))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn the_command_line_is_read() {
        let line = "slow --url http://127.0.0.1:80 --slow 3 --reads trickle --rate 0.5 --group g:";
        let options = parse(line).expect("it is right");
        assert_eq!((options.scenario.as_str(), options.slow), ("slow", 3));
        assert_eq!((options.reads, options.rate), (Reading::Trickle, 0.5));
        let path = options.path(&[options.channel(7)], &[], json!({}));
        assert_eq!(path, "/grant?g=%7B%22subscribe%22%3A%5B%22g%3A7%22%5D%7D");
        let room = parse("fanout --url http://127.0.0.1:80 --room /ws/ --group g").unwrap();
        assert_eq!(room.path(&[room.channel(0)], &[], json!({})), "/ws/g0");
    }

    #[test]
    fn a_wrong_command_line_says_why() {
        for (line, why) in [
            ("", "scenario"),
            ("fanout", "--url"),
            ("fanout --url http://127.0.0.1:80 --rate -1", "--rate"),
            ("fanout --url http://127.0.0.1:80 --sockets many", "many"),
            ("fanout --url http://127.0.0.1:80 --speakers 2", "--speakers"),
            ("fanout --url http://127.0.0.1:80 --hears 2", "--hears"),
            ("fanout --url http://127.0.0.1:80 --channels 2 --hears 2 --room /", "room"),
            ("fanout --url http://127.0.0.1:80 --reads fast", "fast"),
            ("fanout --url http://127.0.0.1:80 --burst 0", "--burst"),
            ("fanout --url http://127.0.0.1:80 --waits maybe", "--waits"),
            ("fanout --url http://127.0.0.1:80 --loud 1", "--loud"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
