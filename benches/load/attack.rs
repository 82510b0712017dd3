//! `attack`: flooders that send what `--attack` says, as fast as the kernel takes it; the first
//! `--slow` of them read nothing. Who is closed comes back at once, until `--tries` connections
//! were made or `--seconds` are over.
//!
//! It counts how the connections end; what they should end with is said by who calls it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsredis::ws::frame::{Data, OpCode};

use crate::crowd::{Arrival, Crowd, Ending, Scenario};
use crate::mark::Dice;

/// Frames that are written at once.
const BLOCK: u64 = 250;
/// How many bytes may wait for the kernel.
const STOCK: usize = 4 << 10;
#[derive(Clone, Copy, PartialEq, Eq)]
enum Attack {
    Pings,
    Messages,
    Fragments,
    Unfinished,
    Garbage,
}

/// Headers that promise more than comes; the name, the bytes.
const UNFINISHED: [(&str, &[u8]); 7] = [
    ("2^63", &[0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
    ("2^63-1", &[0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]),
    ("max+1", &[0x82, 0xff, 0, 0, 0, 0, 0, 1, 0, 1, 1, 2, 3, 4]),
    ("header", &[0x82]),
    ("no payload", &[0x82, 0xfe, 0xff, 0xff, 1, 2, 3, 4]),
    ("half a payload", &[0x81, 0x8a, 0, 0, 0, 0, b'a', b'b']),
    ("half a message", &[0x01, 0x81, 0, 0, 0, 0, b'a']),
];

/// All flooders.
pub struct Flood {
    attack: Attack,
    /// What is sent over and over.
    block: Vec<u8>,
    dice: Dice,
    /// Frames, or pieces, that the connection of a seat has sent.
    sent: Vec<u64>,
    frames: u64,
    pongs: u64,
    tries: u64,
    left: usize,
    /// How each kind has ended.
    endings: BTreeMap<(&'static str, u16), u64>,
}

impl Flood {
    pub fn new(crowd: &mut Crowd) -> Result<Flood, String> {
        let (attack, frame): (_, &[u8]) = match crowd.options.attack.as_str() {
            "pings" => (Attack::Pings, &[0x89, 0x84, 0, 0, 0, 0, b'p', b'i', b'n', b'g']),
            "messages" => (Attack::Messages, &[0x81, 0x84, 0, 0, 0, 0, b't', b'e', b'x', b't']),
            "fragments" => (Attack::Fragments, &[0x00, 0x81, 0, 0, 0, 0, b'f']),
            "unfinished" => (Attack::Unfinished, &[]),
            "garbage" => (Attack::Garbage, &[]),
            other => return Err(format!("there is no attack {other:?}")),
        };
        let sockets = crowd.options.sockets;
        for seat in 0..sockets {
            let channel = [crowd.options.channel(seat)];
            let path = crowd.options.path(&channel, &channel, json!({}));
            let seat = crowd.add(path);
            crowd.seats[seat].reads = seat >= crowd.options.slow;
        }
        Ok(Flood {
            attack,
            block: frame.repeat(BLOCK as usize),
            dice: Dice::new(crowd.options.seed),
            sent: vec![0; sockets],
            frames: 0,
            pongs: 0,
            tries: sockets as u64,
            left: sockets,
            endings: BTreeMap::new(),
        })
    }

    /// The kind of what this seat sends.
    fn kind(&self, seat: usize) -> &'static str {
        match self.attack {
            Attack::Unfinished => UNFINISHED[seat % UNFINISHED.len()].0,
            _ => "all",
        }
    }

    /// Sends more, if the kernel takes it. Returns whether it has.
    fn send(&mut self, crowd: &mut Crowd, seat: usize) -> bool {
        let fragments = crowd.options.fragments;
        let Some(browser) = crowd.open(seat) else { return false };
        let sent = &mut self.sent[seat];
        let is_done = match self.attack {
            Attack::Unfinished => *sent > 0,
            Attack::Fragments => *sent >= fragments,
            _ => false,
        };
        let waiting = browser.waiting();
        if waiting < STOCK && !is_done {
            match self.attack {
                Attack::Pings | Attack::Messages => browser.output().extend_from_slice(&self.block),
                Attack::Fragments => {
                    if *sent == 0 {
                        browser.queue(OpCode::Data(Data::Binary), false, b"f");
                    }
                    browser.output().extend_from_slice(&self.block);
                }
                Attack::Unfinished => {
                    browser.output().extend_from_slice(UNFINISHED[seat % UNFINISHED.len()].1);
                }
                Attack::Garbage => {
                    let size = 1 + self.dice.below(STOCK as u64) as usize;
                    let dice = &mut self.dice;
                    browser.output().extend((0..size).map(|_| dice.below(256) as u8));
                }
            }
            let frames = match self.attack {
                Attack::Unfinished | Attack::Garbage => 1,
                _ => BLOCK,
            };
            *sent += frames;
            self.frames += frames;
        }
        let waiting = browser.waiting();
        browser.flush();
        browser.waiting() < waiting
    }
}

impl Scenario for Flood {
    fn greet(&mut self, crowd: &mut Crowd, seat: usize, now: Instant) {
        if crowd.opened == 1 {
            crowd.restart_clock(now);
        }
        self.sent[seat] = 0;
        self.send(crowd, seat);
    }

    fn message(&mut self, _: usize, _: &[u8], _: &mut Arrival<'_>) {}

    fn pong(&mut self, _: usize, _: &[u8]) {
        self.pongs += 1;
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, now: Instant) {
        let code = match ending {
            Ending::Closed(code) | Ending::Refused(code) => code,
        };
        *self.endings.entry((self.kind(seat), code)).or_default() += 1;
        let limit = crowd.options.tries;
        let in_time = (now - crowd.began).as_secs_f64() < crowd.options.seconds;
        if in_time && (limit == 0 || self.tries < limit) {
            self.tries += 1;
            crowd.connect(seat);
        } else {
            self.left -= 1;
        }
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        let mut is_writing = false;
        for seat in 0..self.sent.len() {
            is_writing |= self.send(crowd, seat);
        }
        crowd.wake_at = is_writing.then_some(now);
        let seconds = Duration::from_secs_f64(crowd.options.seconds);
        let drains = self.attack == Attack::Unfinished || self.attack == Attack::Fragments;
        let end = if drains { seconds + crowd.options.drain() } else { seconds };
        Ok(self.left == 0 || now - crowd.began > end)
    }

    fn tell(&self, _: &Crowd, report: &mut Value) {
        report["attack_frames"] = json!(self.frames);
        report["pongs"] = json!(self.pongs);
        report["tries"] = json!(self.tries);
        report["still_open"] = json!(self.left);
        let mut endings = json!({});
        for ((kind, code), count) in &self.endings {
            endings[kind][code.to_string()] = json!(count);
        }
        report["endings"] = endings;
    }
}
