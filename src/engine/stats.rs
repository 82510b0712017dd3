//! What is counted, by each loop alone; whoever asks adds the loops up.
//!
//! Counters are atomics written by one thread and read by any: no lock, no shared cache line
//! between loops.

use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::cause::{Cause, Refusal};

/// A number that its loop writes; the host's own messages are added to the first loop's.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds. Only for a count that no other thread writes: it costs as little as a plain number.
    pub fn add(&self, n: u64) {
        self.set(self.get().wrapping_add(n));
    }

    /// Adds to a count that several threads write.
    pub fn add_shared(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }

    /// Subtracts, from a count of what there is now. Only where no other thread writes.
    pub fn sub(&self, n: u64) {
        self.set(self.get().wrapping_sub(n));
    }

    /// Replaces.
    pub fn set(&self, n: u64) {
        self.0.store(n, Relaxed);
    }

    /// Reads.
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// The counters of one loop. Those named in the plural of a thing are what there is now,
        /// the others totals.
        #[derive(Debug, Default)]
        #[repr(align(128))]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: Count,)*
            closed: [Count; Cause::ALL.len()],
        }

        impl Counters {
            /// Each counter with its name.
            fn named(&self) -> impl Iterator<Item = (&'static str, &Count)> {
                [$((stringify!($name), &self.$name)),*].into_iter()
            }
        }
    };
}

counters! {
    /// Sockets held now.
    sockets,
    /// Bytes of memory that the sockets held now own, without what waits to be written.
    socket_bytes,
    /// Bytes of memory that wait in the sockets held now: messages to be written, each once however
    /// many it is for, and parts of messages that have come.
    waiting_bytes,
    /// Channels now, lingering ones too.
    channels,
    /// Channels that have listeners and are not heard, now.
    channels_unheard,
    /// Open connections to Redis, now.
    redis_connections,
    /// Links to Redis that should be up and are not, now.
    redis_down,
    /// Sockets adopted.
    adopted,
    /// Messages that came for a channel with listeners.
    messages,
    /// Messages queued for a socket: one message to a hundred sockets counts a hundred.
    delivered,
    /// Messages queued and then left out for a newer one (`slow` is `latest` in the grant).
    dropped,
    /// Frames that were compressed: one for each variant of a message, however many hear it.
    compressed,
    /// Bytes of these before.
    compressed_from,
    /// Bytes of these after.
    compressed_to,
    /// Messages from browsers.
    received,
    /// Messages from browsers that their grant does not let go anywhere.
    received_dropped,
    /// Messages given to Redis or the embedded broker.
    published,
    /// Messages that are known or feared not to have got through.
    publish_failed,
    /// Sockets told that a channel may have lost messages.
    gaps_told,
    /// Raw sockets not told, because of on-gap = ignore.
    gaps_ignored,
    /// Times that a link to Redis was lost.
    redis_lost,
    /// Channels that Redis refused to subscribe.
    subscribe_refused,
}

impl Counters {
    /// The sockets closed for `cause`.
    pub fn closed(&self, cause: Cause) -> &Count {
        &self.closed[cause as usize]
    }
}

/// The handshakes that were refused. The host refuses most of them before a loop hears of them, so
/// they are counted for all loops together.
#[derive(Debug, Default)]
pub struct Refusals([Count; Refusal::ALL.len()]);

impl Refusals {
    /// The handshakes refused for `refusal`.
    pub fn of(&self, refusal: Refusal) -> &Count {
        &self.0[refusal as usize]
    }
}

/// The loops added up, as one JSON object.
pub fn json(loops: &[&Counters], refusals: &Refusals) -> String {
    let mut text = format!("{{\"loops\":{}", loops.len());
    for (index, (name, _)) in Counters::default().named().enumerate() {
        let sum: u64 =
            loops.iter().filter_map(|c| c.named().nth(index)).map(|(_, n)| n.get()).sum();
        let _ = write!(text, ",\"{name}\":{sum}");
    }
    let closed = |cause: &Cause| loops.iter().map(|c| c.closed(*cause).get()).sum();
    table(&mut text, "closed", Cause::ALL.iter().map(|cause| (cause.name(), closed(cause))));
    let refused = Refusal::ALL.iter().map(|refusal| (refusal.name(), refusals.of(*refusal).get()));
    table(&mut text, "refused", refused);
    text.push('}');
    text
}

fn table(text: &mut String, name: &str, rows: impl Iterator<Item = (&'static str, u64)>) {
    let rows: Vec<String> = rows.map(|(name, n)| format!("\"{name}\":{n}")).collect();
    let _ = write!(text, ",\"{name}\":{{{}}}", rows.join(","));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loops_are_added_up() {
        let loops = [Counters::default(), Counters::default()];
        loops[0].sockets.add(3);
        loops[1].sockets.add(4);
        loops[1].closed(Cause::Slow).add(2);
        let refusals = Refusals::default();
        refusals.of(Refusal::Origin).add(5);
        let text = json(&[&loops[0], &loops[1]], &refusals);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(value["loops"], 2);
        assert_eq!(value["sockets"], 7);
        assert_eq!(value["closed"]["slow"], 2);
        assert_eq!(value["refused"]["origin"], 5);
        assert_eq!(value["refused"]["full"], 0);
    }
}
