//! `fanout`: sockets that hear channels, in which numbered messages are said. Each socket is judged
//! for itself: every message of its channels once and in order, and nothing else.

use std::time::Instant;

use serde_json::{Value, json};

use crate::crowd::{Arrival, Crowd, Ending, Scenario, rounded};
use crate::judge::{Ear, Verdict};
use crate::message::numbers;
use crate::source::Source;

/// What sockets hear of streams; some of them answer for everything.
pub struct Listeners {
    hears: usize,
    channels: usize,
    speakers: usize,
    ears: Vec<Ear>,
    /// Messages that have come to anybody who is to hear them.
    heard: u64,
    /// Messages that were for somebody else, or were none of ours.
    strangers: u64,
}

impl Listeners {
    /// Of so many seats, which answer for everything from the first message on.
    pub fn new(crowd: &Crowd, seats: usize) -> Listeners {
        let options = &crowd.options;
        Listeners {
            hears: options.hears,
            channels: options.channels,
            speakers: options.speakers,
            ears: vec![Ear::from_the_first(); seats * options.hears],
            heard: 0,
            strangers: 0,
        }
    }

    /// Adds the next seat, with its channels, to the crowd.
    pub fn add_seat(&self, crowd: &mut Crowd) -> usize {
        let (seat, options) = (crowd.seats.len(), &crowd.options);
        let hears: Vec<_> =
            self.channels_of(seat).map(|channel| options.channel(channel)).collect();
        let speaks = if seat < options.speakers { &hears[..1] } else { &[] };
        let path = options.path(&hears, speaks, json!({}));
        crowd.add(path)
    }

    /// The channels that a seat hears.
    fn channels_of(&self, seat: usize) -> impl Iterator<Item = usize> {
        let channels = self.channels;
        (0..self.hears).map(move |nth| (seat + nth) % channels)
    }

    /// A message has come to a seat. Returns when it was sent.
    pub fn hear(&mut self, seat: usize, message: &[u8]) -> Option<u64> {
        let found = numbers(message).and_then(|[stream, _, number, micros]| {
            let stream = usize::try_from(stream).ok().filter(|stream| *stream < self.channels)?;
            let nth = (stream + self.channels - seat % self.channels) % self.channels;
            let is_own = seat < self.speakers && stream == seat;
            (nth < self.hears && !is_own).then_some((nth, number, micros))
        });
        let Some((nth, number, micros)) = found else {
            self.strangers += 1;
            return None;
        };
        self.ears[seat * self.hears + nth].hear(number);
        self.heard += 1;
        Some(micros)
    }

    /// A seat begins anew, and answers for nothing yet.
    pub fn forget(&mut self, seat: usize) {
        self.ears[seat * self.hears..(seat + 1) * self.hears].fill(Ear::default());
    }

    /// From now on it answers for what is said.
    pub fn oblige(&mut self, seat: usize, source: &Source) {
        for nth in 0..self.hears {
            let stream = (seat + nth) % self.channels;
            self.ears[seat * self.hears + nth].oblige(source.sent(stream));
        }
    }

    /// The streams that a seat answers for: not what it says itself.
    fn obliged(&self, seat: usize) -> impl Iterator<Item = (&Ear, usize)> {
        let is_own = move |stream| seat < self.speakers && stream == seat;
        let ears = &self.ears[seat * self.hears..(seat + 1) * self.hears];
        ears.iter().zip(self.channels_of(seat)).filter(move |(_, stream)| !is_own(*stream))
    }

    /// Has this seat heard everything that was said?
    pub fn is_complete(&self, seat: usize, source: &Source) -> bool {
        self.obliged(seat).all(|(ear, stream)| ear.is_complete(source.sent(stream)))
    }

    /// The sums over these seats; what has not come is lost if the source is given.
    pub fn verdict(
        &self,
        seats: impl IntoIterator<Item = usize>,
        source: Option<&Source>,
    ) -> Verdict {
        let mut sum = Verdict::default();
        for seat in seats {
            for (ear, stream) in self.obliged(seat) {
                sum += ear.verdict(source.map(|source| source.sent(stream)));
            }
        }
        sum
    }

