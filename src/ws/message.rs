//! Frames of a browser into messages, RFC 6455 §5.4 to §5.6: fragments, control frames between
//! them, UTF-8, limits.
//!
//! Each socket owns one [`Assembler`], used by the loop that owns the socket. It never reads a
//! descriptor, never answers a ping and never closes anything: it says what came, or the [`Cause`]
//! to close with.

use std::ops::ControlFlow;

use super::deflate::Inflater;
use super::frame::{self, Control, Data, Header, MAX_HEADER, OpCode};
use crate::cause::Cause;
use crate::meter;

/// How much is allocated on the word of a frame's header alone; beyond it the buffer grows with
/// what really came.
const TRUSTED_LENGTH: u64 = 64 * 1024;

/// A fragment with a shorter payload costs more to handle than its bytes do.
const TINY: u64 = 16;

/// What a browser sent: a whole message or a control frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incoming<'a> {
    /// A text message. It is UTF-8.
    Text(&'a [u8]),
    /// A binary message.
    Binary(&'a [u8]),
    /// A ping, to be answered with the same bytes.
    Ping(&'a [u8]),
    /// A pong.
    Pong(&'a [u8]),
    /// A close frame with its code, if it has one. The reason was checked and is nobody's business.
    Close(Option<u16>),
    /// A fragment of a message began that is tiny, as no browser makes them: for who counts.
    TinyFragment,
}

/// The reassembly of one socket. Between messages it owns nothing and is one word long.
#[derive(Debug, Default)]
pub struct Assembler(Option<Box<Partial>>);

/// What is left over when the input ends inside a frame or a message. Plain values only.
#[derive(Debug, Default)]
struct Partial {
    /// The first bytes of a header that is not whole yet. Invariant: empty while `frame` is there.
    header: [u8; MAX_HEADER],
    header_len: usize,
    /// The frame whose payload is being read.
    frame: Option<Open>,
    /// Payload of a control frame that is being read.
    control: Vec<u8>,
    /// The message that is being read: a frame of it is open, or its last fragment has not come.
    message: Option<Message>,
    /// When what is being read began, once the owner has said so.
    begun: Option<u64>,
}

/// A frame with a part of its payload still to come.
#[derive(Debug)]
struct Open {
    header: Header,
    /// How many bytes of the payload came.
    got: u64,
}

/// The payload of all fragments so far, in one flat buffer: many small fragments cost no more than
/// one large one.
#[derive(Debug, Default)]
struct Message {
    text: bool,
    payload: Vec<u8>,
    /// Text only: so many bytes are known to be whole characters of UTF-8.
    checked: usize,
    /// What the buffer takes.
    share: meter::Share,
    /// The payload is compressed. It is decompressed when it is whole: half a message of each socket
    /// is cheaper to keep than half a decompressor.
    compressed: bool,
}

impl Assembler {
    /// Reads all of `input`, unmasking it in place, and calls `each` for every whole message and
    /// control frame.
    ///
    /// A message in one frame that lies whole in `input` is handed out as a slice of it. Any other
    /// is collected in one buffer, which is freed with the message. `max_message` bounds the
    /// payload of a message over all its fragments; it is judged on the header, before any payload.
    ///
    /// With an `inflater` permessage-deflate was agreed on: a compressed message is decompressed and
    /// then handed out as a slice of the inflater's buffer. `max_message` bounds it, too, while it
    /// is decompressed.
    ///
    /// When `each` breaks, and on an error, the rest of the input and everything collected is
    /// dropped: nothing that follows a close may be looked at, RFC 6455 §5.5.1.
    ///
    /// # Errors
    /// The cause to close the socket with: `Protocol`, `Utf8` or `TooBig`.
    pub fn feed(
        &mut self,
        input: &mut [u8],
        max_message: usize,
        mut inflater: Option<&mut Inflater>,
        each: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<(), Cause> {
        // Taken out: what is not put back is dropped on every early return.
        let mut partial = self.0.take();
        let mut rest = input;
        loop {
            if let Some(open) = partial.as_deref_mut().filter(|partial| partial.frame.is_some()) {
                rest = open.read_payload(rest)?;
                if !open.is_frame_whole() {
                    break;
                }
                if open.finish_frame(max_message, inflater.as_deref_mut(), each)?.is_break() {
                    return Ok(());
                }
                open.forget_begin();
            } else if rest.is_empty() {
                break;
            } else {
                let state = partial.as_deref_mut();
                let (header, behind) = match next_header(state, rest)? {
                    Some(found) => found,
                    None => {
                        partial.get_or_insert_default().keep_header(rest);
                        break;
                    }
                };
                rest = &mut rest[behind..];
                let message = partial.as_deref().and_then(|partial| partial.message.as_ref());
                judge(&header, message, max_message, inflater.is_some())?;
                match usize::try_from(header.len).ok().filter(|len| *len <= rest.len()) {
                    Some(len) if header.fin && header.opcode != OpCode::Data(Data::Continue) => {
                        let (payload, after) = rest.split_at_mut(len);
                        frame::unmask(payload, header.mask, 0);
                        let inflater = inflater.as_deref_mut().filter(|_| header.rsv1);
                        let payload = inflated(payload, max_message, inflater)?;
                        if hand_out(header.opcode, payload, each)?.is_break() {
                            return Ok(());
                        }
                        if let Some(partial) = partial.as_deref_mut() {
                            partial.forget_begin();
                        }
                        rest = after;
                    }
                    _ if is_tiny_fragment(&header) && each(Incoming::TinyFragment).is_break() => {
                        return Ok(());
                    }
                    _ => partial.get_or_insert_default().open(header),
                }
            }
        }
        self.0 = partial.filter(|partial| !partial.is_idle());
        Ok(())
    }

    /// The bytes that a fresh one is to be fed, to become what this one is: for another process.
    /// They are a browser's frames, and none of them is whole.
    pub fn replay(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Some(partial) = &self.0 else { return bytes };
        let open = partial.frame.as_ref();
        if let Some(message) = &partial.message {
            let first = open.filter(|open| !matches!(open.header.opcode, OpCode::Control(_)));
            let of_this_frame = first.map_or(0, |open| open.got as usize);
            let is_first = first.is_some_and(|o| o.header.opcode != OpCode::Data(Data::Continue));
            // All fragments that are whole, as one.
            let whole = message.payload.get(..message.payload.len() - of_this_frame);
            if let Some(whole) = whole.filter(|_| !is_first) {
                let opcode = OpCode::Data(if message.text { Data::Text } else { Data::Binary });
                let (rsv1, len) = (message.compressed, whole.len() as u64);
                Header { fin: false, rsv1, opcode, mask: [0; 4], len }.append(&mut bytes);
                bytes.extend_from_slice(whole);
            }
        }
        if let Some(Open { header, got }) = open {
            let payload = match (header.opcode, &partial.message) {
                (OpCode::Data(_), Some(message)) => &message.payload,
                _ => &partial.control,
            };
            header.append(&mut bytes);
            let begin = bytes.len();
            bytes.extend_from_slice(&payload[payload.len() - *got as usize..]);
            frame::unmask(&mut bytes[begin..], header.mask, 0);
        }
        bytes.extend_from_slice(&partial.header[..partial.header_len]);
        bytes
    }

    /// One that is to be fed the [`Assembler::replay`] of another, whose input began at `begun`.
    pub fn begun_at(begun: u64) -> Self {
        Assembler(Some(Box::new(Partial { begun: Some(begun), ..Partial::default() })))
    }

    /// When the message began that is not whole, or the frame beside any: what its owner said with
    /// [`Assembler::begin`]. Control frames between fragments change nothing.
    pub fn begun(&self) -> Option<u64> {
        self.0.as_ref()?.begun
    }

    /// Says what time it is, in the owner's own time. Only the first word on a message counts.
    pub fn begin(&mut self, now: u64) {
        if let Some(partial) = &mut self.0 {
            partial.begun.get_or_insert(now);
        }
    }

    /// Whether nothing is waiting for its other half: then it owns no memory.
    pub fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// Bytes on the heap.
    pub fn heap_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |partial| {
            let message = partial.message.as_ref().map_or(0, |message| message.payload.capacity());
            size_of::<Partial>() + partial.control.capacity() + message
        })
    }
}

/// The header that begins in `partial` or `input`, and how many bytes of `input` belong to it.
#[inline]
fn next_header(
    partial: Option<&mut Partial>,
    input: &[u8],
) -> Result<Option<(Header, usize)>, Cause> {
    let Some(partial) = partial.filter(|partial| partial.header_len > 0) else {
        return frame::parse(input);
    };
    // No header is longer than the array, so the header is whole before the array is full.
    let kept = partial.header_len;
    let mut bytes = partial.header;
    for (to, from) in bytes[kept..].iter_mut().zip(input) {
        *to = *from;
    }
    let came = MAX_HEADER.min(kept + input.len());
    let found = frame::parse(&bytes[..came])?;
    if found.is_some() {
        partial.header_len = 0;
    }
    // What was kept was not a whole header, so this one ends in the input.
    Ok(found.map(|(header, size)| (header, size - kept)))
}

/// Judges a header by the message it belongs to, before any of its payload.
#[inline]
fn judge(
    header: &Header,
    message: Option<&Message>,
    max_message: usize,
    deflate: bool,
) -> Result<(), Cause> {
    let first = matches!(header.opcode, OpCode::Data(Data::Text | Data::Binary));
    // The bit belongs to the first frame of a message, and only where compression was agreed on
    // (RFC 6455 §5.2, RFC 7692 §6).
    if header.rsv1 && !(deflate && first) {
        return Err(Cause::Protocol);
    }
    let OpCode::Data(data) = header.opcode else { return Ok(()) };
    let (collected, compressed) = match (data, message) {
        (Data::Continue, Some(message)) => (message.payload.len(), message.compressed),
        (Data::Text | Data::Binary, None) => (0, header.rsv1),
        // A fragment of nothing, or a new message inside another (§5.4).
        _ => return Err(Cause::Protocol),
    };
    let max = if compressed { max_compressed(max_message) } else { max_message };
    if header.len.saturating_add(collected as u64) > max as u64 {
        return Err(Cause::TooBig);
    }
    Ok(())
}

/// How long a message that may be decompressed can be at most: what does not compress becomes a
/// little longer, by zlib's own bound for its worst settings.
fn max_compressed(max_message: usize) -> usize {
    max_message.saturating_add(max_message / 7).saturating_add(16)
}

/// The payload of a message, decompressed if there is an inflater.
fn inflated<'a>(
    payload: &'a [u8],
    max_message: usize,
    inflater: Option<&'a mut Inflater>,
) -> Result<&'a [u8], Cause> {
    match inflater {
        Some(inflater) => inflater.inflate(payload, max_message),
        None => Ok(payload),
    }
}

