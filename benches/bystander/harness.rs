//! The browsers, their streams and the two connections to Redis, behind one poll.
//!
//! Owned by `main`, which turns it. It never sends a number twice and never forgives a fault.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use serde_json::{Value, json};
use wsredis::resp::Reply;

use crate::Options;
use crate::browser::{Browser, Said};
use crate::figures::Figures;
use crate::judge::{Ear, Verdict};
use crate::message::{self, numbers};
use crate::redis::Link;
use crate::seat::Seat;

const STDIN: Token = Token(0);
const PUBLISHER: Token = Token(1);
const SUBSCRIBER: Token = Token(2);
const FIRST_BROWSER: usize = 3;

/// Handshakes on their way at the same time: below any listen queue.
const MAX_ASKING: usize = 32;
/// After which a handshake that nobody answers is given up.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);
/// The time a browser has to join its channels before it answers for what it does not hear.
const JOIN_TIME: Duration = Duration::from_secs(1);
/// How often what only time brings is looked at.
const TICK: Duration = Duration::from_millis(5);
/// How long the closing handshakes may take at the end.
const CLOSE_TIME: Duration = Duration::from_secs(3);

/// A channel with one source that numbers what it says.
struct Stream {
    channel: String,
    /// Grows when the source begins anew; its numbers begin again at 0.
    epoch: u64,
    sent: u64,
    next_at: Instant,
    /// What arrived in Redis of a speaker's messages.
    witness: Ear,
}

/// Everything the program owns.
pub struct Harness {
    options: Options,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    began: Instant,
    streams: Vec<Stream>,
    seats: Vec<Seat>,
    publisher: Option<Link>,
    subscriber: Option<Link>,
    /// Channels whose subscription Redis has confirmed.
    confirmed: usize,
    next_tick: Instant,
    asking: usize,
    /// Whether sources speak, and whether they ever did.
    running: bool,
    started: bool,
    /// Of ears and witnesses that are no more.
    past: Verdict,
    past_inbound: Verdict,
    disconnects: BTreeMap<u16, u64>,
    refused: BTreeMap<u16, u64>,
    figures: Figures,
}

/// Replaces an ear by another and keeps what it has heard.
fn retire(ear: &mut Ear, successor: Ear, past: &mut Verdict) {
    *past += std::mem::replace(ear, successor).verdict(None);
}

impl Harness {
    pub fn new(options: Options) -> Result<Harness, String> {
        let failed = |error: io::Error| format!("it cannot begin: {error}");
        let poll = Poll::new().map_err(failed)?;
        poll.registry()
            .register(&mut SourceFd(&0), STDIN, Interest::READABLE)
            .map_err(|error| format!("stdin must be a pipe: {error}"))?;
        let now = Instant::now();
        let count = options.channels + options.speakers;
        let streams: Vec<Stream> = (0..count)
            .map(|index| Stream {
                channel: match index.checked_sub(options.channels) {
                    None => format!("{}c{index}", options.group),
                    Some(speaker) => format!("{}s{speaker}", options.group),
                },
                epoch: 0,
                sent: 0,
                next_at: now,
                witness: Ear::from_the_first(),
            })
            .collect();
        let channels: Vec<&str> = streams.iter().map(|stream| stream.channel.as_str()).collect();
        let seats =
            (0..options.sockets).map(|index| Seat::new(index, &options, &channels)).collect();
        let (mut publisher, mut subscriber) = (None, None);
        if let Some(address) = options.redis {
            let link = |token| Link::connect(address, token, poll.registry()).map_err(failed);
            publisher = Some(link(PUBLISHER)?);
            let subscriber = subscriber.insert(link(SUBSCRIBER)?);
            for stream in &streams[options.channels..] {
                subscriber.command(&[b"SUBSCRIBE", stream.channel.as_bytes()]);
            }
        }
        Ok(Harness {
            options,
            poll,
            events: Events::with_capacity(1024),
            buffer: vec![0; 256 << 10],
            began: now,
            streams,
            seats,
            publisher,
            subscriber,
            confirmed: 0,
            next_tick: now,
            asking: 0,
            running: false,
            started: false,
            past: Verdict::default(),
            past_inbound: Verdict::default(),
            disconnects: BTreeMap::new(),
            refused: BTreeMap::new(),
            figures: Figures::default(),
        })
    }

