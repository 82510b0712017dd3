//! Where the keeper's log lines go: to the lease that wants them, because only the host knows where
//! its log is by now; while there is none, to where the keeper's process was told to write.

use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use parking_lot::Mutex;

use super::wire::{self, Message};
use crate::log::{Level, Log};

/// The way of the log lines. Any thread may speak.
#[derive(Clone)]
pub(super) struct Voice {
    lease: Arc<Mutex<Option<OwnedFd>>>,
    otherwise: Option<Log>,
}

impl Voice {
    /// Until a lease wants the lines they go to `otherwise`, or to standard error.
    pub fn new(otherwise: Option<Log>) -> Self {
        Voice { lease: Arc::default(), otherwise }
    }

    /// From now on lines go there.
    pub fn speak_to(&self, connection: &OwnedFd) {
        if let Ok(copy) = connection.try_clone() {
            *self.lease.lock() = Some(copy);
        }
    }

    /// A log that speaks with this voice.
    pub fn log(&self, max: Level) -> Log {
        let voice = self.clone();
        Log::new(Arc::new(move |level, line: &str| voice.say(level, line)), max)
    }

    fn say(&self, level: Level, line: &str) {
        let mut to = self.lease.lock();
        if let Some(connection) = &*to {
            let message = Message::Log { level: level as u8, line };
            match wire::send(connection, &message, &[]) {
                Ok(()) => return,
                // It does not read: this line goes the other way, later ones may not.
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => *to = None,
            }
        }
        drop(to);
        match &self.otherwise {
            Some(log) => log.line(level, line),
            // Nobody is left to tell of a log that can not be written.
            None => drop(std::io::stderr().write_all(format!("{line}\n").as_bytes())),
        }
    }
}
