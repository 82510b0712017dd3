//! An engine under test: settings as text, handshakes as a host would hand them over, counters and log lines to wait
//! for.

use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use serde_json::Value;
use wsredis::config::Config;
use wsredis::engine::{Adoption, Engine, Local, Who};
use wsredis::error::{Error, Kind};
use wsredis::log::{Level, Log};

use super::{Browser, wait_until};

/// What the plugin writes after a handshake; the engine passes it on unread.
pub const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An engine and what it has logged.
pub struct Bench {
    pub engine: Engine,
    log: Arc<Mutex<Vec<(Level, String)>>>,
    /// A thread is about to log.
    stuck: Arc<AtomicBool>,
    listener: TcpListener,
}

/// A handshake that a test hands over; the parts that it does not name are the common ones.
pub struct Offer<'a> {
    pub grant: &'a str,
    pub envelope: bool,
    pub leftover: &'a [u8],
    pub address: &'a str,
    pub mirror: bool,
    pub unix: bool,
    /// What the answer agrees on, the value of `Sec-WebSocket-Extensions`.
    pub extensions: Option<&'a str>,
}

impl Default for Offer<'_> {
    fn default() -> Self {
        Offer {
            grant: "{}",
            envelope: false,
            leftover: b"",
            address: "",
            mirror: false,
            unix: false,
            extensions: None,
        }
    }
}

/// Tests talk faster than people: what is to be set beside `settings` so that only the rates in them hold.
pub fn no_rates(settings: &[(&str, &str)]) -> Vec<(&'static str, &'static str)> {
    let mut rates = vec![("max-message-rate", "0"), ("max-control-rate", "0")];
    rates.retain(|(rate, _)| settings.iter().all(|(key, _)| key != rate));
    rates
}

impl Bench {
    /// An engine with so many loops and these settings. A browser's rates hold only where they are set.
    pub fn new(loops: usize, settings: &[(&str, &str)]) -> Self {
        let mut config = Config::new();
        config.set("loops", &loops.to_string()).unwrap();
        for (key, value) in no_rates(settings).iter().chain(settings) {
            config.set(key, value).unwrap();
        }
        let log = Arc::new(Mutex::new(Vec::new()));
        let stuck = Arc::new(AtomicBool::new(false));
        let (lines, waits) = (Arc::clone(&log), Arc::clone(&stuck));
        let sink = Arc::new(move |level, line: &str| {
            waits.store(true, SeqCst);
            lines.lock().unwrap().push((level, line.to_owned()));
        });
        Bench {
            engine: Engine::new(config, Log::new(sink, Level::Debug), Arc::default()).unwrap(),
            log,
            stuck,
            listener: TcpListener::bind("127.0.0.1:0").unwrap(),
        }
    }

    /// The engine, which runs in this process.
    pub fn local(&self) -> &Local {
        match &self.engine {
            Engine::Here(local) => local,
            Engine::Kept(_) => panic!("it runs in a keeper"),
        }
    }

    /// A TCP connection: the browser's end and the host's.
    pub fn connection(&self) -> (TcpStream, OwnedFd) {
        let browser = TcpStream::connect(self.listener.local_addr().unwrap()).unwrap();
        let (host, _) = self.listener.accept().unwrap();
        browser.set_nodelay(true).unwrap();
        (browser, host.into())
    }

    /// Hands a handshake over without waiting for its answer.
    pub fn offer(&self, offer: Offer<'_>) -> Browser {
        self.try_offer(offer).expect("the engine takes it")
    }

    /// Hands a handshake over, if the engine takes it.
    pub fn try_offer(&self, offer: Offer<'_>) -> Result<Browser, Error> {
        let (browser, host) = if offer.unix {
            let (browser, host) = UnixStream::pair().unwrap();
            (Browser::new(browser), OwnedFd::from(host))
        } else {
            let (browser, host) = self.connection();
            (Browser::new(browser), host)
        };
        match self.engine.adopt(self.adoption(host, offer)) {
            Ok(()) => Ok(browser),
            Err((error, _)) => Err(error),
        }
    }