    /// Waits and does what there is to do, once. Returns whether stdin has something to say.
    pub fn turn(&mut self) -> Result<bool, String> {
        let failed = |error: io::Error| format!("the poll failed: {error}");
        let redis_failed = |error: io::Error| format!("Redis: {error}");
        let now = Instant::now();
        if now >= self.next_tick {
            self.figures.stalled(now - self.next_tick);
            self.next_tick = now + TICK;
            self.on_tick(now)?;
        }
        self.speak(now);
        for link in [&mut self.publisher, &mut self.subscriber].into_iter().flatten() {
            link.flush().map_err(redis_failed)?;
        }
        let wait = self.next_tick.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(failed(error)),
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        let mut stdin = false;
        for event in &events {
            match event.token() {
                STDIN => stdin = true,
                PUBLISHER => {
                    if let Some(link) = &mut self.publisher {
                        link.read(&mut self.buffer, &mut |_| {}).map_err(redis_failed)?;
                    }
                }
                SUBSCRIBER => self.witness().map_err(redis_failed)?,
                Token(token) => {
                    if event.is_writable()
                        && let Some(browser) = &mut self.seats[token - FIRST_BROWSER].browser
                    {
                        browser.flush();
                    }
                    let ends = event.is_read_closed() || event.is_error();
                    self.listen(token - FIRST_BROWSER, ends);
                }
            }
        }
        self.events = events;
        Ok(stdin)
    }

    /// Every browser has heard each of its channels.
    pub fn is_ready(&self) -> bool {
        let heard = |seat: &Seat| seat.open && seat.ears.iter().all(|(_, ear)| ear.has_heard());
        self.started && self.seats.iter().all(heard)
    }

    pub fn connected(&self) -> usize {
        self.seats.iter().filter(|seat| seat.open).count()
    }

    pub fn stop_sources(&mut self) {
        self.running = false;
    }

    pub fn start_sources(&mut self) {
        let now = Instant::now();
        self.running = true;
        self.started = true;
        for seat in &mut self.seats {
            seat.last_message = now;
        }
        // They speak one after the other, not all at once.
        let count = self.streams.len() as u32;
        for (index, stream) in (0u32..).zip(&mut self.streams) {
            stream.next_at = now + self.options.period * index / count;
        }
    }

    /// Nothing that was said is still on its way.
    pub fn is_quiet(&self) -> bool {
        let heard = |seat: &Seat| {
            !seat.open || seat.ears.iter().all(|(i, ear)| ear.is_complete(self.streams[*i].sent))
        };
        self.seats.iter().all(heard)
            && (self.subscriber.is_none()
                || self.streams[self.options.channels..]
                    .iter()
                    .all(|stream| stream.witness.is_complete(stream.sent)))
    }

    /// Everything that was counted. What has not arrived is lost if the verdict is final.
    pub fn report(&mut self, is_final: bool) -> Value {
        let now = Instant::now();
        let mut sum = self.past;
        for seat in self.seats.iter().filter(|seat| seat.open) {
            for (index, ear) in &seat.ears {
                sum += ear.verdict(is_final.then_some(self.streams[*index].sent));
            }
            if self.running && !seat.ears.is_empty() {
                self.figures.silent(now - seat.last_message);
            }
        }
        let mut inbound = self.past_inbound;
        for stream in &self.streams[self.options.channels..] {
            // Until the next number arrives only what was sent is known.
            inbound += stream.witness.verdict(is_final.then_some(stream.sent));
        }
        let mut report = json!({
            "sockets": self.seats.len(),
            "connected": self.connected(),
            "final": is_final,
            "expected": sum.expected,
            "delivered": sum.delivered,
            "lost": sum.lost,
            "duplicated": sum.duplicated,
            "reordered": sum.reordered,
            "disconnects": self.disconnects,
            "handshake_refused": self.refused,
        });
        std::mem::take(&mut self.figures).tell(&mut report);
        if self.subscriber.is_some() {
            report["inbound"] = json!({
                "sent": inbound.expected,
                "arrived": inbound.delivered,
                "lost": inbound.lost,
                "duplicated": inbound.duplicated,
                "reordered": inbound.reordered,
            });
        }
        report
    }

