//! The message machine of one socket, whole, cut and replayed, against a twin that has all bytes
//! before it.

use std::cell::RefCell;
use std::ops::ControlFlow;

use miniz_oxide::deflate::compress_to_vec;
use miniz_oxide::inflate::TINFLStatus;
use miniz_oxide::inflate::core::inflate_flags::{
    TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF,
};
use miniz_oxide::inflate::core::{DecompressorOxide, decompress};
use wsredis::cause::Cause;
use wsredis::meter;
use wsredis::ws::deflate::{Deflater, Inflater, Window};
use wsredis::ws::frame::{self as wire, Control, Data, OpCode};
use wsredis::ws::message::{Assembler, Incoming};

use crate::frame;
use crate::input::{Input, pieces};

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

thread_local! {
    /// As a loop has them: one for all its sockets, for ever.
    static INFLATER: RefCell<Inflater> = RefCell::default();
    static DEFLATER: RefCell<Deflater> = RefCell::default();
    /// 200,000 bytes of one kind.
    static BOMB: Vec<u8> = compress_to_vec(&[b'x'; 200_000], 9);
}

type Outcome = (Vec<Got>, Result<(), Cause>);

/// RFC 6455 §7.4 and the registry: what may stand in a close frame.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// What a payload becomes: by an inflater that has seen no other one, and, where another library can
/// read it, by that.
fn inflate(payload: &[u8], max: usize) -> Result<Vec<u8>, Cause> {
    let inflated = Inflater::default().inflate(payload, max).map(<[u8]>::to_vec);
    let whole = [payload, &[0, 0, 0xFF, 0xFF]].concat();
    // One byte more than allowed tells what is too big.
    let mut out = vec![0; max + 1];
    let flags = TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF | TINFL_FLAG_HAS_MORE_INPUT;
    let (status, _, len) = decompress(&mut DecompressorOxide::new(), &whole, &mut out, 0, flags);
    let is_good = matches!(status, TINFLStatus::Done | TINFLStatus::NeedsMoreInput);
    match &inflated {
        Ok(_) if len > max => panic!("more than {max} bytes came out"),
        Ok(inflated) if is_good => assert_eq!(inflated, &out[..len], "two libraries differ"),
        Err(Cause::TooBig) if is_good => assert!(len > max, "only {len} bytes came out"),
        _ => {}
    }
    inflated
}

/// Reads frame by frame. `deflate`: the first frame of a message may say that it is compressed.
fn twin(bytes: &[u8], max: usize, deflate: bool) -> Outcome {
    let (mut got, mut at) = (Vec::new(), 0);
    let mut message: Option<(bool, bool, Vec<u8>)> = None;
    loop {
        let (fin, rsv1, opcode, mask, len, size) = match frame::twin(&bytes[at..]) {
            Err(cause) => return (got, Err(cause)),
            Ok(None) => return (got, Ok(())),
            Ok(Some(header)) => header,
        };
        at += size;
        if rsv1 && !(deflate && (opcode == 1 || opcode == 2)) {
            return (got, Err(Cause::Protocol));
        }
        match (opcode, &message) {
            (0, None) | (1 | 2, Some(_)) => return (got, Err(Cause::Protocol)),
            (1 | 2, None) => message = Some((opcode == 1, rsv1, Vec::new())),
            _ => {}
        }
        if let (0..8, Some((_, is_compressed, collected))) = (opcode, &message) {
            // What does not get smaller becomes a little longer.
            let most = if *is_compressed { max + max / 7 + 16 } else { max };
            if u128::from(len) + collected.len() as u128 > most as u128 {
                return (got, Err(Cause::TooBig));
            }
            if len < 16 && !fin {
                got.push(Got::TinyFragment);
            }
        }
        let here = (bytes.len() - at).min(usize::try_from(len).unwrap_or(usize::MAX));
        let payload: Vec<u8> =
            bytes[at..at + here].iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect();
        at += here;
        let is_whole = here as u64 == len;
        match (opcode, &mut message) {
            (8.., _) if !is_whole => return (got, Ok(())),
            (8, _) => {
                return match &payload[..] {
                    [] => {
                        got.push(Got::Close(None));
                        (got, Ok(()))
                    }
                    [_] => (got, Err(Cause::Protocol)),
                    [high, low, reason @ ..] => {
                        let code = u16::from_be_bytes([*high, *low]);
                        if !may_be_sent(code) {
                            (got, Err(Cause::Protocol))
                        } else if std::str::from_utf8(reason).is_err() {
                            (got, Err(Cause::Utf8))
                        } else {
                            got.push(Got::Close(Some(code)));
                            (got, Ok(()))
                        }
                    }
                };
            }
            (9, _) => got.push(Got::Ping(payload)),
            (10.., _) => got.push(Got::Pong(payload)),
            (_, Some((is_text, is_compressed, collected))) => {
                collected.extend_from_slice(&payload);
                let ends = fin && is_whole;
                let plain = match *is_compressed {
                    true if ends => match inflate(collected, max) {
                        Ok(plain) => plain,
                        Err(cause) => return (got, Err(cause)),
                    },
                    true => Vec::new(),
                    false => collected.clone(),
                };
                let text = std::str::from_utf8(&plain);
                let hopeless = text.is_err_and(|error| error.error_len().is_some());
                if *is_text && (hopeless || (ends && text.is_err())) {
                    return (got, Err(Cause::Utf8));
                }
                if !is_whole {
                    return (got, Ok(()));
                }
                if ends {
                    got.push(match text {
                        Ok(text) if *is_text => Got::Text(text.into()),
                        _ => Got::Binary(plain),
                    });
                    message = None;
                }
            }
            (_, None) => unreachable!("a data frame belongs to a message"),
        }
    }
}

