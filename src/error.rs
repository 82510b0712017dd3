//! What can go wrong, for whoever called: a kind to act on and a text to read.
//!
//! `Error` is the ground under the ground: every floor uses it and it knows no other type of ours.
//! Things that go wrong with no caller to tell (a socket that is too slow, Redis gone) are a
//! [`crate::cause::Cause`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// The result of everything fallible here.
pub type Result<T> = std::result::Result<T, Error>;

/// What a caller can do about an error. The C status codes are made from it, one for one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// An argument is wrong: null, out of range, not UTF-8, a struct of the wrong size.
    Invalid,
    /// The configuration is wrong; the text says `file:line: why` where there is a file.
    Config,
    /// The grant is wrong; the text names the field.
    Grant,
    /// The descriptor is not a connected stream socket.
    Fd,
    /// The process has no descriptor left.
    NoFile,
    /// A limit that the configuration names is exceeded.
    Limit,
    /// A bounded queue is full just now; trying later can help.
    Busy,
    /// The engine was stopped, or its threads ended after an internal error.
    Stopped,
    /// The engine belongs to another process: it was started before a fork.
    WrongProcess,
    /// The caller is newer than this library and asks for what it does not know.
    Unsupported,
    /// There is nothing of that name, or nothing waiting.
    NotFound,
    /// The engine runs but does not hear every channel it should.
    Unhealthy,
    /// The operating system refused.
    Io,
    /// A bug of this library was caught at the boundary.
    Panic,
}

/// A kind and one sentence of text, lower case, without a full stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    /// What a caller can do about it.
    pub kind: Kind,
    /// For a person: what was wrong and, where it is known, the cure. Never holds a payload or a
    /// secret.
    pub text: String,
}

impl Error {
    /// An error of `kind` that reads `text`.
    pub fn new(kind: Kind, text: impl Into<String>) -> Self {
        Error { kind, text: text.into() }
    }

    /// An operating system's error, with what was being done.
    pub fn io(doing: &str, error: &std::io::Error) -> Self {
        let kind = match error.raw_os_error() {
            Some(code) if code == crate::sys::EMFILE || code == crate::sys::ENFILE => Kind::NoFile,
            _ => Kind::Io,
        };
        Error::new(kind, format!("{doing}: {error}"))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Error {}
