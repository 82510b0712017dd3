//! Thousands of sockets and one connection to Redis, behind one poll.
//!
//! Owned by `main`. It connects whoever wants to be connected, reads, and tells the scenario what
//! happens; what is sent, and what is judged, is the scenario's. Nothing is allocated for a
//! message.

use std::collections::{BTreeMap, VecDeque};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use mio::net::TcpStream;
use mio::{Events, Poll, Token};
use serde_json::{Value, json};
use wsredis::resp::Reply;

use crate::browser::{Browser, Portion, Said};
use crate::figures::Figures;
use crate::inflated::Inflated;
use crate::options::Options;
use crate::process::Process;
use crate::redis::Link;

const REDIS: Token = Token(0);
const FIRST_SEAT: usize = 1;

/// After which a handshake that nobody answers is given up.
const ASK_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a turn waits at most.
const TICK: Duration = Duration::from_millis(5);
/// How long the closing handshakes may take at the end.
const CLOSE_TIME: Duration = Duration::from_secs(3);
/// How long connecting waits after a refusal by the kernel (all descriptors or ports in use).
const BREATH: Duration = Duration::from_millis(50);

/// What is judged. Time comes in as a parameter.
pub trait Scenario {
    /// The handshake of this seat was answered with 101. Messages may have come along.
    fn opened(&mut self, _seat: usize, _now: Instant) {}
    /// And now something may be said.
    fn greet(&mut self, _crowd: &mut Crowd, _seat: usize, _now: Instant) {}
    /// A whole message.
    fn message(&mut self, seat: usize, message: &[u8], arrival: &mut Arrival<'_>);
    /// The answer to a ping.
    fn pong(&mut self, _seat: usize, _payload: &[u8]) {}
    /// The connection has ended with this code (1006: without one), or was refused with a status.
    /// The browser is still there, to be asked.
    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, now: Instant);
    /// Says what there is to say. Returns whether all is over.
    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String>;
    /// The figures.
    fn tell(&self, crowd: &Crowd, report: &mut Value);
}

/// When a message has come.
pub struct Arrival<'a> {
    pub now: Instant,
    /// The same, as messages tell it.
    pub micros: u64,
    figures: &'a mut Figures,
}

impl Arrival<'_> {
    /// The message was sent then.
    pub fn sent_at(&mut self, micros: u64) {
        self.figures.took(Duration::from_micros(self.micros.saturating_sub(micros)));
    }
}

/// How a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    Closed(u16),
    Refused(u16),
}

/// The place of one socket.
pub struct Seat {
    pub browser: Option<Browser>,
    pub path: String,
    /// The kernel is asked for a receive buffer of this size, if not 0.
    pub receive_buffer: usize,
    /// Whether it is read when there is something to read.
    pub reads: bool,
    /// How much of a handshake's request is written.
    pub ask_limit: usize,
    /// When the handshake in flight began.
    asking: Option<Instant>,
    /// Bytes behind the close frames of the browsers that it had.
    beyond: usize,
}

impl Seat {
    /// Bytes that came behind a close frame.
    pub fn beyond(&self) -> usize {
        self.beyond + self.browser.as_ref().map_or(0, Browser::beyond)
    }
}

/// Everything that is connected.
pub struct Crowd {
    pub options: Options,
    pub seats: Vec<Seat>,
    pub redis: Option<Link>,
    /// Commands that Redis has answered, and errors among the answers.
    pub answered: u64,
    pub redis_errors: u64,
    pub figures: Figures,
    pub began: Instant,
    /// When the scenario has something to say next; a turn sleeps no longer than that.
    pub wake_at: Option<Instant>,
    pub process: Option<Process>,
    pub opened: u64,
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    inflated: Inflated,
    wanted: VecDeque<usize>,
    asking: usize,
    connect_at: Instant,
    next_tick: Instant,
    next_check: Instant,
    first_opened: Option<Instant>,
    last_opened: Instant,
    closes: BTreeMap<u16, u64>,
    refused: BTreeMap<u16, u64>,
}

