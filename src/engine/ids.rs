//! The ids of sockets that came from another engine: browsers and apps go on calling them as they
//! did there.
//!
//! Shared by all loops and the handle. An engine that never took a socket over has nothing here and
//! pays one relaxed load where an id is looked up.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

use crate::socket::Key;

/// Where a socket is: its loop, and its key there.
pub(super) type Place = (usize, Key);

/// The ids that this engine did not give.
#[derive(Debug, Default)]
pub(super) struct ForeignIds {
    count: AtomicUsize,
    maps: Mutex<Maps>,
}

/// Invariant: one is the inverse of the other.
#[derive(Debug, Default)]
struct Maps {
    places: HashMap<Arc<str>, Place>,
    ids: HashMap<Place, Arc<str>>,
}

impl ForeignIds {
    /// The socket at this place keeps the id that it came with.
    pub fn add(&self, id: &str, place: Place) {
        let mut maps = self.maps.lock();
        let id: Arc<str> = id.into();
        if let Some(old) = maps.places.insert(Arc::clone(&id), place) {
            maps.ids.remove(&old);
        }
        maps.ids.insert(place, id);
        self.count.store(maps.ids.len(), Relaxed);
    }

    /// The id that the socket at this place came with.
    pub fn id(&self, place: Place) -> Option<String> {
        let any = self.count.load(Relaxed) > 0;
        any.then(|| self.maps.lock().ids.get(&place).map(|id| id.to_string())).flatten()
    }

    /// Where the socket is that came with this id.
    pub fn place(&self, id: &str) -> Option<Place> {
        let any = self.count.load(Relaxed) > 0;
        any.then(|| self.maps.lock().places.get(id).copied()).flatten()
    }

    /// The socket at this place is no more.
    pub fn forget(&self, place: Place) {
        if self.count.load(Relaxed) == 0 {
            return;
        }
        let mut maps = self.maps.lock();
        if let Some(id) = maps.ids.remove(&place) {
            maps.places.remove(&id);
        }
        if maps.ids.is_empty() {
            *maps = Maps::default();
        }
        self.count.store(maps.ids.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_to_its_socket_and_back_until_it_is_forgotten() {
        let ids = ForeignIds::default();
        let (a, b) = ((0, Key::from(1)), (1, Key::from(1)));
        ids.add("x", a);
        ids.add("y", b);
        assert_eq!((ids.place("x"), ids.place("y"), ids.place("z")), (Some(a), Some(b), None));
        assert_eq!(ids.id(b).as_deref(), Some("y"));
        ids.forget(a);
        ids.forget(a);
        assert_eq!((ids.place("x"), ids.id(a), ids.count.load(Relaxed)), (None, None, 1));
        ids.forget(b);
        assert_eq!(ids.count.load(Relaxed), 0);
    }
}