    /// Messages that nobody should have heard.
    pub fn strangers(&self) -> u64 {
        self.strangers
    }
}

/// Adds a verdict to a report.
pub fn tell_verdict(report: &mut Value, verdict: &Verdict) {
    report["expected"] = json!(verdict.expected);
    report["delivered"] = json!(verdict.delivered);
    report["lost"] = json!(verdict.lost);
    report["doubled"] = json!(verdict.duplicated);
    report["reordered"] = json!(verdict.reordered);
}

/// Adds what was said to a report.
pub fn tell_source(report: &mut Value, source: &Source) {
    report["sent"] = json!(source.total());
    report["sent_in_s"] = json!(rounded((source.ended() - source.began()).as_secs_f64()));
    report["late_ms"] = json!(source.late().as_millis() as u64);
}

/// All sockets connect, then everything is said, then it is waited for.
pub struct Fanout {
    listeners: Listeners,
    source: Source,
    /// How many hear a message, and how many messages are to be heard by all of them.
    audience: u64,
    wanted: u64,
    open: usize,
    is_speaking: bool,
    heard_at: Instant,
}

impl Fanout {
    pub fn new(crowd: &mut Crowd) -> Result<Fanout, String> {
        let seats = crowd.options.sockets;
        if crowd.redis.is_none() && crowd.options.speakers < crowd.options.channels {
            return Err("without --redis every channel needs a speaker".to_owned());
        }
        let listeners = Listeners::new(crowd, seats);
        for _ in 0..seats {
            listeners.add_seat(crowd);
        }
        let source = Source::new(crowd);
        let (hears, channels) = (crowd.options.hears, crowd.options.channels);
        if crowd.options.waits
            && (!(seats * hears).is_multiple_of(channels) || crowd.options.speakers > 0)
        {
            return Err(
                "--waits yes: all channels are heard by as many, and none speaks".to_owned()
            );
        }
        Ok(Fanout {
            listeners,
            source,
            audience: (seats * hears / channels) as u64,
            wanted: 0,
            open: 0,
            is_speaking: false,
            heard_at: crowd.began,
        })
    }
}

impl Scenario for Fanout {
    fn opened(&mut self, _: usize, _: Instant) {
        self.open += 1;
    }

    fn message(&mut self, seat: usize, message: &[u8], arrival: &mut Arrival<'_>) {
        self.heard_at = arrival.now;
        if let Some(micros) = self.listeners.hear(seat, message) {
            arrival.sent_at(micros);
        }
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, _: Instant) {
        match ending {
            // Before everybody is there nothing is said, and nothing is lost: it is tried again.
            Ending::Refused(_) => crowd.connect(seat),
            Ending::Closed(_) => self.open -= 1,
        }
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        if !self.is_speaking {
            if self.open < crowd.options.sockets {
                return Ok(false);
            }
            self.is_speaking = true;
            self.heard_at = now;
            crowd.restart_clock(now);
        }
        if !crowd.options.waits || self.listeners.heard >= self.wanted {
            let before = self.source.total();
            self.source.speak(crowd, now);
            self.wanted += (self.source.total() - before) * self.audience;
        }
        if !self.source.is_over(crowd) {
            return Ok(false);
        }
        let mut seats = 0..crowd.seats.len();
        Ok(seats.all(|seat| self.listeners.is_complete(seat, &self.source))
            || now - self.heard_at.max(self.source.ended()) > crowd.options.drain())
    }

    fn tell(&self, crowd: &Crowd, report: &mut Value) {
        let verdict = self.listeners.verdict(0..crowd.seats.len(), Some(&self.source));
        tell_source(report, &self.source);
        tell_verdict(report, &verdict);
        report["strangers"] = json!(self.listeners.strangers());
        let took = (self.heard_at - self.source.began()).as_secs_f64().max(0.001);
        report["deliveries_per_s"] = json!((verdict.delivered as f64 / took).round());
    }
}