impl Crowd {
    pub fn new(options: Options) -> Result<Crowd, String> {
        let failed = |error: io::Error| format!("it cannot begin: {error}");
        let poll = Poll::new().map_err(failed)?;
        let now = Instant::now();
        let redis = match options.redis {
            Some(address) => Some(Link::connect(address, REDIS, poll.registry()).map_err(failed)?),
            None => None,
        };
        let every = Duration::from_secs_f64(options.sample.max(0.1));
        let process = options.pid.map(|pid| Process::watch(pid, every, now)).transpose()?;
        Ok(Crowd {
            options,
            seats: Vec::new(),
            redis,
            answered: 0,
            redis_errors: 0,
            figures: Figures::default(),
            began: now,
            wake_at: None,
            process,
            opened: 0,
            poll,
            events: Events::with_capacity(4096),
            buffer: vec![0; 256 << 10],
            inflated: Inflated::default(),
            wanted: VecDeque::new(),
            asking: 0,
            connect_at: now,
            next_tick: now,
            next_check: now,
            first_opened: None,
            last_opened: now,
            closes: BTreeMap::new(),
            refused: BTreeMap::new(),
        })
    }

    /// Adds a seat; it wants to be connected. Returns its number.
    pub fn add(&mut self, path: String) -> usize {
        self.seats.push(Seat {
            browser: None,
            path,
            receive_buffer: 0,
            reads: true,
            ask_limit: usize::MAX,
            asking: None,
            beyond: 0,
        });
        self.connect(self.seats.len() - 1);
        self.seats.len() - 1
    }

    /// Connects a seat as soon as it is its turn; what it had is dropped then.
    pub fn connect(&mut self, seat: usize) {
        self.wanted.push_back(seat);
    }

    /// The browser of a seat, if messages may flow.
    pub fn open(&mut self, seat: usize) -> Option<&mut Browser> {
        self.seats[seat].browser.as_mut().filter(|browser| browser.is_open())
    }

    /// Ends a connection, by a reset or by an end in order, whatever is on its way.
    pub fn cut(&mut self, seat: usize, reset: bool) {
        let place = &mut self.seats[seat];
        if place.asking.take().is_some() {
            self.asking -= 1;
        }
        place.beyond = place.beyond();
        match place.browser.take() {
            Some(browser) if reset => browser.reset(self.poll.registry()),
            Some(browser) => browser.drop_from(self.poll.registry()),
            None => {}
        }
    }

    /// Reads once with a buffer of so many bytes, also where the seat does not read.
    pub fn read(&mut self, seat: usize, size: usize, scenario: &mut dyn Scenario, now: Instant) {
        self.take_from(seat, Some(size), false, scenario, now);
    }

    /// Reads everything that a seat has, and from now on what comes.
    pub fn read_on(&mut self, seat: usize, scenario: &mut dyn Scenario, now: Instant) {
        self.seats[seat].reads = true;
        self.take_from(seat, None, true, scenario, now);
    }

    /// What the server costs is counted from now on.
    pub fn restart_clock(&mut self, now: Instant) {
        if let Some(process) = &mut self.process {
            process.restart_clock(now);
        }
    }

