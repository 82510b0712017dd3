//! Who says the numbered messages: PUBLISH on one connection, pipelined, or the sockets themselves.
//!
//! Owned by a scenario. It keeps its pace, and never has more on its way than it may.

use std::time::{Duration, Instant};

use wsredis::ws::frame::{Data, OpCode};

use crate::crowd::Crowd;
use crate::mark::Dice;
use crate::message;

/// Messages that Redis has not answered yet, at most.
const MAX_UNANSWERED: u64 = 20_000;
/// Bytes that wait to be written to Redis or to a speaker's socket, at most.
const MAX_WAITING: usize = 256 << 10;

/// All streams of a scenario; one for each channel.
pub struct Source {
    channels: Vec<String>,
    /// The first so many are spoken by the sockets of the same number.
    speakers: usize,
    sent: Vec<u64>,
    /// Over all streams.
    total: u64,
    commands: u64,
    /// Messages to send in all.
    wanted: u64,
    rate: f64,
    burst: u64,
    waits: bool,
    size: usize,
    next: usize,
    /// Says whose turn it is, if that is not the next one's.
    dice: Option<Dice>,
    /// Fills the messages, if not with dots.
    words: Option<Dice>,
    /// When the first and the last message was sent.
    began: Instant,
    ended: Instant,
    text: Vec<u8>,
    /// By how much the pace was missed.
    late: Duration,
}

impl Source {
    /// As the options of the crowd say.
    pub fn new(crowd: &Crowd) -> Source {
        let options = &crowd.options;
        let wanted = match options.messages {
            0 => (options.rate * options.seconds) as u64,
            messages => messages,
        };
        Source {
            channels: (0..options.channels).map(|number| options.channel(number)).collect(),
            speakers: options.speakers,
            sent: vec![0; options.channels],
            total: 0,
            commands: 0,
            wanted,
            rate: options.rate,
            burst: options.burst,
            waits: options.waits,
            size: options.size,
            next: 0,
            words: options.has_words.then(|| Dice::new(options.seed)),
            dice: options.is_random.then(|| Dice::new(options.seed)),
            began: crowd.began,
            ended: crowd.began,
            text: Vec::new(),
            late: Duration::ZERO,
        }
    }

    /// Messages of a stream so far.
    pub fn sent(&self, stream: usize) -> u64 {
        self.sent[stream]
    }

    /// Messages of all streams so far.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// When the first message was sent.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// When the last message was sent.
    pub fn ended(&self) -> Instant {
        self.ended
    }

    /// By how much it was later than its pace at worst: the machine, or Redis, was too slow.
    pub fn late(&self) -> Duration {
        self.late
    }

    /// Everything was said, and Redis has taken it.
    pub fn is_over(&self, crowd: &Crowd) -> bool {
        self.total >= self.wanted && crowd.answered >= self.commands
    }

    /// Says what is due; the next burst, if it waits for the last one to be heard.
    pub fn speak(&mut self, crowd: &mut Crowd, now: Instant) {
        if self.total == 0 {
            self.began = now;
        }
        let began = self.began;
        let due = match self.rate {
            0.0 if self.waits => self.total + self.burst,
            0.0 => self.wanted,
            rate => ((now - began).as_secs_f64() * rate) as u64 + self.burst,
        };
        let due = match self.waits {
            true => due.min(self.wanted),
            false => (due / self.burst * self.burst).min(self.wanted),
        };
        let micros = crowd.micros(now);
        while self.total < due {
            let stream = self.next;
            let numbers = [stream as u64, 0, self.sent[stream], micros];
            message::write(&mut self.text, self.size, numbers);
            if let Some(dice) = &mut self.words {
                fill(&mut self.text, dice);
            }
            if stream < self.speakers {
                // One that was closed has nothing more to say; its listeners know what was sent.
                if let Some(browser) = crowd.open(stream) {
                    if browser.waiting() > MAX_WAITING {
                        break;
                    }
                    browser.queue(OpCode::Data(Data::Text), true, &self.text);
                    browser.flush();
                    self.sent[stream] += 1;
                }
            } else {
                let answered = crowd.answered;
                let Some(link) = &mut crowd.redis else { break };
                if link.waiting() > MAX_WAITING || self.commands - answered > MAX_UNANSWERED {
                    break;
                }
                link.command(&[b"PUBLISH", self.channels[stream].as_bytes(), &self.text]);
                self.commands += 1;
                self.sent[stream] += 1;
            }
            self.total += 1;
            let channels = self.channels.len();
            self.next = match &mut self.dice {
                Some(dice) => dice.below(channels as u64) as usize,
                None => (self.next + 1) % channels,
            };
            self.ended = now;
        }
        if self.total == self.wanted {
            return;
        }
        let next_at = match self.rate {
            0.0 => now,
            rate => began + Duration::from_secs_f64(self.total as f64 / rate),
        };
        crowd.wake_at = Some(next_at);
        if self.total < due && self.rate > 0.0 {
            self.late = self.late.max(now.saturating_duration_since(next_at));
        }
    }
}

/// Replaces the dots at the end of a message by words, half of whose letters are the same few.
fn fill(text: &mut [u8], dice: &mut Dice) {
    for letter in text.iter_mut().rev().take_while(|letter| **letter == b'.') {
        *letter = match dice.below(8) {
            0 => b' ',
            1..=4 => b"etao"[dice.below(4) as usize],
            _ => b'a' + dice.below(26) as u8,
        };
    }
}
