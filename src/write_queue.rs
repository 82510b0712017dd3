//! Outgoing bytes that wait for one socket or link, and the shared segments they lie in.
//!
//! Owned by a loop, never by two. A message to a thousand sockets is encoded once into a
//! [`Segment`]; each socket's queue holds a range of it, and ranges that follow one another are one
//! entry: a burst of messages costs a socket one entry and one write. The first entry lies in the
//! queue itself, so that the common case, one write and empty again, never touches the heap. It
//! knows bytes and a channel number, nothing of websockets.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::meter;

/// Entries are gathered into one write up to this many bytes; a longer one is written where it
/// lies.
const GATHER: usize = 64 * 1024;

/// The channel number of bytes that belong to no channel: control frames, commands.
pub const NO_CHANNEL: u32 = u32::MAX;
/// The channel number of a handshake's answer, which is no frame.
pub const HANDSHAKE: u32 = u32::MAX - 1;
/// Beside a channel's number: the entry only tells what was left out of that channel.
const TOLD: u32 = 1 << 31;

/// Whole frames in one buffer that any number of queues share. It grows during a turn and never
/// changes otherwise; offset 0 is always a frame's begin.
#[derive(Clone, Debug, Default)]
pub struct Segment(Rc<RefCell<Bytes>>);

#[derive(Debug, Default)]
struct Bytes {
    bytes: Vec<u8>,
    share: meter::Share,
}

impl Segment {
    /// A segment that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        let mut share = meter::Share::default();
        share.set(bytes.capacity());
        Segment(Rc::new(RefCell::new(Bytes { bytes, share })))
    }

    /// Lets `write` append to the buffer; returns where that ends.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> u32 {
        let Bytes { bytes, share } = &mut *self.0.borrow_mut();
        write(bytes);
        share.set(bytes.capacity());
        bytes.len() as u32
    }

    /// Nothing more will be appended: gives back what it has too much, if anybody waits to write it.
    pub fn seal(self) {
        if Rc::strong_count(&self.0) > 1 {
            let Bytes { bytes, share } = &mut *self.0.borrow_mut();
            bytes.shrink_to_fit();
            share.set(bytes.capacity());
        }
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.0.borrow().bytes.len()
    }

    /// Does it hold nothing?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn is(&self, other: &Segment) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }
}

/// A range of a segment that waits.
#[derive(Debug)]
struct Entry {
    segment: Segment,
    from: u32,
    to: u32,
    channel: u32,
    /// Milliseconds of the loop, wrapping after 49 days: only differences count.
    queued_at: u32,
}

impl Entry {
    /// Takes what follows its own bytes, if `segment` does; returns whether it did.
    fn extend(&mut self, segment: &Segment, (from, to): (u32, u32), channel: u32) -> bool {
        let follows = self.to == from && self.channel == channel && self.segment.is(segment);
        if follows {
            self.to = to;
        }
        follows
    }

    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }

    /// Reads its bytes.
    fn with<T>(&self, read: impl FnOnce(&[u8]) -> T) -> T {
        read(&self.segment.0.borrow().bytes[self.from as usize..self.to as usize])
    }

    /// The channel that it belongs to, if any.
    fn channel(&self) -> Option<u32> {
        (self.channel < HANDSHAKE).then_some(self.channel & !TOLD)
    }

    /// Does it only tell what was left out?
    fn tells(&self) -> bool {
        self.channel().is_some() && self.channel & TOLD != 0
    }

    /// Lets go of a segment of which it is a small part: one that waits must not keep the bytes of
    /// many that were written long ago. `begin` is where its first unit begins in the segment.
    fn detach(&mut self, begin: u32) {
        if self.segment.len() > 4 * (self.to - begin) as usize {
            let bytes = self.segment.0.borrow().bytes[begin as usize..self.to as usize].to_vec();
            self.segment = Segment::new(bytes);
            (self.from, self.to) = (self.from - begin, self.to - begin);
        }
    }
}

/// What waits of one channel.
#[derive(Clone, Copy, Default)]
struct Waiting {
    /// Which entry is the newest.
    newest: usize,
    /// Where the last unit begins in it.
    begin: u32,
    /// How many units wait.
    count: u32,
    /// Something waits that tells what was left out.
    told: bool,
}

