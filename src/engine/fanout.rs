//! Fan-out: one message to everyone who hears its channel.
//!
//! The frame is encoded once for each variant that anyone listens in, into the channel's segment of
//! this turn; messages of one channel that follow one another are a run, and each listener's write
//! queue gets or extends one entry for a run. Nothing is written here: the end of the turn writes
//! each socket once, however many messages came.

use super::event_loop::{EventLoop, find};
use super::local::Shared;
use super::stats::Counters;
use crate::cause::Cause;
use crate::hub::{ChannelId, Form, Variant};
use crate::socket::Key;
use crate::write_queue::Segment;
use crate::ws::deflate::{Deflater, Window};
use crate::ws::envelope;
use crate::ws::frame::{self, Data, OpCode};
use crate::ws::message::is_utf8;

/// Messages of one channel that came one after the other: encoded, and not yet in anybody's queue.
/// So each listener is looked at once for all of them, and its queue gets one entry.
#[derive(Default)]
pub(super) struct Run {
    channel: ChannelId,
    messages: u64,
    /// One for each group of the channel, in the hub's order.
    parts: Vec<Part>,
}

/// A run in one variant.
struct Part {
    segment: Segment,
    range: (u32, u32),
}

impl EventLoop {
    /// Encodes a message for the listeners of its channel. They get it with [`EventLoop::spread`],
    /// before anything else is done that may be for them.
    pub(super) fn deliver(&mut self, channel: &str, payload: &[u8]) {
        let Some(id) = self.hub.find(channel) else { return };
        let own = self.echo.take(id, payload);
        if own.is_some() || self.run.channel != id {
            self.spread(None);
        }
        let mut encoder = Encoder::new(&mut self.deflater, &self.shared, self.number);
        let run = &mut self.run;
        if run.messages == 0 {
            run.channel = id;
            run.parts.extend(self.hub.groups(id).iter().map(|group| {
                let segment = self.segments.entry((id, group.variant)).or_default().clone();
                let from = segment.len() as u32;
                Part { segment, range: (from, from) }
            }));
        }
        for (group, part) in self.hub.groups(id).iter().zip(&mut run.parts) {
            part.range.1 =
                part.segment.append(|out| encoder.message(out, group.variant, channel, payload));
        }
        run.messages += 1;
        if own.is_some() {
            self.spread(own.map(Key::from));
        }
    }

    /// Queues the run for every listener of its channel but `own`, whose message it is.
    pub(super) fn spread(&mut self, own: Option<Key>) {
        let messages = std::mem::take(&mut self.run.messages);
        if messages == 0 {
            return;
        }
        let (config, now, id) = (&self.shared.config, self.now, self.run.channel);
        let (mut delivered, mut dropped) = (0, 0);
        for (group, part) in self.hub.groups(id).iter().zip(self.run.parts.drain(..)) {
            for index in &group.sockets {
                let Some(socket) = self.sockets.get_mut(*index as usize) else { continue };
                if own == Some(socket.key) {
                    continue;
                }
                let is_slow = socket.is_slow(config, now);
                if is_slow && !socket.rights.latest {
                    if socket.is_listening() {
                        socket.doomed = true;
                        self.doomed.push((socket.key, Cause::Slow));
                    }
                    continue;
                }
                socket.queue(&part.segment, part.range, id, now);
                delivered += messages;
                if is_slow {
                    let hub = &self.hub;
                    let missed = |channel, count| envelope::dropped(hub.name(channel), count);
                    dropped += socket.keep_latest(missed);
                }
                // A blocked socket is flushed when the kernel says that it takes more.
                if !socket.is_blocked() && !std::mem::replace(&mut socket.dirty, true) {
                    self.dirty.push(socket.key);
                }
            }
        }
        let counters = self.counters();
        counters.messages.add(messages);
        counters.delivered.add(delivered);
        counters.dropped.add(dropped);
    }

    /// Queues a data frame for one socket alone.
    pub(super) fn queue_data(&mut self, key: Key, data: Data, payload: &[u8]) {
        let Some(socket) = find(&mut self.sockets, key) else { return };
        let mut encoder = Encoder::new(&mut self.deflater, &self.shared, self.number);
        let mut bytes = Vec::with_capacity(payload.len() + frame::MAX_HEADER);
        encoder.frame(&mut bytes, data, payload, socket.variant.deflate);
        socket.queue_own(bytes, self.now);
        self.make_dirty(key);
    }

    /// Takes one batch of the embedded broker's feed. Returns how many messages that were.
    pub(super) fn read_feed(&mut self) -> usize {
        let Some(broker) = &self.shared.broker else { return 0 };
        let (messages, more) = broker.take(self.number, self.shared.config.read_batch);
        self.feed_waits = more;
        for message in &messages {
            self.deliver(&message.channel, &message.payload);
        }
        self.spread(None);
        messages.len()
    }

    /// Takes what waits in the feed now; what is published meanwhile has its turn later.
    pub(super) fn read_waiting_feed(&mut self) {
        let Some(broker) = &self.shared.broker else { return };
        let mut waiting = broker.waiting(self.number);
        while waiting > 0 {
            waiting = waiting.saturating_sub(self.read_feed().max(1));
        }
    }
}

/// What frames are made with.
struct Encoder<'a> {
    deflater: &'a mut Deflater,
    /// Shorter payloads are not compressed.
    threshold: usize,
    counters: &'a Counters,
}

impl<'a> Encoder<'a> {
    /// For the loop of this number.
    fn new(deflater: &'a mut Deflater, shared: &'a Shared, number: usize) -> Self {
        let threshold = shared.config.compression_threshold;
        Encoder { deflater, threshold, counters: &shared.ports[number].counters }
    }

    /// Appends a message's frame in a variant.
    fn message(&mut self, out: &mut Vec<u8>, variant: Variant, channel: &str, payload: &[u8]) {
        match variant.form {
            Form::Raw if is_utf8(payload) => {
                self.frame(out, Data::Text, payload, variant.deflate);
            }
            Form::Raw | Form::Binary => self.frame(out, Data::Binary, payload, variant.deflate),
            Form::Envelope => {
                let mut text = Vec::with_capacity(payload.len() + channel.len() + 32);
                envelope::message(&mut text, channel, payload);
                self.frame(out, Data::Text, &text, variant.deflate);
            }
        }
    }

    /// Appends a frame, compressed where that was agreed on and pays.
    fn frame(&mut self, out: &mut Vec<u8>, data: Data, payload: &[u8], deflate: Option<Window>) {
        if let Some(window) = deflate
            && payload.len() >= self.threshold
            && let Some(compressed) = self.deflater.deflate(window, payload)
        {
            self.counters.compressed.add(1);
            self.counters.compressed_from.add(payload.len() as u64);
            self.counters.compressed_to.add(compressed.len() as u64);
            frame::append_compressed(out, OpCode::Data(data), compressed);
        } else {
            frame::append(out, OpCode::Data(data), payload);
        }
    }
}
