//! `resets`: connections that end at any state of the protocol, by a reset or by an end in order.
//!
//! Each seat makes one connection after the other, `--tries` in all. Messages are said meanwhile,
//! so that some are on their way to who has just gone.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use wsredis::ws::frame::{Data, OpCode};

use crate::crowd::{Arrival, Crowd, Ending, Scenario};
use crate::mark::Dice;
use crate::source::Source;

/// When a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// While it connects, or asks, or waits for the answer.
    Asking,
    /// Behind a part of the handshake's request.
    HalfAsked,
    /// As soon as it is open.
    Opened,
    /// In the header of a frame.
    InHeader,
    /// In the payload of a frame.
    InPayload,
    /// Between two fragments.
    InMessage,
    /// Behind a message that is published.
    Said,
    /// Behind more pings than are answered at once.
    Pinged,
    /// When it has heard something.
    Heard,
    /// Behind its close frame.
    Closing,
    /// When its close frame was answered.
    Closed,
}

const STATES: [State; 11] = [
    State::Asking,
    State::HalfAsked,
    State::Opened,
    State::InHeader,
    State::InPayload,
    State::InMessage,
    State::Said,
    State::Pinged,
    State::Heard,
    State::Closing,
    State::Closed,
];

/// After which a seat does not wait any more for what it waited for.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Clone, Copy)]
struct Plan {
    state: State,
    reset: bool,
    began: Instant,
    is_open: bool,
    is_over: bool,
}

/// All seats.
pub struct Resets {
    plans: Vec<Plan>,
    heard: Vec<bool>,
    dice: Dice,
    source: Source,
    tries: u64,
    done: [u64; STATES.len()],
    impatient: u64,
}

impl Resets {
    pub fn new(crowd: &mut Crowd) -> Result<Resets, String> {
        let sockets = crowd.options.sockets;
        for seat in 0..sockets {
            let channel = [crowd.options.channel(seat % crowd.options.channels)];
            let path = crowd.options.path(&channel, &channel, json!({ "echo": true }));
            crowd.add(path);
        }
        let source = Source::new(crowd);
        let plan = Plan {
            state: State::Opened,
            reset: true,
            began: crowd.began,
            is_open: false,
            is_over: false,
        };
        let mut resets = Resets {
            plans: vec![plan; sockets],
            heard: vec![false; sockets],
            dice: Dice::new(crowd.options.seed),
            source,
            tries: 0,
            done: [0; STATES.len()],
            impatient: 0,
        };
        for seat in 0..sockets {
            resets.plan(crowd, seat);
        }
        Ok(resets)
    }

    /// What comes next on this seat.
    fn plan(&mut self, crowd: &mut Crowd, seat: usize) {
        let is_over = self.tries >= crowd.options.tries;
        let state = STATES[self.dice.below(STATES.len() as u64) as usize];
        self.plans[seat] = Plan {
            state,
            reset: self.dice.one_in(2),
            began: Instant::now(),
            is_open: false,
            is_over,
        };
        self.heard[seat] = false;
        self.tries += u64::from(!is_over);
        crowd.seats[seat].ask_limit = match state {
            State::HalfAsked => 1 + self.dice.below(150) as usize,
            _ => usize::MAX,
        };
    }

    /// Ends the connection of a seat and begins the next.
    fn next(&mut self, crowd: &mut Crowd, seat: usize) {
        let Plan { state, reset, .. } = self.plans[seat];
        crowd.cut(seat, reset);
        self.done[state as usize] += 1;
        self.plan(crowd, seat);
        if !self.plans[seat].is_over {
            crowd.connect(seat);
        }
    }
}

impl Scenario for Resets {
    fn opened(&mut self, seat: usize, _: Instant) {
        self.plans[seat].is_open = true;
    }

    fn greet(&mut self, crowd: &mut Crowd, seat: usize, _: Instant) {
        let state = self.plans[seat].state;
        let Some(browser) = crowd.open(seat) else { return };
        match state {
            State::Heard => return,
            State::Asking | State::HalfAsked | State::Opened => {}
            State::InHeader => browser.output().extend_from_slice(&[0x82, 0xfe, 1]),
            State::InPayload => {
                browser.output().extend_from_slice(&[0x81, 0x8a, 0, 0, 0, 0, b'a', b'b']);
            }
            State::InMessage => browser.queue(OpCode::Data(Data::Text), false, b"half"),
            State::Said => browser.queue(OpCode::Data(Data::Text), true, b"said"),
            State::Pinged => {
                browser.output().extend_from_slice(&[0x89, 0x81, 0, 0, 0, 0, b'p'].repeat(30));
            }
            State::Closing | State::Closed => browser.close(),
        }
        browser.flush();
        if state != State::Closed {
            self.next(crowd, seat);
        }
    }

    fn message(&mut self, seat: usize, _: &[u8], _: &mut Arrival<'_>) {
        self.heard[seat] = true;
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, _: Ending, _: Instant) {
        self.next(crowd, seat);
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        self.source.speak(crowd, now);
        for seat in 0..self.plans.len() {
            let plan = self.plans[seat];
            let browser = crowd.seats[seat].browser.as_ref();
            // When the end comes along with the answer to the close frame, nothing is left.
            let is_over = plan.is_open && browser.is_none_or(|browser| browser.is_over());
            let is_impatient = browser.is_some() && now - plan.began > PATIENCE;
            self.impatient += u64::from(is_impatient && !is_over);
            let is_time = match plan.state {
                State::Asking => browser.is_some() && self.dice.one_in(4),
                State::HalfAsked => browser.is_some_and(|browser| browser.written() > 0),
                State::Heard => self.heard[seat],
                _ => false,
            };
            if !plan.is_over && (is_time || is_over || is_impatient) {
                self.next(crowd, seat);
            }
        }
        Ok(self.plans.iter().all(|plan| plan.is_over))
    }

    fn tell(&self, _: &Crowd, report: &mut Value) {
        report["tries"] = json!(self.done.iter().sum::<u64>());
        report["impatient"] = json!(self.impatient);
        let states: serde_json::Map<_, _> = STATES
            .iter()
            .zip(self.done)
            .map(|(state, count)| (format!("{state:?}"), json!(count)))
            .collect();
        report["states"] = json!(states);
    }
}
