//! One websocket frame, RFC 6455 §5.2: the header of a browser's frame, its mask, and whole frames
//! of the server.
//!
//! Pure functions over bytes; the loop that owns the socket calls them. This file judges one frame
//! by itself and never what it means beside others: that is `message`. Opcodes, close codes and the
//! headers that are written are tungstenite's. A browser's header is read here, because most of what
//! makes one wrong (masks, reserved bits, minimal lengths, control frames) is left to the caller
//! there, and each byte would be looked at twice.

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
pub use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use crate::cause::Cause;

/// The longest header a browser can send: two bytes, a 64-bit length and the mask.
pub const MAX_HEADER: usize = 14;

/// The longest payload of a control frame, RFC 6455 §5.5.
pub const MAX_CONTROL: usize = 125;

/// The header of a frame from a browser, as far as one frame can be judged alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The last frame of its message.
    pub fin: bool,
    /// The bit of permessage-deflate; only who negotiated it can say whether it is allowed.
    pub rsv1: bool,
    /// Never a reserved one.
    pub opcode: OpCode,
    /// The key that the payload is masked with.
    pub mask: [u8; 4],
    /// Length of the payload, below 2^63.
    pub len: u64,
}

/// Parses the header at the beginning of `bytes`: the header and its size, or `None` if more bytes
/// are needed.
///
/// Fails with [`Cause::Protocol`] as early as the bytes allow: a browser that is wrong in its first
/// byte is not asked for a second one.
#[inline]
pub fn parse(bytes: &[u8]) -> Result<Option<(Header, usize)>, Cause> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (fin, opcode) = (first & 0x80 != 0, OpCode::from(first & 0x0F));
    let control = match opcode {
        OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => {
            return Err(Cause::Protocol);
        }
        OpCode::Control(_) => true,
        OpCode::Data(_) => false,
    };
    // RSV2 and RSV3 belong to no extension that exists; a control frame is never fragmented (§5.5).
    if first & 0x30 != 0 || (control && !fin) {
        return Err(Cause::Protocol);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    // A frame from a browser is always masked (§5.1), and a control frame's length fits the second
    // byte (§5.5).
    if second & 0x80 == 0 || (control && usize::from(second & 0x7F) > MAX_CONTROL) {
        return Err(Cause::Protocol);
    }
    // "The minimal number of bytes MUST be used to encode the length" (§5.2). A 64-bit length whose
    // upper six bytes are zero is not minimal whatever follows.
    let (size, len) = match second & 0x7F {
        126 => {
            let Some(len) = bytes.get(2..4).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            (4, u64::from(u16::from_be_bytes(*len)))
        }
        127 if bytes.get(2).is_some_and(|top| top & 0x80 != 0)
            || bytes.get(2..8).is_some_and(|upper| upper == [0; 6]) =>
        {
            return Err(Cause::Protocol);
        }
        127 => {
            let Some(len) = bytes.get(2..10).and_then(<[u8]>::first_chunk) else { return Ok(None) };
            (10, u64::from_be_bytes(*len))
        }
        len => (2, u64::from(len)),
    };
    if size == 4 && len < 126 {
        return Err(Cause::Protocol);
    }
    let Some(mask) = bytes.get(size..).and_then(<[u8]>::first_chunk) else { return Ok(None) };
    let header = Header { fin, rsv1: first & 0x40 != 0, opcode, mask: *mask, len };
    Ok(Some((header, size + mask.len())))
}

impl Header {
    /// Appends the header as the browser wrote it.
    pub fn append(&self, out: &mut Vec<u8>) {
        let header = FrameHeader {
            is_final: self.fin,
            rsv1: self.rsv1,
            opcode: self.opcode,
            mask: Some(self.mask),
            ..FrameHeader::default()
        };
        header.format(self.len, out).expect("writing to a Vec does not fail");
    }
}

/// Unmasks (or masks) `payload`, RFC 6455 §5.3. `offset` is the position of `payload[0]` in the
/// payload of its frame.
pub fn unmask(payload: &mut [u8], key: [u8; 4], offset: usize) {
    // Sixteen bytes at a time in fixed arrays: the compiler makes one vector instruction of the
    // inner loop.
    let pattern: [u8; 16] = std::array::from_fn(|index| key[(offset % 4 + index) % 4]);
    let (blocks, rest) = payload.as_chunks_mut::<16>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(pattern) {
            *byte ^= key;
        }
    }
    for (byte, key) in rest.iter_mut().zip(pattern) {
        *byte ^= key;
    }
}

/// Appends one whole frame of the server: not masked, not fragmented.
pub fn append(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    append_whole(out, opcode, payload, false);
}

/// The same with the payload of a compressed message (RFC 7692 §6).
pub fn append_compressed(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8]) {
    append_whole(out, opcode, payload, true);
}

fn append_whole(out: &mut Vec<u8>, opcode: OpCode, payload: &[u8], rsv1: bool) {
    let header = FrameHeader { is_final: true, opcode, rsv1, ..FrameHeader::default() };
    let len = payload.len() as u64;
    out.reserve(header.len(len) + payload.len());
    header.format(len, out).expect("writing to a Vec does not fail");
    out.extend_from_slice(payload);
}

