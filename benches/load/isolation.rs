//! `isolation`: no byte of one socket ever reaches another, however their frames are cut.
//!
//! Half of the seats talk to the mirror, the other half on a channel each, which the next seat
//! hears too. All write messages that carry their owner's mark in every byte, as fragments with
//! pings between them, in pieces that end anywhere. Now and then a connection is cut behind such a
//! piece, by a reset or an end, and another one, with a mark of its own, takes the seat at once.
//!
//! Every byte that comes must be of a mark that may come there; nothing is lost on a connection
//! that was not cut, nor doubled, nor out of order.

use std::time::Instant;

use serde_json::{Value, json};
use wsredis::ws::frame::{Control, Data, OpCode};

use crate::crowd::{Arrival, Crowd, Ending, Scenario};
use crate::mark::{Dice, Mark};

/// Messages of a connection that have not come back yet, at most.
const WINDOW: u32 = 24;
/// Bytes that wait to be written, at least, so that a piece may end in any of several frames.
const STOCK: usize = 600;
/// What a seat hears of another, or of itself.
#[derive(Clone, Copy, Default)]
struct Heard {
    owner: u32,
    next: u32,
    /// Does `next` mean anything yet? What a neighbour said before somebody came is not for him.
    is_begun: bool,
}

/// The connection that has a seat.
#[derive(Clone, Copy, Default)]
struct Talker {
    owner: u32,
    is_open: bool,
    /// The number of the next message.
    next: u32,
    pinged: u32,
    ponged: u32,
    own: Heard,
    neighbour: Heard,
}

/// All of them.
pub struct Isolation {
    talkers: Vec<Talker>,
    dice: Dice,
    text: Vec<u8>,
    /// The seat of each owner of a mark, in the order of their coming.
    owners: Vec<usize>,
    open: usize,
    is_begun: bool,
    frames: u64,
    pings: u64,
    pongs: u64,
    messages: u64,
    cuts: u64,
    /// Bytes of somebody else, or of nobody.
    foreign: u64,
    lost: u64,
    doubled: u64,
    /// Messages of an owner that has left, after those of who took its seat.
    belated: u64,
    heard_at: Instant,
}

impl Isolation {
    pub fn new(crowd: &mut Crowd) -> Result<Isolation, String> {
        let seats = crowd.options.sockets;
        if seats < 4 {
            return Err("--sockets: four at least, so that there are neighbours".to_owned());
        }
        for seat in 0..seats {
            let path = match is_mirrors(seat) {
                true => crowd.options.echo.clone(),
                false => {
                    let own = crowd.options.channel(seat);
                    let hears = [own.clone(), crowd.options.channel(neighbour(seat, seats))];
                    crowd.options.path(&hears, &[own], json!({ "echo": true }))
                }
            };
            crowd.add(path);
        }
        Ok(Isolation {
            talkers: vec![Talker::default(); seats],
            dice: Dice::new(crowd.options.seed),
            text: Vec::new(),
            owners: Vec::new(),
            open: 0,
            is_begun: false,
            frames: 0,
            pings: 0,
            pongs: 0,
            messages: 0,
            cuts: 0,
            foreign: 0,
            lost: 0,
            doubled: 0,
            belated: 0,
            heard_at: crowd.began,
        })
    }

    /// Queues a message, in fragments, with pings between them.
    fn talk(&mut self, crowd: &mut Crowd, seat: usize) {
        let talker = &mut self.talkers[seat];
        let Some(browser) = crowd.open(seat) else { return };
        Mark { owner: talker.owner, number: talker.next }.write(&mut self.text);
        let binary = is_mirrors(seat) && talker.next.is_multiple_of(3);
        let mut kind = OpCode::Data(if binary { Data::Binary } else { Data::Text });
        talker.next += 1;
        let mut rest = &self.text[..];
        loop {
            // One byte, nothing, or much: fragments of all sizes.
            let size = match self.dice.below(8) {
                0 => 0,
                1 => 1,
                2 | 3 => self.dice.below(rest.len() as u64 + 1) as usize,
                _ => rest.len(),
            };
            let (now, later) = rest.split_at(size.min(rest.len()));
            browser.queue(kind, later.is_empty(), now);
            self.frames += 1;
            (kind, rest) = (OpCode::Data(Data::Continue), later);
            if self.dice.one_in(8) {
                let payload = u64::from(talker.owner) << 32 | u64::from(talker.pinged);
                browser.queue(OpCode::Control(Control::Ping), true, &payload.to_be_bytes());
                talker.pinged += 1;
                self.pings += 1;
                self.frames += 1;
            }
            if rest.is_empty() {
                return;
            }
        }
    }

    /// What a seat has heard of the next message of this owner, who may speak there.
    fn hear(heard: &mut Heard, mark: Mark, lost: &mut u64, doubled: &mut u64) {
        if !heard.is_begun {
            (heard.is_begun, heard.next) = (true, mark.number);
        }
        if mark.number < heard.next {
            *doubled += 1;
        } else {
            *lost += u64::from(mark.number - heard.next);
            heard.next = mark.number + 1;
        }
    }

    /// How many messages this seat still has to hear.
    fn missing(&self, seat: usize) -> u64 {
        let talker = &self.talkers[seat];
        let mut missing = u64::from(talker.next - talker.own.next);
        if !is_mirrors(seat) && talker.neighbour.is_begun {
            let other = &self.talkers[neighbour(seat, self.talkers.len())];
            missing += u64::from(other.next.saturating_sub(talker.neighbour.next));
        }
        missing
    }

    /// Writes a piece of what waits, which ends anywhere. Returns whether the kernel took any.
    fn write(&mut self, crowd: &mut Crowd, seat: usize) -> bool {
        let size = 1 + self.dice.below(2 * STOCK as u64) as usize;
        let Some(browser) = crowd.open(seat) else { return false };
        let waiting = browser.waiting();
        browser.flush_at_most(size);
        browser.waiting() < waiting
    }

