//! wsredis holds the websockets of sync web apps: a host adopts sockets into an engine, whose loops
//! fan Redis pub/sub messages out to them. C hosts use `include/wsredis.h`; the Rust types below
//! are what it is made of.
//!
//! ```text
//!  hosts    uwsgi-plugin/      examples/      your C program
//!  =================== include/wsredis.h (the only door) ====================
//!  5 ffi       C types, pointers, panics stop here
//!  4 engine    the handle, its loops, embedded broker, admission
//!  3 wires     socket · redis link, subscriber, publisher        one fd each
//!  2 state     hub · write queue · timers · rate · grant · echo  pure: no I/O, no clock
//!  1 codecs    websocket frames, messages, handshake, envelope · RESP     bytes <-> values
//!  0 ground    error · cause · config · log · sys
//! ```
//!
//! A file imports from lower floors and its own folder; `tests/floors.rs` fails on an upward
//! import.

#[cfg(test)]
mod testing;

// Floor 0, ground.
pub mod cause;
pub mod config;
pub mod error;
pub mod log;
pub mod meter;
pub mod sys;

// Floor 1, codecs.
pub mod resp;
pub mod ws;

// Floor 2, state.
pub mod echo;
pub mod grant;
pub mod hub;
pub mod rate;
pub mod timer;
pub mod write_queue;

// Floor 3, wires.
pub mod redis;
pub mod socket;

// Floor 4, engine.
pub mod engine;

// Floor 5, the C ABI.
pub mod ffi;
