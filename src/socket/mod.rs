//! One adopted connection: bytes to messages, queue to bytes, the close handshake, and when
//! something is due.
//!
//! Owned by one loop. Its state is plain values, no closure and no pointer into its loop, so that
//! it can be handed to another process. It decides nothing about channels. Idle, it owns no buffer:
//! what is read lies in the loop's own buffer, and the write queue is empty.

mod deadline;
mod key;
mod rights;
mod state;

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cause::{Cause, Refusal};
use crate::config::Config;
use crate::hub::{Form, Variant};
use crate::rate::Bucket;
use crate::sys;
use crate::timer::{Alarm, Millis, Moment};
use crate::write_queue::{HANDSHAKE, NO_CHANNEL, Segment, Units, WriteQueue};
use crate::ws::deflate::Inflater;
use crate::ws::frame::{self, OpCode};
use crate::ws::message::{Assembler, Incoming};

pub use deadline::Due;
pub use key::Key;
pub use rights::{Identity, KeptIdentity, Rights, SharedRights};
pub use state::SocketState;

/// A connection that has nothing more to say has this long to be read to its end; then it is cut.
const ENDING_MS: u64 = 1_000;

/// So much of a second's messages may come at once, and of its control frames: a page that opens may
/// have much to say.
const MESSAGE_BURST: Duration = Duration::from_millis(2_000);
const CONTROL_BURST: Duration = Duration::from_millis(2_500);

/// While fewer bytes wait than this, and the kernel takes them, every ping is answered.
const PONG_ROOM: usize = 1_024;

/// What waits for a socket are frames.
struct Frames;

impl Units for Frames {
    fn around(&self, bytes: &[u8], at: usize) -> (usize, usize) {
        frame::around(bytes, at)
    }

    fn last(&self, bytes: &[u8]) -> (usize, u32) {
        frame::last(bytes)
    }
}

/// How far a socket's life is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Its HTTP answer waits until its channels are heard; nothing is written yet.
    Held,
    /// Messages flow.
    Open,
    /// We sent a close frame and wait for the browser's. Nothing else is sent or handed on.
    Closing,
    /// Everything is said: what waits is written, then the connection ends. Nothing is looked at
    /// that comes in.
    Ending,
}

/// A time that never comes.
const NEVER: Millis = Millis::MAX;

/// One adopted connection.
///
/// It lies in memory as it is written here: what a fan-out touches comes first, in one cache line or
/// two. Its size is the price of an idle socket, so what hardly any socket has is boxed.
#[derive(Debug)]
#[repr(C)]
pub struct Socket {
    queue: WriteQueue,
    /// Its place in the loop, for events and its id.
    pub key: Key,
    fd: OwnedFd,
    sent_at: Moment,
    /// How far its life is.
    pub phase: Phase,
    /// Is it on the loop's list of sockets to flush? Kept by the loop.
    pub dirty: bool,
    /// Is it on the loop's list of sockets to close? Kept by the loop; nothing more is queued.
    pub doomed: bool,
    /// Was the browser told that nothing more comes? Once: each time epoll would tell us that we may
    /// write.
    shut: bool,

    /// How its messages are put on the wire.
    pub variant: Variant,
    /// Its channels that are not heard yet, while it is held.
    pub unheard: u16,
    /// Is it on the loop's list of sockets to read? Kept by the loop.
    pub unread: bool,
    /// The browser's close frame came while it was doomed, or can not come any more. Kept by the
    /// loop.
    pub heard_close: bool,
    /// Will epoll tell when it takes bytes again? Kept by the loop.
    pub watches_room: bool,
    /// Does it have a seat in the engine? Not if its handshake was refused.
    pub admitted: bool,
    /// Was a ping sent since the browser was last heard?
    pinged: bool,
    /// Why it ends, once that is known.
    pub cause: Option<Cause>,
    /// When the browser was last heard, or pinged since.
    heard_at: Moment,
    /// When it is released (held) or cut (closing, ending).
    limit_at: Moment,
    /// How far the browser is ahead of `max-message-rate` and `max-control-rate`, at `heard_at`.
    messages: Bucket,
    controls: Bucket,
    /// When the grant ends.
    expires_at: Millis,
    /// Its place among the loop's deadlines.
    pub alarm: Alarm,
    assembler: Assembler,
    /// What it may do.
    pub rights: Rc<Rights>,
    identity: KeptIdentity,
    rare: Option<Box<Rare>>,
}

