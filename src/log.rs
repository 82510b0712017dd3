//! Log lines on their way to the host's sink, passed along rather than kept in a global.
//!
//! A fault that strikes a thousand sockets at once must not write a thousand lines: `limited` lets
//! one line per cause and second through and says how many were left out. Payloads, tokens and
//! query strings are never logged.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How much a line matters; smaller is more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something does not work.
    Error = 1,
    /// Something needs a look.
    Warn = 2,
    /// Something happened.
    Info = 3,
    /// For whoever searches for a fault.
    Debug = 4,
}

impl Level {
    /// The level of this number; the least urgent if there is none.
    pub fn of(number: u8) -> Self {
        match number {
            1 => Level::Error,
            2 => Level::Warn,
            3 => Level::Info,
            _ => Level::Debug,
        }
    }
}

/// Where lines go. Called on any thread, with no lock of ours held.
pub type Sink = Arc<dyn Fn(Level, &str) + Send + Sync>;

/// One line per cause and this long.
const PERIOD: Duration = Duration::from_secs(1);

/// A handle to the host's sink; clones share one rate limit.
#[derive(Clone)]
pub struct Log {
    sink: Sink,
    max: Level,
    recent: Arc<Mutex<HashMap<&'static str, Recent>>>,
}

/// When a cause was last let through, and what was left out since.
struct Recent {
    at: Instant,
    left_out: u64,
}

impl Log {
    /// Lines up to `max` go to `sink`.
    pub fn new(sink: Sink, max: Level) -> Self {
        Log { sink, max, recent: Arc::default() }
    }

    /// A log that goes nowhere.
    pub fn none() -> Self {
        Log::new(Arc::new(|_, _| ()), Level::Error)
    }

    /// Writes a line now.
    pub fn line(&self, level: Level, text: &str) {
        if level <= self.max {
            (self.sink)(level, text);
        }
    }

    /// Writes a line unless one of the same cause was written within the last second. The cause
    /// should be a name from a fixed table; the text is made only when it is written.
    pub fn limited(&self, level: Level, cause: &'static str, text: impl FnOnce() -> String) {
        if level > self.max {
            return;
        }
        let now = Instant::now();
        let left_out = {
            let mut recent = self.recent.lock();
            match recent.get_mut(cause) {
                Some(seen) if now.duration_since(seen.at) < PERIOD => {
                    seen.left_out += 1;
                    return;
                }
                Some(seen) => {
                    seen.at = now;
                    std::mem::take(&mut seen.left_out)
                }
                None => {
                    recent.insert(cause, Recent { at: now, left_out: 0 });
                    0
                }
            }
        };
        match left_out {
            0 => (self.sink)(level, &text()),
            n => (self.sink)(level, &format!("{} ({n} more like it were left out)", text())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_one_cause_is_one_line_and_others_pass() {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&seen);
        let log =
            Log::new(Arc::new(move |_, text: &str| sink.lock().push(text.to_owned())), Level::Warn);
        for _ in 0..1000 {
            log.limited(Level::Warn, "slow", || "socket closed: slow".into());
        }
        log.limited(Level::Warn, "other", || "other".into());
        log.line(Level::Info, "not asked for");
        assert_eq!(*seen.lock(), ["socket closed: slow", "other"]);
        log.recent.lock().get_mut("slow").unwrap().at -= PERIOD;
        log.limited(Level::Warn, "slow", || "again".into());
        assert_eq!(seen.lock().last().unwrap(), "again (999 more like it were left out)");
    }
}
