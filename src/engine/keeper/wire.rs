//! What hosts, keepers and successors say to each other: values to packets of a unix SEQPACKET
//! connection and back.
//!
//! A packet is a header (version, flags, length) and a body in postcard's encoding. A body that is
//! too large for a packet lies in a sealed memory file that travels with it. Nothing here blocks,
//! keeps a connection or believes a peer: what does not decode, or is longer or shorter than it
//! says, is a [`Fault`].

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use serde::{Deserialize, Serialize};

use super::super::inbox::Who;
use crate::error::Kind;
use crate::sys;

/// The version of everything that goes between processes: [`Message`] with what it is made of, the
/// order of [`crate::cause::Refusal::ALL`], and the parts of a handover with the state of sockets,
/// queues, channels, links, peers and waiting messages in them. Whatever changes their encoding or
/// adds to them raises it, but the first four messages stay what they are; tests compare all of it
/// with what this version says.
pub const VERSION: u8 = 2;

/// Version, flags, and the length of the body.
const HEADER: usize = 6;
/// The flag of a body that lies in the last descriptor.
const IN_MEMORY: u8 = 1;
/// Longer bodies lie in memory files: packets stay well below the kernel's send buffer.
const INLINE: usize = 60_000;
/// Room for any packet, and one byte to notice a longer one.
const BUFFER: usize = HEADER + INLINE + 1;
/// No body is longer: the largest message that the configuration permits, and its words.
const LONGEST: usize = (512 << 20) + (1 << 20);

/// What is said. The first four mean the same in every version, so that any two can part in order.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Message<'a> {
    /// The keeper's first word on every connection.
    Welcome {
        /// Its library's version, for logs.
        library: &'a str,
        /// By what it was built and configured.
        fingerprint: u64,
        /// Its process.
        process: u32,
    },
    /// While one connection that said this is open, the keeper goes on. It may want its log lines.
    Lease { logs: bool },
    /// Closes all sockets with 1012 and ends.
    Stop { timeout_ms: u32 },
    /// The same, for a successor that can not take over: spread in time.
    Retire,
    /// A successor of the same version wants everything.
    TakeOver,
    /// A socket to adopt; one descriptor comes with it.
    Adopt {
        grant: &'a [u8],
        answer: &'a [u8],
        leftover: &'a [u8],
        remote_address: &'a str,
        host: &'a str,
        path_digest: u64,
        mirror: bool,
    },
    /// A message to publish.
    Publish { channel: &'a str, payload: &'a [u8] },
    /// Handshakes that the host refused, by [`crate::cause::Refusal`], since it last said so.
    Refused(Vec<(u8, u64)>),
    /// Wants an answer with the same number.
    Ask { number: u64, question: Question<'a> },
    /// Wants to hear of sockets that come and go.
    Watch,
    /// The answer, or the kind and the text of an error.
    Answer { number: u64, answer: Result<&'a str, (Kind, &'a str)> },
    /// A socket was adopted.
    Opened(&'a str),
    /// A socket ended, with this close code.
    Closed(&'a str, u16),
    /// So many events were dropped.
    Overflow(u64),
    /// A log line of the keeper.
    Log { level: u8, line: &'a str },
}

impl Message<'_> {
    /// Does it mean the same in every version?
    pub fn is_timeless(&self) -> bool {
        use Message::{Lease, Retire, Stop, Welcome};
        matches!(self, Welcome { .. } | Lease { .. } | Stop { .. } | Retire)
    }
}

/// What a host may ask.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub enum Question<'a> {
    /// Send to one socket.
    Send { socket: &'a str, payload: &'a [u8] },
    /// Close sockets.
    Kick(Who),
    /// The counters.
    Stats,
    /// Does the engine hear what it should?
    Health,
}

/// Why there is no packet.
#[derive(Debug)]
pub enum Fault {
    /// Nothing waits.
    Nothing,
    /// The connection has ended.
    End,
    /// What came is no packet of ours. The descriptors that came with it.
    Garbage(&'static str, Vec<OwnedFd>),
}

/// One packet as it came.
#[derive(Debug)]
pub struct Packet {
    version: u8,
    body: Vec<u8>,
    /// What came with it, without the memory file of its body.
    pub descriptors: Vec<OwnedFd>,
}

impl Packet {
    /// Its value, if it is one of this type and nothing stands behind it.
    pub fn value<'a, T: Deserialize<'a>>(&'a self) -> Option<T> {
        match postcard::take_from_bytes(&self.body) {
            Ok((value, [])) => Some(value),
            _ => None,
        }
    }