/// What a socket has whose browser does not read.
#[derive(Debug, Default)]
struct Rare {
    /// How many messages of a channel were forgotten, as the notice that waits tells it: only of one
    /// that is slow and has [`Rights::latest`].
    missed: HashMap<u32, u32>,
    /// The payload of the latest ping, while earlier bytes block the way. At most one pong waits.
    pong: Option<Box<[u8]>>,
}

impl Socket {
    /// A held socket that will answer its handshake with `answer`.
    pub fn new(
        fd: OwnedFd,
        key: Key,
        variant: Variant,
        rights: Rc<Rights>,
        identity: KeptIdentity,
        answer: Vec<u8>,
        now: Millis,
    ) -> Self {
        let mut queue = WriteQueue::default();
        let len = answer.len() as u32;
        queue.push(&Segment::new(answer), (0, len), HANDSHAKE, now);
        Socket {
            queue,
            key,
            fd,
            sent_at: now.into(),
            phase: Phase::Held,
            dirty: false,
            doomed: false,
            shut: false,
            variant,
            unheard: 0,
            unread: false,
            heard_close: false,
            watches_room: false,
            admitted: false,
            pinged: false,
            cause: None,
            heard_at: now.into(),
            limit_at: now.into(),
            messages: Bucket::default(),
            controls: Bucket::default(),
            expires_at: NEVER,
            alarm: Alarm::default(),
            assembler: Assembler::default(),
            rights,
            identity,
            rare: None,
        }
    }

