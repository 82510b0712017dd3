//! Which socket of a loop is meant, also when it is long gone.

/// A socket's place in its loop: an index, and a number above it that no other socket has at this
/// index. An event or a reply for one that is gone finds nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(u64);

impl Key {
    const INDEX_BITS: u32 = 24;

    /// The key of the `turn`th socket of a loop, at this index.
    pub fn new(turn: u64, index: usize) -> Self {
        Key(turn << Self::INDEX_BITS | index as u64)
    }

    /// The index.
    pub fn index(self) -> usize {
        (self.0 & ((1 << Self::INDEX_BITS) - 1)) as usize
    }
}

impl From<u64> for Key {
    fn from(key: u64) -> Self {
        Key(key)
    }
}

impl From<Key> for u64 {
    fn from(key: Key) -> Self {
        key.0
    }
}
