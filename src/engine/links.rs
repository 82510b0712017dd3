//! A loop's two links to Redis: when they are served, and what it means for the loop that one comes
//! up or is lost.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use mio::Registry;
use mio::event::Event;

use super::due::Timer;
use super::event_loop::{EventLoop, PUBLISHER, SUBSCRIBER};
use super::inbox::{Command, Wire};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::log::Level;
use crate::redis::publisher::{Publisher, Receipt};
use crate::redis::subscriber::{Heard, Subscriber};
use crate::redis::{Change, Link, LinkState};
use crate::sys;
use crate::timer::{Alarm, Millis};

/// A channel that Redis refused (an ACL) is asked for again after this.
const RESUBSCRIBE_MS: u64 = 5_000;

/// The link that hears and the link that speaks.
pub(super) struct Links {
    pub subscriber: Subscriber,
    pub publisher: Publisher,
    /// The loop's, so that links can be taken out of the loop while it works for them.
    registry: Registry,
    /// What one batch is read into.
    buffer: Vec<u8>,
    alarms: [Alarm; 2],
    /// More may wait to be read.
    unread: [bool; 2],
}

impl Links {
    /// The links that `config` asks for: none with the embedded broker.
    pub fn new(config: &Config, registry: &Registry) -> Result<Option<Self>> {
        let Some(url) = &config.redis_url else { return Ok(None) };
        let registry = registry.try_clone().map_err(|e| Error::io("sharing epoll", &e))?;
        Ok(Some(Links {
            subscriber: Subscriber::new(config, Link::new(url, SUBSCRIBER, config)),
            publisher: Publisher::new(config, Link::new(url, PUBLISHER, config)),
            registry,
            buffer: vec![0; config.read_batch],
            alarms: Default::default(),
            unread: [false; 2],
        }))
    }

    fn link(&mut self, wire: Wire) -> &mut Link {
        match wire {
            Wire::Subscriber => &mut self.subscriber.link,
            Wire::Publisher => &mut self.publisher.link,
        }
    }

    /// May more wait to be read, that nobody will tell of again?
    pub fn has_more(&self) -> bool {
        self.unread.contains(&true)
    }

    /// Has Redis answered everything, and is nothing left to be said?
    pub fn is_settled(&self) -> bool {
        self.publisher.pending() == 0 && self.subscriber.is_settled()
    }

    /// Gives up what was said to Redis and may not have reached it.
    pub fn give_up_publishes(&mut self, now: Millis) -> VecDeque<Receipt> {
        self.publisher.give_up(&self.registry, now)
    }

    /// Gives the connection away that hears, if it can go on elsewhere. What was subscribed here is
    /// not any more, either way.
    pub fn give_subscriber(&mut self, now: Millis, pause_ms: u64) -> Option<(OwnedFd, LinkState)> {
        let Links { subscriber, registry, .. } = self;
        if !subscriber.link.is_up() {
            return None;
        }
        let settled = subscriber.is_settled();
        subscriber.forget();
        if !settled {
            subscriber.link.pause(registry, now, pause_ms);
            return None;
        }
        subscriber.link.export(registry, now, pause_ms)
    }

    /// Goes on with a connection that heard elsewhere.
    pub fn take_subscriber(&mut self, now: Millis, fd: OwnedFd, state: &LinkState) -> Result<()> {
        self.subscriber.forget();
        self.subscriber.link.import(&self.registry, now, fd, state)
    }

    /// How many descriptors are open.
    pub fn open(&self) -> u64 {
        u64::from(self.subscriber.link.is_open()) + u64::from(self.publisher.link.is_open())
    }

    /// How many links are not up.
    pub fn down(&self) -> u64 {
        u64::from(!self.subscriber.link.is_up()) + u64::from(!self.publisher.link.is_up())
    }
}