    /// The version of who sent it.
    pub fn version(&self) -> u8 {
        self.version
    }

    /// Its message, if both sides speak the same version or it is one of all versions.
    pub fn message(&self) -> Result<Message<'_>, &'static str> {
        match self.value::<Message>() {
            Some(message) if self.version == VERSION || message.is_timeless() => Ok(message),
            _ if self.version != VERSION => Err("the other side is of another version"),
            _ => Err("what came is no message"),
        }
    }
}

fn check_length(length: usize) -> io::Result<()> {
    if length <= LONGEST {
        return Ok(());
    }
    let text = format!("{length} bytes are more than one message may have ({LONGEST})");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// Sends one value with descriptors, which stay the caller's.
///
/// # Errors
/// `WouldBlock` if the other side's queue is full, `InvalidInput` if the value is too long: nothing
/// was sent.
pub fn send<T: Serialize>(to: &impl AsRawFd, value: &T, descriptors: &[RawFd]) -> io::Result<()> {
    let body = postcard::to_allocvec(value).map_err(io::Error::other)?;
    check_length(body.len())?;
    let mut header = [0; HEADER];
    header[0] = VERSION;
    header[2..].copy_from_slice(&(body.len() as u32).to_le_bytes());
    if body.len() <= INLINE {
        return sys::send_packet(to, &[&header, &body], descriptors);
    }
    header[1] = IN_MEMORY;
    let memory = sys::memory_file(&[&body])?;
    let descriptors: Vec<RawFd> = descriptors.iter().copied().chain([memory.as_raw_fd()]).collect();
    sys::send_packet(to, &[&header], &descriptors)
}

/// Takes the next packet, if one waits. `buffer` is any buffer; what it holds is lost.
pub fn receive(from: &impl AsRawFd, buffer: &mut Vec<u8>) -> Result<Packet, Fault> {
    buffer.resize(BUFFER, 0);
    // Told first, if the other side has gone with something unread: what it had sent is still there.
    let is_reset = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset;
    let received = match sys::receive_packet(from, buffer) {
        Err(error) if is_reset(&error) => sys::receive_packet(from, buffer),
        received => received,
    };
    let received = match received {
        Ok(received) => received,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(Fault::Nothing),
        Err(_) => return Err(Fault::End),
    };
    let mut descriptors = received.descriptors;
    if received.len == 0 && descriptors.is_empty() {
        return Err(Fault::End);
    }
    let Some((header, inline)) = buffer[..received.len].split_first_chunk::<HEADER>() else {
        return Err(Fault::Garbage("what came is too short", descriptors));
    };
    if received.is_cut {
        return Err(Fault::Garbage("what came is too long", descriptors));
    }
    let [version, flags, length @ ..] = *header;
    let length = u32::from_le_bytes(length) as usize;
    let body = if flags & IN_MEMORY == 0 {
        inline.to_vec()
    } else {
        let memory = descriptors.pop().filter(|_| length <= LONGEST);
        match memory.map(|memory| sys::read_memory_file(&memory, length)) {
            Some(Ok(body)) => body,
            _ => return Err(Fault::Garbage("its memory file is none", descriptors)),
        }
    };
    if body.len() != length {
        return Err(Fault::Garbage("its length is wrong", descriptors));
    }
    Ok(Packet { version, body, descriptors })
}

/// What this version looks like on the wire.
#[cfg(test)]
pub(super) mod golden {
    use std::fmt::Debug;

    use super::*;

    const CURE: &str = "the messages between processes have changed: \
                        raise wire::VERSION, and then this constant";

    /// How many variants an enum has: each can be read from zeros.
    fn variants<T: Deserialize<'static>>() -> usize {
        let read = |number: u8| {
            let bytes: &'static [u8] = [&[number][..], &[0; 64]].concat().leak();
            postcard::take_from_bytes::<T>(bytes).is_ok()
        };
        (0..=u8::MAX).take_while(|number| read(*number)).count()
    }

    /// Compares the encoding of one value per variant, by its FNV-1a digest.
    #[track_caller]
    pub fn check<T: Serialize + Deserialize<'static>>(values: &[T], expected: u64) {
        let encoded: Vec<_> =
            values.iter().map(|value| postcard::to_allocvec(value).unwrap()).collect();
        let mut seen: Vec<u8> = encoded.iter().map(|bytes| bytes[0]).collect();
        seen.dedup();
        let all: Vec<u8> = (0..variants::<T>() as u8).collect();
        assert_eq!(seen, all, "the test has a value of each variant; {CURE}");
        let digest = encoded.concat().iter().fold(0xcbf2_9ce4_8422_2325, |digest: u64, byte| {
            (digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
        });
        assert_eq!(format!("{digest:#x}"), format!("{expected:#x}"), "{CURE}");
    }

    /// Compares the names of an enum without values, in their order on the wire.
    #[track_caller]
    pub fn check_names<T: Debug + Deserialize<'static>>(expected: &str) {
        let names: Vec<_> = (0..variants::<T>() as u8)
            .map(|number| format!("{:?}", postcard::from_bytes::<T>(vec![number].leak()).unwrap()))
            .collect();
        assert_eq!(names.join(" "), expected, "{CURE}");
    }