/// Appends a close frame. The codes that only exist off the wire (1005, 1006, 1015; RFC 6455
/// §7.4.1) give an empty one. A reason that does not fit a control frame is cut.
pub fn append_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let mut payload = Vec::new();
    if !matches!(code, 1005 | 1006 | 1015) {
        let mut end = reason.len().min(MAX_CONTROL - 2);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        payload.extend_from_slice(&code.to_be_bytes());
        payload.extend_from_slice(&reason.as_bytes()[..end]);
    }
    append(out, OpCode::Control(Control::Close), &payload);
}

/// Where the server frame that byte `at` of `bytes` lies in begins and ends. `bytes` is a run of
/// whole server frames; an `at` on a boundary gives itself, one past the end gives the end.
pub fn around(bytes: &[u8], at: usize) -> (usize, usize) {
    let (mut begin, mut end) = (0, 0);
    while end < at && end < bytes.len() {
        begin = end;
        end = end_of_first(bytes, begin);
    }
    if end == at { (end, end) } else { (begin.min(end), end) }
}

/// Where the last frame of a run of whole server frames begins, and how many there are.
pub fn last(bytes: &[u8]) -> (usize, u32) {
    let (mut begin, mut end, mut count) = (0, 0, 0);
    while end < bytes.len() {
        begin = end;
        end = end_of_first(bytes, begin);
        count += 1;
    }
    (begin, count)
}

/// Where the server frame that begins at `begin` ends.
fn end_of_first(bytes: &[u8], begin: usize) -> usize {
    let mut cursor = Cursor::new(bytes.get(begin..).unwrap_or_default());
    match FrameHeader::parse(&mut cursor) {
        Ok(Some((_, len))) => {
            let frame = cursor.position().saturating_add(len);
            let frame = usize::try_from(frame).unwrap_or(usize::MAX);
            begin.saturating_add(frame).min(bytes.len())
        }
        _ => bytes.len(),
    }
}