/// The last fragment is as long as it happens to be, with honest browsers too (Autobahn 12.1.11). It
/// ends a message, and messages are counted.
fn is_tiny_fragment(header: &Header) -> bool {
    !header.fin && header.len < TINY
}

/// Hands out what a whole frame, or the whole payload of a message, means.
#[inline]
fn hand_out(
    opcode: OpCode,
    payload: &[u8],
    each: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, Cause> {
    let incoming = match opcode {
        OpCode::Data(Data::Text) => {
            Incoming::Text(is_utf8(payload).then_some(payload).ok_or(Cause::Utf8)?)
        }
        OpCode::Data(_) => Incoming::Binary(payload),
        OpCode::Control(Control::Ping) => Incoming::Ping(payload),
        OpCode::Control(Control::Pong) => Incoming::Pong(payload),
        OpCode::Control(_) => Incoming::Close(close_code(payload)?),
    };
    Ok(each(incoming))
}

/// Is this UTF-8? Most texts are ASCII, and that is known in a fifth of the time.
#[inline]
pub fn is_utf8(bytes: &[u8]) -> bool {
    bytes.is_ascii() || std::str::from_utf8(bytes).is_ok()
}

/// The code of a close frame, RFC 6455 §5.5.1 and §7.4.
fn close_code(payload: &[u8]) -> Result<Option<u16>, Cause> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(Cause::Protocol) };
    };
    let code = u16::from_be_bytes(*code);
    if !frame::is_valid_close_code(code) {
        return Err(Cause::Protocol);
    }
    std::str::from_utf8(reason).map_err(|_| Cause::Utf8)?;
    Ok(Some(code))
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// A frame is whole: unless its message goes on, what comes next begins anew.
    fn forget_begin(&mut self) {
        if self.message.is_none() {
            self.begun = None;
        }
    }

    /// Keeps the beginning of a header. `bytes` is all that came and too short for the header.
    fn keep_header(&mut self, bytes: &[u8]) {
        for (to, from) in self.header[self.header_len..].iter_mut().zip(bytes) {
            *to = *from;
            self.header_len += 1;
        }
    }

    /// Begins a frame whose payload is not whole, or that is a fragment.
    fn open(&mut self, header: Header) {
        if let OpCode::Data(data @ (Data::Text | Data::Binary)) = header.opcode {
            let (text, compressed) = (data == Data::Text, header.rsv1);
            self.message = Some(Message { text, compressed, ..Message::default() });
        }
        self.frame = Some(Open { header, got: 0 });
    }

    /// Takes what `input` has of the open frame's payload; gives back what is behind it.
    fn read_payload<'a>(&mut self, input: &'a mut [u8]) -> Result<&'a mut [u8], Cause> {
        let Some(open) = self.frame.as_mut() else { return Ok(input) };
        let missing = open.header.len - open.got;
        let take = usize::try_from(missing).unwrap_or(usize::MAX).min(input.len());
        let (payload, behind) = input.split_at_mut(take);
        // Only the position modulo 4 matters to the mask, so the cast may cut.
        frame::unmask(payload, open.header.mask, (open.got % 4) as usize);
        open.got += take as u64;
        match (open.header.opcode, &mut self.message) {
            (OpCode::Data(_), Some(message)) => message.append(payload, missing)?,
            _ => self.control.extend_from_slice(payload),
        }
        Ok(behind)
    }

    fn is_frame_whole(&self) -> bool {
        self.frame.as_ref().is_none_or(|open| open.got == open.header.len)
    }

    /// Ends the open frame, whose payload is whole: hands out the control frame, or the message if
    /// it was its last one.
    fn finish_frame(
        &mut self,
        max_message: usize,
        inflater: Option<&mut Inflater>,
        each: &mut dyn FnMut(Incoming<'_>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Cause> {
        let Some(header) = self.frame.take().map(|open| open.header) else {
            return Ok(ControlFlow::Continue(()));
        };
        if let OpCode::Control(_) = header.opcode {
            return hand_out(header.opcode, &std::mem::take(&mut self.control), each);
        }
        let Some(message) = self.message.take_if(|_| header.fin) else {
            return Ok(ControlFlow::Continue(()));
        };
        let inflater = inflater.filter(|_| message.compressed);
        let payload = inflated(&message.payload, max_message, inflater)?;
        let data = if message.text { Data::Text } else { Data::Binary };
        // Text that was not compressed is judged a second time here, a gigabyte a second at worst: a
        // `&str` without it takes `unsafe`.
        hand_out(OpCode::Data(data), payload, each)
    }
}

