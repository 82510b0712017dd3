//! The embedded broker: pub/sub inside one engine, without Redis.
//!
//! One value of the engine behind a mutex, with one bounded feed per loop. A publish takes the
//! lock, checks that every feed has room and appends the same shared payload to all: all or
//! nothing, one order for everyone, also for the loop that publishes, which hears itself through
//! its feed.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;

/// A message on its way to every loop.
#[derive(Debug)]
pub struct Published {
    /// The channel.
    pub channel: Box<str>,
    /// The payload.
    pub payload: Box<[u8]>,
}

impl Published {
    fn cost(&self) -> usize {
        self.channel.len() + self.payload.len() + size_of::<Self>()
    }
}

#[derive(Debug, Default)]
struct Feed {
    messages: VecDeque<Arc<Published>>,
    bytes: usize,
}

/// The feeds of all loops.
#[derive(Debug)]
pub struct Embedded {
    feeds: Mutex<Vec<Feed>>,
    limit: usize,
}

impl Embedded {
    /// A broker for so many loops, whose feeds hold `limit` bytes each.
    pub fn new(loops: usize, limit: usize) -> Self {
        let feeds = (0..loops).map(|_| Feed::default()).collect();
        Embedded { feeds: Mutex::new(feeds), limit }
    }

    /// Appends a message to every feed, or to none if one is full. Returns the loops whose feed was
    /// empty: they are to be woken.
    pub fn publish(&self, channel: &str, payload: &[u8]) -> Option<Vec<usize>> {
        let message = Arc::new(Published { channel: channel.into(), payload: payload.into() });
        let cost = message.cost();
        let mut feeds = self.feeds.lock();
        // An empty feed takes any message: the limit bounds what waits, not what a message may be.
        if feeds.iter().any(|feed| feed.bytes > 0 && feed.bytes + cost > self.limit) {
            return None;
        }
        let mut wake = Vec::new();
        for (number, feed) in feeds.iter_mut().enumerate() {
            if feed.messages.is_empty() {
                wake.push(number);
            }
            feed.messages.push_back(Arc::clone(&message));
            feed.bytes += cost;
        }
        Some(wake)
    }

    /// How many messages wait in a loop's feed.
    pub fn waiting(&self, number: usize) -> usize {
        self.feeds.lock()[number].messages.len()
    }

    /// Takes the first messages of a loop's feed, about `batch` bytes of them. Returns whether more
    /// wait.
    pub fn take(&self, number: usize, batch: usize) -> (Vec<Arc<Published>>, bool) {
        let feed = &mut self.feeds.lock()[number];
        let (mut taken, mut bytes) = (Vec::new(), 0);
        while bytes < batch
            && let Some(message) = feed.messages.pop_front()
        {
            bytes += message.cost();
            taken.push(message);
        }
        feed.bytes -= bytes;
        if feed.messages.is_empty() {
            feed.messages = VecDeque::new();
        }
        (taken, !feed.messages.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_reaches_every_feed_or_none() {
        let broker = Embedded::new(2, 1000);
        assert_eq!(broker.publish("a", &[0; 500]), Some(vec![0, 1]));
        assert_eq!(broker.publish("a", &[1; 300]), Some(vec![]));
        assert_eq!(broker.publish("a", &[2; 300]), None, "both feeds are full");
        let (taken, more) = broker.take(0, 1);
        assert_eq!((taken.len(), more), (1, true));
        assert_eq!(broker.publish("a", &[2; 300]), None, "one is still full");
        assert_eq!(broker.take(1, 10_000).0.len(), 2);
        assert_eq!(broker.publish("a", &[3; 300]), Some(vec![1]));
        let payloads = |number| -> Vec<u8> {
            broker.take(number, 10_000).0.iter().map(|message| message.payload[0]).collect()
        };
        assert_eq!((payloads(0), payloads(1)), (vec![1, 3], vec![3]));
    }

    #[test]
    fn an_empty_feed_takes_a_message_over_the_limit() {
        let broker = Embedded::new(1, 100);
        assert!(broker.publish("a", &[0; 500]).is_some());
        assert!(broker.publish("a", b"x").is_none());
    }
}