/// Whether a browser may send this close code, RFC 6455 §7.4 and the registry it founded.
pub fn is_valid_close_code(code: u16) -> bool {
    // 1014 (bad gateway) was registered after RFC 6455 and is missing in tungstenite's table.
    code == 1014 || CloseCode::from(code).is_allowed()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// The header of a masked frame with the length written in `width` bytes (0, 2 or 8).
    fn header(first: u8, len: u64, width: usize) -> Vec<u8> {
        let mut bytes = vec![first];
        match width {
            0 => bytes.push(0x80 | len as u8),
            2 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(len as u16).to_be_bytes());
            }
            _ => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&len.to_be_bytes());
            }
        }
        bytes.extend_from_slice(&KEY);
        bytes
    }

    #[test]
    fn the_masked_hello_of_the_rfc_is_read() {
        let mut bytes = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        let (header, size) = parse(&bytes).unwrap().unwrap();
        assert_eq!((header.fin, header.rsv1, header.len, size), (true, false, 5, 6));
        assert_eq!(header.opcode, OpCode::Data(Data::Text));
        unmask(&mut bytes[6..], header.mask, 0);
        assert_eq!(&bytes[6..], b"Hello");
    }

    #[test]
    fn server_frames_are_those_of_the_rfc() {
        let mut out = Vec::new();
        append(&mut out, OpCode::Data(Data::Text), b"Hello");
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
        for (len, head) in [
            (125usize, &[0x82, 125][..]),
            (126, &[0x82, 126, 0, 126]),
            (256, &[0x82, 0x7E, 0x01, 0x00]),
            (65535, &[0x82, 126, 0xFF, 0xFF]),
            (65536, &[0x82, 0x7F, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut out = b"before".to_vec();
            append(&mut out, OpCode::Data(Data::Binary), &vec![7; len]);
            assert_eq!(&out[6..6 + head.len()], head);
            assert_eq!(out.len(), 6 + head.len() + len);
        }
    }

    #[test]
    fn each_pair_of_first_bytes_is_judged_as_the_rfc_says() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let opcode = first & 0x0F;
                let control = opcode >= 8;
                let good = matches!(opcode, 0 | 1 | 2 | 8 | 9 | 10)
                    && first & 0x30 == 0
                    && second & 0x80 != 0
                    && (!control || (first & 0x80 != 0 && second & 0x7F <= 125));
                let parsed = parse(&[first, second]);
                assert_eq!(parsed, if good { Ok(None) } else { Err(Cause::Protocol) });
                // One byte that is wrong in itself is enough.
                if parse(&[first]).is_err() {
                    assert!(!good);
                }
            }
        }
        assert_eq!(parse(&[]), Ok(None));
        assert_eq!(parse(&[0x83]), Err(Cause::Protocol));
        assert_eq!(parse(&[0x09]), Err(Cause::Protocol));
    }

    #[test]
    fn lengths_are_minimal_and_below_two_to_the_63() {
        for (len, width, good) in [
            (0, 0, true),
            (125, 0, true),
            (0, 2, false),
            (125, 2, false),
            (126, 2, true),
            (65535, 2, true),
            (0, 8, false),
            (65535, 8, false),
            (65536, 8, true),
            ((1 << 63) - 1, 8, true),
            (1 << 63, 8, false),
            (u64::MAX, 8, false),
        ] {
            let bytes = header(0x82, len, width);
            match parse(&bytes) {
                Ok(Some((header, size))) => {
                    assert!(good, "{len} in {width} bytes");
                    assert_eq!((header.len, header.mask, size), (len, KEY, bytes.len()));
                    let mut cursor = Cursor::new(&bytes);
                    let (theirs, their_len) = FrameHeader::parse(&mut cursor).unwrap().unwrap();
                    assert_eq!((theirs.mask, their_len), (Some(header.mask), header.len));
                    assert_eq!((theirs.opcode, cursor.position()), (header.opcode, size as u64));
                }
                other => assert!(!good && other == Err(Cause::Protocol), "{len} in {width} bytes"),
            }
        }
        // The top bit decides at the third byte, six zeros at the eighth.
        assert_eq!(parse(&[0x82, 0xFF, 0x80]), Err(Cause::Protocol));
        assert_eq!(parse(&[0x82, 0xFF, 0, 0, 0, 0, 0]), Ok(None));
        assert_eq!(parse(&[0x82, 0xFF, 0, 0, 0, 0, 0, 0]), Err(Cause::Protocol));
    }

    #[test]
    fn a_header_cut_at_any_byte_waits_for_more() {
        for (len, width) in [(5, 0), (300, 2), (70_000, 8)] {
            let bytes = header(0xC1, len, width);
            for cut in 0..bytes.len() {
                assert_eq!(parse(&bytes[..cut]), Ok(None));
            }
            let mut longer = bytes.clone();
            longer.extend_from_slice(b"payload");
            let (header, size) = parse(&longer).unwrap().unwrap();
            assert!(header.rsv1 && size == bytes.len() && bytes.len() <= MAX_HEADER);
        }
    }

    #[test]
    fn unmask_does_what_the_naive_mask_does() {
        for len in 0..100 {
            for offset in 0..9 {
                let plain: Vec<u8> = (0..len).map(|index| (index * 7) as u8).collect();
                let naive: Vec<u8> =
                    plain.iter().enumerate().map(|(i, b)| b ^ KEY[(i + offset) % 4]).collect();
                let mut fast = plain.clone();
                unmask(&mut fast, KEY, offset);
                assert_eq!(fast, naive);
                unmask(&mut fast, KEY, offset);
                assert_eq!(fast, plain);
            }
        }
        let mut far = [0; 4];
        unmask(&mut far, KEY, usize::MAX);
        assert_eq!(far, [KEY[3], KEY[0], KEY[1], KEY[2]]);
    }

    #[test]
    fn boundaries_of_a_run_of_frames_are_found_from_every_byte() {
        let (mut bytes, mut ends) = (Vec::new(), vec![0]);
        for len in [0usize, 1, 125, 126, 300, 65535, 65536, 3] {
            append(&mut bytes, OpCode::Data(Data::Text), &vec![0x81; len]);
            ends.push(bytes.len());
        }
        let mut next = 0;
        for at in 0..=bytes.len() {
            if at > ends[next] {
                next += 1;
            }
            if at % 97 == 0 || at < 1000 || ends.contains(&at) || ends.contains(&(at - 1)) {
                let begin = if at == ends[next] { at } else { ends[next - 1] };
                assert_eq!(around(&bytes, at), (begin, ends[next]));
            }
        }
        let end = bytes.len();
        assert_eq!(around(&bytes, end + 1), (ends[ends.len() - 2], end));
        assert_eq!(around(&[], 0), (0, 0));
        for (count, end) in ends.iter().enumerate().skip(1) {
            assert_eq!(last(&bytes[..*end]), (ends[count - 1], count as u32));
        }
        assert_eq!(last(&[]), (0, 0));
    }

    #[test]
    fn close_frames_hold_code_and_reason_and_never_an_internal_code() {
        let close = |code, reason: &str| {
            let mut out = Vec::new();
            append_close(&mut out, code, reason);
            out
        };
        assert_eq!(close(1000, ""), [0x88, 2, 0x03, 0xE8]);
        assert_eq!(close(4008, "slow"), [0x88, 6, 0x0F, 0xA8, b's', b'l', b'o', b'w']);
        for code in [1005, 1006, 1015] {
            assert_eq!(close(code, "x"), [0x88, 0]);
        }
        // 122 ASCII bytes and a letter of two do not fit 123: the letter goes, whole.
        let cut = close(1001, &format!("{}é", "x".repeat(122)));
        assert_eq!((cut[1], cut.len()), (124, 126));
        for cause in Cause::ALL {
            assert!(close(cause.code(), cause.reason()).len() <= 2 + MAX_CONTROL);
        }
    }

    #[test]
    fn every_close_code_is_judged_as_the_registry_says() {
        for code in 0..=u16::MAX {
            let good = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
            assert_eq!(is_valid_close_code(code), good, "{code}");
        }
    }
}
