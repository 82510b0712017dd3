//! `herd`: all connections are cut in one turn, and all come back, each after a time of its own, as
//! browsers with a sane backoff do. What a socket hears on each of its connections is judged.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::crowd::{Arrival, Crowd, Ending, Scenario, rounded};
use crate::fanout::{Listeners, tell_source, tell_verdict};
use crate::judge::Verdict;
use crate::mark::Dice;
use crate::source::Source;

/// All of them.
pub struct Herd {
    listeners: Listeners,
    source: Source,
    dice: Dice,
    open: usize,
    is_speaking: bool,
    /// When all were cut, and how long that took.
    cut: Option<(Instant, Duration)>,
    /// When each seat comes back.
    at: Vec<Option<Instant>>,
    /// How long it took those that are back.
    back: Vec<Duration>,
    refused: u64,
    past: Verdict,
    heard_at: Instant,
}

impl Herd {
    pub fn new(crowd: &mut Crowd) -> Result<Herd, String> {
        let seats = crowd.options.sockets;
        if crowd.options.speakers > 0 || crowd.redis.is_none() {
            return Err("the messages come from --redis, not from --speakers".to_owned());
        }
        let listeners = Listeners::new(crowd, seats);
        for _ in 0..seats {
            listeners.add_seat(crowd);
        }
        Ok(Herd {
            listeners,
            source: Source::new(crowd),
            dice: Dice::new(crowd.options.seed),
            open: 0,
            is_speaking: false,
            cut: None,
            at: vec![None; seats],
            back: Vec::with_capacity(seats),
            refused: 0,
            past: Verdict::default(),
            heard_at: crowd.began,
        })
    }

    fn scare(&mut self, crowd: &mut Crowd, now: Instant) {
        for seat in 0..self.at.len() {
            crowd.cut(seat, true);
        }
        self.cut = Some((now, now.elapsed()));
        self.open = 0;
        for seat in 0..self.at.len() {
            self.past += self.listeners.verdict([seat], None);
            self.listeners.forget(seat);
            self.at[seat] = Some(self.later(crowd, now));
        }
    }

    /// Any moment within the jitter.
    fn later(&mut self, crowd: &Crowd, now: Instant) -> Instant {
        let micros = (crowd.options.jitter * 1e6) as u64;
        now + Duration::from_micros(self.dice.below(micros + 1))
    }
}

impl Scenario for Herd {
    fn opened(&mut self, seat: usize, now: Instant) {
        self.open += 1;
        if let Some((cut, _)) = self.cut {
            self.back.push(now - cut);
            // The answer came when its channels were heard, so it answers for all that follows.
            self.listeners.oblige(seat, &self.source);
        }
    }

    fn message(&mut self, seat: usize, message: &[u8], arrival: &mut Arrival<'_>) {
        self.heard_at = arrival.now;
        if let Some(micros) = self.listeners.hear(seat, message) {
            arrival.sent_at(micros);
        }
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, now: Instant) {
        match ending {
            Ending::Refused(_) => {
                self.refused += 1;
                self.at[seat] = Some(self.later(crowd, now));
            }
            Ending::Closed(_) => self.open -= 1,
        }
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        if !self.is_speaking && self.open == self.at.len() {
            self.is_speaking = true;
            self.heard_at = now;
            crowd.restart_clock(now);
        }
        for seat in 0..self.at.len() {
            if self.at[seat].is_some_and(|at| at <= now) {
                self.at[seat] = None;
                crowd.connect(seat);
            }
        }
        if !self.is_speaking {
            return Ok(false);
        }
        self.source.speak(crowd, now);
        let half = Duration::from_secs_f64(crowd.options.seconds / 2.0);
        if self.cut.is_none() && now - self.source.began() > half {
            self.scare(crowd, now);
        }
        if !self.source.is_over(crowd) || self.open < self.at.len() {
            return Ok(false);
        }
        let mut seats = 0..self.at.len();
        Ok(seats.all(|seat| self.listeners.is_complete(seat, &self.source))
            || now - self.heard_at.max(self.source.ended()) > crowd.options.drain())
    }

    fn tell(&self, _: &Crowd, report: &mut Value) {
        let mut verdict = self.listeners.verdict(0..self.at.len(), Some(&self.source));
        verdict += self.past;
        tell_source(report, &self.source);
        tell_verdict(report, &verdict);
        report["strangers"] = json!(self.listeners.strangers());
        report["open_at_the_end"] = json!(self.open);
        let Some((_, took)) = self.cut else { return };
        let mut back = self.back.clone();
        back.sort_unstable();
        let after = |percent: usize| {
            let nth = (back.len() * percent).div_ceil(100).max(1) - 1;
            back.get(nth).map(|time| rounded(time.as_secs_f64()))
        };
        report["cut_in_ms"] = json!(took.as_micros() as f64 / 1000.0);
        report["back_95_s"] = json!(after(95));
        report["back_100_s"] = json!(after(100));
        report["refused_back"] = json!(self.refused);
    }
}
