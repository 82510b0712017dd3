//! What a socket keeps of its grant: what it may do, which all sockets of a page have in common, and
//! whose it is.
//!
//! Rights are the same for thousands, so a loop keeps equal ones once. An identity is one piece of
//! memory, and none if there is nothing to keep.

use std::collections::HashSet;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

/// What the grant lets a socket do, for as long as it lives.
#[derive(Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights {
    /// Where its messages go.
    pub publish: Box<[Rc<str>]>,
    /// Does it hear its own messages?
    pub echo: bool,
    /// Returns every message as it came (`wsredis-echo:`).
    pub mirror: bool,
    /// Too slow, it is not closed but gets only the newest message of each channel.
    pub latest: bool,
    /// Sent when idle; the same text from the browser is swallowed.
    pub heartbeat: Option<Box<str>>,
}

impl Rights {
    /// The memory that they take, roughly: for the statistics.
    pub fn bytes(&self) -> usize {
        let names = self.publish.iter().map(|name| name.len() + size_of::<Rc<str>>());
        size_of::<Self>()
            + names.sum::<usize>()
            + self.heartbeat.as_ref().map_or(0, |text| text.len())
    }
}

/// The rights of a loop's sockets, equal ones once.
#[derive(Debug, Default)]
pub struct SharedRights(HashSet<Rc<Rights>>);

impl SharedRights {
    /// Those that are equal to `rights`; they are given back with [`SharedRights::give_back`].
    /// Returns how much more memory is used.
    pub fn share(&mut self, rights: Rights) -> (Rc<Rights>, usize) {
        if let Some(known) = self.0.get(&rights) {
            return (Rc::clone(known), 0);
        }
        let (bytes, rights) = (rights.bytes(), Rc::new(rights));
        self.0.insert(Rc::clone(&rights));
        (rights, bytes)
    }

    /// A socket goes that has these rights; it still holds them. Returns how much less memory is
    /// used once it does not.
    pub fn give_back(&mut self, rights: &Rc<Rights>) -> usize {
        // This set's own and the socket's: nobody else has them.
        if Rc::strong_count(rights) != 2 || !self.0.remove(rights) {
            return 0;
        }
        if self.0.is_empty() {
            self.0 = HashSet::new(); // Its table may have been that of ten thousand.
        }
        rights.bytes()
    }
}

/// Whose a socket is, as its grant and its host say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity<'a> {
    /// JSON that is put around its messages.
    pub sender: Option<&'a str>,
    /// Opaque, for kicks, limits and logs.
    pub user: Option<&'a str>,
    /// Opaque, for kicks.
    pub session: Option<&'a str>,
    /// Where the browser is; empty if nobody wants to know.
    pub address: &'a str,
}

/// An [`Identity`] as a socket keeps it: its texts in one piece, one behind the other.
#[derive(Debug, Default)]
pub struct KeptIdentity(Box<[u8]>);

impl From<Identity<'_>> for KeptIdentity {
    fn from(identity: Identity<'_>) -> Self {
        if identity == Identity::default() {
            return KeptIdentity::default();
        }
        // Texts can always be written into a growing buffer.
        KeptIdentity(postcard::to_stdvec(&identity).unwrap_or_default().into())
    }
}

impl KeptIdentity {
    /// What is kept.
    pub fn get(&self) -> Identity<'_> {
        if self.0.is_empty() {
            return Identity::default();
        }
        // It was written above.
        postcard::from_bytes(&self.0).unwrap_or_default()
    }

    /// The memory that it takes beside itself.
    pub fn bytes(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rights(publish: &[&str], echo: bool) -> Rights {
        let publish = publish.iter().map(|name| Rc::from(*name)).collect();
        Rights { publish, echo, ..Rights::default() }
    }

    #[test]
    fn equal_rights_are_kept_once_and_go_with_the_last_who_has_them() {
        let mut shared = SharedRights::default();
        let (one, bytes) = shared.share(rights(&["a", "b"], true));
        assert_eq!(bytes, one.bytes());
        let (other, more) = shared.share(rights(&["a", "b"], true));
        assert!(Rc::ptr_eq(&one, &other) && more == 0);
        let (third, more) = shared.share(rights(&["a", "b"], false));
        assert!(!Rc::ptr_eq(&one, &third) && more > 0);
        assert_eq!(shared.give_back(&one), 0);
        drop(one);
        assert_eq!(shared.give_back(&third), more);
        // What was never shared is nobody's, even if it is equal.
        assert_eq!(shared.give_back(&Rc::new(rights(&["a", "b"], true))), 0);
        assert_eq!(shared.0.len(), 1);
        assert_eq!(shared.give_back(&other), bytes);
        assert_eq!(shared.0.capacity(), 0);
    }

    #[test]
    fn an_identity_is_what_it_was_and_nobody_s_takes_no_memory() {
        let some = [None, Some("1"), Some("ünï\0"), Some("")];
        for sender in some {
            for user in some {
                for (session, address) in [(None, ""), (Some("s"), "2001:db8::1"), (None, "x")] {
                    let identity = Identity { sender, user, session, address };
                    assert_eq!(KeptIdentity::from(identity).get(), identity);
                }
            }
        }
        let long = "x".repeat(70_000);
        let identity = Identity { user: Some(&long), ..Identity::default() };
        assert_eq!(KeptIdentity::from(identity).get(), identity);
        assert_eq!(KeptIdentity::from(Identity::default()).bytes(), 0);
        assert_eq!(KeptIdentity::default().get(), Identity::default());
    }
}
