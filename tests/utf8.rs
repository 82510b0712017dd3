//! Text is UTF-8 exactly where the standard library says so, as one frame and over fragments, with the error no later
//! than its byte.

mod util;

use util::machine::{Got, feed};
use util::{Dice, rounds};
use wsredis::cause::Cause;
use wsredis::ws::message::Assembler;

/// Frames that are whole on their own: the mask is zero, so that nothing has to be masked a hundred million times.
fn append(out: &mut Vec<u8>, first: u8, payload: &[u8]) {
    out.extend_from_slice(&[first, 0x80 | payload.len() as u8, 0, 0, 0, 0]);
    out.extend_from_slice(payload);
}

/// One message of these bytes in fragments that begin at the set bits of `cuts` (bit 0: before the second byte).
fn message(out: &mut Vec<u8>, bytes: &[u8], cuts: u8) {
    out.clear();
    let mut begin = 0;
    for end in 1..=bytes.len() {
        if end == bytes.len() || cuts >> (end - 1) & 1 == 1 {
            let opcode = if begin == 0 { 0x01 } else { 0x00 };
            let fin = if end == bytes.len() { 0x80 } else { 0 };
            append(out, opcode | fin, &bytes[begin..end]);
            begin = end;
        }
    }
}

/// Compares the machine with the standard library.
fn judge(buffer: &mut Vec<u8>, bytes: &[u8], cuts: u8) {
    message(buffer, bytes, cuts);
    let mut machine = Assembler::default();
    let (got, fed) = feed(&mut machine, buffer, 1 << 16);
    match std::str::from_utf8(bytes) {
        Ok(text) => {
            assert!(fed == Ok(()) && got == [Got::Text(text.into())], "{bytes:x?} {cuts:b}")
        }
        Err(_) => assert!(fed == Err(Cause::Utf8) && got.is_empty(), "{bytes:x?} {cuts:b}"),
    }
    assert!(machine.is_idle());
}

/// All of three bytes that begin so.
fn of_three(first: u8, every: usize) {
    let mut buffer = Vec::new();
    for second in 0..=255u8 {
        for third in (0..=255u8).step_by(every) {
            // With another remainder for each second byte.
            let bytes = [first, second, third.wrapping_add((usize::from(second) % every) as u8)];
            judge(&mut buffer, &bytes, 0);
            judge(&mut buffer, &bytes, 1 + (second ^ third) % 3);
        }
    }
}

#[test]
fn every_sequence_of_up_to_three_bytes_is_text_or_not_as_the_standard_library_says() {
    let mut buffer = Vec::new();
    for first in 0..=255u8 {
        judge(&mut buffer, &[first], 0);
        for second in 0..=255u8 {
            judge(&mut buffer, &[first, second], 0);
            judge(&mut buffer, &[first, second], 1);
        }
    }
    // All where the first byte may begin three of them. Of the others an eighth, or with WSREDIS_FULL=1 all.
    let every = rounds(8, 1);
    for first in 0..=255u8 {
        of_three(first, if matches!(first, 0xE0..=0xEF) { 1 } else { every });
    }
}

#[test]
fn of_four_bytes_the_machine_and_the_standard_library_agree() {
    let (mut dice, mut buffer, mut good) = (Dice::new(4), Vec::new(), 0);
    // Bytes at which a rule begins or ends; with bytes of any kind hardly one in a thousand would be text.
    let edges = [
        0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xED, 0xEF,
        0xF0, 0xF4, 0xF5, 0xFF,
    ];
    for round in 0..rounds(1_000_000, 10_000_000) {
        let mut bytes = [0; 4];
        for byte in &mut bytes {
            *byte = if dice.below(2) == 0 { dice.pick(&edges) } else { dice.below(256) as u8 };
        }
        match round % 4 {
            0 => bytes[0] = 0xF0 | dice.below(5) as u8,
            1 => bytes.iter_mut().skip(1).for_each(|byte| *byte = 0x80 | (*byte & 0x3F)),
            _ => {}
        }
        if round % 8 == 5 {
            bytes[0] = 0xF0 | dice.below(5) as u8;
        }
        good += usize::from(std::str::from_utf8(&bytes).is_ok());
        judge(&mut buffer, &bytes, dice.below(8) as u8);
    }
    println!("{good} of {} were text", rounds(1_000_000, 10_000_000));
    assert!(good > 10_000, "{good}");
}