    /// Closes every browser in order.
    pub fn close(&mut self) -> Result<(), String> {
        let end = Instant::now() + CLOSE_TIME;
        self.running = false;
        self.options.reconnect = false;
        for seat in &mut self.seats {
            seat.at = None;
            if let Some(browser) = &mut seat.browser {
                browser.close();
            }
        }
        let left = |seat: &Seat| seat.browser.as_ref().is_some_and(|browser| !browser.is_over());
        while self.seats.iter().any(left) && Instant::now() < end {
            self.turn()?;
        }
        Ok(())
    }

    /// What only time brings: handshakes to begin or to give up, browsers that have joined.
    fn on_tick(&mut self, now: Instant) -> Result<(), String> {
        if !self.started
            && self.seats.iter().all(|seat| seat.open)
            && (self.subscriber.is_none() || self.confirmed == self.options.speakers)
        {
            self.start_sources();
        }
        for index in 0..self.seats.len() {
            let seat = &mut self.seats[index];
            if seat.open {
                if now - seat.opened >= JOIN_TIME {
                    for (stream, ear) in &mut seat.ears {
                        ear.oblige(self.streams[*stream].sent);
                    }
                }
            } else if seat.at.is_some_and(|at| at <= now) {
                if seat.browser.as_ref().is_some_and(|browser| !browser.is_over()) {
                    if seat.at.is_some_and(|at| at + ASK_TIMEOUT <= now) {
                        self.on_refused(index, 0, now);
                    }
                } else if self.asking < MAX_ASKING {
                    self.connect(index, now)?;
                }
            }
        }
        Ok(())
    }

    fn connect(&mut self, index: usize, now: Instant) -> Result<(), String> {
        let (seat, registry) = (&mut self.seats[index], self.poll.registry());
        if let Some(old) = seat.browser.take() {
            old.drop_from(registry);
        }
        let token = Token(index + FIRST_BROWSER);
        match Browser::connect(self.options.address, &seat.path, token, registry) {
            Ok(browser) => {
                self.asking += 1;
                seat.browser = Some(browser);
                seat.at = Some(now);
                Ok(())
            }
            Err(error) => Err(format!("socket {index}: {error}")),
        }
    }

    /// Each source whose time has come says its next number.
    fn speak(&mut self, now: Instant) {
        if !self.running {
            return;
        }
        let micros = (now - self.began).as_micros() as u64;
        for (index, stream) in self.streams.iter_mut().enumerate() {
            if stream.next_at > now {
                continue;
            }
            stream.next_at += self.options.period;
            if stream.next_at <= now {
                stream.next_at = now + self.options.period;
            }
            let mut message = Vec::with_capacity(self.options.size);
            let numbers = [index as u64, stream.epoch, stream.sent, micros];
            message::write(&mut message, self.options.size, numbers);
            match index.checked_sub(self.options.channels) {
                None => {
                    let Some(publisher) = &mut self.publisher else { continue };
                    publisher.command(&[b"PUBLISH", stream.channel.as_bytes(), &message]);
                }
                Some(speaker) => {
                    let seat = &mut self.seats[speaker];
                    let Some(browser) = seat.browser.as_mut().filter(|_| seat.open) else {
                        continue;
                    };
                    browser.say(&message);
                }
            }
            stream.sent += 1;
        }
    }

