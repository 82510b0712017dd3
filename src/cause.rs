//! Why a socket was closed or a handshake refused: the fixed table that close frames, counters and
//! log lines share.
//!
//! RFC 6455 §7.4 gives the codes below 3000; 4000–4999 are ours. A reason on the wire never holds a
//! byte that somebody else chose.

use serde::{Deserialize, Serialize};

use crate::sys;

/// A browser that gets a 503 is asked to stay away for so many seconds at the most.
const LONGEST_RETRY_S: u64 = 10;

/// Why a socket ends. Each has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[repr(u8)]
pub enum Cause {
    /// The browser closed in order.
    Normal,
    /// The connection broke or ended without a close frame; nothing can be told to the browser.
    Lost,
    /// The engine ends.
    GoingAway,
    /// The browser broke RFC 6455.
    Protocol,
    /// A kind of message that this socket can not take (binary where a sender is put around it).
    Unacceptable,
    /// Text that is not UTF-8.
    Utf8,
    /// The browser asked for what the grant does not allow.
    NotGranted,
    /// A message over `max-message-size`.
    TooBig,
    /// A fault of this library, of this socket only.
    Internal,
    /// The engine restarts.
    Restart,
    /// Redis can not take what the browser sends.
    Overloaded,
    /// The browser does not read.
    Slow,
    /// The memory is used up (`max-memory`), and this browser is among the slowest.
    Shed,
    /// A raw socket's channel lost continuity (`on-gap = close`).
    Gap,
    /// A published message failed or may have been lost on its way to Redis.
    PublishFailed,
    /// The browser did not answer a ping.
    NoPong,
    /// The grant expired.
    Expired,
    /// The app asked for it.
    Kicked,
    /// Too many messages or control frames in a short time.
    Rate,
    /// A message or frame that was begun and not finished in time.
    Unfinished,
}

impl Cause {
    /// All of them, in the order of their counters.
    pub const ALL: [Cause; 20] = [
        Cause::Normal,
        Cause::Lost,
        Cause::GoingAway,
        Cause::Protocol,
        Cause::Unacceptable,
        Cause::Utf8,
        Cause::NotGranted,
        Cause::TooBig,
        Cause::Internal,
        Cause::Restart,
        Cause::Overloaded,
        Cause::Slow,
        Cause::Shed,
        Cause::Gap,
        Cause::PublishFailed,
        Cause::NoPong,
        Cause::Expired,
        Cause::Kicked,
        Cause::Rate,
        Cause::Unfinished,
    ];

    /// The close code, the reason on the wire, and the name in counters and logs.
    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Cause::Normal => (1000, "", "normal"),
            Cause::Lost => (1006, "", "lost"),
            Cause::GoingAway => (1001, "going away", "going_away"),
            Cause::Protocol => (1002, "protocol error", "protocol"),
            Cause::Unacceptable => (1003, "unacceptable message type", "unacceptable"),
            Cause::Utf8 => (1007, "invalid UTF-8", "utf8"),
            Cause::NotGranted => (1008, "not granted", "not_granted"),
            Cause::TooBig => (1009, "message too big", "too_big"),
            Cause::Internal => (1011, "internal error", "internal"),
            Cause::Restart => (1012, "restarting", "restart"),
            Cause::Overloaded => (1013, "overloaded", "overloaded"),
            Cause::Slow => (4008, "too slow", "slow"),
            Cause::Shed => (4008, "too slow", "shed"),
            Cause::Gap => (1012, "continuity lost", "gap"),
            Cause::PublishFailed => (1012, "a message may be lost", "publish_failed"),
            Cause::NoPong => (4012, "no pong", "no_pong"),
            Cause::Expired => (4401, "grant expired", "expired"),
            Cause::Kicked => (4403, "kicked", "kicked"),
            Cause::Rate => (4029, "too many messages", "rate"),
            Cause::Unfinished => (1008, "message not finished", "unfinished"),
        }
    }

    /// The close code on the wire (1006 is never sent).
    pub const fn code(self) -> u16 {
        self.row().0
    }

    /// The reason on the wire.
    pub const fn reason(self) -> &'static str {
        self.row().1
    }

    /// The name in counters and log lines.
    pub const fn name(self) -> &'static str {
        self.row().2
    }
}