impl EventLoop {
    /// The kernel says that a link's descriptor is ready.
    pub(super) fn link_ready(&mut self, wire: Wire, event: &Event) {
        let Some(links) = &mut self.links else { return };
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            links.unread[wire as usize] = true;
        }
        if event.is_read_closed() || event.is_error() {
            links.link(wire).on_ending();
        }
        if event.is_writable() {
            let change = links.link(wire).on_writable(self.poll.registry(), self.now);
            self.link_changed(wire, change);
        }
    }

    /// A link's deadline has come.
    pub(super) fn link_due(&mut self, wire: Wire) {
        let Some(links) = &mut self.links else { return };
        links.alarms[wire as usize].rang();
        let change = links.link(wire).on_deadline(self.poll.registry(), self.now);
        self.link_changed(wire, change);
    }

    /// The addresses of the Redis host are known.
    pub(super) fn looked_up(&mut self, wire: Wire, addresses: io::Result<Vec<SocketAddr>>) {
        let Some(links) = &mut self.links else { return };
        let change = links.link(wire).looked_up(self.poll.registry(), self.now, addresses);
        self.link_changed(wire, change);
    }

    /// Reads one batch of each link that may have more. Its messages reach the sockets before the
    /// next batch is read.
    pub(super) fn read_links(&mut self) {
        // Out of the loop, so that the loop can work on what is heard.
        let Some(mut links) = self.links.take() else { return };
        let (mut heard, mut spoken) = (None, None);
        let mut failed = Vec::new();
        let Links { subscriber, publisher, registry, buffer, unread, .. } = &mut *links;
        if std::mem::take(&mut unread[Wire::Subscriber as usize]) {
            (unread[Wire::Subscriber as usize], heard) =
                subscriber.read(registry, self.now, buffer, |what| self.heard(what));
            self.spread(None);
        }
        if std::mem::take(&mut unread[Wire::Publisher as usize]) {
            (unread[Wire::Publisher as usize], spoken) =
                publisher
                    .read(registry, self.now, buffer, |receipt, why| failed.push((receipt, why)));
        }
        self.links = Some(links);
        for (receipt, why) in failed {
            self.publish_failed(&receipt, &why);
        }
        self.link_changed(Wire::Subscriber, heard);
        self.link_changed(Wire::Publisher, spoken);
    }

    fn heard(&mut self, what: Heard<'_>) {
        if !matches!(what, Heard::Message(..)) {
            self.spread(None);
        }
        match what {
            Heard::Message(channel, payload) => self.deliver(channel, payload),
            Heard::Subscribed(name) => {
                if let Some(channel) = self.hub.subscribed(name) {
                    self.confirmed(channel);
                }
            }
            Heard::Unsubscribed(name) => {
                if let Some(channel) = self.hub.unsubscribed(name) {
                    self.echo.forget_channel(channel);
                }
            }
            Heard::Refused(name, why) => {
                self.hub.refused(name);
                self.counters().subscribe_refused.add(1);
                self.shared.log.limited(Level::Error, "subscribe_refused", || {
                    format!(
                        "wsredis: channel {name:?} can not be heard, trying again in 5 s: {why}"
                    )
                });
                if self.resubscribe.at().is_none() {
                    let at = self.now + RESUBSCRIBE_MS;
                    self.timers.set(&mut self.resubscribe, Timer::Resubscribe, Some(at));
                }
            }
        }
    }

    /// Sends what the links are to carry, starts look-ups, and sets their deadlines.
    pub(super) fn serve_links(&mut self) {
        let Some(mut links) = self.links.take() else { return };
        let registry = &links.registry;
        let (mut heard, mut spoken) = (None, None);
        if links.subscriber.link.is_up() {
            let wanted = self.hub.take_wanted();
            links.subscriber.subscribe(wanted.into_iter().map(|(_, name)| name), self.now);
            heard = links.subscriber.link.flush(registry, self.now);
        }
        if links.publisher.link.is_up() {
            spoken = links.publisher.flush(registry, self.now);
        }
        self.links = Some(links);
        self.link_changed(Wire::Subscriber, heard);
        self.link_changed(Wire::Publisher, spoken);
        let Some(links) = &mut self.links else { return };
        for wire in [Wire::Subscriber, Wire::Publisher] {
            let link = links.link(wire);
            let lookup = link.take_lookup();
            let at = link.deadline();
            self.timers.set(&mut links.alarms[wire as usize], Timer::Link(wire), at);
            if let Some(host) = lookup {
                look_up(Arc::clone(&self.shared), self.number, wire, host);
            }
        }
    }

    /// Asks Redis to let go of a channel. False if there is nobody to ask.
    pub(super) fn unsubscribe(&mut self, name: &Rc<str>) -> bool {
        match &mut self.links {
            Some(links) if links.subscriber.link.is_up() => {
                links.subscriber.unsubscribe([Rc::clone(name)], self.now);
                true
            }
            _ => false,
        }
    }

    /// May a handshake's answer wait for its channels, because they will be heard in a moment?
    pub(super) fn is_promising(&self) -> bool {
        self.links.as_ref().is_some_and(|links| links.subscriber.link.is_promising())
    }

    fn link_changed(&mut self, wire: Wire, change: Option<Change>) {
        let name = match wire {
            Wire::Subscriber => "subscribing",
            Wire::Publisher => "publishing",
        };
        match change {
            None => {}
            Some(Change::Up) => {
                let text = format!("wsredis: {name} link to Redis is up");
                self.shared.log.line(Level::Info, &text);
            }
            Some(Change::Down(why)) => {
                self.counters().redis_lost.add(1);
                self.shared.log.limited(Level::Warn, "redis_lost", || {
                    format!("wsredis: {name} link to Redis is lost, sockets stay: {why}")
                });
                self.link_lost(wire, &why);
            }
            Some(Change::Failed(why)) => {
                self.shared.log.limited(Level::Warn, "redis_unreachable", || {
                    format!("wsredis: {name} link to Redis can not be opened, trying on: {why}")
                });
                self.link_lost(wire, &why);
            }
        }
    }

    fn link_lost(&mut self, wire: Wire, why: &str) {
        let Some(links) = &mut self.links else { return };
        match wire {
            Wire::Subscriber => {
                links.subscriber.forget();
                // No message will come any more that a note waits for.
                self.echo.clear();
                self.hub.link_lost(|_| ());
                self.release_all();
            }
            Wire::Publisher => {
                for receipt in links.publisher.take_unanswered() {
                    self.publish_failed(&receipt, why);
                }
            }
        }
    }
}

/// Looks a host up on a thread of its own: the system's resolver blocks, and the loop must not.
fn look_up(shared: Arc<super::local::Shared>, number: usize, wire: Wire, host: (String, u16)) {
    let failed = Arc::clone(&shared);
    let spawned = thread::Builder::new().name("wsredis-lookup".into()).spawn(move || {
        sys::block_signals();
        let addresses = host.to_socket_addrs().map(Iterator::collect);
        shared.ports[number].inbox.push_own(Command::LookedUp(wire, addresses));
    });
    if let Err(error) = spawned {
        failed.ports[number].inbox.push_own(Command::LookedUp(wire, Err(error)));
    }
}
