//! Who listens to what: the channels of one loop, their listeners, and how far each channel's
//! subscription is.
//!
//! Owned by a loop; pure. Two maps are always changed together: channel to sockets, grouped by the
//! variant they want their messages in, and socket to channels. Both sides know the other's place,
//! so that leaving a channel of ten thousand listeners costs no search. The hub is the truth about
//! subscriptions: after a lost link the subscriber asks it what is wanted.

use std::collections::HashMap;
use std::rc::Rc;

use serde::{Deserialize, Serialize};
use slab::Slab;

use crate::ws::deflate::Window;

/// A channel's number inside its loop. Reused after the channel is gone.
pub type ChannelId = u32;

/// What is made of a message's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Form {
    /// The bare payload: text if it is UTF-8, else binary.
    #[default]
    Raw,
    /// The bare payload, always binary.
    Binary,
    /// `wsredis.v1`: a JSON text frame that names the channel.
    Envelope,
}

/// How a message is put on the wire; encoded once per variant that anyone listens in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Variant {
    /// What is in its frames.
    pub form: Form,
    /// How they are compressed, if at all.
    pub deflate: Option<Window>,
}

impl From<Form> for Variant {
    /// Without compression.
    fn from(form: Form) -> Self {
        Variant { form, deflate: None }
    }
}

/// How far a channel's subscription is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Has listeners; nobody was asked to subscribe yet.
    Wanted,
    /// Has listeners; the request is on its way.
    Sent,
    /// Has listeners and is heard.
    Confirmed,
    /// The last listener left a moment ago; still subscribed (`confirmed`) or about to be.
    Lingering {
        /// Was the subscription confirmed?
        confirmed: bool,
    },
    /// The request to unsubscribe is on its way.
    Leaving,
}

/// A channel on its way to another process. Its listeners travel with their sockets.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelState {
    /// Its name.
    pub name: String,
    /// Is it heard?
    pub confirmed: bool,
    /// Continuity was lost and its listeners are not told yet.
    pub gap: bool,
}

/// The sockets that hear a channel in one variant.
#[derive(Debug)]
pub struct Group {
    /// How they want it.
    pub variant: Variant,
    /// Their indexes in the loop.
    pub sockets: Vec<u32>,
}

#[derive(Debug)]
struct Channel {
    name: Rc<str>,
    state: State,
    /// Requests without an answer. Only the last answer says how things stand: the earlier ones are
    /// history.
    unanswered: u32,
    /// Continuity was lost since the listeners were told that they hear this channel.
    gap: bool,
    /// Invariant: each variant at most once; no group is empty.
    groups: Vec<Group>,
}

impl State {
    /// Does somebody listen who can not hear yet?
    fn is_unheard(self) -> bool {
        matches!(self, State::Wanted | State::Sent)
    }
}

/// One channel of a socket, and its place in the group there.
#[derive(Clone, Copy, Debug)]
struct Member {
    channel: ChannelId,
    place: u32,
}

/// What a socket hears. Most hear one channel: that one lies here.
#[derive(Debug)]
enum Membership {
    One(Member),
    Some(Box<[Member]>),
}

impl Membership {
    fn members(&self) -> &[Member] {
        match self {
            Membership::One(member) => std::slice::from_ref(member),
            Membership::Some(members) => members,
        }
    }

    /// The one of this channel.
    fn of(&mut self, channel: ChannelId) -> Option<&mut Member> {
        match self {
            Membership::One(member) => Some(member).filter(|member| member.channel == channel),
            Membership::Some(members) => members.iter_mut().find(|m| m.channel == channel),
        }
    }
}

impl Default for Membership {
    /// It hears nothing.
    fn default() -> Self {
        Membership::Some(Box::default())
    }
}

impl FromIterator<Member> for Membership {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let members: Box<[Member]> = members.into_iter().collect();
        match *members {
            [one] => Membership::One(one),
            _ => Membership::Some(members),
        }
    }
}

/// What the last listener's leaving asks of the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The channel is gone; nobody had asked for it.
    Gone(ChannelId),
    /// The channel lingers: ask [`Hub::linger_over`] after a while.
    Lingers(ChannelId),
}

