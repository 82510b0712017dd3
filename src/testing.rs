//! What several unit tests need.

/// A small generator of numbers below a bound, the same for the same seed.
pub fn dice(seed: u64) -> impl FnMut(u64) -> usize {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((state >> 33) % below) as usize
    }
}
