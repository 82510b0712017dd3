//! What browsers send: read, checked against the socket's rights, and published.
//!
//! Nothing a browser sends adds a channel: where its messages go was fixed by its grant.

use std::borrow::Cow;
use std::io;
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::atomic::Ordering::SeqCst;

use super::event_loop::{EventLoop, find};
use crate::cause::Cause;
use crate::hub::Form;
use crate::log::Level;
use crate::redis::publisher::Receipt;
use crate::socket::{Key, Phase};
use crate::ws::envelope::{self, Notice};
use crate::ws::frame::{Data, OpCode};
use crate::ws::message::Incoming;

impl EventLoop {
    /// Is nothing read from browsers now? Not while the sockets are about to go, and not while Redis
    /// is given messages faster than it takes them: they wait with those who send them.
    pub(super) fn is_not_reading(&self) -> bool {
        self.moving.settling || self.links.as_ref().is_some_and(|links| links.publisher.is_behind())
    }

    /// Reads the sockets on the list, as long as anything is read.
    pub(super) fn read_waiting_sockets(&mut self) {
        let mut waiting = std::mem::take(&mut self.unread).into_iter();
        while !self.is_not_reading()
            && let Some(key) = waiting.next()
        {
            if let Some(socket) = self.socket(key) {
                socket.unread = false;
            }
            // To the end: the event that told of it is used up.
            self.read_socket(key, true);
        }
        // Who was read goes behind who was not.
        self.unread.splice(0..0, waiting);
    }

    /// Reads one buffer of a socket. A full buffer may mean that more waits, and others must have
    /// their turn: the socket stays on the list. `to_end`: the peer may have closed, so that a
    /// short read is not the last one.
    pub(super) fn read_socket(&mut self, key: Key, to_end: bool) {
        self.contain(key, |this| this.read_input(key, to_end));
    }