    /// Reads what a browser has got.
    fn listen(&mut self, index: usize, to_the_end: bool) {
        let Some(mut browser) = self.seats[index].browser.take() else { return };
        let mut buffer = std::mem::take(&mut self.buffer);
        let now = Instant::now();
        browser.read(&mut buffer, to_the_end, &mut |said| match said {
            Said::Message(message) => self.on_message(index, message, now),
            Said::Pong(_) | Said::Deflated(_) => {}
            Said::Opened => self.on_opened(index, now),
            Said::Refused(status) => self.on_refused(index, status, now),
            Said::Closed(code) => self.on_closed(index, code, now),
        });
        self.buffer = buffer;
        if browser.is_ended() {
            browser.drop_from(self.poll.registry());
        } else {
            self.seats[index].browser = Some(browser);
        }
    }

    fn on_message(&mut self, index: usize, message: &[u8], now: Instant) {
        let seat = &mut self.seats[index];
        let Some([stream, epoch, number, micros]) = numbers(message) else { return };
        let Some((_, ear)) = seat.ears.iter_mut().find(|(heard, _)| *heard as u64 == stream) else {
            // Nobody granted this: as bad as a message that comes twice.
            self.past.duplicated += 1;
            return;
        };
        // What a source said before it began anew was judged then.
        if epoch == self.streams[stream as usize].epoch {
            ear.hear(number);
        }
        let sent = self.began + Duration::from_micros(micros);
        self.figures.took(now.saturating_duration_since(sent));
        self.figures.silent(now - seat.last_message);
        seat.last_message = now;
    }

    fn on_opened(&mut self, index: usize, now: Instant) {
        self.asking -= 1;
        let seat = &mut self.seats[index];
        (seat.open, seat.at, seat.opened, seat.last_message) = (true, None, now, now);
        let Some(speaks) = seat.speaks else { return };
        // Its numbers begin anew, and so do all who count them.
        let stream = &mut self.streams[speaks];
        (stream.epoch, stream.sent) = (stream.epoch + 1, 0);
        retire(&mut stream.witness, Ear::from_the_first(), &mut self.past_inbound);
        let ears = self.seats.iter_mut().flat_map(|seat| &mut seat.ears);
        for (_, ear) in ears.filter(|(stream, _)| *stream == speaks) {
            let successor = if ear.is_obliged() { Ear::from_the_first() } else { Ear::default() };
            retire(ear, successor, &mut self.past);
        }
    }

    /// A handshake was not answered with 101; it is tried again.
    fn on_refused(&mut self, index: usize, status: u16, now: Instant) {
        self.asking -= 1;
        *self.refused.entry(status).or_default() += 1;
        let seat = &mut self.seats[index];
        if let Some(browser) = &mut seat.browser {
            browser.close();
        }
        seat.at = Some(now + Duration::from_millis(300 + index as u64 * 37 % 400));
    }

    fn on_closed(&mut self, index: usize, code: u16, now: Instant) {
        *self.disconnects.entry(code).or_default() += 1;
        let seat = &mut self.seats[index];
        seat.open = false;
        for (_, ear) in &mut seat.ears {
            retire(ear, Ear::default(), &mut self.past);
        }
        if self.options.reconnect {
            seat.at = Some(now + Duration::from_millis(50 + index as u64 * 37 % 450));
        }
    }

    /// Reads what speakers' messages have become in Redis.
    fn witness(&mut self) -> io::Result<()> {
        let Some(link) = &mut self.subscriber else { return Ok(()) };
        let (streams, confirmed) = (&mut self.streams, &mut self.confirmed);
        link.read(&mut self.buffer, &mut |reply| match reply {
            Reply::Subscribed(_) => *confirmed += 1,
            Reply::Message { payload, .. } => {
                if let Some([stream, epoch, number, _]) = numbers(&payload)
                    && let Some(stream) = streams.get_mut(stream as usize)
                    && stream.epoch == epoch
                {
                    stream.witness.hear(number);
                }
            }
            _ => {}
        })
    }
}
