//! A bug of ours that a browser's input hits: it costs that socket, and nobody else.
//!
//! What a panic leaves behind is dropped or made anew: the socket's message machine, and the loop's
//! buffer, which was lent out. Everything else of the loop is changed by small steps that do not
//! depend on the input's bytes.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::event_loop::{EventLoop, READ_BUFFER};
use crate::cause::Cause;
use crate::log::Level;
use crate::socket::{Key, Phase};
use crate::timer::Millis;

/// More than so many within this time are told apart from the single ones.
const MANY: u32 = 10;
const WHILE_MS: Millis = 60_000;

/// The panics of the last while.
#[derive(Debug, Default)]
pub(super) struct Panics {
    since: Millis,
    count: u32,
}

impl Panics {
    /// Counts one. True for the one that makes them many.
    fn add(&mut self, now: Millis) -> bool {
        if now.saturating_sub(self.since) >= WHILE_MS {
            *self = Panics { since: now, count: 0 };
        }
        self.count = self.count.saturating_add(1);
        self.count == MANY + 1
    }
}

impl EventLoop {
    /// Handles what a socket sent. If that panics, this socket is closed with 1011 and the loop goes
    /// on.
    pub(super) fn contain(&mut self, key: Key, handle: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| handle(self))).is_ok() {
            return;
        }
        self.read_buffer.resize(READ_BUFFER, 0);
        // The panic's own text may hold what the browser sent: it is not for this log.
        self.shared.log.limited(Level::Error, "panic", || {
            let id = self.shared.socket_id(self.number, key);
            format!("wsredis: socket {id} hit a bug of wsredis and is closed; please report it")
        });
        if self.panics.add(self.now) {
            let text = "wsredis: more than ten sockets hit a bug of wsredis within a minute; the \
                        others go on, please report it";
            self.shared.log.line(Level::Error, text);
        }
        match self.socket(key).map(|socket| socket.phase) {
            Some(Phase::Held | Phase::Open) => {
                self.doom(key, Cause::Internal);
                self.read_later(key);
            }
            Some(Phase::Closing | Phase::Ending) => self.finish(key, Cause::Internal),
            None => {}
        }
    }
}

/// The text that makes a loop panic, in this library's own tests.
#[cfg(test)]
pub(super) const PANIC: &str = "panic, please";

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;
    use std::time::Duration;

    use parking_lot::Mutex;
    use serde_json::Value;

    use super::super::{Adoption, Local};
    use super::*;
    use crate::config::Config;
    use crate::log::Log;
    use crate::ws::frame::{self, Data, OpCode};

    const GRANT: &[u8] = br#"{"subscribe":["a"],"publish":["a"],"echo":true}"#;

    fn open(engine: &Local) -> UnixStream {
        let (mut browser, host) = UnixStream::pair().unwrap();
        browser.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                       Connection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\n";
        let adoption = Adoption {
            fd: host.into(),
            grant: GRANT.into(),
            answer: answer.into(),
            leftover: Vec::new(),
            remote_address: String::new(),
            host: String::new(),
            path_digest: 0,
            mirror: false,
        };
        engine.adopt(adoption).map_err(|(error, _)| error).unwrap();
        assert_eq!(read(&mut browser, answer.len()), answer);
        browser
    }

    fn read(browser: &mut UnixStream, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        browser.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// A frame as browsers send it, under a mask that changes nothing.
    fn masked(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, OpCode::Data(Data::Text), text.as_bytes());
        let payload = bytes.split_off(2);
        bytes[1] |= 0x80;
        [&bytes[..], &[0; 4], &payload].concat()
    }

    fn closed_for(engine: &Local) -> u64 {
        let stats: Value = serde_json::from_str(&engine.stats()).unwrap();
        stats["closed"]["internal"].as_u64().unwrap()
    }

    #[test]
    fn a_panic_closes_the_socket_whose_input_it_was_and_no_other() {
        const VICTIMS: usize = 25;
        let lines = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&lines);
        let sink = Arc::new(move |level, line: &str| log.lock().push((level, line.to_owned())));
        let mut config = Config::new();
        // All of them in one loop.
        config.loops = 1;
        let engine = Local::new(config, Log::new(sink, Level::Debug), Arc::default()).unwrap();
        let (mut speaker, mut listener) = (open(&engine), open(&engine));
        let half_a_message = masked("half");
        speaker.write_all(&half_a_message[..7]).unwrap();
        for count in 1..=VICTIMS {
            let mut victim = open(&engine);
            victim.write_all(&masked("before")).unwrap();
            assert_eq!(read(&mut victim, 8)[2..], *b"before");
            let mut input = [masked(PANIC), masked("after")].concat();
            input.resize(input.len() + 200_000, 0);
            victim.write_all(&input).unwrap();
            let close = read(&mut victim, 2 + 2 + Cause::Internal.reason().len());
            assert_eq!(close[2..4], 1011_u16.to_be_bytes());
            assert_eq!(victim.read(&mut [0]).unwrap(), 0);
            drop(victim);
            for bystander in [&mut speaker, &mut listener] {
                assert_eq!(read(bystander, 8)[2..], *b"before");
            }
            while closed_for(&engine) < count as u64 {
                std::thread::yield_now();
            }
        }
        speaker.write_all(&half_a_message[7..]).unwrap();
        for bystander in [&mut speaker, &mut listener] {
            assert_eq!(read(bystander, 6)[2..], *b"half");
        }
        assert_eq!((engine.sockets(), closed_for(&engine)), (2, VICTIMS as u64));
        let lines = lines.lock();
        let count = |text: &str| {
            let of_a_bug =
                lines.iter().filter(|(level, line)| *level == Level::Error && line.contains(text));
            of_a_bug.count()
        };
        assert!((1..VICTIMS).contains(&count("hit a bug of wsredis and is closed")));
        assert_eq!(count("more than ten sockets"), 1);
    }

    #[test]
    fn panics_are_many_once_in_a_while() {
        let mut panics = Panics::default();
        let now = 1 << 40;
        let told = |panics: &mut Panics, at, n| (0..n).filter(|_| panics.add(at)).count();
        assert_eq!(told(&mut panics, now, 10), 0);
        assert_eq!(told(&mut panics, now + WHILE_MS - 1, 1), 1);
        assert_eq!(told(&mut panics, now + WHILE_MS - 1, 100), 0);
        assert_eq!(told(&mut panics, now + WHILE_MS, 10), 0);
        assert_eq!(told(&mut panics, now + WHILE_MS, 100), 1);
    }
}
