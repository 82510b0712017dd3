//! What the server puts on the wire, taken apart by hand: a client library would already judge it.

use std::io::{ErrorKind, Read};

/// One frame of the server: its first byte and its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub first: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(first: u8, payload: impl AsRef<[u8]>) -> Self {
        Frame { first, payload: payload.as_ref().to_vec() }
    }

    /// A close frame.
    pub fn close(code: u16, reason: &str) -> Self {
        Frame::new(0x88, [&code.to_be_bytes()[..], reason.as_bytes()].concat())
    }

    /// The code of a close frame; 1005 if it has none.
    pub fn code(&self) -> Option<u16> {
        let code = self.payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code));
        (self.first == 0x88).then_some(code)
    }
}

/// The whole frames at the beginning of some bytes, and what is behind them.
pub fn frames(mut bytes: &[u8]) -> (Vec<Frame>, &[u8]) {
    let mut frames = Vec::new();
    while let [first, second, rest @ ..] = bytes {
        // A server's frame is not masked, so that the second byte is the length alone.
        let (len, rest) = match second {
            0..126 => (usize::from(*second), rest),
            126 => match rest.split_first_chunk::<2>() {
                Some((len, rest)) => (usize::from(u16::from_be_bytes(*len)), rest),
                None => break,
            },
            127 => match rest.split_first_chunk::<8>() {
                Some((len, rest)) => (u64::from_be_bytes(*len) as usize, rest),
                None => break,
            },
            _ => panic!("a masked frame of the server: {bytes:x?}"),
        };
        let Some((payload, rest)) = rest.split_at_checked(len) else { break };
        frames.push(Frame::new(*first, payload));
        bytes = rest;
    }
    (frames, bytes)
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Shut down: everything was sent.
    Fin,
    Reset,
}

/// Reads to the end, or up to the deadline of the stream, which is no end.
pub fn read_to_end(stream: &mut impl Read) -> (Vec<u8>, Option<End>) {
    let (mut bytes, mut buffer) = (Vec::new(), [0; 16 * 1024]);
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return (bytes, Some(End::Fin)),
            Ok(n) => bytes.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return (bytes, Some(End::Reset));
            }
            Err(_) => return (bytes, None),
        }
    }
}