/// What a queue has that does not leave at once.
#[derive(Debug, Default)]
struct Rest {
    /// The entries behind the first.
    entries: VecDeque<Entry>,
    /// How many bytes these are.
    bytes: usize,
    share: meter::Share,
    /// The kernel refused bytes since the queue was last empty. Only such a queue can be too slow.
    blocked: bool,
}

impl Rest {
    fn push(&mut self, entry: Entry) {
        self.bytes += entry.len();
        self.entries.push_back(entry);
        self.share.set(self.entries.capacity() * size_of::<Entry>());
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.len();
        Some(entry)
    }

    /// Takes all entries; that the kernel refused bytes is not forgotten.
    fn take(&mut self) -> VecDeque<Entry> {
        let blocked = self.blocked;
        std::mem::replace(self, Rest { blocked, ..Rest::default() }).entries
    }
}

/// Where the units lie in a run of bytes that begins with one; what a unit is, the owner of the
/// queue knows.
pub trait Units {
    /// Where the unit that byte `at` lies in begins and ends; both are `at`, if it begins one.
    fn around(&self, bytes: &[u8], at: usize) -> (usize, usize);
    /// Where the last unit of a run of whole ones begins, and how many there are.
    fn last(&self, bytes: &[u8]) -> (usize, u32);
}

/// What waits for one descriptor. Empty, it owns no heap.
#[derive(Debug, Default)]
pub struct WriteQueue {
    /// Invariant: `None` only if `rest` has no entry.
    head: Option<Entry>,
    /// Boxed: most queues never have a second entry, and each socket would pay for an empty one.
    rest: Option<Box<Rest>>,
}

/// A queue on its way to another process.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct QueueState {
    /// What waits, from the begin of the unit that is half written.
    bytes: Vec<u8>,
    /// How many of the bytes were written already.
    written: u32,
    /// How many of the bytes are a handshake's answer; they come first.
    handshake: u32,
    blocked: bool,
    /// For how many milliseconds the oldest byte has waited.
    age: u32,
}

impl QueueState {
    /// How many bytes it holds.
    #[allow(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
impl QueueState {
    /// One with a different value in each field.
    pub fn sample() -> Self {
        QueueState { bytes: vec![1, 2], written: 300, handshake: 301, blocked: true, age: 302 }
    }
}

impl WriteQueue {
    /// What waits, as plain values.
    pub fn export(&self, units: &impl Units, now: u64) -> QueueState {
        let mut state =
            QueueState { blocked: self.is_blocked(), age: self.age(now), ..<_>::default() };
        let Some(head) = &self.head else { return state };
        state.bytes.reserve(self.bytes());
        if head.channel == HANDSHAKE {
            state.handshake = head.len() as u32;
        } else {
            let (segment, from) = (&head.segment.0.borrow().bytes, head.from as usize);
            let (begin, _) = units.around(segment, from);
            state.written = (from - begin) as u32;
            state.bytes.extend_from_slice(&segment[begin..from]);
        }
        for entry in self.entries() {
            entry.with(|bytes| state.bytes.extend_from_slice(bytes));
        }
        state
    }

    /// A queue that goes on where the exported one was.
    pub fn import(state: QueueState, now: u64) -> Self {
        let mut queue = WriteQueue::default();
        let begun = now.wrapping_sub(state.age.into());
        let mut answer = state.bytes;
        let frames = answer.split_off(answer.len().min(state.handshake as usize));
        for (bytes, from, channel) in [(answer, 0, HANDSHAKE), (frames, state.written, NO_CHANNEL)]
        {
            let to = bytes.len() as u32;
            if from < to {
                queue.push(&Segment::new(bytes), (from, to), channel, begun);
            }
        }
        if state.blocked && !queue.is_empty() {
            queue.block();
        }
        queue
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.head.iter().chain(self.rest.iter().flat_map(|rest| rest.entries.iter()))
    }