/// The channels and listeners of one loop.
#[derive(Debug, Default)]
pub struct Hub {
    names: HashMap<Rc<str>, ChannelId>,
    channels: Slab<Channel>,
    /// By socket index.
    memberships: Vec<Membership>,
    /// Channels that may be in [`State::Wanted`]; the others are skipped when it is taken.
    wanted: Vec<ChannelId>,
    /// How many channels have listeners and are not heard (wanted or sent).
    unheard: usize,
}

impl Hub {
    /// Lets `socket` hear `names`, which must not repeat one. Each socket joins once.
    pub fn join(&mut self, socket: u32, variant: Variant, names: &[String]) {
        let membership = names
            .iter()
            .map(|name| {
                let channel = self.intern(name);
                Member { channel, place: self.add_listener(channel, variant, socket) }
            })
            .collect();
        if self.memberships.len() <= socket as usize {
            make_room(&mut self.memberships);
            self.memberships.resize_with(socket as usize + 1, Membership::default);
        }
        self.memberships[socket as usize] = membership;
    }

    fn intern(&mut self, name: &str) -> ChannelId {
        if let Some(id) = self.names.get(name) {
            return *id;
        }
        let name: Rc<str> = name.into();
        if self.channels.len() == self.channels.capacity() {
            self.channels.reserve_exact(self.channels.len() / 8 + 4);
        }
        let id = self.channels.insert(Channel {
            name: Rc::clone(&name),
            state: State::Wanted,
            unanswered: 0,
            gap: false,
            groups: Vec::new(),
        }) as ChannelId;
        self.names.insert(name, id);
        self.wanted.push(id);
        self.unheard += 1;
        id
    }

    fn set_state(&mut self, id: ChannelId, state: State) {
        let old = std::mem::replace(&mut self.channels[id as usize].state, state);
        self.unheard += usize::from(state.is_unheard());
        self.unheard -= usize::from(old.is_unheard());
    }

    /// Adds to the channel's group; the first listener of a channel on its way out makes it wanted
    /// again.
    fn add_listener(&mut self, id: ChannelId, variant: Variant, socket: u32) -> u32 {
        match self.channels[id as usize].state {
            State::Lingering { confirmed: true } => self.set_state(id, State::Confirmed),
            State::Lingering { confirmed: false } => self.set_state(id, State::Sent),
            State::Leaving => {
                self.set_state(id, State::Wanted);
                self.wanted.push(id);
            }
            State::Wanted | State::Sent | State::Confirmed => {}
        }
        let channel = &mut self.channels[id as usize];
        let group = match channel.groups.iter().position(|group| group.variant == variant) {
            Some(at) => &mut channel.groups[at],
            None => {
                channel.groups.reserve_exact(1); // Rarely is there another.
                channel.groups.push(Group { variant, sockets: Vec::new() });
                channel.groups.last_mut().expect("one was pushed")
            }
        };
        make_room(&mut group.sockets);
        group.sockets.push(socket);
        (group.sockets.len() - 1) as u32
    }

    /// Takes `socket` out of all its channels; `left` hears of each channel that lost its last
    /// listener.
    pub fn leave(&mut self, socket: u32, mut left: impl FnMut(Left)) {
        let Some(membership) = self.memberships.get_mut(socket as usize) else { return };
        for member in std::mem::take(membership).members() {
            self.remove_listener(*member, socket);
            if let Some(what) = self.emptied(member.channel) {
                left(what);
            }
        }
        while self.memberships.last().is_some_and(|last| last.members().is_empty()) {
            self.memberships.pop();
        }
        shrink(&mut self.memberships);
    }

    /// Removes from the channel's group: the last one of the group moves to the free place, and is
    /// told.
    fn remove_listener(&mut self, member: Member, socket: u32) {
        let groups = &mut self.channels[member.channel as usize].groups;
        let is_its = |group: &Group| group.sockets.get(member.place as usize) == Some(&socket);
        let Some(at) = groups.iter().position(is_its) else { return };
        let sockets = &mut groups[at].sockets;
        sockets.swap_remove(member.place as usize);
        if let Some(moved) = sockets.get(member.place as usize)
            && let Some(m) = self.memberships[*moved as usize].of(member.channel)
        {
            m.place = member.place;
        }
        shrink(sockets);
        if sockets.is_empty() {
            groups.swap_remove(at);
        }
    }

