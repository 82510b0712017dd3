//! The message machine of one socket, whole, cut and replayed, against a twin that has all bytes
//! before it.

use std::ops::ControlFlow;

use wsredis::cause::Cause;
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
}

type Outcome = (Vec<Got>, Result<(), Cause>);

/// RFC 6455 §7.4 and the registry: what may stand in a close frame.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// Reads frame by frame.
fn twin(bytes: &[u8], max: usize) -> Outcome {
    let (mut got, mut at) = (Vec::new(), 0);
    let mut message: Option<(bool, Vec<u8>)> = None;
    loop {
        let (fin, rsv1, opcode, mask, len, size) = match frame::twin(&bytes[at..]) {
            Err(()) => return (got, Err(Cause::Protocol)),
            Ok(None) => return (got, Ok(())),
            Ok(Some(header)) => header,
        };
        at += size;
        if rsv1 {
            return (got, Err(Cause::Protocol));
        }
        match (opcode, &message) {
            (0, None) | (1 | 2, Some(_)) => return (got, Err(Cause::Protocol)),
            (1 | 2, None) => message = Some((opcode == 1, Vec::new())),
            _ => {}
        }
        let collected = message.as_ref().map_or(0, |(_, payload)| payload.len());
        if opcode < 8 && u128::from(len) + collected as u128 > max as u128 {
            return (got, Err(Cause::TooBig));
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
            (_, Some((is_text, collected))) => {
                collected.extend_from_slice(&payload);
                let text = String::from_utf8(collected.clone());
                let hopeless = text.as_ref().is_err_and(|e| e.utf8_error().error_len().is_some());
                let ends = fin && is_whole;
                if *is_text && (hopeless || (ends && text.is_err())) {
                    return (got, Err(Cause::Utf8));
                }
                if !is_whole {
                    return (got, Ok(()));
                }
                if ends {
                    got.push(match text {
                        Ok(text) if *is_text => Got::Text(text),
                        _ => Got::Binary(collected.clone()),
                    });
                    message = None;
                }
            }
            (_, None) => unreachable!("a data frame belongs to a message"),
        }
    }
}

/// Feeds pieces to an assembler until it ends; `hop`: after every piece another one goes on.
fn run<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, max: usize, hop: bool) -> Outcome {
    let (mut got, mut came) = (Vec::new(), 0);
    let mut assembler = Assembler::default();
    for piece in pieces {
        came += piece.len();
        let mut is_over = false;
        let mut input = piece.to_vec();
        let result = assembler.feed(&mut input, max, &mut |incoming| {
            got.push(match incoming {
                Incoming::Text(text) => Got::Text(text.into()),
                Incoming::Binary(payload) => Got::Binary(payload.into()),
                Incoming::Ping(payload) => Got::Ping(payload.into()),
                Incoming::Pong(payload) => Got::Pong(payload.into()),
                Incoming::Close(code) => Got::Close(code),
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
        assert!(heap <= 1024 + 2 * (came.min(max + 125) + 65_536), "{heap} bytes after {came}");
        let replay = assembler.replay();
        if assembler.is_idle() {
            assert!(heap == 0 && replay.is_empty());
        }
        if hop {
            let mut next = Assembler::default();
            let result = next.feed(&mut replay.clone(), max, &mut |incoming| {
                panic!("what was not whole became {incoming:?}")
            });
            assert_eq!(result, Ok(()));
            assert_eq!(next.replay(), replay);
            assembler = next;
        }
    }
    (got, Ok(()))
}

/// Frames from a recipe: mostly right ones, so that the machine gets far. `large`: also payloads
/// whose length takes eight bytes, which are slow and bring little that is new.
fn cook(mut recipe: Input<'_>, large: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    while !recipe.is_empty() && bytes.len() < 66_000 {
        let first = recipe.byte();
        let len = recipe.byte();
        let payload = match len {
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

    let expected = twin(&bytes, max);
    assert_eq!(run([&bytes[..]], max, false), expected);
    if bytes.len() < 2048 {
        assert_eq!(run(pieces(&bytes, seed), max, false), expected);
        assert_eq!(run(pieces(&bytes, seed), max, true), expected);
    } else {
        let pieces = || bytes.chunks(bytes.len() / 8 + usize::from(seed));
        assert_eq!(run(pieces(), max, true), expected);
    }

    let (mut out, mut ends) = (Vec::new(), vec![0]);
    for one in &expected.0 {
        match one {
            Got::Text(text) => wire::append(&mut out, OpCode::Data(Data::Text), text.as_bytes()),
            Got::Binary(payload) => wire::append(&mut out, OpCode::Data(Data::Binary), payload),
            Got::Ping(payload) => wire::append(&mut out, OpCode::Control(Control::Pong), payload),
            Got::Pong(_) => continue,
            Got::Close(code) => wire::append_close(&mut out, code.unwrap_or(1005), "bye"),
        }
        ends.push(out.len());
    }
    let at = usize::from(seed) * 7 % (out.len() + 1);
    let before = ends.iter().rev().find(|end| **end <= at);
    let after = ends.iter().find(|end| **end >= at);
    assert_eq!(Some(&wire::boundary_before(&out, at)), before);
    assert_eq!(Some(&wire::boundary_after(&out, at)), after);
    // Of bytes that are no frames too, they stay inside.
    let at = usize::from(choice).min(bytes.len());
    let around = wire::boundary_before(&bytes, at)..=wire::boundary_after(&bytes, at);
    assert!(around.contains(&at) && *around.end() <= bytes.len());
}