    #[test]
    fn a_change_of_the_messages_is_another_version() {
        let ask = |question| Message::Ask { number: 300, question };
        let answer = |answer| Message::Answer { number: 300, answer };
        let (socket, payload) = ("id", &[1, 2][..]);
        let questions = [
            Question::Send { socket, payload },
            Question::Kick(Who::Socket("id".into())),
            Question::Stats,
            Question::Health,
        ];
        let messages = [
            Message::Welcome { library: "1.0", fingerprint: 300, process: 301 },
            Message::Lease { logs: true },
            Message::Stop { timeout_ms: 300 },
            Message::Retire,
            Message::TakeOver,
            Message::Adopt {
                grant: b"grant",
                answer: b"answer",
                leftover: b"leftover",
                remote_address: "address",
                host: "host",
                path_digest: 300,
                mirror: true,
            },
            Message::Publish { channel: "a", payload },
            Message::Refused(vec![(1, 300)]),
            ask(Question::Stats),
            Message::Watch,
            answer(Ok("fine")),
            answer(Err((Kind::Busy, "why"))),
            Message::Opened("id"),
            Message::Closed("id", 4403),
            Message::Overflow(300),
            Message::Log { level: 1, line: "line" },
        ];
        check(&messages, 0xd9a1_c010_ab8e_8197);
        check(&questions, 0xb66c_876f_467d_1c72);
        let whom = [Who::Socket, Who::User, Who::Session, Who::Channel];
        check(&whom.map(|who| who("name".into())), 0xa5d8_bc3c_1a25_3285);
    }