    fn emptied(&mut self, id: ChannelId) -> Option<Left> {
        let channel = &mut self.channels[id as usize];
        if !channel.groups.is_empty() {
            return None;
        }
        channel.gap = false;
        match channel.state {
            State::Wanted if channel.unanswered == 0 => {
                self.remove(id);
                Some(Left::Gone(id))
            }
            // An UNSUBSCRIBE is under way, and nobody has asked to undo it yet.
            State::Wanted => {
                self.set_state(id, State::Leaving);
                None
            }
            state @ (State::Sent | State::Confirmed) => {
                self.set_state(id, State::Lingering { confirmed: state == State::Confirmed });
                Some(Left::Lingers(id))
            }
            State::Lingering { .. } | State::Leaving => None,
        }
    }

    fn remove(&mut self, id: ChannelId) {
        let channel = self.channels.remove(id as usize);
        self.unheard -= usize::from(channel.state.is_unheard());
        self.names.remove(&channel.name);
        if self.channels.is_empty() {
            self.channels = Slab::new();
            self.names.shrink_to_fit();
            self.wanted = Vec::new();
        }
    }

    /// The channel has lingered long enough: if nobody came back it is leaving now, and its name is
    /// returned, for the UNSUBSCRIBE.
    pub fn linger_over(&mut self, id: ChannelId) -> Option<Rc<str>> {
        if !matches!(self.channels.get(id as usize)?.state, State::Lingering { .. }) {
            return None;
        }
        self.set_state(id, State::Leaving);
        let channel = &mut self.channels[id as usize];
        channel.unanswered += 1;
        Some(Rc::clone(&channel.name))
    }

    /// Takes the channels that are wanted; each counts as asked for (sent) from here on.
    pub fn take_wanted(&mut self) -> Vec<(ChannelId, Rc<str>)> {
        let mut taken = Vec::new();
        for id in std::mem::take(&mut self.wanted) {
            if let Some(channel) = self.channels.get_mut(id as usize)
                && channel.state == State::Wanted
            {
                channel.state = State::Sent; // Still unheard: the count stays.
                channel.unanswered += 1;
                taken.push((id, Rc::clone(&channel.name)));
            }
        }
        taken
    }

    /// The answer to a SUBSCRIBE came. Returns the channel if it is heard from here on.
    pub fn subscribed(&mut self, name: &str) -> Option<ChannelId> {
        let (id, channel) = self.answered(name)?;
        if channel.unanswered != 0 {
            return None;
        }
        match channel.state {
            State::Sent => {
                self.set_state(id, State::Confirmed);
                Some(id)
            }
            State::Lingering { .. } => {
                self.set_state(id, State::Lingering { confirmed: true });
                None
            }
            _ => None,
        }
    }

    /// The answer to an UNSUBSCRIBE came. Returns the channel if that was the end of it.
    pub fn unsubscribed(&mut self, name: &str) -> Option<ChannelId> {
        let (id, channel) = self.answered(name)?;
        if channel.state == State::Leaving && channel.unanswered == 0 {
            self.remove(id);
            return Some(id);
        }
        None
    }

    fn answered(&mut self, name: &str) -> Option<(ChannelId, &mut Channel)> {
        let id = *self.names.get(name)?;
        let channel = &mut self.channels[id as usize];
        channel.unanswered = channel.unanswered.saturating_sub(1);
        Some((id, channel))
    }

    /// The SUBSCRIBE for this channel was refused: it is wanted again, but only [`Hub::want_all`]
    /// asks for it.
    pub fn refused(&mut self, name: &str) {
        if let Some((id, channel)) = self.answered(name)
            && channel.unanswered == 0
        {
            match channel.state {
                State::Sent => {
                    channel.gap = true;
                    self.set_state(id, State::Wanted);
                }
                State::Lingering { .. } => self.remove(id),
                State::Wanted | State::Confirmed | State::Leaving => {}
            }
        }
    }

