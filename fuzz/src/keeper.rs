//! What a keeper hears on its socket: any packet, with and without descriptors; and every message,
//! there and back.

use std::cell::RefCell;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixDatagram;

use serde::{Deserialize, Serialize};
use wsredis::engine::Waiting;
use wsredis::engine::Who;
use wsredis::engine::keeper::wire::{self, Fault, Message, Packet, Question, VERSION};
use wsredis::error::Kind;
use wsredis::hub::ChannelState;
use wsredis::redis::LinkState;
use wsredis::socket::SocketState;
use wsredis::sys;

use crate::input::Input;

struct Ends {
    here: UnixDatagram,
    there: UnixDatagram,
    buffer: Vec<u8>,
}

thread_local! {
    // Datagrams keep their bounds, as the packets of a keeper's socket do.
    static ENDS: RefCell<Ends> = RefCell::new({
        let (here, there) = UnixDatagram::pair().expect("a pair of sockets");
        Ends { here, there, buffer: Vec::new() }
    });
}

/// Encodes what was decoded and decodes it again: the same bytes come out both times.
fn there_and_back<T: Serialize + for<'a> Deserialize<'a>>(packet: &Packet) {
    let Some(value) = packet.value::<T>() else { return };
    let bytes = postcard::to_allocvec(&value).expect("it was decoded");
    let again: T = postcard::from_bytes(&bytes).expect("it was encoded");
    assert_eq!(postcard::to_allocvec(&again).expect("it was decoded"), bytes);
}

/// Sends a message and compares what comes.
fn send(ends: &mut Ends, message: &Message<'_>, descriptors: &[RawFd]) {
    wire::send(&ends.here, message, descriptors).expect("the queue is empty");
    let packet = wire::receive(&ends.there, &mut ends.buffer).expect("it was sent");
    assert_eq!(packet.message().as_ref(), Ok(message));
    assert_eq!((packet.version(), packet.descriptors.len()), (VERSION, descriptors.len()));
    assert!(matches!(wire::receive(&ends.there, &mut ends.buffer), Err(Fault::Nothing)));
}

/// One message of the sender's choice.
fn build<'a>(input: &mut Input<'a>) -> Message<'a> {
    let kind = input.byte();
    let number = u64::from_le_bytes(std::array::from_fn(|_| input.byte()));
    let mut bytes = || {
        let len = match input.byte() {
            255 => usize::MAX,
            len => usize::from(len),
        };
        input.piece(len)
    };
    let text = |bytes: &'a [u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    match kind % 20 {
        0 => {
            let library = text(bytes());
            Message::Welcome { library, fingerprint: number, process: number as u32 }
        }
        1 => Message::Lease { logs: number & 1 != 0 },
        2 => Message::Stop { timeout_ms: number as u32 },
        3 => Message::Retire,
        4 => Message::TakeOver,
        5 => Message::Adopt {
            grant: bytes(),
            answer: bytes(),
            leftover: bytes(),
            remote_address: text(bytes()),
            host: text(bytes()),
            path_digest: number,
            mirror: number & 1 != 0,
        },
        6 => Message::Publish { channel: text(bytes()), payload: bytes() },
        7 => Message::Refused(bytes().iter().map(|byte| (*byte, number)).collect()),
        8 => {
            let question = Question::Send { socket: text(bytes()), payload: bytes() };
            Message::Ask { number, question }
        }
        9 => {
            let name = text(bytes()).to_owned();
            let who = [Who::Socket, Who::User, Who::Session, Who::Channel][number as usize % 4];
            Message::Ask { number, question: Question::Kick(who(name)) }
        }
        10 => Message::Ask { number, question: Question::Stats },
        11 => Message::Ask { number, question: Question::Health },
        12 => Message::Watch,
        13 => Message::Answer { number, answer: Ok(text(bytes())) },
        14 => Message::Answer { number, answer: Err((Kind::Busy, text(bytes()))) },
        15 => Message::Opened(text(bytes())),
        16 => Message::Closed(text(bytes()), number as u16),
        17 => Message::Overflow(number),
        _ => Message::Log { level: number as u8, line: text(bytes()) },
    }
}