    /// Appends a range of `segment`. Returns whether the queue was empty.
    pub fn push(&mut self, segment: &Segment, range: (u32, u32), channel: u32, now: u64) -> bool {
        let (from, to) = range;
        let entry = || Entry { segment: segment.clone(), from, to, channel, queued_at: now as u32 };
        let Some(head) = &mut self.head else {
            self.head = Some(entry());
            return true;
        };
        match &mut self.rest {
            Some(rest) if !rest.entries.is_empty() => {
                let last = rest.entries.back_mut();
                match last.is_some_and(|last| last.extend(segment, range, channel)) {
                    true => rest.bytes += (to - from) as usize,
                    false => rest.push(entry()),
                }
            }
            _ if head.extend(segment, range, channel) => {}
            rest => rest.get_or_insert_default().push(entry()),
        }
        false
    }

    /// Appends bytes of this queue's own.
    pub fn push_bytes(&mut self, bytes: Vec<u8>, now: u64) -> bool {
        let len = bytes.len() as u32;
        self.push(&Segment::new(bytes), (0, len), NO_CHANNEL, now)
    }

    /// Does nothing wait?
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// How many bytes wait.
    pub fn bytes(&self) -> usize {
        self.head.as_ref().map_or(0, Entry::len) + self.rest.as_ref().map_or(0, |rest| rest.bytes)
    }

    /// Did the kernel refuse bytes since the queue was last empty?
    pub fn is_blocked(&self) -> bool {
        self.rest.as_ref().is_some_and(|rest| rest.blocked)
    }

    fn block(&mut self) {
        self.rest.get_or_insert_default().blocked = true;
    }

    /// For how many milliseconds the oldest byte has waited.
    pub fn age(&self, now: u64) -> u32 {
        self.head.as_ref().map_or(0, |entry| (now as u32).wrapping_sub(entry.queued_at))
    }