    /// Asks again for every channel that is wanted.
    pub fn want_all(&mut self) {
        self.wanted.clear();
        let wanted = self.channels.iter().filter(|(_, channel)| channel.state == State::Wanted);
        self.wanted.extend(wanted.map(|(id, _)| id as ChannelId));
    }

    /// The link is gone and every subscription with it: channels with listeners are wanted again
    /// and have a gap; the others are no more, and `gone` hears of them.
    pub fn link_lost(&mut self, mut gone: impl FnMut(ChannelId)) {
        let ids: Vec<_> = self.channels.iter().map(|(id, _)| id as ChannelId).collect();
        for id in ids {
            let channel = &mut self.channels[id as usize];
            channel.unanswered = 0;
            if channel.groups.is_empty() {
                self.remove(id);
                gone(id);
            } else {
                channel.gap = true;
                self.set_state(id, State::Wanted);
            }
        }
        self.want_all();
    }

    /// All channels, as plain values. Those that are leaving are not among them.
    pub fn export(&self) -> Vec<ChannelState> {
        let of = |(id, channel): (usize, &Channel)| ChannelState {
            name: channel.name.to_string(),
            confirmed: self.is_confirmed(id as ChannelId),
            gap: channel.gap,
        };
        self.channels.iter().filter(|(_, c)| c.state != State::Leaving).map(of).collect()
    }

    /// A channel that is heard already and has no listener yet: it lingers.
    pub fn import_heard(&mut self, name: &str) -> ChannelId {
        let id = self.intern(name);
        self.set_state(id, State::Lingering { confirmed: true });
        id
    }

    /// Listeners of this channel were told that they are heard before that was so.
    pub fn mark_gap(&mut self, id: ChannelId) {
        self.channels[id as usize].gap = true;
    }

    /// Takes the mark that continuity was lost.
    pub fn take_gap(&mut self, id: ChannelId) -> bool {
        std::mem::take(&mut self.channels[id as usize].gap)
    }

    /// The channel of that name, if anyone listens or lately did.
    pub fn find(&self, name: &str) -> Option<ChannelId> {
        self.names.get(name).copied()
    }

    /// The name of a channel.
    pub fn name(&self, id: ChannelId) -> &str {
        &self.channels[id as usize].name
    }

    /// A name to keep: the channel's own, if there is one of that name.
    pub fn shared_name(&self, name: &str) -> Rc<str> {
        self.names.get_key_value(name).map_or_else(|| name.into(), |(name, _)| Rc::clone(name))
    }

    /// Is the channel heard?
    pub fn is_confirmed(&self, id: ChannelId) -> bool {
        matches!(
            self.channels[id as usize].state,
            State::Confirmed | State::Lingering { confirmed: true }
        )
    }

    /// Who hears the channel, by variant.
    pub fn groups(&self, id: ChannelId) -> &[Group] {
        &self.channels[id as usize].groups
    }

    /// Everyone who hears the channel.
    pub fn listeners(&self, id: ChannelId) -> impl Iterator<Item = u32> {
        self.groups(id).iter().flat_map(|group| group.sockets.iter().copied())
    }

    /// What a socket hears.
    pub fn channels_of(&self, socket: u32) -> impl Iterator<Item = ChannelId> {
        let members = self.memberships.get(socket as usize).map(Membership::members);
        members.unwrap_or_default().iter().map(|member| member.channel)
    }

    /// Does the socket hear the channel?
    pub fn hears(&self, socket: u32, id: ChannelId) -> bool {
        self.channels_of(socket).any(|channel| channel == id)
    }

    /// How many channels there are, lingering ones too.
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Is there no channel?
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// How many channels have listeners and are not heard.
    pub fn unheard(&self) -> usize {
        self.unheard
    }
}

/// Makes room for one more: an eighth, where a list alone would double. It is copied a few times more,
/// and what is not used yet is memory, too.
fn make_room<T>(list: &mut Vec<T>) {
    if list.len() == list.capacity() {
        list.reserve_exact(list.len() / 8 + 4);
    }
}

