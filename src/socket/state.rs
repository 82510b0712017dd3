//! A socket on its way to another process, or to another engine of this one: everything that it is,
//! as plain values. Its descriptor travels beside them, untouched.
//!
//! Times are differences: the clocks of two loops have nothing in common.

use std::ops::Deref;
use std::os::fd::OwnedFd;

use serde::{Deserialize, Serialize};

use super::{Frames, Key, Phase, Rights, Socket};
use crate::cause::Cause;
use crate::hub::Variant;
use crate::rate::Bucket;
use crate::timer::Millis;
use crate::write_queue::{QueueState, WriteQueue};
use crate::ws::message::Assembler;
#[cfg(test)]
use crate::{hub::Form, ws::deflate::Window};

/// Everything that a socket is but its descriptor.
#[derive(Debug, Serialize, Deserialize)]
pub struct SocketState {
    /// The id that its browser and its app know.
    pub id: String,
    /// What it hears, by name.
    pub channels: Vec<String>,
    /// What came and is not a whole message yet: the begin of its input from here on.
    pub input: Vec<u8>,
    /// In so many milliseconds it is to be closed, because it lost continuity.
    pub gap_in: Option<u64>,
    variant: Variant,
    phase: Phase,
    admitted: bool,
    cause: Option<Cause>,
    rights: Rights<Box<str>>,
    queue: QueueState,
    pong: Option<Box<[u8]>>,
    messages: Bucket,
    controls: Bucket,
    begun_ago: Option<u64>,
    heard_ago: u64,
    sent_ago: u64,
    pinged_ago: Option<u64>,
    expires_in: Option<u64>,
    limit_in: u64,
}

impl SocketState {
    /// How many bytes wait in it.
    pub fn bytes(&self) -> usize {
        self.input.len() + self.queue.len()
    }
}

#[cfg(test)]
impl SocketState {
    /// One with a different value in each field.
    pub fn sample() -> Self {
        SocketState {
            id: "id".into(),
            channels: vec!["a".into(), "b".into()],
            input: vec![1, 2, 3],
            gap_in: Some(300),
            variant: Variant { form: Form::Envelope, deflate: Window::new(11) },
            phase: Phase::Closing,
            admitted: true,
            cause: Some(Cause::Kicked),
            rights: Rights {
                publish: Box::new(["c".into()]),
                sender: Some("sender".into()),
                echo: true,
                mirror: false,
                latest: true,
                heartbeat: Some("heartbeat".into()),
                user: Some("user".into()),
                session: Some("session".into()),
                address: "address".into(),
            },
            queue: QueueState::sample(),
            pong: Some(Box::new([4, 5])),
            messages: Bucket::sample(306),
            controls: Bucket::sample(307),
            begun_ago: Some(308),
            heard_ago: 301,
            sent_ago: 302,
            pinged_ago: Some(303),
            expires_in: Some(304),
            limit_in: 305,
        }
    }
}

impl<Name: Deref<Target = str>> Rights<Name> {
    /// The same rights with names of another type.
    fn renamed<Other: for<'a> From<&'a str>>(self) -> Rights<Other> {
        Rights {
            publish: self.publish.iter().map(|name| Other::from(name)).collect(),
            sender: self.sender,
            echo: self.echo,
            mirror: self.mirror,
            latest: self.latest,
            heartbeat: self.heartbeat,
            user: self.user,
            session: self.session,
            address: self.address,
        }
    }
}

impl Socket {
    /// Gives the descriptor away as it is, and everything that there is to know beside it.
    /// `leftover` is input that was not fed to it yet.
    pub fn export(
        self,
        id: String,
        channels: Vec<String>,
        leftover: &[u8],
        gap_in: Option<u64>,
        now: Millis,
    ) -> (OwnedFd, SocketState) {
        let mut input = self.assembler.replay();
        input.extend_from_slice(leftover);
        let state = SocketState {
            id,
            channels,
            input,
            gap_in,
            variant: self.variant,
            phase: self.phase,
            admitted: self.admitted,
            cause: self.cause,
            rights: self.rights.renamed(),
            queue: self.queue.export(&Frames, now),
            pong: self.pong,
            messages: self.messages,
            controls: self.controls,
            begun_ago: self.assembler.begun().map(|at| now.saturating_sub(at)),
            heard_ago: now - self.heard_at,
            sent_ago: now - self.sent_at,
            pinged_ago: self.pinged_at.map(|at| now - at),
            expires_in: self.expires_at.map(|at| at.saturating_sub(now)),
            limit_in: self.limit_at.saturating_sub(now),
        };
        (self.fd, state)
    }

    /// A socket that goes on where the exported one was. What it hears, its input and its gap are
    /// its loop's to see to.
    pub fn import(fd: OwnedFd, key: Key, state: SocketState, now: Millis) -> Self {
        let begun = state.begun_ago.map(|ago| now.saturating_sub(ago));
        Socket {
            phase: state.phase,
            admitted: state.admitted,
            cause: state.cause,
            queue: WriteQueue::import(state.queue, now),
            pong: state.pong,
            messages: state.messages,
            controls: state.controls,
            assembler: begun.map(Assembler::begun_at).unwrap_or_default(),
            heard_at: now.saturating_sub(state.heard_ago),
            sent_at: now.saturating_sub(state.sent_ago),
            pinged_at: state.pinged_ago.map(|ago| now.saturating_sub(ago)),
            expires_at: state.expires_in.map(|left| now.saturating_add(left)),
            limit_at: now.saturating_add(state.limit_in),
            ..Socket::new(fd, key, state.variant, state.rights.renamed(), Vec::new(), now)
        }
    }
}
