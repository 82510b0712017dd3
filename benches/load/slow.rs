//! `slow`: healthy sockets beside others that do not read, or that begin messages and never end
//! them.
//!
//! The seats are `--sockets` healthy ones, then `--slow`, then `--half`. All hear the channels. The
//! healthy ones are judged as in `fanout`. What a slow one has got before it was closed is judged,
//! too: a beginning of its streams without a hole, one close frame, and not a byte behind it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsredis::cause::Cause;
use wsredis::ws::frame::{Data, OpCode};

use crate::browser::Browser;
use crate::crowd::{Arrival, Crowd, Ending, Scenario, Seat};
use crate::fanout::{Listeners, tell_source, tell_verdict};
use crate::options::Reading;
use crate::source::Source;

/// Between two bytes that a trickling socket reads.
const TRICKLE: Duration = Duration::from_secs(1);

/// All of them.
pub struct Slow {
    listeners: Listeners,
    source: Source,
    healthy: usize,
    slow: usize,
    half: usize,
    open: usize,
    /// Those that were there once.
    came: usize,
    is_speaking: bool,
    heard_at: Instant,
    trickle_at: Instant,
    /// How many slow ones have begun to read.
    awake: usize,
    /// The fewest messages that a slow one had not got when it read its close frame.
    missed: Option<u64>,
    slow_ended: u64,
    half_ended: u64,
}

impl Slow {
    pub fn new(crowd: &mut Crowd) -> Result<Slow, String> {
        let (healthy, slow, half) = (crowd.options.sockets, crowd.options.slow, crowd.options.half);
        if crowd.options.speakers > 0 || crowd.redis.is_none() {
            return Err("the messages come from --redis, not from --speakers".to_owned());
        }
        let listeners = Listeners::new(crowd, healthy + slow + half);
        for _ in 0..healthy + slow + half {
            let seat = listeners.add_seat(crowd);
            if seat >= healthy && seat < healthy + slow {
                let receive_buffer = crowd.options.receive_buffer;
                crowd.seats[seat].receive_buffer = receive_buffer;
                crowd.seats[seat].reads = false;
            }
        }
        let source = Source::new(crowd);
        let began = crowd.began;
        Ok(Slow {
            listeners,
            source,
            healthy,
            slow,
            half,
            open: 0,
            came: 0,
            is_speaking: false,
            heard_at: began,
            trickle_at: began,
            awake: 0,
            missed: None,
            slow_ended: 0,
            half_ended: 0,
        })
    }

    fn is_slow(&self, seat: usize) -> bool {
        self.slow_seats().contains(&seat)
    }

    fn slow_seats(&self) -> std::ops::Range<usize> {
        self.healthy..self.healthy + self.slow
    }

    /// Lets the slow ones read, whose time has come.
    fn read_slowly(&mut self, crowd: &mut Crowd, now: Instant) {
        match crowd.options.reads {
            Reading::Never => {}
            Reading::Trickle if now < self.trickle_at => {}
            Reading::Trickle => {
                self.trickle_at = now + TRICKLE;
                for seat in self.slow_seats() {
                    crowd.read(seat, 1, self, now);
                }
            }
            Reading::Staggered => {
                let share =
                    (now - self.source.began()).as_secs_f64() / crowd.options.seconds.max(0.001);
                let awake = ((share * self.slow as f64) as usize).min(self.slow);
                for seat in self.healthy + self.awake..self.healthy + awake {
                    crowd.read_on(seat, self, now);
                }
                self.awake = awake;
            }
        }
    }

    fn is_complete(&self, crowd: &mut Crowd, seat: usize) -> bool {
        crowd.open(seat).is_none() || self.listeners.is_complete(seat, &self.source)
    }
}

impl Scenario for Slow {
    fn opened(&mut self, _: usize, _: Instant) {
        self.open += 1;
        self.came += 1;
    }

    fn greet(&mut self, crowd: &mut Crowd, seat: usize, _: Instant) {
        let payload = vec![b'h'; crowd.options.half_size];
        if seat >= self.healthy + self.slow
            && let Some(browser) = crowd.open(seat)
        {
            // Most of a message, and no end of it.
            browser.queue(OpCode::Data(Data::Text), false, &payload);
            browser.flush();
        }
    }

    fn message(&mut self, seat: usize, message: &[u8], arrival: &mut Arrival<'_>) {
        let sent_at = self.listeners.hear(seat, message);
        if seat < self.healthy
            && let Some(micros) = sent_at
        {
            self.heard_at = arrival.now;
            arrival.sent_at(micros);
        }
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, _: Instant) {
        if let Ending::Refused(_) = ending {
            crowd.connect(seat);
            return;
        }
        self.open -= 1;
        if self.is_slow(seat) {
            self.slow_ended += 1;
            if ending == Ending::Closed(Cause::Slow.code()) {
                let verdict = self.listeners.verdict([seat], Some(&self.source));
                self.missed = Some(verdict.lost.min(self.missed.unwrap_or(u64::MAX)));
            }
        } else if seat >= self.healthy {
            self.half_ended += 1;
        }
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        if !self.is_speaking {
            if self.came < crowd.seats.len() {
                return Ok(false);
            }
            self.is_speaking = true;
            self.heard_at = now;
            crowd.restart_clock(now);
        }
        self.source.speak(crowd, now);
        self.read_slowly(crowd, now);
        if !self.source.is_over(crowd) {
            return Ok(false);
        }
        // Who reads again may have caught up.
        let is_complete = (0..self.healthy + self.slow).all(|seat| self.is_complete(crowd, seat));
        Ok(is_complete || now - self.heard_at.max(self.source.ended()) > crowd.options.drain())
    }

    fn tell(&self, crowd: &Crowd, report: &mut Value) {
        let verdict = self.listeners.verdict(0..self.healthy, Some(&self.source));
        tell_source(report, &self.source);
        tell_verdict(report, &verdict);
        report["strangers"] = json!(self.listeners.strangers());
        let slow = self.listeners.verdict(self.slow_seats(), None);
        let beyond: usize = crowd.seats[self.slow_seats()].iter().map(Seat::beyond).sum();
        report["slow"] = json!({
            "sockets": self.slow,
            "ended": self.slow_ended,
            "delivered": slow.delivered,
            "lost": slow.lost,
            "doubled": slow.duplicated,
            "reordered": slow.reordered,
            "bytes_behind_the_close": beyond,
            "missed_at_the_close": self.missed,
        });
        report["half"] = json!({ "sockets": self.half, "ended": self.half_ended });
        let healthy = crowd.seats[..self.healthy].iter();
        let is_open = |browser: &Browser| browser.is_open();
        report["healthy_open"] =
            json!(healthy.filter(|seat| seat.browser.as_ref().is_some_and(is_open)).count());
    }
}