impl Message {
    /// Adds payload. `missing` is what the frame declares from here on, `payload` included.
    fn append(&mut self, payload: &[u8], missing: u64) -> Result<(), Cause> {
        if payload.is_empty() {
            return Ok(());
        }
        self.payload.reserve(payload.len().max(missing.min(TRUSTED_LENGTH) as usize));
        self.payload.extend_from_slice(payload);
        self.share.set(self.payload.capacity());
        if self.text && !self.compressed {
            match std::str::from_utf8(&self.payload[self.checked..]) {
                Ok(valid) => self.checked += valid.len(),
                // A character that may still become whole is kept for later; anything else is wrong
                // now, RFC 6455 §8.1, and need not be waited for: a browser could let a message of
                // bad text hang for ever.
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(Cause::Utf8),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [u8; 4] = [0xA1, 0x5C, 0x03, 0xFE];
    const MAX: usize = 1 << 20;

    /// What was handed out, owned.
    #[derive(Clone, Debug, PartialEq)]
    enum Got {
        Text(String),
        Binary(Vec<u8>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
        Close(Option<u16>),
        TinyFragment,
    }

    impl From<Incoming<'_>> for Got {
        fn from(incoming: Incoming<'_>) -> Self {
            match incoming {
                Incoming::Text(text) => Got::Text(String::from_utf8(text.into()).unwrap()),
                Incoming::Binary(payload) => Got::Binary(payload.into()),
                Incoming::Ping(payload) => Got::Ping(payload.into()),
                Incoming::Pong(payload) => Got::Pong(payload.into()),
                Incoming::Close(code) => Got::Close(code),
                Incoming::TinyFragment => Got::TinyFragment,
            }
        }
    }

    /// A masked frame. `first` is the whole first byte.
    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        frame::append(&mut bytes, OpCode::from(first & 0x0F), payload);
        bytes[0] = first;
        bytes[1] |= 0x80;
        let body = bytes.split_off(bytes.len() - payload.len());
        bytes.extend_from_slice(&KEY);
        bytes.extend(body.iter().enumerate().map(|(index, byte)| byte ^ KEY[index % 4]));
        bytes
    }

    /// Only the header of a masked frame.
    fn declared(first: u8, len: u64) -> Vec<u8> {
        let mut bytes = vec![first, 0x80 | 127];
        bytes.extend_from_slice(&len.to_be_bytes());
        bytes.extend_from_slice(&KEY);
        bytes
    }

    /// Feeds the pieces one after the other. A close ends the reading, as in the engine.
    fn feed_all<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> (Vec<Got>, Result<(), Cause>, Assembler) {
        feed_all_with(None, pieces, max)
    }

    fn feed_all_with<'a>(
        mut inflater: Option<&mut Inflater>,
        pieces: impl IntoIterator<Item = &'a [u8]>,
        max: usize,
    ) -> (Vec<Got>, Result<(), Cause>, Assembler) {
        let (mut assembler, mut got, mut closed) = (Assembler::default(), Vec::new(), false);
        for piece in pieces {
            let result = assembler.feed(
                &mut piece.to_vec(),
                max,
                inflater.as_deref_mut(),
                &mut |incoming| {
                    closed = matches!(incoming, Incoming::Close(_));
                    // Not among them: when an assembler is replayed, its fragments become one.
                    if incoming != Incoming::TinyFragment {
                        got.push(incoming.into());
                    }
                    if closed { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                },
            );
            if result.is_err() || closed {
                return (got, result, assembler);
            }
        }
        (got, Ok(()), assembler)
    }

    /// Feeds `bytes` whole, byte by byte and cut in two at every offset: all must agree.
    fn every_way(bytes: &[u8], max: usize) -> (Vec<Got>, Result<(), Cause>) {
        every_way_with(None, bytes, max)
    }

    fn every_way_with(
        mut inflater: Option<&mut Inflater>,
        bytes: &[u8],
        max: usize,
    ) -> (Vec<Got>, Result<(), Cause>) {
        let mut feed_all =
            |pieces: &[&[u8]]| feed_all_with(inflater.as_deref_mut(), pieces.iter().copied(), max);
        let (got, result, assembler) = feed_all(&[bytes]);
        let single = feed_all(&bytes.chunks(1).collect::<Vec<_>>());
        assert_eq!((&single.0, single.1), (&got, result), "byte by byte");
        assert_eq!(single.2.is_idle(), assembler.is_idle());
        for cut in 0..=bytes.len() {
            let halves = feed_all(&[&bytes[..cut], &bytes[cut..]]);
            assert_eq!((&halves.0, halves.1), (&got, result), "cut at {cut}");
            assert_eq!(halves.2.is_idle(), assembler.is_idle());
            // The same with another assembler from the cut on.
            let (mut both, begun, first) = feed_all(&[&bytes[..cut]]);
            if begun.is_err() || matches!(both.last(), Some(Got::Close(_))) {
                continue;
            }
            let (second, ended, _) = feed_all(&[&first.replay(), &bytes[cut..]]);
            both.extend(second);
            assert_eq!((&both, ended), (&got, result), "moved at {cut}");
        }
        (got, result)
    }

    fn text(text: &str) -> Got {
        Got::Text(text.into())
    }

    #[test]
    fn messages_fragments_and_controls_between_them_come_out_in_order_however_they_are_cut() {
        let bytes = [
            masked(0x81, "Hello, Wörld €".as_bytes()),
            masked(0x01, b"Hel"),
            masked(0x89, b"ping"),
            masked(0x00, b""),
            masked(0x8A, b""),
            masked(0x80, b"lo"),
            masked(0x82, &[0, 255, 128]),
            masked(0x02, b""),
            masked(0x80, b""),
            masked(0x81, b""),
            masked(0x82, &[9; 300]),
            // A character of three bytes over three fragments.
            masked(0x01, &[0xE2]),
            masked(0x00, &[0x82]),
            masked(0x80, &[0xAC]),
            masked(0x89, &[1; 125]),
            masked(0x88, &[0x03, 0xE8, b'b', b'y', b'e']),
            // Behind a close nothing is looked at, not even what is wrong.
            vec![0xFF; 20],
        ]
        .concat();
        let (got, result) = every_way(&bytes, MAX);
        let expected = vec![
            text("Hello, Wörld €"),
            Got::Ping(b"ping".to_vec()),
            Got::Pong(vec![]),
            text("Hello"),
            Got::Binary(vec![0, 255, 128]),
            Got::Binary(vec![]),
            text(""),
            Got::Binary(vec![9; 300]),
            text("€"),
            Got::Ping(vec![1; 125]),
            Got::Close(Some(1000)),
        ];
        assert_eq!((got, result), (expected, Ok(())));
    }

    /// "Hello" compressed, RFC 7692 §7.2.3.1.
    const HELLO: [u8; 7] = [0xF2, 0x48, 0xCD, 0xC9, 0xC9, 0x07, 0x00];

    #[test]
    fn compressed_messages_come_out_in_order_however_they_are_cut() {
        let euro = [0x00, 0x03, 0x00, 0xFC, 0xFF, 0xE2, 0x82, 0xAC, 0x00];
        let bytes = [
            masked(0xC1, &HELLO),
            masked(0x81, b"plain"),
            masked(0xC2, &HELLO),
            masked(0x41, &HELLO[..3]),
            masked(0x89, b"ping"),
            masked(0x00, b""),
            masked(0x80, &HELLO[3..]),
            masked(0x01, b"pl"),
            masked(0x80, b"ain"),
            // A character is cut inside a fragment of compressed bytes.
            masked(0x41, &euro[..6]),
            masked(0x80, &euro[6..]),
            masked(0xC1, &[0]),
            masked(0xC1, &HELLO),
        ]
        .concat();
        let (got, result) = every_way_with(Some(&mut Inflater::default()), &bytes, MAX);
        let expected = vec![
            text("Hello"),
            text("plain"),
            Got::Binary(b"Hello".to_vec()),
            Got::Ping(b"ping".to_vec()),
            text("Hello"),
            text("plain"),
            text("€"),
            text(""),
            text("Hello"),
        ];
        assert_eq!((got, result), (expected, Ok(())));
    }

    #[test]
    fn what_is_wrong_with_a_compressed_message_has_its_cause() {
        let inflater = &mut Inflater::default();
        let mut fails = |frames: &[Vec<u8>], max: usize, cause: Cause| {
            let result = every_way_with(Some(inflater), &frames.concat(), max);
            assert_eq!(result, (vec![], Err(cause)), "{frames:x?}");
        };
        // Not UTF-8 once it is decompressed: 0xFF in a block that is stored as it is.
        fails(&[masked(0xC1, &[0x00, 0x01, 0x00, 0xFE, 0xFF, 0xFF, 0x00])], MAX, Cause::Utf8);
        fails(&[masked(0xC1, &[0xFF])], MAX, Cause::Protocol);
        fails(&[masked(0x41, &[0xFF]), masked(0x80, b"")], MAX, Cause::Protocol);
        // The bit on anything but a message's first frame.
        fails(&[masked(0x41, &HELLO[..3]), masked(0xC0, &HELLO[3..])], MAX, Cause::Protocol);
        fails(&[masked(0x01, b"a"), masked(0xC0, b"b")], MAX, Cause::Protocol);
        for control in [0xC8, 0xC9, 0xCA] {
            fails(&[masked(control, b"")], MAX, Cause::Protocol);
        }
        // Five bytes come out of seven.
        fails(&[masked(0xC1, &HELLO)], 4, Cause::TooBig);
        fails(&[masked(0x41, &HELLO[..3]), masked(0x80, &HELLO[3..])], 4, Cause::TooBig);
        // Far too long whatever comes out: judged on the header.
        fails(&[declared(0xC2, 70_000)], 60_000, Cause::TooBig);
        fails(&[masked(0x42, &[0; 40_000]), declared(0x80, 65_536)], 60_000, Cause::TooBig);
    }

    #[test]
    fn a_message_of_the_largest_size_may_be_longer_when_it_is_compressed() {
        // A block that is stored has five bytes more than its content.
        let mut payload = vec![0x00, 0x0A, 0x00, 0xF5, 0xFF];
        payload.extend_from_slice(b"0123456789");
        payload.push(0);
        let result = every_way_with(Some(&mut Inflater::default()), &masked(0xC1, &payload), 10);
        assert_eq!(result, (vec![text("0123456789")], Ok(())));
    }

    #[test]
    fn an_idle_assembler_owns_nothing_and_is_one_word() {
        assert_eq!(size_of::<Assembler>(), size_of::<usize>());
        let mut assembler = Assembler::default();
        let whole = [masked(0x81, b"one"), masked(0x01, b"t"), masked(0x80, b"wo")].concat();
        for cut in 1..whole.len() {
            assembler
                .feed(&mut whole[..cut].to_vec(), MAX, None, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            assert_eq!(assembler.is_idle(), assembler.heap_bytes() == 0);
            assembler
                .feed(&mut whole[cut..].to_vec(), MAX, None, &mut |_| ControlFlow::Continue(()))
                .unwrap();
            assert!(assembler.is_idle() && assembler.heap_bytes() == 0);
        }
    }

    #[test]
    fn a_whole_message_is_a_slice_of_the_input() {
        let mut input = [masked(0x82, b"first"), masked(0x82, b"second")].concat();
        let range = input.as_ptr_range();
        let mut seen = 0;
        Assembler::default()
            .feed(&mut input, MAX, None, &mut |incoming| {
                let Incoming::Binary(payload) = incoming else { panic!("{incoming:?}") };
                assert!(range.contains(&payload.as_ptr()));
                seen += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        assert_eq!(seen, 2);
    }

    #[test]
    fn a_declared_length_alone_allocates_nothing_and_a_little_payload_little() {
        let mut assembler = Assembler::default();
        let mut feed = |bytes: &mut [u8]| {
            assembler.feed(bytes, usize::MAX, None, &mut |_| ControlFlow::Continue(())).unwrap();
            assembler.heap_bytes()
        };
        assert_eq!(feed(&mut declared(0x82, 1 << 40)), size_of::<Partial>());
        assert!(feed(&mut [1]) <= size_of::<Partial>() + TRUSTED_LENGTH as usize);
        assert!(feed(&mut vec![1; 1 << 20]) <= 3 << 20);
    }

    #[test]
    fn a_flood_of_tiny_fragments_costs_what_its_bytes_cost() {
        let mut bytes = masked(0x02, b"x");
        for _ in 0..65_536 {
            bytes.extend_from_slice(&masked(0x00, b"x"));
        }
        let (got, result, assembler) = feed_all([&bytes[..]], MAX);
        assert_eq!((got, result), (vec![], Ok(())));
        assert!(assembler.heap_bytes() < 200_000, "{}", assembler.heap_bytes());
    }

    #[test]
    fn the_limit_is_the_sum_of_the_fragments_and_is_judged_on_the_header() {
        for (len, good) in [(9, true), (10, true), (11, false)] {
            let whole = masked(0x82, &vec![1; len]);
            let halves = [masked(0x01, b"aaaaa"), masked(0x80, &vec![b'b'; len - 5])].concat();
            let expected = if good { Ok(()) } else { Err(Cause::TooBig) };
            assert_eq!(every_way(&whole, 10).1, expected);
            assert_eq!(every_way(&halves, 10).1, expected);
        }
        // Control frames have their own limit.
        assert_eq!(every_way(&masked(0x89, &[1; 125]), 10).1, Ok(()));
        assert_eq!(every_way(&masked(0x82, b""), 0).1, Ok(()));
        for (len, cause) in [
            (11 + (1 << 16), Cause::TooBig),
            ((1 << 63) - 1, Cause::TooBig),
            (1 << 63, Cause::Protocol),
            (u64::MAX, Cause::Protocol),
        ] {
            assert_eq!(every_way(&declared(0x82, len), 10), (vec![], Err(cause)));
        }
        let overflow = [masked(0x02, b"x"), declared(0x80, (1 << 63) - 1)].concat();
        assert_eq!(every_way(&overflow, usize::MAX >> 1).1, Err(Cause::TooBig));
    }

    #[test]
    fn what_breaks_the_order_of_fragments_is_a_protocol_error() {
        for bytes in [
            masked(0x80, b"of nothing"),
            masked(0x00, b"of nothing"),
            [masked(0x01, b"a"), masked(0x81, b"b")].concat(),
            [masked(0x01, b"a"), masked(0x02, b"b")].concat(),
            [masked(0x01, b"a"), masked(0x80, b"b"), masked(0x80, b"c")].concat(),
            masked(0xC1, b"rsv1"),
            masked(0xC9, b"rsv1"),
            [masked(0x01, b"a"), masked(0xC0, b"b")].concat(),
            masked(0x09, b"fragmented ping"),
            vec![0x81, 0x01, b'a'],
        ] {
            assert_eq!(every_way(&bytes, MAX).1, Err(Cause::Protocol), "{bytes:?}");
        }
    }

    #[test]
    fn a_message_before_the_error_is_still_handed_out() {
        let bytes = [masked(0x81, b"good"), masked(0x83, b"bad")].concat();
        assert_eq!(every_way(&bytes, MAX), (vec![text("good")], Err(Cause::Protocol)));
    }

    #[test]
    fn text_that_is_wrong_fails_at_its_first_wrong_byte() {
        // (bytes, how many of them are needed to know)
        let table: &[(&[u8], usize)] = &[
            (b"ok\x80", 3),
            (b"\xC0\x80", 1),
            (b"\xC1\xBF", 1),
            (b"\xC3(", 2),
            (b"\xE0\x9F\xBF", 2),
            (b"\xE2\x82(", 3),
            (b"\xED\xA0\x80", 2),
            (b"\xED\xBF\xBF", 2),
            (b"\xF0\x8F\xBF\xBF", 2),
            (b"\xF0\x9F\x92(", 4),
            (b"\xF4\x90\x80\x80", 2),
            (b"\xF5\x80\x80\x80", 1),
            (b"\xFF", 1),
            (b"\xCE\xBA\xE1\xBD\xB9\xCF\x83\xCE\xBC\xCE\xB5\xF4\x90\x80\x80edited", 13),
        ];
        for (bytes, needed) in table {
            let payload = [*bytes, &[b'x'; 200]].concat();
            let whole = masked(0x81, &payload);
            assert_eq!(every_way(&whole, MAX), (vec![], Err(Cause::Utf8)), "{bytes:x?}");
            // Byte by byte inside one frame that never ends (RFC 6455 §8.1, Autobahn 6.4.3).
            let head = whole.len() - payload.len();
            let pieces = |upto: usize| feed_all(whole[..head + upto].chunks(1), MAX).1;
            assert_eq!(pieces(needed - 1), Ok(()), "{bytes:x?}");
            assert_eq!(pieces(*needed), Err(Cause::Utf8), "{bytes:x?}");
            // The same over fragments of one byte.
            let mut fragments = masked(0x01, b"");
            for (index, byte) in bytes.iter().enumerate() {
                fragments.extend_from_slice(&masked(0x00, &[*byte]));
                let expected = if index + 1 < *needed { Ok(()) } else { Err(Cause::Utf8) };
                assert_eq!(feed_all([&fragments[..]], MAX).1, expected, "{bytes:x?} at {index}");
            }
        }
    }

    #[test]
    fn text_that_ends_inside_a_character_is_wrong_and_binary_is_never_looked_at() {
        for bytes in [&b"\xC3"[..], b"a\xE2\x82", b"\xF0\x9F\x92"] {
            assert_eq!(every_way(&masked(0x81, bytes), MAX).1, Err(Cause::Utf8));
            let fragments = [masked(0x01, bytes), masked(0x80, b"")].concat();
            assert_eq!(every_way(&fragments, MAX).1, Err(Cause::Utf8));
            let binary = [masked(0x02, bytes), masked(0x80, b"")].concat();
            assert_eq!(every_way(&binary, MAX).0, [Got::Binary(bytes.to_vec())]);
        }
    }

    #[test]
    fn incremental_utf8_agrees_with_the_standard_library_on_every_pair_of_bytes() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                let payload = [first, second, b'.'];
                let frames = [masked(0x01, &payload[..1]), masked(0x80, &payload[1..])].concat();
                let (got, result, _) = feed_all([&frames[..]], MAX);
                match std::str::from_utf8(&payload) {
                    Ok(valid) => assert_eq!((got, result), (vec![text(valid)], Ok(()))),
                    Err(_) => assert_eq!((got, result), (vec![], Err(Cause::Utf8))),
                }
            }
        }
    }

    #[test]
    fn close_frames_are_judged() {
        let close = |payload: &[u8]| every_way(&masked(0x88, payload), MAX);
        assert_eq!(close(b""), (vec![Got::Close(None)], Ok(())));
        assert_eq!(close(b"\x03"), (vec![], Err(Cause::Protocol)));
        assert_eq!(close(b"\x03\xE8\xFF"), (vec![], Err(Cause::Utf8)));
        assert_eq!(close(b"\x03\xED\xFF"), (vec![], Err(Cause::Protocol)));
        assert_eq!(close(b"\x0F\xA0ciao"), (vec![Got::Close(Some(4000))], Ok(())));
        for code in 0..=u16::MAX {
            let (got, result, _) = feed_all([&masked(0x88, &code.to_be_bytes())[..]], MAX);
            if matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
                assert_eq!((got, result), (vec![Got::Close(Some(code))], Ok(())));
            } else {
                assert_eq!((got, result), (vec![], Err(Cause::Protocol)), "{code}");
            }
        }
    }

    #[test]
    fn tiny_fragments_are_told_once_each_and_nothing_else_is() {
        let message = |lens: &[usize]| {
            let last = lens.len() - 1;
            let frames = lens.iter().enumerate().map(|(index, len)| {
                let first = if index == 0 { 0x02 } else { 0x00 };
                masked(first | if index == last { 0x80 } else { 0 }, &vec![7; *len])
            });
            frames.collect::<Vec<_>>().concat()
        };
        for (bytes, expected) in [
            (message(&[0]), 0),
            (message(&[15]), 0),
            (message(&[16, 16]), 0),
            (message(&[15, 16]), 1),
            (message(&[16, 15]), 0),
            (message(&[0, 300, 1, 16, 0]), 2),
            ([masked(0x89, b""), masked(0x8A, b""), masked(0x81, b"")].concat(), 0),
        ] {
            for size in [bytes.len(), 1, 7] {
                let (mut assembler, mut told) = (Assembler::default(), 0);
                for piece in bytes.chunks(size) {
                    let count = &mut |incoming: Incoming<'_>| {
                        told += usize::from(incoming == Incoming::TinyFragment);
                        ControlFlow::Continue(())
                    };
                    assembler.feed(&mut piece.to_vec(), MAX, None, count).unwrap();
                }
                assert_eq!(told, expected, "{bytes:?} by {size}");
            }
        }
    }

