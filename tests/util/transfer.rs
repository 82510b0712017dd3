//! All sockets of one engine go to another one, as between two processes.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Bench;

/// How long what is under way has to come to its end.
pub const SETTLE: Duration = Duration::from_secs(5);

/// Two engines with the same settings: the one that has the sockets and its successor.
pub fn two(loops: usize, settings: &[(&str, &str)]) -> [Bench; 2] {
    [Bench::new(loops, settings), Bench::new(loops, settings)]
}

/// Moves everything from one engine to the other, as between two processes: written down and read.
#[track_caller]
pub fn hand_over(from: &Bench, to: &Bench) {
    hand_over_within(SETTLE, from, to, true);
}

/// The same, where not everything settles in that time.
#[track_caller]
pub fn hand_over_within(settle: Duration, from: &Bench, to: &Bench, same_redis: bool) {
    let mut state = from.local().export(settle).unwrap();
    for one in &mut state.loops {
        one.channels = reread(&one.channels);
        one.subscriber = one.subscriber.take().map(|(fd, link)| (fd, reread(&link)));
        one.waiting = reread(&one.waiting);
        let sockets = std::mem::take(&mut one.sockets).into_iter();
        one.sockets = sockets.map(|(fd, socket)| (fd, reread(&socket))).collect();
    }
    to.local().import(state, same_redis).unwrap();
}

fn reread<T: Serialize + DeserializeOwned>(value: &T) -> T {
    postcard::from_bytes(&postcard::to_stdvec(value).unwrap()).unwrap()
}
