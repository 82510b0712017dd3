//! The bystanders: healthy browsers that must notice nothing of what a test does to a site. Each
//! hears every message of its channels once and in order, and what the speakers among them say
//! arrives once.
//!
//! One thread and one poll. Every channel is a *stream* of numbered messages with one source: a
//! speaker's websocket, or PUBLISH from outside (with `--redis`). The numbers tell what is lost,
//! doubled or out of order; only that is judged, never the site itself.
//!
//! ```text
//! bystander --url http://127.0.0.1:8080 [--sockets 200] [--speakers 10] [--rate 10] [--size 0]
//!           [--redis redis://127.0.0.1:6379] [--channels 5] [--group NAME] [--path /grant?g=]
//!           [--reconnect]
//! ```
//!
//! It says `{"ready":true,…}` once every browser has heard each of its channels. Then it takes
//! lines on stdin and answers each with one line of JSON: `report`; `pause [SECONDS]`, which stops
//! the sources and waits until everything has arrived or the time (5) is over; `resume`; `quit`.
//!
//! It owns its browsers and its two Redis connections. It never writes to the site but through them.

#[path = "../common/browser.rs"]
#[allow(dead_code, reason = "the load generator sends more than a browser would")]
mod browser;
#[path = "../common/figures.rs"]
mod figures;
mod harness;
#[path = "../common/judge.rs"]
mod judge;
#[path = "../common/message.rs"]
mod message;
#[path = "../common/redis.rs"]
#[allow(dead_code, reason = "only the load generator sends so much that it has to wait")]
mod redis;
mod seat;
#[path = "../common/site.rs"]
mod site;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use harness::Harness;

/// What the command line says.
#[derive(Debug)]
pub struct Options {
    address: SocketAddr,
    /// Before the grant in a handshake's URL.
    path: String,
    sockets: usize,
    channels: usize,
    speakers: usize,
    /// Between two messages of a stream.
    period: Duration,
    /// To which each message is filled up.
    size: usize,
    redis: Option<SocketAddr>,
    /// Before every channel.
    group: String,
    reconnect: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            path: "/grant?g=".to_owned(),
            sockets: 200,
            channels: 5,
            speakers: 10,
            period: Duration::from_millis(100),
            size: 0,
            redis: None,
            group: format!("bystander{}:", std::process::id()),
            reconnect: false,
        };
        while let Some(name) = args.next() {
            if name == "--reconnect" {
                options.reconnect = true;
                continue;
            }
            let value = args.next().ok_or_else(|| format!("{name} wants a value"))?;
            let number = || value.parse().map_err(|_| format!("{name}: {value} is no number"));
            match name.as_str() {
                "--url" => options.address = site::address(&value)?,
                "--path" => options.path = value,
                "--sockets" => options.sockets = number()?,
                "--channels" => options.channels = number()?,
                "--speakers" => options.speakers = number()?,
                "--size" => options.size = number()?,
                "--rate" => options.period = period(&value)?,
                "--redis" => options.redis = Some(redis::address(&value)?),
                "--group" => options.group = value,
                _ => return Err(format!("there is no option {name}")),
            }
        }
        if options.address.port() == 0 {
            return Err("--url http://HOST:PORT is missing".to_owned());
        }
        if options.redis.is_none() {
            options.channels = 0;
        }
        if options.sockets < 2 || options.speakers > options.sockets {
            return Err("two sockets at least, and no more speakers than sockets".to_owned());
        }
        if options.speakers + options.channels == 0 {
            return Err("nobody says anything: --speakers, or --redis and --channels".to_owned());
        }
        Ok(options)
    }
}

fn period(rate: &str) -> Result<Duration, String> {
    match rate.parse::<f64>() {
        Ok(rate) if rate >= 0.01 => Ok(Duration::from_secs_f64(1.0 / rate)),
        _ => Err(format!("--rate: {rate} is no number of messages per second")),
    }
}

/// The lines that come on stdin; their end is a `quit`.
#[derive(Default)]
struct Commands {
    unread: Vec<u8>,
}

impl Commands {
    /// Reads once, which is enough: the poll says again when more has come.
    fn read(&mut self) -> io::Result<Vec<String>> {
        let mut buffer = [0; 8192];
        let count = io::stdin().lock().read(&mut buffer)?;
        self.unread.extend_from_slice(if count == 0 { b"quit\n" } else { &buffer[..count] });
        let end = self.unread.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let lines: Vec<u8> = self.unread.drain(..end).collect();
        Ok(String::from_utf8_lossy(&lines).lines().map(str::to_owned).collect())
    }
}

/// When a pause was asked for and when it is over at the latest.
struct Pause {
    end: Instant,
}

fn run(options: Options) -> Result<(), String> {
    let failed = |error: io::Error| format!("the poll failed: {error}");
    let mut harness = Harness::new(options)?;
    let mut commands = Commands::default();
    let (mut ready, mut pause) = (false, None::<Pause>);
    loop {
        if harness.turn()? {
            for line in commands.read().map_err(failed)? {
                let mut words = line.split_whitespace();
                match (words.next(), words.next().map(str::parse)) {
                    (Some("report"), None) => answer(&harness.report(false))?,
                    (Some("pause"), seconds @ (None | Some(Ok(_)))) => {
                        harness.stop_sources();
                        let seconds = seconds.map_or(5, |value| value.unwrap_or(5));
                        pause = Some(Pause { end: Instant::now() + Duration::from_secs(seconds) });
                    }
                    (Some("resume"), None) => {
                        harness.start_sources();
                        answer(&serde_json::json!({ "resumed": true }))?;
                    }
                    (Some("quit"), None) => {
                        harness.close()?;
                        return answer(&serde_json::json!({ "quit": true }));
                    }
                    _ => answer(&serde_json::json!({ "error": format!("what is {line:?}?") }))?,
                }
            }
        }
        if !ready && harness.is_ready() {
            ready = true;
            answer(&serde_json::json!({ "ready": true, "connected": harness.connected() }))?;
        }
        if let Some(Pause { end }) = pause
            && (harness.is_quiet() || Instant::now() >= end)
        {
            pause = None;
            answer(&harness.report(true))?;
        }
    }
}

fn answer(value: &serde_json::Value) -> Result<(), String> {
    let mut out = io::stdout().lock();
    writeln!(out, "{value}").and_then(|()| out.flush()).map_err(|error| format!("stdout: {error}"))
}

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bystander: {error}");
            ExitCode::FAILURE
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
        let options =
            parse("--url http://127.0.0.1:80/ --rate 4 --reconnect --sockets 3 --speakers 1")
                .expect("it is right");
        assert_eq!((options.sockets, options.speakers, options.channels), (3, 1, 0));
        assert_eq!((options.period, options.reconnect), (Duration::from_millis(250), true));
        assert_eq!(
            parse("--url http://127.0.0.1:80 --redis redis://127.0.0.1:1").unwrap().channels,
            5
        );
    }

    #[test]
    fn a_wrong_command_line_says_why() {
        for (line, why) in [
            ("", "--url"),
            ("--url ftp://x", "http://"),
            ("--url http://127.0.0.1:80 --rate 0", "--rate"),
            ("--url http://127.0.0.1:80 --sockets many", "many"),
            ("--url http://127.0.0.1:80 --sockets 3 --speakers 4", "speakers"),
            ("--url http://127.0.0.1:80 --speakers 0", "nobody"),
            ("--url http://127.0.0.1:80 --loud", "--loud"),
        ] {
            let error = parse(line).expect_err(line);
            assert!(error.contains(why), "{line}: {error}");
        }
    }
}
