//! `speak`: sockets that send `--messages` in all, `--burst` in each write, as fast as the kernel
//! takes them or at a `--rate`. Each sends a ping behind its last one: when all have their pongs,
//! everything that was sent has been read. It ends when the server has nothing more to do.
//!
//! It judges nothing but that: what became of the messages is asked of Redis by who calls it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsredis::ws::frame::{Control, Data, OpCode};

use crate::crowd::{Arrival, Crowd, Ending, Scenario};
use crate::message;

/// How many bytes may wait for the kernel.
const STOCK: usize = 4 << 10;

/// All of them.
pub struct Speak {
    /// A whole write, as it is sent.
    text: Vec<u8>,
    open: usize,
    is_speaking: bool,
    began: Instant,
    /// Messages that each seat has still to send.
    left: Vec<u64>,
    sent: u64,
    next: usize,
    pongs: usize,
    ended: u64,
}

impl Speak {
    pub fn new(crowd: &mut Crowd) -> Result<Speak, String> {
        let (sockets, channels) = (crowd.options.sockets, crowd.options.channels);
        let wanted = crowd.options.messages;
        if wanted < sockets as u64 {
            return Err("--messages: each of --sockets has one to send at least".to_owned());
        }
        let mut text = Vec::new();
        message::write(&mut text, crowd.options.size, [0; 4]);
        for seat in 0..sockets {
            let channel = [crowd.options.channel(seat % channels)];
            let path = crowd.options.path(&channel, &channel, json!({}));
            crowd.add(path);
        }
        let share =
            |seat| (wanted * (seat + 1) / sockets as u64) - (wanted * seat / sockets as u64);
        Ok(Speak {
            text,
            open: 0,
            is_speaking: false,
            began: crowd.began,
            left: (0..sockets as u64).map(share).collect(),
            sent: 0,
            next: 0,
            pongs: 0,
            ended: 0,
        })
    }

    /// Sends a burst of a seat, and the ping behind its last message. Returns false if the kernel
    /// is still busy with those before.
    fn send(&mut self, crowd: &mut Crowd, seat: usize) -> bool {
        let burst = crowd.options.burst.min(self.left[seat]);
        let Some(browser) = crowd.open(seat) else { return false };
        if browser.waiting() > STOCK {
            browser.flush();
            return false;
        }
        for _ in 0..burst {
            browser.queue(OpCode::Data(Data::Text), true, &self.text);
        }
        self.sent += burst;
        self.left[seat] -= burst;
        if self.left[seat] == 0 {
            browser.queue(OpCode::Control(Control::Ping), true, b"");
        }
        browser.flush();
        true
    }
}

impl Scenario for Speak {
    fn opened(&mut self, _: usize, _: Instant) {
        self.open += 1;
    }

    fn message(&mut self, _: usize, _: &[u8], _: &mut Arrival<'_>) {}

    fn pong(&mut self, _: usize, _: &[u8]) {
        self.pongs += 1;
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, _: Instant) {
        match ending {
            Ending::Refused(_) => crowd.connect(seat),
            Ending::Closed(_) => self.ended += 1,
        }
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        if !self.is_speaking {
            if self.open < self.left.len() {
                return Ok(false);
            }
            self.is_speaking = true;
            self.began = now;
            crowd.restart_clock(now);
        }
        let rate = crowd.options.rate;
        let due = match rate {
            0.0 => u64::MAX,
            rate => ((now - self.began).as_secs_f64() * rate) as u64,
        };
        let mut is_idle = true;
        for _ in 0..self.left.len() {
            if self.sent >= due {
                break;
            }
            if self.left[self.next] > 0 {
                is_idle &= !self.send(crowd, self.next);
            }
            self.next = (self.next + 1) % self.left.len();
        }
        let is_done = self.left.iter().all(|left| *left == 0);
        crowd.wake_at = match rate {
            _ if is_done || is_idle => None,
            0.0 => Some(now),
            rate => Some(self.began + Duration::from_secs_f64((self.sent + 1) as f64 / rate)),
        };
        let is_read = self.pongs + self.ended as usize >= self.left.len();
        Ok(is_read && crowd.process.as_mut().is_none_or(|process| process.is_at_rest(now)))
    }

    fn tell(&self, _: &Crowd, report: &mut Value) {
        report["sent"] = json!(self.sent);
        report["ended"] = json!(self.ended);
        report["pongs"] = json!(self.pongs);
        report["spoke_in_s"] = json!(crate::crowd::rounded(self.began.elapsed().as_secs_f64()));
    }
}