/// Gives memory back once three quarters of it are unused, and not at every change.
fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() > 64 && list.len() < list.capacity() / 4 {
        list.shrink_to(list.len() * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn names(list: &[&str]) -> Vec<String> {
        list.iter().map(|name| (*name).to_owned()).collect()
    }

    fn confirm_all(hub: &mut Hub) {
        for (_, name) in hub.take_wanted() {
            hub.subscribed(&name);
        }
    }

    fn leave(hub: &mut Hub, socket: u32) -> Vec<Left> {
        let mut left = Vec::new();
        hub.leave(socket, |what| left.push(what));
        left
    }

    #[test]
    fn the_first_listener_makes_a_channel_wanted_and_the_last_lets_it_linger() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a", "b"]));
        hub.join(1, Form::Envelope.into(), &names(&["b"]));
        let wanted: Vec<_> = hub.take_wanted().iter().map(|(_, name)| name.to_string()).collect();
        assert_eq!(wanted, ["a", "b"]);
        assert!(hub.take_wanted().is_empty());
        let a = hub.subscribed("a").unwrap();
        let b = hub.subscribed("b").unwrap();
        assert_eq!(leave(&mut hub, 0), [Left::Lingers(a)]);
        assert_eq!(leave(&mut hub, 1), [Left::Lingers(b)]);
        assert_eq!(hub.linger_over(a).as_deref(), Some("a"));
        assert_eq!(hub.linger_over(a), None);
        assert_eq!(hub.unsubscribed("a"), Some(a));
        assert_eq!(hub.find("a"), None);
        assert_eq!(hub.len(), 1);
    }

    #[test]
    fn a_channel_that_was_heard_elsewhere_is_not_asked_for_again() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a", "b"]));
        confirm_all(&mut hub);
        hub.join(1, Form::Raw.into(), &names(&["c"]));
        leave(&mut hub, 0);
        let mut next = Hub::default();
        let states = hub.export();
        let of = |name: &str| states.iter().find(|state| state.name == name).unwrap();
        assert_eq!((of("a").confirmed, of("b").confirmed, of("c").confirmed), (true, true, false));
        let a = next.import_heard("a");
        next.import_heard("b");
        next.join(0, Form::Raw.into(), &names(&["b", "c"]));
        assert_eq!(next.unheard(), 1);
        let wanted: Vec<_> = next.take_wanted().into_iter().map(|(_, name)| name).collect();
        assert_eq!(wanted, [Rc::from("c")]);
        assert!(next.is_confirmed(next.find("b").unwrap()));
        assert_eq!(next.linger_over(a).as_deref(), Some("a"));
    }

    #[test]
    fn who_comes_back_while_the_channel_lingers_costs_redis_nothing() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        confirm_all(&mut hub);
        leave(&mut hub, 0);
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        let a = hub.find("a").unwrap();
        assert!(hub.is_confirmed(a) && hub.take_wanted().is_empty());
        assert_eq!(hub.linger_over(a), None);
    }

    #[test]
    fn who_comes_back_while_it_leaves_is_confirmed_by_the_last_answer_only() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        hub.take_wanted();
        leave(&mut hub, 0);
        let a = hub.find("a").unwrap();
        hub.linger_over(a).unwrap();
        hub.join(1, Form::Raw.into(), &names(&["a"]));
        assert_eq!(hub.take_wanted().len(), 1);
        // Redis answers SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE, in this order.
        assert_eq!(hub.subscribed("a"), None);
        assert_eq!(hub.unsubscribed("a"), None);
        assert_eq!(hub.subscribed("a"), Some(a));
    }

    #[test]
    fn who_comes_and_goes_while_it_leaves_changes_nothing() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        confirm_all(&mut hub);
        leave(&mut hub, 0);
        let a = hub.find("a").unwrap();
        hub.linger_over(a);
        hub.join(1, Form::Raw.into(), &names(&["a"]));
        assert_eq!(leave(&mut hub, 1), []);
        assert!(hub.take_wanted().is_empty());
        assert_eq!(hub.unsubscribed("a"), Some(a));
        assert!(hub.is_empty());
    }

    #[test]
    fn a_channel_that_nobody_asked_for_is_gone_at_once() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        let a = hub.find("a").unwrap();
        assert_eq!(leave(&mut hub, 0), [Left::Gone(a)]);
        assert!(hub.is_empty() && hub.take_wanted().is_empty());
    }

    #[test]
    fn a_lost_link_marks_a_gap_and_forgets_channels_without_listeners() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        hub.join(1, Form::Raw.into(), &names(&["b"]));
        confirm_all(&mut hub);
        leave(&mut hub, 1);
        let mut gone = 0;
        hub.link_lost(|_| gone += 1);
        assert_eq!((gone, hub.len(), hub.unheard()), (1, 1, 1));
        let wanted = hub.take_wanted();
        assert_eq!(wanted.len(), 1);
        let a = hub.subscribed("a").unwrap();
        assert!(hub.take_gap(a) && !hub.take_gap(a));
    }

    #[test]
    fn a_refused_channel_is_asked_for_again_only_on_request() {
        let mut hub = Hub::default();
        hub.join(0, Form::Raw.into(), &names(&["a"]));
        hub.take_wanted();
        hub.refused("a");
        assert!(hub.take_wanted().is_empty());
        hub.want_all();
        assert_eq!(hub.take_wanted().len(), 1);
        assert!(hub.subscribed("a").is_some());
    }

    #[test]
    fn random_joins_and_leaves_agree_with_a_list_of_pairs() {
        let mut random = crate::testing::dice(3);
        let variants = [Form::Raw.into(), Form::Binary.into(), Form::Envelope.into()];
        let mut hub = Hub::default();
        let mut twin: BTreeMap<u32, (Variant, BTreeSet<String>)> = BTreeMap::new();
        for step in 0..20_000 {
            let socket = random(60) as u32;
            if twin.remove(&socket).is_some() {
                hub.leave(socket, |_| ());
            } else {
                let wanted: BTreeSet<_> =
                    (0..random(8)).map(|_| format!("c{}", random(20))).collect();
                let variant = variants[random(3)];
                hub.join(socket, variant, &wanted.iter().cloned().collect::<Vec<_>>());
                twin.insert(socket, (variant, wanted));
            }
            match random(30) {
                0 => confirm_all(&mut hub),
                1 => hub.link_lost(|_| ()),
                2 => {
                    for c in 0..20 {
                        if let Some(id) = hub.find(&format!("c{c}"))
                            && hub.linger_over(id).is_some()
                        {
                            hub.unsubscribed(&format!("c{c}"));
                        }
                    }
                }
                _ => {}
            }
            if step % 10 == 0 {
                check(&hub, &twin);
            }
        }
        for socket in 0..60 {
            hub.leave(socket, |_| ());
        }
        hub.link_lost(|_| ());
        assert!(hub.is_empty() && hub.memberships.is_empty());
    }

    #[test]
    fn what_each_listener_costs_is_small() {
        assert_eq!((size_of::<Membership>(), size_of::<Member>()), (16, 8));
        let mut hub = Hub::default();
        for socket in 0..9_000 {
            hub.join(socket, Form::Raw.into(), &names(&["a"]));
        }
        let a = hub.find("a").unwrap();
        let listeners = &hub.groups(a)[0].sockets;
        assert!(
            listeners.capacity() <= 9_000 * 9 / 8 && hub.memberships.capacity() <= 9_000 * 9 / 8
        );
        assert_eq!(listeners.len(), 9_000);
    }

    fn check(hub: &Hub, twin: &BTreeMap<u32, (Variant, BTreeSet<String>)>) {
        let mut expected = BTreeSet::new();
        for (socket, (variant, channels)) in twin {
            for name in channels {
                expected.insert((name.clone(), format!("{variant:?}"), *socket));
            }
        }
        let mut actual = BTreeSet::new();
        for (name, id) in &hub.names {
            let channel = &hub.channels[*id as usize];
            assert_eq!(channel.name, *name);
            for group in &channel.groups {
                assert!(!group.sockets.is_empty());
                for (place, socket) in group.sockets.iter().enumerate() {
                    actual.insert((name.to_string(), format!("{:?}", group.variant), *socket));
                    let members = hub.memberships[*socket as usize].members();
                    assert!(members.iter().any(|m| m.channel == *id && m.place as usize == place));
                }
            }
        }
        assert_eq!(actual, expected);
        let unheard = hub.channels.iter().filter(|(_, channel)| channel.state.is_unheard());
        assert_eq!(hub.unheard(), unheard.count());
    }
}