/// Why a handshake is refused. Each has its own counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Refusal {
    /// The upgrade is malformed.
    Malformed,
    /// The page's origin is not allowed.
    Origin,
    /// Not an upgrade, or a version other than 13.
    NotUpgrade,
    /// The grant is wrong.
    Grant,
    /// TLS ends in this process.
    Tls,
    /// No descriptors, too many sockets, or the engine is busy.
    Full,
    /// Too many came in a short time.
    Pace,
    /// The request was not finished in the host's time.
    Timeout,
    /// The request's head is larger than the host reads.
    TooLarge,
}

impl Refusal {
    /// All of them, in the order of their counters. Of two with one status the first is what a host
    /// means that knows only the status.
    pub const ALL: [Refusal; 9] = [
        Refusal::Malformed,
        Refusal::Origin,
        Refusal::NotUpgrade,
        Refusal::Grant,
        Refusal::Tls,
        Refusal::Full,
        Refusal::Pace,
        Refusal::Timeout,
        Refusal::TooLarge,
    ];

    const fn row(self) -> (u16, &'static str, &'static str) {
        match self {
            Refusal::Malformed => (400, "Bad Request", "malformed"),
            Refusal::Origin => (403, "Forbidden", "origin"),
            Refusal::NotUpgrade => (426, "Upgrade Required", "not_upgrade"),
            Refusal::Grant => (500, "Internal Server Error", "grant"),
            Refusal::Tls => (501, "Not Implemented", "tls"),
            Refusal::Full => (503, "Service Unavailable", "full"),
            Refusal::Pace => (503, "Service Unavailable", "pace"),
            Refusal::Timeout => (408, "Request Timeout", "timeout"),
            Refusal::TooLarge => (431, "Request Header Fields Too Large", "too_large"),
        }
    }

    /// The HTTP status.
    pub const fn status(self) -> u16 {
        self.row().0
    }

    /// The text of the status line.
    pub const fn phrase(self) -> &'static str {
        self.row().1
    }

    /// The name in counters and log lines.
    pub const fn name(self) -> &'static str {
        self.row().2
    }

    /// The refusal that a host means by this HTTP status.
    pub fn of_status(status: u16) -> Option<Refusal> {
        Refusal::ALL.into_iter().find(|refusal| refusal.status() == status)
    }

    /// The whole HTTP answer. A 426 says which version is spoken here, a 503 when to come back: each
    /// a time of its own, so that those who were refused together do not come back together.
    pub fn answer(self) -> String {
        let extra = match self {
            Refusal::NotUpgrade => "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n".into(),
            Refusal::Full | Refusal::Pace => {
                format!("Retry-After: {}\r\n", 1 + sys::random() % LONGEST_RETRY_S)
            }
            _ => String::new(),
        };
        let (status, phrase, _) = self.row();
        format!(
            "HTTP/1.1 {status} {phrase}\r\n{extra}Content-Type: text/plain\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nConnection: close\r\n\r\n{phrase}\n",
            phrase.len() + 1
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_the_order_of_the_table() {
        for (index, cause) in Cause::ALL.iter().enumerate() {
            assert_eq!(*cause as usize, index);
            assert!(cause.reason().len() <= 123);
        }
        for (index, refusal) in Refusal::ALL.iter().enumerate() {
            assert_eq!(*refusal as usize, index);
        }
    }

    #[test]
    fn a_refusal_is_a_whole_http_answer() {
        let answer = Refusal::Full.answer();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn every_503_says_when_to_come_back_and_not_all_say_the_same() {
        for refusal in Refusal::ALL {
            let mut seen = std::collections::BTreeSet::new();
            for _ in 0..1000 {
                let answer = refusal.answer();
                let line = answer.lines().find_map(|line| line.strip_prefix("Retry-After: "));
                seen.extend(line.map(|seconds| seconds.parse::<u64>().unwrap()));
            }
            let longest = if refusal.status() == 503 { LONGEST_RETRY_S } else { 0 };
            assert!(seen.into_iter().eq(1..=longest), "{refusal:?}");
        }
    }

    #[test]
    fn a_host_that_says_503_means_that_we_are_full() {
        for refusal in Refusal::ALL {
            let meant = if refusal == Refusal::Pace { Refusal::Full } else { refusal };
            assert_eq!(Refusal::of_status(refusal.status()), Some(meant));
        }
        assert_eq!(Refusal::of_status(404), None);
    }
}