    fn read_input(&mut self, key: Key, to_end: bool) {
        let (now, max) = (self.now, self.shared.config.max_message_size);
        if let Some(mut leftover) = self.leftover(key) {
            self.take_input(key, &mut leftover);
        }
        let mut buffer = std::mem::take(&mut self.read_buffer);
        let mut budget = buffer.len();
        // A held socket is read when it is released: what it says may be published only once it
        // hears itself.
        while let Some(socket) = find(&mut self.sockets, key).filter(|s| s.phase != Phase::Held) {
            // It is closed at the end of this turn, and nothing that it says before that counts.
            // Then it is read on, for the browser's close frame.
            if socket.doomed && socket.phase == Phase::Open {
                self.read_later(key);
                break;
            }
            // Nothing is read for one that does not read itself: it would only be let send on.
            // Nor for one that sends too much: it ends in a moment.
            if matches!(socket.cause, Some(Cause::Slow | Cause::Rate)) {
                break;
            }
            match socket.read(&mut buffer, now) {
                Ok(0) => {
                    self.input_ended(key);
                    break;
                }
                Ok(n) => {
                    let input = &mut buffer[..n];
                    match socket.phase {
                        Phase::Open | Phase::Held => self.take_input(key, input),
                        Phase::Closing => {
                            if socket.hears_close(input, max, &mut self.inflater) {
                                self.answer_close(key, None);
                            }
                        }
                        Phase::Ending => {}
                    }
                    budget = budget.saturating_sub(n);
                    if budget == 0 {
                        self.read_later(key);
                        break;
                    }
                    if !to_end {
                        break; // A short read has emptied the kernel's buffer; what comes later is told.
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => {
                    self.finish(key, Cause::Lost);
                    break;
                }
            }
        }
        self.read_buffer = buffer;
        self.inflater.trim();
    }

    fn leftover(&mut self, key: Key) -> Option<Vec<u8>> {
        if self.leftovers.is_empty() {
            return None;
        }
        let socket = self.socket(key)?;
        if socket.phase == Phase::Held || !socket.is_listening() {
            return None;
        }
        self.leftovers.remove(&key)
    }

    /// Feeds bytes to the socket's message machine and does what comes out of it.
    fn take_input(&mut self, key: Key, input: &mut [u8]) {
        let max = self.shared.config.max_message_size;
        let Some(socket) = self.socket(key) else { return };
        let mut assembler = socket.take_assembler();
        let deflate = socket.variant.deflate;
        // Out of the loop, so that the loop can work on what comes out.
        let mut inflater = std::mem::take(&mut self.inflater);
        let used = deflate.and(Some(&mut inflater));
        let fed = assembler.feed(input, max, used, &mut |incoming| self.incoming(key, incoming));
        self.inflater = inflater;
        let (config, now) = (&self.shared.config, self.now);
        if let Some(socket) = find(&mut self.sockets, key)
            && socket.phase == Phase::Open
        {
            // What we can not read any more will not become a close frame.
            socket.heard_close |= fed.is_err();
            if socket.put_assembler(assembler, config, now) {
                self.rearm(key);
            }
        }
        if let Err(cause) = fed {
            self.doom(key, cause);
        }
    }

    /// One message or control frame. Break: nothing that follows it counts.
    fn incoming(&mut self, key: Key, incoming: Incoming<'_>) -> ControlFlow<()> {
        #[cfg(test)]
        if incoming == Incoming::Text(super::panics::PANIC.as_bytes()) {
            panic!("a test wants it");
        }
        let now = self.now;
        let Some(socket) = find(&mut self.sockets, key) else { return ControlFlow::Break(()) };
        if socket.doomed {
            // Something before it has decided the end. Only a close frame matters still: nobody
            // needs to wait for it then.
            socket.heard_close = matches!(incoming, Incoming::Close(_));
            return match socket.heard_close {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
        }
        let result = match incoming {
            _ if !socket.is_in_rate(&incoming, &self.shared.config) => Err(Cause::Rate),
            Incoming::Text(payload) => self.message(key, payload, Data::Text),
            Incoming::Binary(payload) => self.message(key, payload, Data::Binary),
            Incoming::Ping(payload) => {
                socket.queue_pong(payload, now);
                self.make_dirty(key);
                Ok(())
            }
            Incoming::TinyFragment => Ok(()),
            Incoming::Pong(_) => {
                // The next ping may be due before the time that was left for this answer.
                self.rearm(key);
                Ok(())
            }
            Incoming::Close(code) => {
                self.answer_close(key, code);
                return ControlFlow::Break(());
            }
        };
        let Err(cause) = result else { return ControlFlow::Continue(()) };
        self.doom(key, cause);
        match cause {
            // Nothing is read for it any more, so nobody waits for its close frame.
            Cause::Rate => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    }

    /// A message of a browser.
    fn message(&mut self, key: Key, payload: &[u8], data: Data) -> Result<(), Cause> {
        let Some(socket) = self.socket(key) else { return Ok(()) };
        let (rights, sender) = (&socket.rights, socket.identity().sender);
        let is_text = data == Data::Text;
        let heartbeat = rights.heartbeat.as_deref().map(str::as_bytes);
        if is_text && heartbeat == Some(payload) {
            return Ok(());
        }
        if rights.mirror {
            return self.mirror(key, data, payload);
        }
        let (places, payload) = if socket.variant.form == Form::Envelope {
            let text = std::str::from_utf8(payload).ok().filter(|_| is_text);
            let sent = envelope::parse(text.ok_or(Cause::Unacceptable)?)?;
            if sent.binary && sender.is_some() {
                return Err(Cause::Unacceptable);
            }
            let granted = rights.publish.iter().position(|name| **name == *sent.channel);
            let place = granted.ok_or(Cause::NotGranted)?;
            (place..place + 1, sent.payload)
        } else if sender.is_some() && !is_text {
            // Also where the bytes happen to be UTF-8: what is text is not for them to say.
            return Err(Cause::Unacceptable);
        } else {
            (0..rights.publish.len(), Cow::Borrowed(payload))
        };
        let payload = match sender {
            Some(sender) => Cow::Owned(envelope::with_sender(sender, &payload)?),
            None => payload,
        };
        self.counters().received.add(1);
        if places.is_empty() {
            self.counters().received_dropped.add(1);
        }
        for place in places {
            let Some(socket) = self.socket(key) else { break };
            let channel = Rc::clone(&socket.rights.publish[place]);
            let note = self.note(key, &channel, &payload);
            let receipt = Receipt { socket: Some(key.into()), channel, note };
            self.publish(&payload, receipt).map_err(|_| Cause::Overloaded)?;
        }
        Ok(())
    }

    /// Returns a message as it came. A browser that sends and does not read is slow like any other.
    fn mirror(&mut self, key: Key, data: Data, payload: &[u8]) -> Result<(), Cause> {
        let Some(socket) = find(&mut self.sockets, key) else { return Ok(()) };
        if socket.is_slow(&self.shared.config, self.now) {
            return Err(Cause::Slow);
        }
        self.queue_data(key, data, payload);
        self.counters().received.add(1);
        Ok(())
    }

    /// Notes that the socket's own message is coming back on a channel that it hears, unless it
    /// wants to hear itself. Only on a channel that is confirmed: else the message may pass before
    /// we listen, and the note would swallow somebody else's.
    fn note(&mut self, key: Key, channel: &str, payload: &[u8]) -> Option<(u32, u64)> {
        find(&mut self.sockets, key).filter(|socket| !socket.rights.echo)?;
        let id = self.hub.find(channel)?;
        if !self.hub.is_confirmed(id) || !self.hub.hears(key.index() as u32, id) {
            return None;
        }
        Some((id, self.echo.note(id, payload, key.into())))
    }

    /// Publishes a message. An error: there is no room, and nothing was published.
    fn publish(&mut self, payload: &[u8], receipt: Receipt) -> Result<(), ()> {
        match self.pass_on(payload, receipt) {
            Ok(()) => {
                self.counters().published.add_shared(1);
                Ok(())
            }
            Err(receipt) => {
                self.counters().publish_failed.add_shared(1);
                self.forget_note(&receipt);
                Err(())
            }
        }
    }

    /// Gives a message to Redis or the embedded broker, or the receipt back: there is no room.
    fn pass_on(&mut self, payload: &[u8], receipt: Receipt) -> Result<(), Receipt> {
        if let Some(broker) = &self.shared.broker {
            match broker.publish(&receipt.channel, payload) {
                Some(wake) => {
                    for number in wake {
                        if number == self.number {
                            self.feed_waits = true;
                        } else {
                            self.shared.ports[number].inbox.wake();
                        }
                    }
                    Ok(())
                }
                None => Err(receipt),
            }
        } else {
            let links = self.links.as_mut().expect("an engine has a broker or links");
            links.publisher.publish(payload, receipt)
        }
    }

    /// Publishes what was accepted, and counted, before everything went over. Its sender, if it
    /// came along, is told of a failure as ever.
    pub(super) fn publish_moved(&mut self, sender: Option<Key>, channel: &str, payload: &[u8]) {
        let note = sender.and_then(|key| self.note(key, channel, payload));
        let receipt = Receipt { socket: sender.map(u64::from), channel: channel.into(), note };
        if let Err(receipt) = self.pass_on(payload, receipt) {
            self.publish_failed(&receipt, "there is no room for it after a move");
        }
    }

    /// Publishes for the host, which has its answer already: a failure can only be logged and
    /// counted.
    pub(super) fn publish_for_host(&mut self, channel: &str, payload: &[u8]) {
        let receipt = Receipt { socket: None, channel: channel.into(), note: None };
        let published = self.publish(payload, receipt);
        let port = &self.shared.ports[self.number];
        if let Some(links) = &self.links {
            port.unpublished.set(links.publisher.waiting_bytes() as u64);
        }
        // Only now: whoever asks meanwhile counts it twice rather than not at all.
        port.publishing.fetch_sub(
            super::inbox::size_of_publish(&self.shared.config, channel, payload),
            SeqCst,
        );
        if published.is_err() {
            self.shared.log.limited(Level::Error, "publish_full", || {
                "wsredis: a message of the host was not published: publish-queue-limit is reached".into()
            });
        }
    }

    fn forget_note(&mut self, receipt: &Receipt) {
        if let (Some(key), Some((channel, digest))) = (receipt.socket, receipt.note) {
            self.echo.forget(channel, digest, key);
        }
    }

    /// A message that was given to Redis did not get through, or nobody knows: its sender is told.
    pub(super) fn publish_failed(&mut self, receipt: &Receipt, why: &str) {
        let now = self.now;
        self.counters().publish_failed.add_shared(1);
        self.forget_note(receipt);
        self.shared.log.limited(Level::Warn, "publish_failed", || {
            format!("wsredis: a message for channel {:?} may be lost: {why}", receipt.channel)
        });
        let Some(key) = receipt.socket.map(Key::from) else { return };
        let Some(socket) = self.socket(key) else { return };
        if socket.variant.form == Form::Envelope {
            let mut notice = Vec::new();
            envelope::notice(&mut notice, Notice::Dropped, &receipt.channel);
            socket.queue_frame(OpCode::Data(Data::Text), &notice, now);
            self.make_dirty(key);
        } else {
            self.raw_gap(key, Cause::PublishFailed);
        }
    }
}
