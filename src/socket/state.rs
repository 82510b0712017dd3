//! A socket on its way to another process, or to another engine of this one: everything that it is,
//! as plain values. Its descriptor travels beside them, untouched.
//!
//! Times are differences: the clocks of two loops have nothing in common.

use std::os::fd::OwnedFd;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use super::{Frames, Identity, KeptIdentity, Key, NEVER, Phase, Rare, Rights, Socket};
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
    rights: RightsState,
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

/// What a socket keeps of its grant.
#[derive(Debug, Serialize, Deserialize)]
struct RightsState {
    publish: Box<[Box<str>]>,
    sender: Option<Box<str>>,
    echo: bool,
    mirror: bool,
    latest: bool,
    heartbeat: Option<Box<str>>,
    user: Option<Box<str>>,
    session: Option<Box<str>>,
    address: Box<str>,
}

impl RightsState {
    fn of(rights: &Rights, identity: Identity<'_>) -> Self {
        RightsState {
            publish: rights.publish.iter().map(|name| Box::from(&**name)).collect(),
            sender: identity.sender.map(Box::from),
            echo: rights.echo,
            mirror: rights.mirror,
            latest: rights.latest,
            heartbeat: rights.heartbeat.clone(),
            user: identity.user.map(Box::from),
            session: identity.session.map(Box::from),
            address: identity.address.into(),
        }
    }
}

impl SocketState {
    /// How its messages are put on the wire.
    pub fn variant(&self) -> Variant {
        self.variant
    }

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
            rights: RightsState {
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
        let heard_ago = now.saturating_sub(self.heard_at.near(now));
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
            rights: RightsState::of(&self.rights, self.identity()),
            queue: self.queue.export(&Frames, now),
            pong: self.rare.and_then(|rare| rare.pong),
            messages: self.messages,
            controls: self.controls,
            begun_ago: self.assembler.begun().map(|at| now.saturating_sub(at)),
            heard_ago,
            sent_ago: now.saturating_sub(self.sent_at.near(now)),
            pinged_ago: self.pinged.then_some(heard_ago),
            expires_in: Some(self.expires_at.saturating_sub(now))
                .filter(|_| self.expires_at != NEVER),
            limit_in: self.limit_at.near(now).saturating_sub(now),
        };
        (self.fd, state)
    }

    /// A socket that goes on where the exported one was; `share` finds its rights among those of others. What
    /// it hears, its input and its gap are its loop's to see to.
    pub fn import(
        fd: OwnedFd,
        key: Key,
        state: SocketState,
        share: impl FnOnce(Rights) -> Rc<Rights>,
        now: Millis,
    ) -> Self {
        let RightsState { publish, sender, user, session, address, .. } = &state.rights;
        let identity = KeptIdentity::from(Identity {
            sender: sender.as_deref(),
            user: user.as_deref(),
            session: session.as_deref(),
            address,
        });
        let rights = Rights {
            publish: publish.iter().map(|name| Rc::from(&**name)).collect(),
            echo: state.rights.echo,
            mirror: state.rights.mirror,
            latest: state.rights.latest,
            heartbeat: state.rights.heartbeat,
        };
        // Who has no seat gives none back, nor rights.
        let rights = if state.admitted { share(rights) } else { Rc::new(rights) };
        let begun = state.begun_ago.map(|ago| now.saturating_sub(ago));
        let rare = state.pong.map(|pong| Rare { pong: Some(pong), ..Rare::default() });
        let heard_ago = state.pinged_ago.unwrap_or(state.heard_ago);
        Socket {
            phase: state.phase,
            admitted: state.admitted,
            cause: state.cause,
            queue: WriteQueue::import(state.queue, now),
            rare: rare.map(Box::new),
            messages: state.messages,
            controls: state.controls,
            assembler: begun.map(Assembler::begun_at).unwrap_or_default(),
            pinged: state.pinged_ago.is_some(),
            heard_at: now.saturating_sub(heard_ago).into(),
            sent_at: now.saturating_sub(state.sent_ago).into(),
            expires_at: state.expires_in.map_or(NEVER, |left| now.saturating_add(left)),
            limit_at: now.saturating_add(state.limit_in).into(),
            ..Socket::new(fd, key, state.variant, rights, identity, Vec::new(), now)
        }
    }
}
