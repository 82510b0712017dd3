//! The engine's message machine, fed by hand.

use std::ops::ControlFlow;

use wsredis::cause::Cause;
use wsredis::ws::deflate::Inflater;
use wsredis::ws::message::{Assembler, Incoming};

/// What a machine handed out, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Text(String),
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>),
}

impl Got {
    /// What came, unless it is only counted.
    fn of(incoming: Incoming<'_>) -> Option<Self> {
        Some(match incoming {
            Incoming::Text(text) => Got::Text(String::from_utf8(text.into()).unwrap()),
            Incoming::Binary(payload) => Got::Binary(payload.into()),
            Incoming::Ping(payload) => Got::Ping(payload.into()),
            Incoming::Pong(payload) => Got::Pong(payload.into()),
            Incoming::Close(code) => Got::Close(code),
            Incoming::TinyFragment => return None,
        })
    }
}

/// Feeds bytes as the engine does, with an inflater if permessage-deflate was agreed on: behind a close frame nothing
/// is looked at.
pub fn feed_with(
    machine: &mut Assembler,
    inflater: Option<&mut Inflater>,
    bytes: &[u8],
    max: usize,
) -> (Vec<Got>, Result<(), Cause>) {
    let mut got = Vec::new();
    let fed = machine.feed(&mut bytes.to_vec(), max, inflater, &mut |incoming| {
        got.extend(Got::of(incoming));
        match got.last() {
            Some(Got::Close(_)) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    (got, fed)
}

/// The same without permessage-deflate.
pub fn feed(machine: &mut Assembler, bytes: &[u8], max: usize) -> (Vec<Got>, Result<(), Cause>) {
    feed_with(machine, None, bytes, max)
}
