//! How much memory the bytes take that wait in a loop: what is to be written, and what of a message
//! has come.
//!
//! A count for each thread, because each loop is one and its buffers never leave it. Whoever owns a
//! buffer keeps a [`Share`] beside it and says when it has grown or shrunk; a share that is dropped
//! is given back. So the sum is exact without anybody walking over the sockets.

use std::cell::Cell;

thread_local! {
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The bytes that all shares of this thread hold.
pub fn held() -> usize {
    HELD.get()
}

/// One owner's part of the sum.
#[derive(Debug, Default)]
pub struct Share(usize);

impl Share {
    /// The owner holds so many bytes now.
    pub fn set(&mut self, bytes: usize) {
        // A thread that ends may drop its buffers after its count.
        let _ = HELD.try_with(|held| held.set(held.get() + bytes - self.0));
        self.0 = bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_that_of_the_living() {
        let before = held();
        let (mut one, mut other) = (Share::default(), Share::default());
        one.set(100);
        other.set(20);
        one.set(70);
        assert_eq!(held() - before, 90);
        drop(one);
        assert_eq!(held() - before, 20);
        drop(other);
        assert_eq!(held(), before);
    }
}
