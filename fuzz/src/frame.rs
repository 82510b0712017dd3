//! The header of one frame, RFC 6455 §5.2, against a twin that reads bit by bit.

use wsredis::cause::Cause;
use wsredis::ws::frame::{self, Data, MAX_HEADER, OpCode};

/// What a header says: fin, rsv1, opcode, mask, length of the payload, own size.
pub type Said = (bool, bool, u8, [u8; 4], u64, usize);

/// Reads a header as the RFC draws it.
///
/// # Errors
/// `Protocol` if no continuation makes it right. Reserved opcodes, RSV2 and RSV3, no mask, a control
/// frame that is fragmented or longer than 125, a length that has a shorter form, or its top bit
/// set: each is an error as soon as it is seen.
pub fn twin(bytes: &[u8]) -> Result<Option<Said>, Cause> {
    let bit = |at: usize| -> Option<bool> {
        let byte = bytes.get(at / 8)?;
        Some(byte >> (7 - at % 8) & 1 == 1)
    };
    let number = |from: usize, bits: usize| -> Option<u64> {
        (from..from + bits).try_fold(0, |number, at| Some(number << 1 | u64::from(bit(at)?)))
    };
    let Some(opcode) = number(4, 4) else { return Ok(None) };
    let (fin, rsv1) = (bit(0) == Some(true), bit(1) == Some(true));
    let is_control = [0x8, 0x9, 0xA].contains(&opcode);
    if bit(2) == Some(true) || bit(3) == Some(true) {
        return Err(Cause::Protocol);
    }
    if !is_control && ![0x0, 0x1, 0x2].contains(&opcode) {
        return Err(Cause::Protocol);
    }
    if is_control && !fin {
        return Err(Cause::Protocol);
    }
    let Some(short) = number(9, 7) else { return Ok(None) };
    if bit(8) == Some(false) || (is_control && short >= 126) {
        return Err(Cause::Protocol);
    }
    let (bits, smallest) = match short {
        126 => (16, 126),
        127 => (64, 65536),
        _ => (0, 0),
    };
    // What the bytes that are there allow, at most and at least: the rest may be all ones or zeros.
    let here = bits.min((bytes.len() - 2) * 8);
    let Some(top) = number(16, here) else { return Ok(None) };
    let missing = bits - here;
    let most = if missing == 64 { u64::MAX } else { (top << missing) | ((1 << missing) - 1) };
    if bits > 0 && (most < smallest || (bits == 64 && here >= 8 && most >> 63 == 1)) {
        return Err(Cause::Protocol);
    }
    let at = 2 + bits / 8;
    let Some(mask) = bytes.get(at..at + 4) else { return Ok(None) };
    let len = if bits == 0 { short } else { top };
    let mask = [mask[0], mask[1], mask[2], mask[3]];
    Ok(Some((fin, rsv1, opcode as u8, mask, len, at + 4)))
}

/// The parser says what the twin says, of the whole and of every beginning; what was read is
/// written back to the same bytes; a mask is its own inverse.
pub fn check(data: &[u8]) {
    let parsed = frame::parse(data);
    let said = parsed.map(|found| {
        found.map(|(header, size)| {
            let opcode = u8::from(header.opcode);
            (header.fin, header.rsv1, opcode, header.mask, header.len, size)
        })
    });
    assert_eq!(said, twin(data));

    // More bytes never change an answer, and none is missed that fewer bytes give.
    for cut in 0..data.len().min(MAX_HEADER + 1) {
        match frame::parse(&data[..cut]) {
            Ok(None) => assert_eq!(twin(&data[..cut]), Ok(None)),
            early => assert_eq!(early, parsed, "after {cut} bytes"),
        }
    }

    let Ok(Some((header, size))) = parsed else { return };
    assert!(size <= MAX_HEADER && header.len < 1 << 63);
    if matches!(header.opcode, OpCode::Control(_)) {
        assert!(header.fin && header.len <= 125);
    }
    assert!(!matches!(header.opcode, OpCode::Data(Data::Reserved(_))));
    let mut written = Vec::with_capacity(MAX_HEADER);
    header.append(&mut written);
    assert_eq!(written, data[..size]);

    let mut payload = [0; 32];
    let payload = &mut payload[..(data.len() - size).min(32)];
    payload.copy_from_slice(&data[size..size + payload.len()]);
    let offset = usize::from(size as u8 ^ header.mask[0]);
    frame::unmask(payload, header.mask, offset);
    for (at, byte) in payload.iter().enumerate() {
        assert_eq!(*byte, data[size + at] ^ header.mask[(at + offset) % 4]);
    }
}