    /// Microseconds since the beginning, as messages tell them.
    pub fn micros(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.began).as_micros() as u64
    }

    /// Waits and does what there is to do, once. Returns whether all is over.
    pub fn turn(&mut self, scenario: &mut dyn Scenario) -> Result<bool, String> {
        let now = Instant::now();
        if now >= self.next_tick {
            self.figures.stalled(now - self.next_tick);
            self.next_tick = now + TICK;
            if let Some(process) = &mut self.process {
                process.look(now);
            }
        }
        self.connect_wanted(now)?;
        self.give_up_asking(scenario, now);
        if scenario.turn(self, now)? {
            return Ok(true);
        }
        self.poll_once(scenario)?;
        Ok(false)
    }

    fn poll_once(&mut self, scenario: &mut dyn Scenario) -> Result<(), String> {
        if let Some(link) = &mut self.redis {
            link.flush().map_err(|error| format!("Redis: {error}"))?;
        }
        let wake_at = self.wake_at.take().map_or(self.next_tick, |at| at.min(self.next_tick));
        let wait = wake_at.saturating_duration_since(Instant::now());
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => {
                return Err(format!("the poll failed: {error}"));
            }
            _ => {}
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                REDIS => self.hear_redis()?,
                Token(token) => {
                    let seat = token - FIRST_SEAT;
                    let ends = event.is_read_closed() || event.is_error();
                    let place = &mut self.seats[seat];
                    if event.is_writable()
                        && let Some(browser) = &mut place.browser
                    {
                        browser.flush();
                    }
                    // One that does not read still notices that its connection is reset.
                    if place.reads || event.is_error() || place.asking.is_some() {
                        self.take_from(seat, None, ends, scenario, Instant::now());
                    }
                }
            }
        }
        self.events = events;
        Ok(())
    }

    fn connect_wanted(&mut self, now: Instant) -> Result<(), String> {
        while self.asking < self.options.asking && now >= self.connect_at {
            let Some(seat) = self.wanted.pop_front() else { return Ok(()) };
            self.cut(seat, false);
            let place = &mut self.seats[seat];
            let deflate = self.options.deflate;
            let (address, token) = (self.options.address, Token(seat + FIRST_SEAT));
            let begun = begin(address, place.receive_buffer).and_then(|stream| {
                Browser::ask(stream, address, &place.path, token, self.poll.registry())
            });
            match begun {
                Ok(mut browser) => {
                    if deflate {
                        browser.offer_deflate();
                    }
                    browser.ask_at_most(place.ask_limit);
                    place.browser = Some(browser);
                    place.asking = Some(now);
                    self.asking += 1;
                }
                Err(error) if is_shortage(&error) => {
                    self.wanted.push_front(seat);
                    self.connect_at = now + BREATH;
                }
                Err(error) => return Err(format!("socket {seat}: {error}")),
            }
        }
        Ok(())
    }

    fn give_up_asking(&mut self, scenario: &mut dyn Scenario, now: Instant) {
        if self.asking == 0 || now < self.next_check {
            return;
        }
        self.next_check = now + Duration::from_millis(250);
        for seat in 0..self.seats.len() {
            if self.seats[seat].asking.is_some_and(|at| at + ASK_TIMEOUT <= now) {
                self.end(seat, Ending::Refused(0), scenario, now);
            }
        }
    }

    /// Reads a seat: once with `size` bytes, or everything.
    fn take_from(
        &mut self,
        seat: usize,
        size: Option<usize>,
        to_the_end: bool,
        scenario: &mut dyn Scenario,
        now: Instant,
    ) {
        let Some(browser) = &mut self.seats[seat].browser else { return };
        let (mut opened, mut ending) = (false, None);
        let micros = now.saturating_duration_since(self.began).as_micros() as u64;
        let mut arrival = Arrival { now, micros, figures: &mut self.figures };
        let mut each = |said: Said<'_>| match said {
            Said::Message(message) => scenario.message(seat, message, &mut arrival),
            Said::Deflated(bytes) => {
                scenario.message(seat, self.inflated.of(bytes), &mut arrival);
            }
            Said::Pong(payload) => scenario.pong(seat, payload),
            Said::Opened => {
                opened = true;
                scenario.opened(seat, now);
            }
            Said::Refused(status) => ending = Some(Ending::Refused(status)),
            Said::Closed(code) => ending = Some(Ending::Closed(code)),
        };
        match size {
            None => browser.read(&mut self.buffer, to_the_end, &mut each),
            Some(size) => {
                let _: Portion = browser.read_once(&mut self.buffer[..size], &mut each);
            }
        }
        if opened {
            if self.seats[seat].asking.take().is_some() {
                self.asking -= 1;
            }
            self.opened += 1;
            self.first_opened.get_or_insert(now);
            self.last_opened = now;
            if !self.options.hello.is_empty()
                && let Some(browser) = &mut self.seats[seat].browser
            {
                browser.say(self.options.hello.as_bytes());
            }
            scenario.greet(self, seat, now);
        }
        if let Some(ending) = ending {
            self.end(seat, ending, scenario, now);
        }
        if self.seats[seat].browser.as_ref().is_some_and(Browser::is_ended) {
            self.cut(seat, false);
        }
    }

    fn end(&mut self, seat: usize, ending: Ending, scenario: &mut dyn Scenario, now: Instant) {
        if self.seats[seat].asking.take().is_some() {
            self.asking -= 1;
        }
        match ending {
            Ending::Closed(code) => *self.closes.entry(code).or_default() += 1,
            Ending::Refused(status) => *self.refused.entry(status).or_default() += 1,
        }
        scenario.ended(self, seat, ending, now);
        if matches!(ending, Ending::Refused(_)) && self.seats[seat].asking.is_none() {
            self.cut(seat, false);
        }
    }

    fn hear_redis(&mut self) -> Result<(), String> {
        let Some(link) = &mut self.redis else { return Ok(()) };
        let (answered, errors) = (&mut self.answered, &mut self.redis_errors);
        link.read(&mut self.buffer, &mut |reply| {
            *answered += 1;
            *errors += u64::from(matches!(reply, Reply::Error { .. }));
        })
        .map_err(|error| format!("Redis: {error}"))
    }

    /// Closes everybody in order, so that the site counts nobody as lost.
    pub fn close(&mut self, scenario: &mut dyn Scenario) -> Result<(), String> {
        self.wanted.clear();
        for seat in &mut self.seats {
            if let Some(browser) = &mut seat.browser {
                browser.close();
            }
            seat.reads = true;
        }
        let end = Instant::now() + CLOSE_TIME;
        let left = |seat: &Seat| seat.browser.as_ref().is_some_and(|browser| !browser.is_over());
        while self.seats.iter().any(left) && Instant::now() < end {
            self.poll_once(scenario)?;
        }
        Ok(())
    }

    /// What is told of every scenario.
    pub fn tell(&mut self, report: &mut Value) {
        let now = Instant::now();
        let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
        report["seconds"] = json!(rounded(seconds(self.began, now)));
        report["opened"] = json!(self.opened);
        if let Some(first) = self.first_opened {
            let took = seconds(first, self.last_opened).max(0.001);
            report["handshakes_per_s"] = json!((self.opened as f64 / took).round());
        }
        report["closes"] = json!(self.closes);
        report["refused"] = json!(self.refused);
        std::mem::take(&mut self.figures).tell(report);
        if self.redis.is_some() {
            report["redis_answered"] = json!(self.answered);
            report["redis_errors"] = json!(self.redis_errors);
        }
        if let Some(process) = &self.process {
            report["server"] = process.tell(now);
        }
    }
}

/// Seconds to the millisecond.
pub fn rounded(seconds: f64) -> f64 {
    (seconds * 1000.0).round() / 1000.0
}

/// Begins to connect. A receive buffer has to be chosen before, or the window is larger than it.
fn begin(address: SocketAddr, receive_buffer: usize) -> io::Result<TcpStream> {
    if receive_buffer == 0 {
        return TcpStream::connect(address);
    }
    let domain = socket2::Domain::for_address(address);
    let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_buffer_size(receive_buffer)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    Ok(TcpStream::from_std(socket.into()))
}

/// No descriptor or no port is free just now.
fn is_shortage(error: &io::Error) -> bool {
    error.kind() == ErrorKind::AddrNotAvailable || error.raw_os_error() == Some(libc::EMFILE)
}
