//! What the engine's tests share: an engine under test, a browser, a scripted Redis and a real one.
//!
//! Nothing here sleeps to wait for others: everything waits for a condition, and panics at a deadline.
#![allow(dead_code, unused_imports, reason = "each test file uses a part of this")]

pub mod browser;
#[path = "../c/build.rs"]
pub mod build;
pub mod c_host;
pub mod dice;
pub mod engine;
pub mod fake_redis;
pub mod keeper;
pub mod machine;
pub mod memory;
pub mod real_redis;
pub mod transfer;
pub mod wire;

use std::time::{Duration, Instant};

pub use browser::Browser;
pub use dice::{Dice, rounds};
pub use engine::{Bench, Offer};
pub use fake_redis::FakeRedis;
pub use real_redis::RealRedis;

/// When a test gives up. Far longer than anything takes, so that a busy machine fails no test.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `condition` holds; `what` says in the panic what never came.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(begin.elapsed() < DEADLINE, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Makes tests of functions that take a number of loops: one of each with one loop, one with three.
#[macro_export]
macro_rules! with_one_and_three_loops {
    ($($test:ident),* $(,)?) => {
        mod one_loop {
            $(#[test] fn $test() { super::$test(1); })*
        }
        mod three_loops {
            $(#[test] fn $test() { super::$test(3); })*
        }
    };
}
