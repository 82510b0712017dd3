//! The websocket codecs, RFC 6455: bytes to values and back, nothing else.
//!
//! ```text
//!  handshake · origin     an HTTP request -> the 101, or why not
//!  frame                  one header, one mask; whole server frames
//!  message                frames of a browser -> messages, with every limit
//!  deflate                permessage-deflate: agreed on, one message compressed and back
//!  envelope               messages <-> the JSON of subprotocol `wsredis.v1`
//! ```
//!
//! Pure functions and plain values, used by the loop that owns the socket and by the host's
//! handshake. Nothing here knows a descriptor, a clock or Redis.

pub mod deflate;
pub mod envelope;
pub mod frame;
pub mod handshake;
pub mod message;
pub mod origin;
