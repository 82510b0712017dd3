//! The deadlines of one loop, in order: the loop sleeps until the first and asks for those that are
//! due.
//!
//! Owned by a loop. It knows no clock: time is milliseconds of the loop's own, and comes in as a
//! parameter. An owner (a socket, a channel, a link) has at most one entry, held by its [`Alarm`],
//! so nothing here is ever stale and a loop with ten thousand idle sockets looks at none of them.

use std::collections::BTreeSet;

/// Milliseconds of the loop's own clock.
pub type Millis = u64;

/// An owner's place among the deadlines. Setting it again moves the entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Alarm(Option<std::num::NonZeroU64>);

impl Alarm {
    /// When it rings, if it is set.
    pub fn at(&self) -> Option<Millis> {
        self.0.map(|at| at.get() - 1)
    }
}

/// Deadlines by owner.
#[derive(Debug)]
pub struct Timers<K> {
    entries: BTreeSet<(Millis, K)>,
}

impl<K: Ord + Copy> Default for Timers<K> {
    fn default() -> Self {
        Timers { entries: BTreeSet::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Makes `alarm`, which belongs to `key`, ring at `at`, or not at all.
    pub fn set(&mut self, alarm: &mut Alarm, key: K, at: Option<Millis>) {
        if alarm.at() == at {
            return;
        }
        if let Some(old) = alarm.at() {
            self.entries.remove(&(old, key));
        }
        if let Some(at) = at {
            self.entries.insert((at, key));
        }
        alarm.0 = at.and_then(|at| std::num::NonZeroU64::new(at.saturating_add(1)));
    }

    /// Takes the deadlines of all owners that are meant. Their alarms must not be used again.
    pub fn take(&mut self, is_meant: impl Fn(&K) -> bool) -> Vec<(Millis, K)> {
        let all = std::mem::take(&mut self.entries).into_iter();
        let (taken, kept) = all.partition(|(_, key)| is_meant(key));
        self.entries = kept;
        Vec::from_iter::<BTreeSet<_>>(taken)
    }

    /// The first deadline.
    pub fn next(&self) -> Option<Millis> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes the first owner whose deadline is not after `now`. Its alarm must be told with
    /// [`Alarm::rang`].
    pub fn due(&mut self, now: Millis) -> Option<K> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, key)| key)
    }
}

impl Alarm {
    /// Says that [`Timers::due`] gave this alarm out.
    pub fn rang(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn an_owner_rings_once_at_its_last_deadline() {
        let mut timers = Timers::default();
        let mut alarm = Alarm::default();
        timers.set(&mut alarm, 7, Some(100));
        timers.set(&mut alarm, 7, Some(50));
        timers.set(&mut alarm, 7, Some(80));
        assert_eq!(timers.next(), Some(80));
        assert_eq!(timers.due(79), None);
        assert_eq!(timers.due(80), Some(7));
        alarm.rang();
        assert_eq!(timers.due(1000), None);
        timers.set(&mut alarm, 7, Some(0));
        assert_eq!(timers.due(0), Some(7));
    }

    #[test]
    fn an_alarm_that_is_set_to_nothing_never_rings() {
        let mut timers = Timers::default();
        let mut alarm = Alarm::default();
        timers.set(&mut alarm, 1, Some(5));
        timers.set(&mut alarm, 1, None);
        assert_eq!((timers.next(), alarm.at()), (None, None));
    }

    #[test]
    fn random_operations_agree_with_a_naive_list() {
        let mut random = crate::testing::dice(1);
        let mut timers = Timers::default();
        let mut alarms: Vec<Alarm> = (0..50).map(|_| Alarm::default()).collect();
        let mut twin: HashMap<usize, Millis> = HashMap::new();
        let mut now = 0;
        for _ in 0..20_000 {
            let key = random(50);
            match random(4) {
                0 => {
                    timers.set(&mut alarms[key], key, None);
                    twin.remove(&key);
                }
                1 | 2 => {
                    let at = now + random(100) as u64;
                    timers.set(&mut alarms[key], key, Some(at));
                    twin.insert(key, at);
                }
                _ => {
                    now += random(20) as u64;
                    let mut last = 0;
                    while let Some(key) = timers.due(now) {
                        let at = alarms[key].at().unwrap();
                        alarms[key].rang();
                        assert!(at >= last, "deadlines come in order");
                        last = at;
                        assert_eq!(twin.remove(&key), Some(at));
                    }
                    assert!(twin.values().all(|at| *at > now), "nothing that is due is kept");
                }
            }
            assert_eq!(timers.next(), twin.values().min().copied());
        }
    }
}