    /// Whose it is.
    pub fn identity(&self) -> Identity<'_> {
        self.identity.get()
    }

    /// Holds the answer back until [`Socket::release`], or until `at` at most.
    pub fn hold_until(&mut self, at: Millis) {
        self.limit_at = at.into();
    }

    /// Until when it is held at most.
    pub fn held_until(&self, now: Millis) -> Millis {
        self.limit_at.near(now)
    }

    /// Lets the answer go.
    pub fn release(&mut self, now: Millis) {
        if self.phase == Phase::Held {
            self.phase = Phase::Open;
            self.sent_at = now.into();
        }
    }

    /// Makes the grant end at `at`.
    pub fn expire_at(&mut self, at: Millis) {
        self.expires_at = at;
    }

    /// Queues a range of a shared segment. Nothing is queued once the end is decided.
    pub fn queue(&mut self, segment: &Segment, range: (u32, u32), channel: u32, now: Millis) {
        if self.is_listening() {
            self.queue.push(segment, range, channel, now);
        }
    }

    /// Queues a frame of this socket's own.
    pub fn queue_frame(&mut self, opcode: OpCode, payload: &[u8], now: Millis) {
        let mut bytes = Vec::with_capacity(payload.len() + frame::MAX_HEADER);
        frame::append(&mut bytes, opcode, payload);
        self.queue_own(bytes, now);
    }

    /// Queues whole frames of this socket's own.
    pub fn queue_own(&mut self, bytes: Vec<u8>, now: Millis) {
        let len = bytes.len() as u32;
        self.queue(&Segment::new(bytes), (0, len), NO_CHANNEL, now);
    }

    /// Does it still take messages?
    pub fn is_listening(&self) -> bool {
        !self.doomed && matches!(self.phase, Phase::Held | Phase::Open)
    }

    /// Does the kernel take no more? Then nothing needs flushing until it says that it does.
    pub fn is_blocked(&self) -> bool {
        self.queue.is_blocked()
    }

    /// Is it too slow to be given more? Only a socket whose kernel buffer has refused bytes can be:
    /// judged when a message arrives while its queue is already over the limit, or its oldest byte
    /// waits for too long.
    pub fn is_slow(&self, config: &Config, now: Millis) -> bool {
        self.queue.is_blocked()
            && (self.queue.bytes() > config.write_queue_limit
                || u128::from(self.queue.age(now)) > config.write_queue_age.as_millis())
    }

    /// Forgets all but the newest message of each channel. With the envelope it is told what it
    /// misses, before that message: `notice` makes the text, of a channel and how many messages.
    /// Returns how many were forgotten.
    pub fn keep_latest(&mut self, mut notice: impl FnMut(u32, u32) -> Vec<u8>) -> u64 {
        let (is_told, rare) = (self.variant.form == Form::Envelope, &mut self.rare);
        let mut forgotten = 0;
        self.queue.keep_latest(&Frames, |channel, count, told_before| {
            forgotten += u64::from(count);
            if !is_told {
                return None;
            }
            let missed = rare.get_or_insert_default().missed.entry(channel).or_default();
            // What was told and is on its way counts no more.
            *missed = if told_before { missed.saturating_add(count) } else { count };
            let mut bytes = Vec::new();
            frame::append(&mut bytes, OpCode::Data(frame::Data::Text), &notice(channel, *missed));
            Some(bytes)
        });
        forgotten
    }

    /// For how many milliseconds its oldest byte has waited; or nothing waits.
    pub fn waits_for(&self, now: Millis) -> Option<u32> {
        (!self.queue.is_empty()).then(|| self.queue.age(now))
    }

    /// How many bytes wait to be written.
    pub fn queued_bytes(&self) -> usize {
        self.queue.bytes()
    }

    /// Is a part of a message there, and the rest has not come?
    pub fn is_amid_message(&self) -> bool {
        !self.assembler.is_idle()
    }

    /// Answers a ping; of several, only the latest, if earlier bytes block the way (RFC 6455
    /// §5.5.3 allows it). Pings that come together do not: their pongs are no flood yet.
    pub fn queue_pong(&mut self, payload: &[u8], now: Millis) {
        if self.queue.is_blocked() || self.queue.bytes() > PONG_ROOM {
            self.rare.get_or_insert_default().pong = Some(payload.into());
        } else {
            self.queue_frame(OpCode::Control(frame::Control::Pong), payload, now);
        }
    }

    /// Reads what is there into `buffer`.
    pub fn read(&mut self, buffer: &mut [u8], now: Millis) -> io::Result<usize> {
        let n = sys::recv(&self.fd, buffer)?;
        self.leak(now);
        self.pinged = false;
        Ok(n)
    }

    /// Brings the buckets up to the time.
    fn leak(&mut self, now: Millis) {
        let elapsed = Duration::from_millis(now.saturating_sub(self.heard_at.near(now)));
        self.messages.leak(elapsed);
        self.controls.leak(elapsed);
        self.heard_at = now.into();
    }

    /// Counts something that came. False: it is more than the browser may send.
    pub fn is_in_rate(&mut self, incoming: &Incoming<'_>, config: &Config) -> bool {
        match incoming {
            Incoming::Text(_) | Incoming::Binary(_) => {
                self.messages.take(config.max_message_rate, MESSAGE_BURST)
            }
            Incoming::Ping(_) | Incoming::Pong(_) | Incoming::TinyFragment => {
                self.controls.take(config.max_control_rate, CONTROL_BURST)
            }
            // It is the last thing that is looked at.
            Incoming::Close(_) => true,
        }
    }

    /// Takes the message machine out, so that the loop can use itself while messages come out of
    /// it.
    pub fn take_assembler(&mut self) -> Assembler {
        std::mem::take(&mut self.assembler)
    }

    /// Puts the message machine back. What is in it and not whole has a deadline from now on; true:
    /// it is the next.
    #[must_use]
    pub fn put_assembler(&mut self, assembler: Assembler, config: &Config, now: Millis) -> bool {
        self.assembler = assembler;
        self.assembler.begin(now);
        let due = self.unfinished_at(config);
        due.is_some_and(|due| self.alarm.at().is_none_or(|at| at > due))
    }

    /// In [`Phase::Closing`]: is the browser's close frame among these bytes?
    pub fn hears_close(
        &mut self,
        input: &mut [u8],
        max_message: usize,
        inflater: &mut Inflater,
    ) -> bool {
        let mut closed = false;
        let inflater = self.variant.deflate.and(Some(inflater));
        let fed =
            self.assembler.feed(input, max_message, inflater, &mut |incoming| match incoming {
                Incoming::Close(_) => {
                    closed = true;
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            });
        // What we can not read any more will not become a close frame.
        closed || fed.is_err()
    }

    /// Begins the close handshake from our side. Where the browser's close frame could not be heard
    /// (it is too slow, sends too much, or broke the protocol), or has come already, the connection
    /// ends at once after ours.
    pub fn close(&mut self, cause: Cause, config: &Config, now: Millis) {
        if !matches!(self.phase, Phase::Held | Phase::Open) {
            return;
        }
        self.cause = Some(cause);
        self.forget_pong();
        if matches!(cause, Cause::Slow | Cause::Shed) {
            self.queue.truncate(&Frames);
        }
        self.push_close(cause.code(), cause.reason(), now);
        let fatal = matches!(
            cause,
            Cause::Slow
                | Cause::Shed
                | Cause::Protocol
                | Cause::Utf8
                | Cause::TooBig
                | Cause::Internal
                | Cause::NoPong
                | Cause::Rate
        );
        if fatal || self.heard_close {
            self.end(now + ENDING_MS);
        } else {
            self.phase = Phase::Closing;
            self.limit_at = (now + config.close_timeout.as_millis() as u64).into();
        }
    }

    /// Answers the browser's close frame with its own code (RFC 6455 §5.5.1).
    pub fn answer_close(&mut self, code: Option<u16>, config: &Config, now: Millis) {
        if self.phase == Phase::Open || self.phase == Phase::Held {
            self.cause = Some(Cause::Normal);
            self.push_close(code.unwrap_or(1005), "", now);
        }
        self.end(now + config.close_timeout.as_millis() as u64);
    }

    /// Answers with a refusal instead of the handshake that was to be.
    pub fn refuse(&mut self, refusal: Refusal, now: Millis) {
        self.queue.clear();
        self.queue.push_bytes(refusal.answer().into_bytes(), now);
        self.end(now + ENDING_MS);
    }

    fn push_close(&mut self, code: u16, reason: &str, now: Millis) {
        let mut bytes = Vec::new();
        frame::append_close(&mut bytes, code, reason);
        self.queue.push_bytes(bytes, now);
    }

    fn end(&mut self, limit: Millis) {
        self.phase = Phase::Ending;
        self.limit_at = limit.into();
        self.assembler = Assembler::default();
        self.forget_pong();
    }

    fn forget_pong(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.pong = None;
        }
    }

    /// Writes what waits, unless the answer is held. An error means that the connection is gone.
    pub fn flush(&mut self, scratch: &mut Vec<u8>, now: Millis) -> io::Result<()> {
        // An ending one has to be shut down even if its close frame left long ago.
        let is_to_shut = self.phase == Phase::Ending && !self.shut;
        let has_nothing = self.queue.is_empty() && !is_to_shut;
        if self.phase == Phase::Held || has_nothing {
            return Ok(());
        }
        self.sent_at = now.into();
        loop {
            let fd = &self.fd;
            if !self.queue.flush(scratch, |bytes| sys::send(fd, bytes))? {
                return Ok(());
            }
            match self.rare.as_mut().and_then(|rare| rare.pong.take()) {
                Some(payload) => self.queue_pong(&payload, now),
                None => break,
            }
        }
        if is_to_shut {
            self.shut = true;
            // The browser reads to the end and closes; closing first could destroy what it has not
            // read yet.
            sys::shutdown_write(&self.fd);
        }
        Ok(())
    }

    /// Lets go of the descriptor. Shut down rather than only closed: a child of the host may have
    /// inherited it. A socket that did not read to its end is reset, so that the kernel keeps
    /// nothing for it; a slow one has not, even if the kernel has taken what was left for it.
    pub fn cut(self) {
        if !self.queue.is_empty() || matches!(self.cause, Some(Cause::Slow | Cause::Shed)) {
            sys::reset_on_close(&self.fd);
        }
        sys::shutdown(&self.fd);
    }

    /// The memory that it owns for as long as it lives: for the statistics.
    pub fn bytes(&self) -> usize {
        size_of::<Self>() + self.identity.bytes()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::mem::offset_of;

    #[test]
    fn an_idle_socket_is_small_and_what_a_fan_out_touches_is_together() {
        assert_eq!(size_of::<Socket>(), 136);
        assert_eq!(size_of::<Option<Socket>>(), size_of::<Socket>());
        assert_eq!(offset_of!(Socket, variant), 52);
    }
}
