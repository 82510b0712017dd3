//! Outgoing bytes that wait for one socket or link, and the shared segments they lie in.
//!
//! Owned by a loop, never by two. A message to a thousand sockets is encoded once into a
//! [`Segment`]; each socket's queue holds a range of it, and ranges that follow one another are one
//! entry: a burst of messages costs a socket one entry and one write. The first entry lies in the
//! queue itself, so that the common case, one write and empty again, never touches the heap. It
//! knows bytes and a channel number, nothing of websockets.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// Entries are gathered into one write up to this many bytes; a longer one is written where it
/// lies.
const GATHER: usize = 64 * 1024;

/// The channel number of bytes that belong to no channel: control frames, commands.
pub const NO_CHANNEL: u32 = u32::MAX;
/// The channel number of a handshake's answer, which is no frame.
pub const HANDSHAKE: u32 = u32::MAX - 1;

/// Whole frames in one buffer that any number of queues share. It grows during a turn and never
/// changes otherwise; offset 0 is always a frame's begin.
#[derive(Clone, Debug, Default)]
pub struct Segment(Rc<RefCell<Vec<u8>>>);

impl Segment {
    /// A segment that holds `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Segment(Rc::new(RefCell::new(bytes)))
    }

    /// Lets `write` append to the buffer; returns the range that was added.
    pub fn append(&self, write: impl FnOnce(&mut Vec<u8>)) -> (u32, u32) {
        let mut bytes = self.0.borrow_mut();
        let from = bytes.len() as u32;
        write(&mut bytes);
        (from, bytes.len() as u32)
    }

    /// How many bytes it holds.
    pub fn len(&self) -> usize {
        self.0.borrow().len()
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
    fn len(&self) -> usize {
        (self.to - self.from) as usize
    }
}

/// What waits for one descriptor. Empty, it owns no heap.
#[derive(Debug, Default)]
pub struct WriteQueue {
    /// Invariant: `None` only if `rest` is empty.
    head: Option<Entry>,
    /// Boxed: most queues never have a second entry, and each socket would pay for an empty one.
    #[allow(clippy::box_collection)]
    rest: Option<Box<VecDeque<Entry>>>,
    bytes: usize,
    /// The kernel refused bytes since the queue was last empty. Only such a queue can be too slow.
    blocked: bool,
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
    /// What waits, as plain values. `boundary` tells where the unit that a byte lies in begins; it
    /// is given the segment and the byte.
    pub fn export(&self, boundary: impl FnOnce(&[u8], usize) -> usize, now: u64) -> QueueState {
        let mut state = QueueState { blocked: self.blocked, age: self.age(now), ..<_>::default() };
        let Some(head) = &self.head else { return state };
        state.bytes.reserve(self.bytes);
        if head.channel == HANDSHAKE {
            state.handshake = head.len() as u32;
        } else {
            let (segment, from) = (head.segment.0.borrow(), head.from as usize);
            let begin = boundary(&segment, from).min(from);
            state.written = (from - begin) as u32;
            state.bytes.extend_from_slice(&segment[begin..from]);
        }
        for entry in self.entries() {
            let bytes = entry.segment.0.borrow();
            state.bytes.extend_from_slice(&bytes[entry.from as usize..entry.to as usize]);
        }
        state
    }

    /// A queue that goes on where the exported one was.
    pub fn import(state: QueueState, now: u64) -> Self {
        let mut queue = WriteQueue { blocked: state.blocked, ..WriteQueue::default() };
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
        queue.blocked &= !queue.is_empty();
        queue
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.head.iter().chain(self.rest.iter().flat_map(|rest| rest.iter()))
    }

    /// Appends a range of `segment`. Returns whether the queue was empty.
    pub fn push(&mut self, segment: &Segment, range: (u32, u32), channel: u32, now: u64) -> bool {
        let (from, to) = range;
        self.bytes += (to - from) as usize;
        let was_empty = self.head.is_none();
        let last = match self.rest.as_mut().and_then(|rest| rest.back_mut()) {
            Some(last) => Some(last),
            None => self.head.as_mut(),
        };
        if let Some(last) = last
            && last.to == from
            && last.channel == channel
            && last.segment.is(segment)
        {
            last.to = to;
            return false;
        }
        let entry = Entry { segment: segment.clone(), from, to, channel, queued_at: now as u32 };
        if was_empty {
            self.head = Some(entry);
        } else {
            self.rest.get_or_insert_default().push_back(entry);
        }
        was_empty
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
        self.bytes
    }

