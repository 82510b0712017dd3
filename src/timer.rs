//! The deadlines of one loop, in order: the loop sleeps until the first and asks for those that are
//! due.
//!
//! Owned by a loop. It knows no clock: time is milliseconds of the loop's own, and comes in as a
//! parameter. An owner (a socket, a channel, a link) has at most one entry, held by its [`Alarm`],
//! so nothing here is ever stale and a loop with ten thousand idle sockets looks at none of them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU64;

/// Milliseconds of the loop's own clock.
pub type Millis = u64;

/// A time in half the room, for what is never more than 24 days away: only differences count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment(u32);

impl From<Millis> for Moment {
    fn from(at: Millis) -> Self {
        Moment(at as u32) // Cut on purpose: the rest is known from any time near it.
    }
}

impl Moment {
    /// The time that it stands for, of all the one nearest to `now`.
    pub fn near(self, now: Millis) -> Millis {
        let ahead = self.0.wrapping_sub(now as u32) as i32;
        now.saturating_add_signed(ahead.into())
    }
}

/// A deadline that may be so late instead of `at`: by at most a 256th of the wait. So thousands that
/// wait for long ring at a few dozen times, and the loop wakes up for all of one time at once.
pub fn rounded(at: Millis, now: Millis) -> Millis {
    let share = at.saturating_sub(now) / 256;
    at.checked_next_multiple_of(share.checked_ilog2().map_or(1, |log| 1 << log)).unwrap_or(at)
}

/// An owner's place among the deadlines. Setting it again moves the entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Alarm(Option<NonZeroU64>);

impl Alarm {
    /// When it rings, if it is set.
    pub fn at(&self) -> Option<Millis> {
        self.0.map(|at| at.get() - 1)
    }
}

/// Owners by deadline.
#[derive(Debug)]
pub struct Timers<K> {
    /// Invariant: no set is empty.
    owners: BTreeMap<Millis, BTreeSet<K>>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Timers { owners: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Makes `alarm`, which belongs to `key`, ring at `at`, or not at all.
    pub fn set(&mut self, alarm: &mut Alarm, key: K, at: Option<Millis>) {
        if alarm.at() == at {
            return;
        }
        if let Some(old) = alarm.at()
            && let Entry::Occupied(mut owners) = self.owners.entry(old)
        {
            owners.get_mut().remove(&key);
            if owners.get().is_empty() {
                owners.remove();
            }
        }
        if let Some(at) = at {
            self.owners.entry(at).or_default().insert(key);
        }
        alarm.0 = at.and_then(|at| NonZeroU64::new(at.saturating_add(1)));
    }

    /// Takes the deadlines of all owners that are meant. Their alarms must not be used again.
    pub fn take(&mut self, is_meant: impl Fn(&K) -> bool) -> Vec<(Millis, K)> {
        let mut taken = Vec::new();
        self.owners.retain(|at, owners| {
            taken.extend(owners.iter().filter(|key| is_meant(key)).map(|key| (*at, *key)));
            owners.retain(|key| !is_meant(key));
            !owners.is_empty()
        });
        taken
    }

    /// The first deadline.
    pub fn next(&self) -> Option<Millis> {
        self.owners.first_key_value().map(|(at, _)| *at)
    }

    /// Takes the first owner whose deadline is not after `now`. Its alarm must be told with
    /// [`Alarm::rang`].
    pub fn due(&mut self, now: Millis) -> Option<K> {
        let mut first = self.owners.first_entry().filter(|first| *first.key() <= now)?;
        let key = first.get_mut().pop_first();
        if first.get().is_empty() {
            first.remove();
        }
        key
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
    fn a_moment_is_the_time_that_it_was_made_of_for_24_days() {
        const DAYS: i64 = 24 * 24 * 3_600 * 1_000;
        for now in [1 << 40, (1 << 40) + u64::from(u32::MAX), (1 << 41) - 1, u64::MAX - (1 << 33)] {
            for ahead in [0, 1, -1, 1_000, -1_000, DAYS, -DAYS] {
                let at = now.saturating_add_signed(ahead);
                assert_eq!(Moment::from(at).near(now), at);
            }
        }
        // What is longer ago is some other time, and no panic.
        Moment::from(0).near(1 << 31);
        assert_eq!(Moment::from(u64::MAX).near(0), 0);
    }

    #[test]
    fn a_rounded_deadline_is_late_by_a_256th_of_the_wait_and_never_early() {
        let mut random = crate::testing::dice(7);
        for _ in 0..10_000 {
            let now = random(1 << 40) as u64;
            let wait = (random(1 << 30) as u64) >> random(30);
            let at = rounded(now + wait, now);
            assert!((now + wait..=now + wait + wait / 256).contains(&at), "{now} + {wait}: {at}");
        }
        assert_eq!(rounded(u64::MAX, 5), u64::MAX);
        assert_eq!(rounded(3, 5), 3, "what is over is over");
        let around = |at: u64| (0..256).map(|i| rounded(at + i, at - 25_000)).collect::<Vec<_>>();
        let mut times = around(1 << 40);
        times.dedup();
        assert!(times.len() <= 5, "of 256 ms in 25 s, a few are left: {times:?}");
    }

    #[test]
    fn what_is_taken_rings_no_more_and_the_rest_does() {
        let mut timers = Timers::default();
        for key in 0..10 {
            timers.set(&mut Alarm::default(), key, Some(key / 3));
        }
        let taken = timers.take(|key| key % 2 == 0 || *key == 9);
        assert_eq!(taken, [(0, 0), (0, 2), (1, 4), (2, 6), (2, 8), (3, 9)]);
        let rest: Vec<_> = std::iter::from_fn(|| timers.due(10)).collect();
        assert_eq!((rest, timers.next()), (vec![1, 3, 5, 7], None));
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
