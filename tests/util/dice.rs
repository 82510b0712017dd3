//! Chance that comes the same again from the same seed.

/// Numbers below a bound.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Dice(seed)
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % bound as u64) as usize
    }

    /// One of them.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// So many bytes.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.below(256) as u8).collect()
    }
}

/// How many rounds a test of chance makes: the suite's share, or with `WSREDIS_FULL=1` all of them.
pub fn rounds(share: usize, full: usize) -> usize {
    match std::env::var_os("WSREDIS_FULL").is_some_and(|value| value == "1") {
        true => full,
        false => share,
    }
}