    /// Did the kernel refuse bytes since the queue was last empty?
    pub fn is_blocked(&self) -> bool {
        self.blocked
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
            let gather = head.len() < GATHER && self.rest.as_ref().is_some_and(|r| !r.is_empty());
            let result = if gather {
                self.gather(scratch);
                write(scratch).map(|n| (n, scratch.len()))
            } else {
                let bytes = head.segment.0.borrow();
                write(&bytes[head.from as usize..head.to as usize]).map(|n| (n, head.len()))
            };
            match result {
                Ok((n, len)) => {
                    self.advance(n);
                    if n < len {
                        self.blocked = true;
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.blocked = true;
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        self.blocked = false;
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
            let bytes = entry.segment.0.borrow();
            scratch.extend_from_slice(&bytes[entry.from as usize..entry.to as usize]);
        }
    }

    /// Forgets the first `n` bytes.
    fn advance(&mut self, mut n: usize) {
        self.bytes -= n;
        while n > 0 {
            let Some(head) = &mut self.head else { return };
            if n < head.len() {
                head.from += n as u32;
                return;
            }
            n -= head.len();
            self.head = self.rest.as_mut().and_then(|rest| rest.pop_front());
        }
        if self.head.is_none() {
            self.rest = None;
        }
    }

    /// Forgets everything but the unit that is half written. `boundary` tells where the unit that a
    /// byte lies in ends (the byte itself, if it begins one); it is given the segment, the byte and
    /// the channel.
    pub fn truncate(&mut self, boundary: impl FnOnce(&[u8], usize, u32) -> usize) {
        self.rest = None;
        if let Some(head) = &mut self.head {
            let end = boundary(&head.segment.0.borrow(), head.from as usize, head.channel);
            head.to = head.to.min(end as u32).max(head.from);
            if head.len() == 0 {
                self.head = None;
            }
        }
        self.bytes = self.head.as_ref().map_or(0, Entry::len);
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

    #[test]
    fn a_burst_on_one_channel_is_one_entry_and_one_write() {
        let segment = Segment::default();
        let mut queue = WriteQueue::default();
        for i in 0..1000u32 {
            let range = segment.append(|bytes| bytes.extend_from_slice(&i.to_be_bytes()));
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
            let range = segment.append(|bytes| bytes.extend_from_slice(text.as_bytes()));
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
        // Units of four bytes: the boundary is the next multiple of four.
        let boundary = |_: &[u8], at: usize, _: u32| at.div_ceil(4) * 4;
        for (written, left) in [(0, 0), (1, 3), (4, 0), (5, 3), (7, 1)] {
            let mut queue = WriteQueue::default();
            queue.push_bytes(b"AAAABBBBCCCC".to_vec(), 0);
            queue.push_bytes(b"DDDD".to_vec(), 0);
            let mut out = Vec::new();
            queue.flush(&mut Vec::new(), write_at_most(written, &mut out)).unwrap();
            queue.truncate(boundary);
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
            let state = queue.export(|_, at| at / 4 * 4, 150);
            let mut moved = WriteQueue::import(state, 7);
            assert_eq!((moved.bytes(), moved.age(7)), (queue.bytes(), queue.age(150)));
            assert!(moved.is_blocked());
            // Its units are still known.
            let mut twin = WriteQueue::import(moved.export(|_, at| at / 4 * 4, 7), 7);
            twin.truncate(|bytes, at, channel| match channel {
                HANDSHAKE => bytes.len(),
                _ => at.div_ceil(4) * 4,
            });
            let left = if written == 0 { 4 } else { (4 - written % 4) % 4 };
            assert_eq!(twin.bytes(), left, "{written}");
            moved.flush(&mut Vec::new(), write_at_most(100, &mut out)).unwrap();
            assert_eq!(out, b"HTTPAAAABBBB");
        }
        let empty = WriteQueue::import(WriteQueue::default().export(|_, _| 0, 5), 5);
        assert!(empty.is_empty() && !empty.is_blocked());
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
                        let range = segment.append(|bytes| {
                            for _ in 0..len {
                                next = next.wrapping_add(1);
                                bytes.push(next);
                            }
                            twin.extend_from_slice(&bytes[bytes.len() - len..]);
                        });
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
        assert_eq!(size_of::<WriteQueue>(), 48);
    }
}
