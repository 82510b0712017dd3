//! A length that can not be is refused on the header: before any of the body, and without memory for it.

mod util;

use std::io::Read;
use std::ops::ControlFlow;

use util::browser::frame;
use util::wire::{End, Frame, frames, read_to_end};
use util::{Bench, Dice, Offer, memory, rounds};
use wsredis::cause::Cause;
use wsredis::ws::message::Assembler;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// The limit of these tests, `max-message-size`.
const MAX: u64 = 64 * 1024;
/// The most that one such header may make the engine allocate.
const A_LITTLE: i64 = 4 * 1024;

/// Only a header, with the length in two or eight bytes.
fn header(first: u8, len: u64, width: usize) -> Vec<u8> {
    let mut bytes = vec![first, 0x80 | if width == 2 { 126 } else { 127 }];
    bytes.extend_from_slice(&len.to_be_bytes()[8 - width..]);
    bytes.extend_from_slice(&[1, 2, 3, 4]);
    bytes
}

/// Something wrong about a length, and its cause: what is sent first, and the header.
fn wrong(dice: &mut Dice) -> (Vec<u8>, Vec<u8>, Cause) {
    let first = dice.pick(&[0x81, 0x82, 0x01, 0x02]);
    let begun = frame(0x02, &[7; 1000]);
    let (top, half) = (1u64 << 63, dice.below(1 << 30) as u64);
    match dice.below(9) {
        // "The minimal number of bytes MUST be used to encode the length", §5.2.
        0 => (vec![], header(first, dice.below(126) as u64, 2), Cause::Protocol),
        1 => (vec![], header(first, dice.below(65_536) as u64, 8), Cause::Protocol),
        // "The most significant bit MUST be 0", §5.2.
        2 => (vec![], header(first, top, 8), Cause::Protocol),
        3 => (vec![], header(first, top | half << 20, 8), Cause::Protocol),
        4 => (vec![], header(first, u64::MAX, 8), Cause::Protocol),
        // Lengths that could be, over the limit.
        5 => (vec![], header(first, top - 1, 8), Cause::TooBig),
        6 => (vec![], header(first, MAX + 1, 8), Cause::TooBig),
        7 => (vec![], header(first, MAX + 1 + half, 8), Cause::TooBig),
        // The sum of the fragments, also where it does not fit 64 bits.
        _ => {
            let len = dice.pick(&[MAX - 999, top - 1, top - 1000]);
            let width = if len < 65_536 { 2 } else { 8 };
            (begun, header(0x80, len, width), Cause::TooBig)
        }
    }
}

/// One test, because it counts the memory of its own process.
#[test]
fn a_wrong_length_is_refused_on_its_header_without_memory_for_it() {
    let mut dice = Dice::new(3);
    let mut most = 0;
    for _ in 0..10_000 {
        let (mut before, mut header, cause) = wrong(&mut dice);
        let at_first = memory::live();
        let mut machine = Assembler::default();
        let mut each = |_: wsredis::ws::message::Incoming<'_>| ControlFlow::Continue(());
        machine.feed(&mut before, MAX as usize, None, &mut each).unwrap();
        let taken = memory::taken();
        // Whole, and byte by byte with nothing behind the last one.
        let fed = match dice.below(2) {
            0 => machine.feed(&mut header, MAX as usize, None, &mut each),
            _ => header.iter_mut().try_for_each(|byte| {
                machine.feed(std::slice::from_mut(byte), MAX as usize, None, &mut each)
            }),
        };
        let taken = memory::taken() - taken;
        most = most.max(taken);
        assert_eq!(fed, Err(cause), "{header:x?}");
        assert!(taken <= A_LITTLE, "{taken} bytes for {header:x?}");
        assert_eq!((memory::live(), machine.is_idle()), (at_first, true), "{header:x?}");
    }
    println!("at most {most} bytes allocated for a header");

    let settings = [("max-message-size", "64k"), ("close-timeout", "1m"), ("ping-interval", "0")];
    let bench = Bench::new(1, &settings);
    let mut through_sockets = |count: usize| {
        for _ in 0..count {
            let (before, header, cause) = wrong(&mut dice);
            // Whatever lies behind the request is fed alone, so the header is cut where we like.
            let cut = dice.below(header.len() + 1);
            let leftover = [&before, &header[..cut]].concat();
            let mut browser =
                bench.offer(Offer { mirror: true, leftover: &leftover, ..<_>::default() });
            browser.write(&header[cut..]);
            let stream = browser.stream();
            stream.read_exact(&mut [0; util::engine::ANSWER.len()]).unwrap();
            // No byte of the body is sent, so the end can wait for none.
            let (bytes, end) = read_to_end(stream);
            let expected = vec![Frame::close(cause.code(), cause.reason())];
            assert_eq!((frames(&bytes), end), ((expected, &[][..]), Some(End::Fin)), "{header:x?}");
        }
        bench.wait_until_empty();
        memory::live()
    };
    let first = through_sockets(500);
    let count = rounds(2_000, 10_000);
    let grown = through_sockets(count) - first;
    println!("{grown} bytes more after {count} such headers on sockets of their own");
    assert!(grown < 16 * 1024, "{grown} bytes");
}
