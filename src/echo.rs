//! Which coming messages are a socket's own, so that it does not hear them: by counting, without
//! touching payloads.
//!
//! Owned by a loop. Before a socket that also hears the channel publishes, the loop notes (channel,
//! digest, socket). The first equal message of that channel takes exactly one note, for that socket
//! only; equal content from others still arrives. Two sockets that send the same text at once may
//! swap notes: each then hears the text once, which no browser can tell from the exact thing. The
//! digest is keyed, so nobody can choose payloads that collide.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// The notes of one loop. A socket is any number that its owner never reuses.
#[derive(Debug, Default)]
pub struct Notes {
    key: RandomState,
    /// Invariant: no queue is empty, and no inner map is.
    channels: HashMap<u32, HashMap<u64, VecDeque<u64>>>,
}

impl Notes {
    /// Notes that `socket` is about to publish `payload` on `channel`. Returns the digest, for
    /// [`Notes::forget`].
    pub fn note(&mut self, channel: u32, payload: &[u8], socket: u64) -> u64 {
        let digest = self.key.hash_one(payload);
        self.channels.entry(channel).or_default().entry(digest).or_default().push_back(socket);
        digest
    }

    /// Whose message this is, if it was noted; the note is gone.
    pub fn take(&mut self, channel: u32, payload: &[u8]) -> Option<u64> {
        if self.channels.is_empty() || !self.channels.contains_key(&channel) {
            return None;
        }
        let digest = self.key.hash_one(payload);
        let socket = *self.channels.get(&channel)?.get(&digest)?.front()?;
        self.forget(channel, digest, socket);
        Some(socket)
    }

    /// Removes one note: its message will not come.
    pub fn forget(&mut self, channel: u32, digest: u64, socket: u64) {
        let Some(notes) = self.channels.get_mut(&channel) else { return };
        if let Some(sockets) = notes.get_mut(&digest) {
            if let Some(at) = sockets.iter().position(|s| *s == socket) {
                sockets.remove(at);
            }
            if sockets.is_empty() {
                notes.remove(&digest);
            }
        }
        if notes.is_empty() {
            self.channels.remove(&channel);
        }
    }

    /// Removes all notes of a channel: what was noted may never come, or not be told apart any
    /// more.
    pub fn forget_channel(&mut self, channel: u32) {
        self.channels.remove(&channel);
    }

    /// Does no message come back that is somebody's own?
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Removes all notes: the link that was to bring the messages is gone.
    pub fn clear(&mut self) {
        self.channels.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_taken_once_and_by_its_channel_and_content_only() {
        let mut notes = Notes::default();
        notes.note(1, b"hi", 10);
        assert_eq!(notes.take(2, b"hi"), None);
        assert_eq!(notes.take(1, b"ho"), None);
        assert_eq!(notes.take(1, b"hi"), Some(10));
        assert_eq!(notes.take(1, b"hi"), None, "the same content from others arrives");
        assert!(notes.channels.is_empty());
    }

    #[test]
    fn a_failed_publish_takes_its_note_along() {
        let mut notes = Notes::default();
        let digest = notes.note(1, b"hi", 10);
        notes.note(1, b"hi", 11);
        notes.forget(1, digest, 10);
        assert_eq!(notes.take(1, b"hi"), Some(11));
        notes.forget(1, digest, 10);
        assert!(notes.channels.is_empty());
    }

    /// What a browser can observe: with every socket hearing the channel, each hears every message
    /// but exactly as many of each content as it sent itself.
    #[test]
    fn in_random_histories_every_socket_misses_exactly_what_it_sent() {
        let mut random = crate::testing::dice(7);
        for _ in 0..2_000 {
            let mut notes = Notes::default();
            let mut in_redis: VecDeque<u8> = VecDeque::new();
            let (mut sent, mut heard) = ([[0i32; 3]; 4], [[0i32; 3]; 4]);
            let mut published = [0i32; 3];
            for _ in 0..40 {
                let content = random(3) as u8;
                match random(3) {
                    0 => {
                        let socket = random(4);
                        notes.note(1, &[content], socket as u64);
                        sent[socket][content as usize] += 1;
                        in_redis.push_back(content);
                    }
                    1 => in_redis.push_back(content),
                    _ => deliver(&mut notes, &mut in_redis, &mut published, &mut heard),
                }
            }
            while !in_redis.is_empty() {
                deliver(&mut notes, &mut in_redis, &mut published, &mut heard);
            }
            for socket in 0..4 {
                for content in 0..3 {
                    let own = sent[socket][content];
                    assert_eq!(heard[socket][content], published[content] - own);
                }
            }
            assert!(notes.channels.is_empty());
        }
    }

    fn deliver(
        notes: &mut Notes,
        in_redis: &mut VecDeque<u8>,
        published: &mut [i32; 3],
        heard: &mut [[i32; 3]; 4],
    ) {
        let Some(content) = in_redis.pop_front() else { return };
        published[content as usize] += 1;
        let own = notes.take(1, &[content]);
        for (socket, heard) in heard.iter_mut().enumerate() {
            if own != Some(socket as u64) {
                heard[content as usize] += 1;
            }
        }
    }
}