/// A packet that anybody sent is what its header says or no packet; it keeps the descriptors that
/// came with it, and whatever it decodes to is encoded to the same. Messages arrive as they were
/// sent, in whichever way they travel.
pub fn check(data: &[u8]) {
    ENDS.with_borrow_mut(|ends| check_with(ends, data));
}

/// Whether these bytes alone are one: version, flags without the one of memory, the length of what
/// follows in four bytes, the smallest first.
fn is_packet(bytes: &[u8]) -> bool {
    let Some(([_, flags, a, b, c, d], body)) = bytes.split_first_chunk::<6>() else { return false };
    let length = [d, c, b, a].iter().fold(0u64, |length, byte| length << 8 | u64::from(**byte));
    flags % 2 == 0 && length == body.len() as u64
}

fn check_with(ends: &mut Ends, data: &[u8]) {
    let mut input = Input(data);
    let choice = input.byte();
    let raw = input.0;
    let extra = usize::from(choice >> 4 & 3);
    // Any descriptor will do.
    let descriptors = vec![ends.here.as_raw_fd(); extra];
    let memory;
    match choice % 8 {
        // A packet as it is.
        0 => sys::send_packet(&ends.here, &[input.0], &descriptors),
        // One whose header says that its body is in memory.
        1 => {
            let length = u32::from(input.byte()) + (u32::from(input.byte()) << 8);
            memory = sys::memory_file(&[input.0]).expect("a memory file");
            let all = [&descriptors[..], &[memory.as_raw_fd()]].concat();
            let right = input.0.len() as u32;
            let length = if choice & 0x80 == 0 { right } else { length };
            let head = [&[VERSION, 1][..], &length.to_le_bytes()].concat();
            sys::send_packet(&ends.here, &[&head], &all)
        }
        2 | 3 => {
            let message = build(&mut input);
            return send(ends, &message, &descriptors);
        }
        // A body with the right header around it.
        _ => {
            let version = if choice & 0x80 == 0 { VERSION } else { input.byte() };
            let head = [&[version, 0][..], &(input.0.len() as u32).to_le_bytes()].concat();
            sys::send_packet(&ends.here, &[&head, input.0], &descriptors)
        }
    }
    .or_else(|error| match error.kind() {
        // There is no packet without bytes.
        std::io::ErrorKind::InvalidInput if input.is_empty() => Ok(()),
        _ => Err(error),
    })
    .expect("the queue is empty");

    let packet = match wire::receive(&ends.there, &mut ends.buffer) {
        Ok(packet) => {
            assert!(choice % 8 != 0 || is_packet(raw), "a wrong header was believed");
            packet
        }
        Err(Fault::Garbage(_, kept)) => {
            assert!(choice % 8 == 1 || (choice % 8 == 0 && !is_packet(raw)), "it was right");
            return assert!(kept.len() <= extra);
        }
        Err(Fault::Nothing) => return assert!(input.is_empty()),
        Err(Fault::End) => panic!("the connection is open"),
    };
    assert!(packet.descriptors.len() <= extra);
    there_and_back::<Vec<(u8, u64)>>(&packet);
    there_and_back::<Waiting>(&packet);
    there_and_back::<(Vec<ChannelState>, Option<LinkState>, Vec<Waiting>)>(&packet);
    there_and_back::<Vec<SocketState>>(&packet);
    match packet.message() {
        Ok(message) => {
            assert!(packet.version() == VERSION || message.is_timeless());
            send(ends, &message, &[]);
        }
        Err(_) => assert!(packet.version() != VERSION || packet.value::<Message<'_>>().is_none()),
    }
}