    /// Ends a connection wherever it is; another one takes its seat.
    fn cut(&mut self, crowd: &mut Crowd, seat: usize) {
        self.talkers[seat].is_open = false;
        self.open -= 1;
        self.cuts += 1;
        crowd.cut(seat, self.dice.one_in(2));
        crowd.connect(seat);
    }
}

/// Is this seat of the half that talks to the mirror?
fn is_mirrors(seat: usize) -> bool {
    seat.is_multiple_of(2)
}

/// Whom a seat of the channels' half hears besides itself: the next of them.
fn neighbour(seat: usize, seats: usize) -> usize {
    if seat + 2 < seats { seat + 2 } else { 1 }
}

/// Who hears this seat of the channels' half besides itself.
fn listener(seat: usize, seats: usize) -> usize {
    if seat > 1 { seat - 2 } else { (seats - 2) | 1 }
}

impl Scenario for Isolation {
    fn opened(&mut self, seat: usize, _: Instant) {
        let (seats, owner) = (self.talkers.len(), self.owners.len() as u32);
        self.owners.push(seat);
        self.open += 1;
        if !is_mirrors(seat) {
            // Whoever is there before its neighbour hears the neighbour's first message.
            let listener = &mut self.talkers[listener(seat, seats)];
            listener.neighbour = Heard { owner, next: 0, is_begun: listener.is_open };
        }
        let other = self.talkers[neighbour(seat, seats)].owner;
        self.talkers[seat] = Talker {
            owner,
            is_open: true,
            own: Heard { owner, next: 0, is_begun: true },
            neighbour: Heard { owner: other, next: 0, is_begun: false },
            ..Talker::default()
        };
    }

    fn message(&mut self, seat: usize, message: &[u8], arrival: &mut Arrival<'_>) {
        self.heard_at = arrival.now;
        self.messages += 1;
        let Some(mark) = Mark::of(message) else {
            self.foreign += 1;
            return;
        };
        let (seats, is_channel) = (self.talkers.len(), !is_mirrors(seat));
        let talker = &mut self.talkers[seat];
        let heard = match mark.owner {
            owner if owner == talker.own.owner => &mut talker.own,
            owner if is_channel && owner == talker.neighbour.owner => &mut talker.neighbour,
            owner => {
                // Who had the seat before spoke on the channel rightly, and Redis may take longer
                // than a handshake.
                let of = self.owners.get(owner as usize);
                let is_past =
                    is_channel && of.is_some_and(|of| *of == seat || *of == neighbour(seat, seats));
                self.belated += u64::from(is_past);
                self.foreign += u64::from(!is_past);
                return;
            }
        };
        Isolation::hear(heard, mark, &mut self.lost, &mut self.doubled);
    }

    fn pong(&mut self, seat: usize, payload: &[u8]) {
        let talker = &mut self.talkers[seat];
        self.pongs += 1;
        let Some(payload) = payload.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)) else {
            self.foreign += 1;
            return;
        };
        let (owner, number) = ((payload >> 32) as u32, payload as u32);
        if owner != talker.owner || number >= talker.pinged {
            self.foreign += 1;
        } else if number < talker.ponged {
            self.doubled += 1;
        }
        talker.ponged = talker.ponged.max(number + 1);
    }

    fn ended(&mut self, crowd: &mut Crowd, seat: usize, ending: Ending, _: Instant) {
        if let Ending::Closed(_) = ending {
            self.talkers[seat].is_open = false;
            self.open -= 1;
        }
        crowd.connect(seat);
    }

    fn turn(&mut self, crowd: &mut Crowd, now: Instant) -> Result<bool, String> {
        let seats = self.talkers.len();
        if !self.is_begun {
            if self.open < seats {
                return Ok(false);
            }
            self.is_begun = true;
            self.heard_at = now;
            crowd.restart_clock(now);
        }
        let (wanted, first) = (crowd.options.frames, self.dice.below(seats as u64) as usize);
        let (mut is_writing, mut waits) = (false, false);
        for nth in 0..seats {
            let seat = (first + nth) % seats;
            while self.frames < wanted
                && self.talkers[seat].next - self.talkers[seat].own.next < WINDOW
                && crowd.open(seat).is_some_and(|browser| browser.waiting() < STOCK)
            {
                self.talk(crowd, seat);
            }
            if crowd.open(seat).is_none_or(|browser| browser.waiting() == 0) {
                continue;
            }
            waits = true;
            is_writing |= self.write(crowd, seat);
            if self.frames < wanted && self.dice.one_in(crowd.options.cut_one_in) {
                self.cut(crowd, seat);
            }
        }
        // If nobody may write, or the kernel takes nothing, there is only to be waited.
        crowd.wake_at = is_writing.then_some(now);
        if self.frames < wanted || waits {
            return Ok(false);
        }
        let is_complete = self.open == seats && (0..seats).all(|seat| self.missing(seat) == 0);
        Ok(is_complete || now - self.heard_at > crowd.options.drain())
    }

    fn tell(&self, _: &Crowd, report: &mut Value) {
        let missing: u64 = (0..self.talkers.len()).map(|seat| self.missing(seat)).sum();
        report["frames"] = json!(self.frames);
        report["messages_heard"] = json!(self.messages);
        report["pings"] = json!(self.pings);
        report["pongs"] = json!(self.pongs);
        report["cuts"] = json!(self.cuts);
        report["foreign"] = json!(self.foreign);
        report["lost"] = json!(self.lost + missing);
        report["doubled"] = json!(self.doubled);
        report["belated"] = json!(self.belated);
    }
}
