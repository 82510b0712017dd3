//! A bucket that leaks: may one more thing pass at this rate?
//!
//! The generic cell rate algorithm, with its one number kept as a distance: how much time the things
//! so far are ahead of the clock. It knows no clock, takes four bytes, and means the same in another
//! process.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far somebody is ahead of its rate, in nanoseconds. An empty one owes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket(u32);

#[cfg(test)]
impl Bucket {
    /// One that owes so much.
    pub fn sample(debt: u32) -> Self {
        Bucket(debt)
    }
}

impl Bucket {
    /// Lets the time go by since it was last told.
    pub fn leak(&mut self, elapsed: Duration) {
        // Whatever does not fit is longer than any debt.
        self.0 = self.0.saturating_sub(u32::try_from(elapsed.as_nanos()).unwrap_or(u32::MAX));
    }

    /// Takes one thing in. False: it is too many, and was not taken. At once so many pass as the
    /// rate allows in `burst`, which is at most four seconds. A rate of 0 is none.
    pub fn take(&mut self, per_second: usize, burst: Duration) -> bool {
        if per_second == 0 {
            return true;
        }
        let each = 1_000_000_000 / per_second as u64;
        let debt = u64::from(self.0) + each;
        let limit = burst.as_nanos().min(u32::MAX.into());
        if u128::from(debt) > limit {
            return false;
        }
        self.0 = debt as u32; // It is not above the limit, which fits.
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How many pass at once.
    fn passes(bucket: &mut Bucket, per_second: usize, burst: Duration) -> usize {
        (0..10_000_000).take_while(|_| bucket.take(per_second, burst)).count()
    }

    #[test]
    fn a_burst_passes_whole_and_not_one_more() {
        for (per_second, burst, expected) in [
            (1, SECOND, 1),
            (1, 2 * SECOND, 2),
            (7, 2 * SECOND, 14),
            (20, 5 * SECOND / 2, 50),
            (1, 5 * SECOND / 2, 2),
            (3, 5 * SECOND / 2, 7),
            (100, 2 * SECOND, 200),
            (1_000_000, 2 * SECOND, 2_000_000),
        ] {
            let mut bucket = Bucket::default();
            assert_eq!(passes(&mut bucket, per_second, burst), expected, "{per_second}");
            assert!(!bucket.take(per_second, burst), "what was refused was not taken");
        }
    }

    #[test]
    fn it_is_refilled_at_its_rate_and_never_beyond_the_burst() {
        let burst = 2 * SECOND;
        let mut bucket = Bucket::default();
        assert_eq!(passes(&mut bucket, 100, burst), 200);
        bucket.leak(Duration::from_micros(9_999));
        assert!(!bucket.take(100, burst));
        bucket.leak(Duration::from_micros(1));
        assert_eq!(passes(&mut bucket, 100, burst), 1);
        bucket.leak(SECOND);
        assert_eq!(passes(&mut bucket, 100, burst), 100);
        for long in [4 * SECOND, 5 * SECOND, 1_000_000_000 * SECOND] {
            bucket.leak(long);
            assert_eq!((bucket, passes(&mut bucket, 100, burst)), (Bucket::default(), 200));
        }
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut bucket = Bucket::default();
        assert!((0..1_000_000).all(|_| bucket.take(0, SECOND)));
        assert_eq!(bucket, Bucket::default());
    }

    #[test]
    fn a_debt_of_another_rate_is_only_a_debt() {
        let mut bucket = Bucket::default();
        assert_eq!(passes(&mut bucket, 1000, 4 * SECOND), 4000);
        assert!(!bucket.take(1, 2 * SECOND));
        bucket.leak(3 * SECOND);
        assert!(bucket.take(1, 2 * SECOND));
    }

    /// A jar of tokens, counted in whole nanoseconds of refilling.
    struct Jar {
        tokens: u64,
        each: u64,
        most: u64,
    }

    #[test]
    fn random_arrivals_agree_with_a_jar_of_tokens() {
        let mut random = crate::testing::dice(5);
        for per_second in [1, 3, 20, 100, 999, 1_000_000] {
            let each = 1_000_000_000 / per_second;
            let mut bucket = Bucket::default();
            let mut jar = Jar { tokens: 2_000_000_000, each, most: 2_000_000_000 };
            for _ in 0..20_000 {
                let pause = random(4 * each + 1) as u64 * (random(2) as u64);
                bucket.leak(Duration::from_nanos(pause));
                jar.tokens = jar.most.min(jar.tokens + pause);
                let passes = jar.tokens >= jar.each;
                if passes {
                    jar.tokens -= jar.each;
                }
                assert_eq!(bucket.take(per_second as usize, 2 * SECOND), passes);
            }
        }
    }
}