    #[test]
    fn what_is_not_whole_keeps_the_time_of_its_own_begin() {
        let mut assembler = Assembler::default();
        let mut at = |now: u64, bytes: &[u8]| {
            let each = &mut |_: Incoming<'_>| ControlFlow::Continue(());
            assembler.feed(&mut bytes.to_vec(), MAX, None, each).unwrap();
            assembler.begin(now);
            assembler.begun()
        };
        let whole = masked(0x81, &[b'x'; 40]);
        assert_eq!(at(1, &whole), None);
        // A header, then the rest by pieces.
        assert_eq!(at(2, &whole[..1]), Some(2));
        assert_eq!(at(3, &whole[1..20]), Some(2));
        // The next one begins where this one ends.
        assert_eq!(at(4, &[&whole[20..], &whole[..20]].concat()), Some(4));
        assert_eq!(at(5, &[&whole[20..], &whole[..], &whole[..3]].concat()), Some(5));
        assert_eq!(at(6, &whole[3..]), None);
        // Control frames between fragments, whole or not, are no end of the message.
        let ping = masked(0x89, b"?");
        assert_eq!(at(7, &masked(0x01, b"a")), Some(7));
        assert_eq!(at(8, &ping), Some(7));
        assert_eq!(at(9, &ping[..3]), Some(7));
        assert_eq!(at(10, &ping[3..]), Some(7));
        assert_eq!(at(11, &masked(0x00, b"")), Some(7));
        assert_eq!(at(12, &[&masked(0x80, b"b")[..], &ping[..1]].concat()), Some(12));
        // A control frame alone has its own time.
        assert_eq!(at(13, &[&ping[1..], &ping[..3]].concat()), Some(13));
        assert_eq!(at(14, &ping[3..]), None);
        // In another process it goes on.
        assert_eq!(at(15, &whole[..20]), Some(15));
        let replay = assembler.replay();
        let mut moved = Assembler::begun_at(assembler.begun().unwrap());
        moved.feed(&mut replay.to_vec(), MAX, None, &mut |_| ControlFlow::Continue(())).unwrap();
        moved.begin(16);
        assert_eq!(moved.begun(), Some(15));
        moved
            .feed(&mut whole[20..].to_vec(), MAX, None, &mut |_| ControlFlow::Continue(()))
            .unwrap();
        moved.begin(17);
        assert!(moved.begun().is_none() && moved.is_idle());
    }

    #[test]
    fn whoever_breaks_gets_nothing_more_and_nothing_is_kept() {
        let mut input = [masked(0x01, b"open"), masked(0x89, b""), masked(0x80, b"end")].concat();
        let (mut assembler, mut calls) = (Assembler::default(), 0);
        let result = assembler.feed(&mut input, MAX, None, &mut |_| {
            calls += 1;
            ControlFlow::Break(())
        });
        assert_eq!((result, calls, assembler.is_idle()), (Ok(()), 1, true));
    }
}