    /// What a host would hand over for `offer`.
    pub fn adoption(&self, fd: OwnedFd, offer: Offer<'_>) -> Adoption {
        let mut answer = ANSWER.to_owned();
        let mut add = |line: &str| answer.insert_str(answer.len() - 2, line);
        if offer.envelope {
            add("Sec-WebSocket-Protocol: wsredis.v1\r\n");
        }
        if let Some(extensions) = offer.extensions {
            add(&format!("Sec-WebSocket-Extensions: {extensions}\r\n"));
        }
        Adoption {
            fd,
            grant: offer.grant.into(),
            answer: answer.into(),
            leftover: offer.leftover.into(),
            remote_address: offer.address.into(),
            host: String::new(),
            path_digest: 0,
            mirror: offer.mirror,
        }
    }

    /// A browser without the envelope whose handshake was answered.
    pub fn open(&self, grant: &str) -> Browser {
        let mut browser = self.offer(Offer { grant, ..Offer::default() });
        browser.opened();
        browser
    }

    /// The same over AF_UNIX, whose small buffer is full soon when nobody reads.
    pub fn open_unix(&self, grant: &str) -> Browser {
        let mut browser = self.offer(Offer { grant, unix: true, ..Offer::default() });
        browser.opened();
        browser
    }

    /// A browser that speaks `wsredis.v1` and has read its hello; and its id.
    pub fn open_envelope(&self, grant: &str) -> (Browser, String) {
        let mut browser = self.offer(Offer { grant, envelope: true, ..Offer::default() });
        browser.opened();
        let hello = browser.json();
        assert_eq!(hello["type"], "hello");
        let id = hello["socket"].as_str().unwrap().to_owned();
        (browser, id)
    }

    /// Publishes as the host, again for as long as the engine is busy.
    pub fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) {
        wait_until("the engine is not busy", || {
            match self.engine.publish(channel, payload.as_ref()) {
                Ok(()) => true,
                Err(error) => {
                    assert_eq!(error.kind, Kind::Busy, "{error}");
                    false
                }
            }
        });
    }

    /// Runs `body` while one loop stands still, because it wants to log a line and may not: what `body` does reaches
    /// that loop all at once. `body` must not ask for what was logged.
    pub fn while_stuck<T>(&self, body: impl FnOnce() -> T) -> T {
        let (_victim, id) = self.open_envelope("{}");
        let log = self.log.lock().unwrap();
        self.stuck.store(false, SeqCst);
        self.engine.kick(&Who::Socket(id)).unwrap();
        wait_until("the loop is stuck", || self.stuck.load(SeqCst));
        let result = body();
        drop(log);
        result
    }

    /// A counter, by its name or, like `closed/slow`, by its table's and its own.
    #[track_caller]
    pub fn stat(&self, name: &str) -> u64 {
        let stats: Value = serde_json::from_str(&self.engine.stats().unwrap()).unwrap();
        let pointer = format!("/{name}");
        stats.pointer(&pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("no {name}"))
    }

    /// Waits until a counter has a value.
    #[track_caller]
    pub fn wait_for(&self, name: &str, value: u64) {
        let mut last = 0;
        let begin = std::time::Instant::now();
        while begin.elapsed() < super::DEADLINE {
            last = self.stat(name);
            if last == value {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{name} is {last} and never was {value}\n{}", self.log_text());
    }

    /// Waits until no socket is left, and checks that what they owned was given back.
    #[track_caller]
    pub fn wait_until_empty(&self) {
        self.wait_for("sockets", 0);
        assert_eq!(self.stat("socket_bytes"), 0);
    }

    /// Was a line logged that holds `text`?
    pub fn has_logged(&self, text: &str) -> bool {
        self.log.lock().unwrap().iter().any(|(_, line)| line.contains(text))
    }

    /// How many lines were logged that hold `text`.
    pub fn count_logged(&self, text: &str) -> usize {
        self.logged(text).len()
    }

    /// The lines that hold `text`, each with its level.
    pub fn logged(&self, text: &str) -> Vec<(Level, String)> {
        let log = self.log.lock().unwrap();
        log.iter().filter(|(_, line)| line.contains(text)).cloned().collect()
    }

    /// Everything that was logged.
    pub fn log_text(&self) -> String {
        self.logged("").into_iter().map(|(_, line)| line).collect::<Vec<_>>().join("\n")
    }
}