    /// Writes until the queue is empty or the kernel takes no more; returns whether it is empty. A
    /// short write counts as a refusal: epoll reports room again after either. `scratch` is any
    /// buffer; what it holds is lost.
    pub fn flush(
        &mut self,
        scratch: &mut Vec<u8>,
        mut write: impl FnMut(&[u8]) -> io::Result<usize>,
    ) -> io::Result<bool> {
        while let Some(head) = &self.head {
            let more = self.rest.as_ref().is_some_and(|rest| !rest.entries.is_empty());
            let gather = head.len() < GATHER && more;
            let result = if gather {
                self.gather(scratch);
                write(scratch).map(|n| (n, scratch.len()))
            } else {
                head.with(&mut write).map(|n| (n, head.len()))
            };
            match result {
                Ok((n, len)) => {
                    self.advance(n);
                    if n < len {
                        self.block();
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.block();
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.rest = None;
        Ok(true)
    }

    /// Copies the first entries together. The copy is of small frames into one warm buffer, far
    /// cheaper than a system call for each.
    fn gather(&self, scratch: &mut Vec<u8>) {
        scratch.clear();
        for entry in self.entries() {
            if !scratch.is_empty() && scratch.len() + entry.len() > GATHER {
                break;
            }
            entry.with(|bytes| scratch.extend_from_slice(bytes));
        }
    }

    /// Forgets the first `n` bytes.
    fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let Some(head) = &mut self.head else { return };
            if n < head.len() {
                head.from += n as u32;
                return;
            }
            n -= head.len();
            self.head = self.rest.as_mut().and_then(|rest| rest.pop());
        }
    }

    /// Forgets everything but the unit that is half written.
    pub fn truncate(&mut self, units: &impl Units) {
        self.head = self.take_begun(units);
        if let Some(rest) = &mut self.rest {
            rest.take();
        }
    }

    /// Takes the rest of the unit that is half written off the queue.
    fn take_begun(&mut self, units: &impl Units) -> Option<Entry> {
        let head = self.head.as_mut()?;
        if head.channel == HANDSHAKE {
            return self.head.take();
        }
        let segment = head.segment.clone();
        let (begin, end) = units.around(&segment.0.borrow().bytes, head.from as usize);
        let (begin, end) = (begin as u32, head.to.min(end as u32));
        let mut begun = Entry { segment, to: end, ..*head };
        head.from = end;
        if begun.len() == 0 {
            return None;
        }
        begun.detach(begin);
        Some(begun)
    }

    /// Forgets all but the newest unit of each channel. What belongs to no channel stays, and so
    /// does the unit that is half written.
    ///
    /// `tell` is asked once for each channel that has lost something: it is given the channel, how
    /// many units went just now, and whether what it said about this channel before was still
    /// waiting, which goes as well. What it says is put before the newest unit.
    pub fn keep_latest(
        &mut self,
        units: &impl Units,
        mut tell: impl FnMut(u32, u32, bool) -> Option<Vec<u8>>,
    ) {
        let begun = self.take_begun(units);
        let rest = self.rest.as_mut().map(|rest| rest.take()).unwrap_or_default();
        let head = self.head.take().filter(|head| head.len() > 0);
        let waiting: Vec<Entry> = head.into_iter().chain(rest).collect();
        let mut channels: HashMap<u32, Waiting> = HashMap::new();
        for (at, entry) in waiting.iter().enumerate() {
            let Some(channel) = entry.channel() else { continue };
            let found = channels.entry(channel).or_default();
            if entry.tells() {
                found.told = true;
            } else {
                let (begin, count) = entry.with(|bytes| units.last(bytes));
                (found.newest, found.begin) = (at, begin as u32);
                found.count += count;
            }
        }
        self.extend(begun);
        for (at, mut entry) in waiting.into_iter().enumerate() {
            if let Some(of_channel) = entry.channel().and_then(|channel| channels.get(&channel)) {
                if entry.tells() || at != of_channel.newest {
                    continue;
                }
                let gone = of_channel.count.saturating_sub(1);
                if gone > 0 || of_channel.told {
                    let said = tell(entry.channel, gone, of_channel.told).map(Segment::new);
                    self.extend(said.map(|segment| Entry {
                        to: segment.len() as u32,
                        from: 0,
                        segment,
                        channel: entry.channel | TOLD,
                        queued_at: entry.queued_at,
                    }));
                }
                entry.from += of_channel.begin;
                entry.detach(entry.from);
            }
            self.extend(Some(entry));
        }
    }

    /// Appends an entry as it is.
    fn extend(&mut self, entry: Option<Entry>) {
        let Some(entry) = entry else { return };
        match self.head {
            None => self.head = Some(entry),
            Some(_) => self.rest.get_or_insert_default().push(entry),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = WriteQueue::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write_at_most(
        limit: usize,
        out: &mut Vec<u8>,
    ) -> impl FnMut(&[u8]) -> io::Result<usize> + '_ {
        let mut left = limit;
        move |bytes| {
            if left == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            let n = bytes.len().min(left);
            left -= n;
            out.extend_from_slice(&bytes[..n]);
            Ok(n)
        }
    }

    /// Appends to a segment; returns the range.
    fn grow(segment: &Segment, bytes: &[u8]) -> (u32, u32) {
        let from = segment.len() as u32;
        (from, segment.append(|out| out.extend_from_slice(bytes)))
    }

    /// Units of so many bytes.
    struct Sized(usize);

    impl Units for Sized {
        fn around(&self, bytes: &[u8], at: usize) -> (usize, usize) {
            assert!(at <= bytes.len());
            (at / self.0 * self.0, at.div_ceil(self.0) * self.0)
        }

        fn last(&self, bytes: &[u8]) -> (usize, u32) {
            assert!(!bytes.is_empty() && bytes.len().is_multiple_of(self.0), "whole units");
            (bytes.len() - self.0, (bytes.len() / self.0) as u32)
        }
    }

    #[test]
    fn a_burst_on_one_channel_is_one_entry_and_one_write() {
        let segment = Segment::default();
        let mut queue = WriteQueue::default();
        for i in 0..1000u32 {
            let range = grow(&segment, &i.to_be_bytes());
            assert_eq!(queue.push(&segment, range, 3, 0), i == 0);
        }
        assert!(queue.rest.is_none());
        let mut writes = 0;
        let drained = queue.flush(&mut Vec::new(), |bytes| {
            writes += 1;
            assert_eq!(bytes.len(), 4000);
            Ok(bytes.len())
        });
        assert!(drained.unwrap());
        assert_eq!((writes, queue.bytes(), queue.is_blocked()), (1, 0, false));
    }

    #[test]
    fn a_message_that_is_left_out_splits_the_entry_and_still_is_one_write() {
        let segment = Segment::default();
        let mut queue = WriteQueue::default();
        for (i, text) in ["a", "b", "c"].iter().enumerate() {
            let range = grow(&segment, text.as_bytes());
            if i != 1 {
                queue.push(&segment, range, 3, 0);
            }
        }
        let mut out = Vec::new();
        let mut writes = 0;
        queue
            .flush(&mut Vec::new(), |bytes| {
                writes += 1;
                out.extend_from_slice(bytes);
                Ok(bytes.len())
            })
            .unwrap();
        assert_eq!((out.as_slice(), writes), (b"ac".as_slice(), 1));
    }

    #[test]
    fn the_age_is_that_of_the_oldest_byte_and_survives_the_wrap() {
        let mut queue = WriteQueue::default();
        queue.push_bytes(vec![1], u64::from(u32::MAX) - 5);
        queue.push_bytes(vec![2], u64::from(u32::MAX) + 10);
        assert_eq!(queue.age(u64::from(u32::MAX) + 95), 100);
    }

    #[test]
    fn truncate_keeps_the_half_written_unit_only() {
        for (written, left) in [(0, 0), (1, 3), (4, 0), (5, 3), (7, 1)] {
            let mut queue = WriteQueue::default();
            queue.push_bytes(b"AAAABBBBCCCC".to_vec(), 0);
            queue.push_bytes(b"DDDD".to_vec(), 0);
            let mut out = Vec::new();
            queue.flush(&mut Vec::new(), write_at_most(written, &mut out)).unwrap();
            queue.truncate(&Sized(4));
            assert_eq!(queue.bytes(), left, "{written} written");
            queue.push_bytes(b"close".to_vec(), 0);
            queue.flush(&mut Vec::new(), write_at_most(100, &mut out)).unwrap();
            assert_eq!(out.len(), written.div_ceil(4) * 4 + 5);
            assert!(out.ends_with(b"close"));
        }
    }

    #[test]
    fn a_queue_goes_on_in_another_process_where_it_was() {
        for written in 0..12 {
            let mut queue = WriteQueue::default();
            queue.push(&Segment::new(b"HTTP".to_vec()), (0, 4), HANDSHAKE, 100);
            let segment = Segment::new(b"xxxxAAAABBBB".to_vec());
            queue.push(&segment, (4, 12), 3, 110);
            let mut out = Vec::new();
            queue.flush(&mut Vec::new(), write_at_most(written, &mut out)).unwrap();
            let state = queue.export(&Sized(4), 150);
            let mut moved = WriteQueue::import(state, 7);
            assert_eq!((moved.bytes(), moved.age(7)), (queue.bytes(), queue.age(150)));
            assert!(moved.is_blocked());
            // Its units are still known.
            let mut twin = WriteQueue::import(moved.export(&Sized(4), 7), 7);
            twin.truncate(&Sized(4));
            let left = if written == 0 { 4 } else { (4 - written % 4) % 4 };
            assert_eq!(twin.bytes(), left, "{written}");
            moved.flush(&mut Vec::new(), write_at_most(100, &mut out)).unwrap();
            assert_eq!(out, b"HTTPAAAABBBB");
        }
        let empty = WriteQueue::import(WriteQueue::default().export(&Sized(4), 5), 5);
        assert!(empty.is_empty() && !empty.is_blocked());
    }

    #[test]
    fn only_the_newest_of_each_channel_stays_and_what_went_is_told_before_it() {
        for written in 0..=7 {
            let mut queue = WriteQueue::default();
            let one = Segment::new(b"A1A1A2A2A3A3".to_vec());
            let two = Segment::new(b"B1B1B2B2".to_vec());
            queue.push(&one, (0, 12), 1, 0);
            queue.push_bytes(b"PING".to_vec(), 0);
            queue.push(&two, (0, 8), 2, 0);
            queue.push(&Segment::new(b"A4A4".to_vec()), (0, 4), 1, 0);
            let mut out = Vec::new();
            queue.flush(&mut Vec::new(), write_at_most(written, &mut out)).unwrap();
            let mut asked = Vec::new();
            queue.keep_latest(&Sized(4), |channel, gone, told| {
                asked.push((channel, gone, told));
                Some(format!("-{channel}{gone}-").into_bytes())
            });
            // What was begun is written to its end.
            let begun = (written as u32).div_ceil(4);
            assert_eq!(asked, [(2, 1, false), (1, 3 - begun, false)]);
            // Another one comes: what was told and has not left is told anew.
            queue.push(&Segment::new(b"B3B3".to_vec()), (0, 4), 2, 0);
            let mut again = Vec::new();
            queue.keep_latest(&Sized(4), |channel, gone, told| {
                again.push((channel, gone, told));
                Some(format!("-{channel}{}-", gone + 1).into_bytes())
            });
            assert_eq!(again, [(1, 0, true), (2, 1, true)]);
            let bytes = queue.bytes();
            let mut rest = Vec::new();
            queue.flush(&mut Vec::new(), write_at_most(100, &mut rest)).unwrap();
            assert_eq!(bytes, rest.len());
            out.extend(rest);
            let expected = format!("{}PING-11-A4A4-22-B3B3", &"A1A1A2A2"[..4 * begun as usize]);
            assert_eq!(String::from_utf8(out).unwrap(), expected, "{written} written");
        }
    }

    #[test]
    fn what_stays_of_a_large_segment_does_not_keep_it() {
        let before = meter::held();
        for written in [0, 1, 5] {
            let mut queue = WriteQueue::default();
            queue.push(&Segment::new(vec![7; 40_000]), (0, 40_000), 1, 0);
            queue.push(&Segment::new(vec![8; 40_000]), (0, 40_000), 2, 0);
            let mut out = Vec::new();
            queue.flush(&mut Vec::new(), write_at_most(written, &mut out)).unwrap();
            assert!(meter::held() - before >= 80_000);
            queue.keep_latest(&Sized(4), |_, _, _| None);
            assert!(meter::held() - before < 500, "{}", meter::held() - before);
            // It still knows where the unit that was begun has begun.
            let state = queue.export(&Sized(4), 0);
            assert_eq!(state.written as usize, written % 4);
            queue.truncate(&Sized(4));
            assert_eq!(queue.bytes(), (4 - written % 4) % 4);
        }
        assert_eq!(meter::held(), before);
    }

    #[test]
    fn random_operations_agree_with_a_plain_byte_list() {
        let mut random = crate::testing::dice(42);
        let mut scratch = Vec::new();
        for _ in 0..300 {
            let mut queue = WriteQueue::default();
            let mut segments = vec![Segment::default()];
            let (mut twin, mut sent, mut next) = (Vec::new(), Vec::new(), 0u8);
            for _ in 0..200 {
                match random(4) {
                    0 => segments.push(Segment::default()),
                    1 | 2 => {
                        let segment = &segments[random(segments.len() as u64)];
                        let len = if random(20) == 0 { random(100_000) } else { random(10) };
                        let from = twin.len();
                        twin.extend((0..len).map(|_| {
                            next = next.wrapping_add(1);
                            next
                        }));
                        let range = grow(segment, &twin[from..]);
                        if len > 0 {
                            queue.push(segment, range, 0, 0);
                        }
                    }
                    _ => {
                        let limit = random(50_000);
                        let empty =
                            queue.flush(&mut scratch, write_at_most(limit, &mut sent)).unwrap();
                        assert_eq!(empty, queue.is_empty());
                        assert_eq!(empty, !queue.is_blocked());
                    }
                }
                assert_eq!(queue.bytes(), twin.len() - sent.len());
                assert_eq!(queue.is_empty(), queue.bytes() == 0);
            }
            assert!(queue.flush(&mut scratch, write_at_most(usize::MAX, &mut sent)).unwrap());
            assert_eq!(sent, twin);
            assert!(queue.rest.is_none(), "an empty queue owns no heap");
        }
    }

    #[test]
    fn the_sizes_that_an_idle_socket_pays_for() {
        assert_eq!(size_of::<Entry>(), 24);
        assert_eq!(size_of::<WriteQueue>(), 32);
    }
}
