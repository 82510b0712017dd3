//! What a listener has heard of a stream of numbered messages, and what is wrong with it.
//!
//! A pure value, owned by whoever listens. It knows no socket, no Redis and no clock.

use std::collections::BTreeSet;
use std::ops::AddAssign;

/// The sums of any number of listeners.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Messages that should have come.
    pub expected: u64,
    /// Messages that came, each arrival counted.
    pub delivered: u64,
    /// Messages that did not come although later ones did, or although there was time enough.
    pub lost: u64,
    /// Arrivals of a message that had come before.
    pub duplicated: u64,
    /// Messages that came after a later one.
    pub reordered: u64,
}

impl AddAssign for Verdict {
    fn add_assign(&mut self, other: Verdict) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
    }
}

/// One listener of one stream. Streams number their messages from 0.
#[derive(Clone, Debug, Default)]
pub struct Ear {
    /// The first message it answers for; what was sent while it joined is nobody's fault.
    first: u64,
    /// One more than the last message it knows of.
    next: u64,
    /// Whether `first` and `next` mean anything yet.
    began: bool,
    heard: u64,
    /// Below `next` and not come yet.
    missing: BTreeSet<u64>,
    duplicated: u64,
    reordered: u64,
}

impl Ear {
    /// A listener that answers for every message from the first.
    pub fn from_the_first() -> Ear {
        Ear { began: true, ..Ear::default() }
    }

    /// Makes a listener that has heard nothing yet answer for everything from `number` on: it has
    /// had time enough to join.
    pub fn oblige(&mut self, number: u64) {
        if !self.began {
            *self = Ear { first: number, next: number, began: true, ..Ear::default() };
        }
    }

    /// Whether it answers for what comes next.
    pub fn is_obliged(&self) -> bool {
        self.began
    }

    /// Whether it has heard anything.
    pub fn has_heard(&self) -> bool {
        self.heard > 0
    }

    /// A message has arrived.
    pub fn hear(&mut self, number: u64) {
        // The first arrival says where it joined, even if that was sent before it was obliged.
        if !self.began || (self.heard == 0 && number < self.next) {
            *self = Ear { first: number, next: number, began: true, ..Ear::default() };
        }
        self.heard += 1;
        if number >= self.next {
            self.missing.extend(self.next..number);
            self.next = number + 1;
        } else if self.missing.remove(&number) {
            self.reordered += 1;
        } else {
            self.duplicated += 1;
        }
    }

    /// Whether nothing of a stream that has sent `sent` messages can still come.
    pub fn is_complete(&self, sent: u64) -> bool {
        !self.began || (self.next >= sent && self.missing.is_empty())
    }

    /// The sums so far; what is behind the last arrival may still come. With `sent` it is final:
    /// what of so many messages has not come is lost.
    pub fn verdict(&self, sent: Option<u64>) -> Verdict {
        let end = if self.began { sent.unwrap_or(0).max(self.next) } else { self.first };
        Verdict {
            expected: end - self.first,
            delivered: self.heard,
            lost: self.missing.len() as u64 + (end - self.next),
            duplicated: self.duplicated,
            reordered: self.reordered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(ear: Ear, numbers: impl IntoIterator<Item = u64>) -> Ear {
        numbers.into_iter().fold(ear, |mut ear, number| {
            ear.hear(number);
            ear
        })
    }

    fn sums(expected: u64, delivered: u64, faults: [u64; 3]) -> Verdict {
        let [lost, duplicated, reordered] = faults;
        Verdict { expected, delivered, lost, duplicated, reordered }
    }

    #[test]
    fn what_came_once_and_in_order_is_not_blamed() {
        let ear = heard(Ear::default(), 7..20);
        assert_eq!(ear.verdict(Some(20)), sums(13, 13, [0; 3]));
        assert!(ear.is_complete(20) && !ear.is_complete(21));
    }

    #[test]
    fn a_planted_loss_is_found() {
        let ear = heard(Ear::default(), [5, 6, 9]);
        assert_eq!(ear.verdict(None), sums(5, 3, [2, 0, 0]));
        assert!(!ear.is_complete(10));
    }

    #[test]
    fn a_lost_tail_is_found_once_the_verdict_is_final() {
        let ear = heard(Ear::default(), 0..5);
        assert_eq!(ear.verdict(None), sums(5, 5, [0; 3]));
        assert_eq!(ear.verdict(Some(8)), sums(8, 5, [3, 0, 0]));
    }

    #[test]
    fn a_planted_duplicate_is_found() {
        let ear = heard(Ear::from_the_first(), [0, 1, 1, 2, 0]);
        assert_eq!(ear.verdict(Some(3)), sums(3, 5, [0, 2, 0]));
    }

    #[test]
    fn a_planted_reorder_is_found_and_is_no_loss() {
        let ear = heard(Ear::from_the_first(), [0, 2, 1, 3]);
        assert_eq!(ear.verdict(Some(4)), sums(4, 4, [0, 0, 1]));
        assert!(ear.is_complete(4));
    }

    #[test]
    fn who_answers_from_the_first_has_lost_what_was_before_its_first_arrival() {
        assert_eq!(heard(Ear::from_the_first(), 3..5).verdict(None), sums(5, 2, [3, 0, 0]));
    }

    #[test]
    fn who_never_hears_anything_is_blamed_once_it_is_obliged() {
        let mut ear = Ear::default();
        assert_eq!(ear.verdict(Some(9)), sums(0, 0, [0; 3]));
        assert!(ear.is_complete(9));
        ear.oblige(4);
        assert_eq!(ear.verdict(Some(9)), sums(5, 0, [5, 0, 0]));
        assert!(!ear.is_complete(9));
    }

    #[test]
    fn what_was_on_its_way_while_it_joined_is_no_duplicate() {
        let mut ear = Ear::default();
        ear.oblige(4);
        assert_eq!(heard(ear, 3..9).verdict(Some(9)), sums(6, 6, [0; 3]));
    }

    #[test]
    fn to_oblige_later_forgets_nothing() {
        let mut ear = heard(Ear::default(), [1, 3]);
        ear.oblige(9);
        assert_eq!(ear.verdict(None), sums(3, 2, [1, 0, 0]));
    }
}
