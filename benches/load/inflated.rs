//! Compressed messages, each inflated once, however many sockets it comes to.
//!
//! A pure value, owned by the crowd.

use std::collections::HashMap;

use flate2::{Decompress, FlushDecompress};

/// So many messages are remembered.
const KEPT: usize = 4096;
/// What every message would end with, RFC 7692 §7.2.2.
const END: [u8; 4] = [0, 0, 0xff, 0xff];
const LONGEST: usize = 16 << 20;

/// What was inflated so far.
#[derive(Default)]
pub struct Inflated {
    messages: HashMap<Box<[u8]>, Vec<u8>>,
}

impl Inflated {
    /// The message that these bytes are; nothing, if they are none.
    pub fn of(&mut self, bytes: &[u8]) -> &[u8] {
        if !self.messages.contains_key(bytes) {
            if self.messages.len() == KEPT {
                self.messages.clear();
            }
            self.messages.insert(bytes.into(), inflate(bytes));
        }
        &self.messages[bytes]
    }
}

fn inflate(bytes: &[u8]) -> Vec<u8> {
    let mut stream = Decompress::new(false);
    let mut message = Vec::with_capacity(bytes.len() * 4 + 64);
    let input = [bytes, &END].concat();
    while (stream.total_in() as usize) < input.len() && message.len() < LONGEST {
        message.reserve(message.capacity());
        let rest = &input[stream.total_in() as usize..];
        if stream.decompress_vec(rest, &mut message, FlushDecompress::Sync).is_err() {
            return Vec::new();
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_inflated_whatever_came_before() {
        let mut inflated = Inflated::default();
        // RFC 7692 §7.2.3.1: "Hello", compressed.
        let hello = [0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00];
        for _ in 0..2 {
            assert_eq!(inflated.of(&hello), b"Hello");
            assert_eq!(inflated.of(&[0xff; 5]), b"");
        }
    }
}