    #[test]
    fn a_change_of_what_is_only_names_is_another_version() {
        check_names::<Kind>(
            "Invalid Config Grant Fd NoFile Limit Busy Stopped WrongProcess Unsupported NotFound \
             Unhealthy Io Panic",
        );
        check_names::<crate::cause::Cause>(
            "Normal Lost GoingAway Protocol Unacceptable Utf8 NotGranted TooBig Internal Restart \
             Overloaded Slow Shed Gap PublishFailed NoPong Expired Kicked Rate Unfinished",
        );
        check_names::<crate::hub::Form>("Raw Binary Envelope");
        check_names::<crate::socket::Phase>("Held Open Closing Ending");
        let refusals = crate::cause::Refusal::ALL.map(|refusal| format!("{refusal:?}"));
        let expected = "Malformed Origin NotUpgrade Grant Tls Full Pace Timeout TooLarge";
        assert_eq!(refusals.join(" "), expected, "{CURE}");
        assert_eq!(VERSION, 2, "the constants of these tests are this version's");
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    /// Datagrams keep their bounds like packets.
    fn pair() -> (UnixDatagram, UnixDatagram) {
        UnixDatagram::pair().unwrap()
    }

    #[test]
    fn messages_come_as_they_were_sent_small_and_large() {
        let (here, there) = pair();
        let mut buffer = Vec::new();
        for size in [0, 1, 1000, INLINE - 10, INLINE, INLINE + 1, 3 << 20] {
            let payload = vec![7; size];
            let message = Message::Publish { channel: "a", payload: &payload };
            let file = sys::event_fd().unwrap();
            send(&here, &message, &[file.as_raw_fd()]).unwrap();
            let packet = receive(&there, &mut buffer).unwrap();
            assert_eq!(packet.message(), Ok(message));
            assert_eq!(packet.descriptors.len(), 1);
        }
        assert!(matches!(receive(&there, &mut buffer), Err(Fault::Nothing)));
    }

    #[test]
    fn what_is_no_packet_is_a_fault_and_keeps_no_descriptor() {
        let (here, there) = pair();
        let mut buffer = Vec::new();
        let mut good = vec![VERSION, 0, 0, 0, 0, 0];
        good.extend(postcard::to_allocvec(&Message::Retire).unwrap());
        good[2] = (good.len() - HEADER) as u8;
        for bad in [
            &good[..1],
            &good[..HEADER],
            &[good.as_slice(), b"x"].concat(),
            &vec![VERSION; BUFFER + 1],
            &[VERSION, IN_MEMORY, 0, 0, 0, 0],
        ] {
            here.send(bad).unwrap();
            let fault = receive(&there, &mut buffer).unwrap_err();
            assert!(matches!(fault, Fault::Garbage(..)), "{bad:?}: {fault:?}");
        }
        // A file that is no sealed memory.
        let file = sys::event_fd().unwrap();
        let header = [VERSION, IN_MEMORY, 1, 0, 0, 0];
        sys::send_packet(&here, &[&header], &[file.as_raw_fd()]).unwrap();
        assert!(matches!(receive(&there, &mut buffer), Err(Fault::Garbage(..))));
        // A body of another type, and of another version.
        here.send(&[VERSION, 0, 1, 0, 0, 0, 99]).unwrap();
        assert!(receive(&there, &mut buffer).unwrap().message().is_err());
        good[0] = VERSION + 1;
        here.send(&good).unwrap();
        assert_eq!(receive(&there, &mut buffer).unwrap().message(), Ok(Message::Retire));
        let mut adopt = Vec::from([VERSION + 1, 0, 1, 0, 0, 0]);
        adopt.extend(postcard::to_allocvec(&Message::Watch).unwrap());
        here.send(&adopt).unwrap();
        let packet = receive(&there, &mut buffer).unwrap();
        assert!(packet.message().unwrap_err().contains("version"));
    }

    #[test]
    fn a_body_that_nobody_would_take_is_not_sent() {
        assert!(check_length(LONGEST).is_ok());
        for length in [LONGEST + 1, 4 << 30] {
            let error = check_length(length).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn timeless_messages_keep_their_numbers() {
        let number = |message: &Message| postcard::to_allocvec(message).unwrap()[0];
        let welcome = Message::Welcome { library: "", fingerprint: 0, process: 0 };
        let timeless = [
            welcome,
            Message::Lease { logs: false },
            Message::Stop { timeout_ms: 0 },
            Message::Retire,
        ];
        for (expected, message) in timeless.iter().enumerate() {
            assert_eq!(usize::from(number(message)), expected);
            assert!(message.is_timeless());
        }
        assert!(!Message::TakeOver.is_timeless());
    }

    #[test]
    fn random_bytes_never_panic() {
        let mut random = crate::testing::dice(3);
        let (here, there) = pair();
        let mut buffer = Vec::new();
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random(64)).map(|_| random(256) as u8).collect();
            if let Some(first) = bytes.first_mut() {
                *first = VERSION;
            }
            if bytes.len() > HEADER && random(2) == 0 {
                let length = (bytes.len() - HEADER) as u32;
                bytes[1] = 0;
                bytes[2..HEADER].copy_from_slice(&length.to_le_bytes());
            }
            if !bytes.is_empty() {
                here.send(&bytes).unwrap();
                if let Ok(packet) = receive(&there, &mut buffer) {
                    let _ = packet.message();
                }
            }
        }
    }
}