/// Feeds pieces to an assembler until it ends; `hop`: after every piece another one goes on.
fn run<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
    max: usize,
    mut inflater: Option<&mut Inflater>,
    hop: bool,
) -> Outcome {
    let (mut got, mut came) = (Vec::new(), 0);
    let mut assembler = Assembler::default();
    for piece in pieces {
        came += piece.len();
        let mut is_over = false;
        let mut input = piece.to_vec();
        let result = assembler.feed(&mut input, max, inflater.as_deref_mut(), &mut |incoming| {
            got.push(match incoming {
                Incoming::Text(text) => Got::Text(String::from_utf8(text.into()).expect("UTF-8")),
                Incoming::Binary(payload) => Got::Binary(payload.into()),
                Incoming::Ping(payload) => Got::Ping(payload.into()),
                Incoming::Pong(payload) => Got::Pong(payload.into()),
                Incoming::Close(code) => Got::Close(code),
                Incoming::TinyFragment => Got::TinyFragment,
            });
            is_over = matches!(incoming, Incoming::Close(_));
            if is_over { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        if result.is_err() || is_over {
            assert!(assembler.is_idle(), "it keeps what nobody may look at");
            return (got, result);
        }
        // What waits is bounded by what came, and by the limit.
        let heap = assembler.heap_bytes();
        assert!(heap <= 1024 + 2 * (came.min(2 * max + 125) + 65_536), "{heap} bytes after {came}");
        let replay = assembler.replay();
        if assembler.is_idle() {
            assert!(heap == 0 && replay.is_empty());
        }
        if hop {
            let mut next = Assembler::default();
            let result =
                next.feed(&mut replay.clone(), max, inflater.as_deref_mut(), &mut |incoming| {
                    assert_eq!(incoming, Incoming::TinyFragment, "it was not whole");
                    ControlFlow::Continue(())
                });
            assert_eq!(result, Ok(()));
            assert_eq!(next.replay(), replay);
            assembler = next;
        }
    }
    (got, Ok(()))
}

/// As a loop compresses, or as it is where that does not pay.
fn compressed(payload: &[u8]) -> Vec<u8> {
    let bits = 9 + payload.len() as u8 % 7;
    let window = Window::new(bits).expect("9 to 15 bits");
    let deflated =
        DEFLATER.with_borrow_mut(|deflater| deflater.deflate(window, payload).map(<[u8]>::to_vec));
    let Some(deflated) = deflated else { return payload.into() };
    assert!(deflated.len() < payload.len());
    assert_eq!(inflate(&deflated, payload.len()).as_deref(), Ok(payload));
    deflated
}

/// Frames from a recipe: mostly right ones, so that the machine gets far. `large`: also payloads
/// whose length takes eight bytes, which are slow and bring little that is new.
fn cook(mut recipe: Input<'_>, large: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !recipe.is_empty() && bytes.len() < 66_000 {
        let first = recipe.byte();
        let len = recipe.byte();
        let payload = match len {
            // Compressed: by us, by another library with a last block, and a bomb.
            246 => compressed(recipe.piece(usize::from(first))),
            247 => compress_to_vec(recipe.piece(usize::from(first)), first % 10),
            248 => BOMB.with(Vec::clone),
            0..=250 => recipe.piece(usize::from(len)).to_vec(),
            251 => vec![recipe.byte(); 125],
            252 => vec![recipe.byte(); 126],
            253 | 254 if large => vec![recipe.byte(); 65_282 + usize::from(len)],
            253 | 254 => vec![recipe.byte(); 300],
            255 => {
                // Bytes as they are: a wrong header, or half of one.
                let count = usize::from(recipe.byte() % 16);
                bytes.extend_from_slice(recipe.piece(count));
                continue;
            }
        };
        // The opcode is right unless the recipe insists.
        let opcode = if first & 0x40 == 0 {
            [0, 1, 2, 8, 9, 10][usize::from(first % 6)]
        } else {
            first & 0x4F
        };
        let begin = bytes.len();
        let mask = [first, len, 0, 0xA5];
        let opcode = opcode | if (246..=248).contains(&len) && opcode % 8 > 0 { 0x40 } else { 0 };
        let header = wire::Header {
            fin: true,
            rsv1: false,
            opcode: OpCode::from(opcode & 0x0F),
            mask,
            len: payload.len() as u64,
        };
        header.append(&mut bytes);
        bytes[begin] = (first & 0x80) | opcode;
        let at = bytes.len();
        bytes.extend_from_slice(&payload);
        wire::unmask(&mut bytes[at..], mask, 0);
    }
    bytes
}

/// The machine hands out what the twin does and ends for the same cause, however the bytes are cut
/// and whether or not another one goes on after every piece; it keeps no more than it must. The
/// boundaries of the server's frames are found.
pub fn check(data: &[u8]) {
    let mut input = Input(data);
    let (seed, choice) = (input.byte(), input.byte());
    let max = [0, 1, 125, 126, 1000, 65_536, 70_000, 1 << 20][usize::from(choice & 7)];
    let bytes = if choice & 8 == 0 { input.0.to_vec() } else { cook(input, choice >> 4 == 15) };

    // permessage-deflate was agreed on.
    let deflate = choice & 0x20 != 0;

    let expected = twin(&bytes, max, deflate);
    INFLATER.with_borrow_mut(|inflater| {
        every_way(&bytes, max, deflate.then_some(inflater), seed, &expected)
    });
    assert_eq!(meter::held(), 0, "bytes are counted that nobody holds");
    boundaries(&bytes, &expected.0, usize::from(seed) * 7, usize::from(choice));
}

/// Whole, cut, and with another machine after every piece.
fn every_way(
    bytes: &[u8],
    max: usize,
    mut inflater: Option<&mut Inflater>,
    seed: u8,
    expected: &Outcome,
) {
    assert_eq!(&run([bytes], max, inflater.as_deref_mut(), false), expected);
    let by_hops = if bytes.len() < 2048 {
        assert_eq!(&run(pieces(bytes, seed), max, inflater.as_deref_mut(), false), expected);
        run(pieces(bytes, seed), max, inflater, true)
    } else {
        run(bytes.chunks(bytes.len() / 8 + usize::from(seed)), max, inflater, true)
    };
    assert_eq!(&by_hops, expected);
}

/// The frames of the server lie where they were put.
fn boundaries(bytes: &[u8], got: &[Got], at: usize, any: usize) {
    let (mut out, mut ends) = (Vec::new(), vec![0]);
    for one in got {
        match one {
            Got::Text(text) => wire::append(&mut out, OpCode::Data(Data::Text), text.as_bytes()),
            Got::Binary(payload) => {
                wire::append_compressed(&mut out, OpCode::Data(Data::Binary), payload)
            }
            Got::Ping(payload) => wire::append(&mut out, OpCode::Control(Control::Pong), payload),
            Got::Pong(_) | Got::TinyFragment => continue,
            Got::Close(code) => wire::append_close(&mut out, code.unwrap_or(1005), "bye"),
        }
        ends.push(out.len());
    }
    let at = at % (out.len() + 1);
    let before = ends.iter().rev().find(|end| **end <= at);
    let after = ends.iter().find(|end| **end >= at);
    let (begin, end) = wire::around(&out, at);
    assert_eq!((Some(&begin), Some(&end)), (before, after));
    let last = ends.len().checked_sub(2).map_or(0, |at| ends[at]);
    assert_eq!(wire::last(&out), (last, ends.len() as u32 - 1));
    // Of bytes that are no frames too, they stay inside.
    let at = any.min(bytes.len());
    let (begin, end) = wire::around(bytes, at);
    assert!(begin <= at && at <= end && end <= bytes.len());
    assert!(wire::last(bytes).0 <= bytes.len());
}
