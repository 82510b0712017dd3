//! What must hold for every input, whoever sends it: one module and one `check` for each target.
//!
//! A property is more than "does not crash". Where it can be had, a *twin* says the same thing a
//! second time, written naively from the specification and not from the code; elsewhere two ways
//! through the code must agree (whole or cut, there and back). `check` panics on a finding.
//! `fuzz_targets/` puts libFuzzer around them, `tests/corpus.rs` replays the corpus without it.

pub mod envelope;
pub mod frame;
pub mod grant;
pub mod handshake;
pub mod ini;
pub mod input;
pub mod keeper;
pub mod message;
pub mod origin;
pub mod resp;

/// A target: its name and its property.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] = &[
    ("frame", frame::check),
    ("resp", resp::check),
    ("message", message::check),
    ("handshake", handshake::check),
    ("grant", grant::check),
    ("envelope", envelope::check),
    ("ini", ini::check),
    ("keeper", keeper::check),
    ("origin", origin::check),
];
