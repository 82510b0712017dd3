//! permessage-deflate: a message is compressed once for everyone who hears it in the same way, what browsers compress
//! is read, and no bomb goes off.

mod util;

use std::io::Read;
use std::time::Duration;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};
use util::browser::{Stream, TEXT, frame};
use util::{Bench, Offer};

const GRANT: &str = r#"{"subscribe":["a"],"publish":["a"],"echo":true}"#;
const AGREED: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
/// The bit of a compressed message in a frame's first byte.
const RSV1: u8 = 0x40;

/// A browser that sees the frames as they are.
struct Peer {
    stream: Stream,
    /// What it can read at most, as agreed.
    bits: u8,
}

impl Peer {
    fn open(bench: &Bench, offer: Offer<'_>) -> Peer {
        let bits = offer
            .extensions
            .and_then(|agreed| agreed.rsplit_once("server_max_window_bits="))
            .map_or(15, |(_, bits)| bits.parse().unwrap());
        let mut stream = bench.offer(offer).into_stream();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            answer.extend(byte);
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        Peer { stream, bits }
    }

    /// One that agreed on compression and hears and speaks on channel `a`.
    fn agreed(bench: &Bench) -> Peer {
        Peer::open(bench, Offer { grant: GRANT, extensions: Some(AGREED), ..Offer::default() })
    }

    /// The next frame: its first byte and its payload as it is on the wire.
    fn frame(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.stream.read_exact(&mut head).unwrap();
        let len = match head[1] {
            126 => {
                let mut len = [0; 2];
                self.stream.read_exact(&mut len).unwrap();
                u16::from_be_bytes(len) as usize
            }
            127 => {
                let mut len = [0; 8];
                self.stream.read_exact(&mut len).unwrap();
                u64::from_be_bytes(len) as usize
            }
            len => len as usize,
        };
        let mut payload = vec![0; len];
        self.stream.read_exact(&mut payload).unwrap();
        (head[0], payload)
    }

    /// The next frame, decompressed if it is compressed; and whether it was.
    fn message(&mut self) -> (u8, Vec<u8>, bool) {
        let (first, mut payload) = self.frame();
        if first & RSV1 == 0 {
            return (first, payload, false);
        }
        payload.extend([0, 0, 0xFF, 0xFF]);
        let mut out = Vec::with_capacity(1 << 20);
        let mut inner = Decompress::new_with_window_bits(false, self.bits);
        inner.decompress_vec(&payload, &mut out, FlushDecompress::Sync).unwrap();
        (first & !RSV1, out, true)
    }

    fn send(&mut self, bytes: &[u8]) {
        std::io::Write::write_all(&mut self.stream, bytes).unwrap();
    }

    /// The code of the close frame that comes next.
    fn closed(&mut self) -> u16 {
        let (first, payload) = self.frame();
        assert_eq!(first, 0x88);
        u16::from_be_bytes([payload[0], payload[1]])
    }
}

/// A message as a browser compresses it.
fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(payload.len() + 100);
    let mut inner = Compress::new_with_window_bits(Compression::best(), false, 15);
    inner.compress_vec(payload, &mut out, FlushCompress::Sync).unwrap();
    assert!(out.ends_with(&[0, 0, 0xFF, 0xFF]));
    out.truncate(out.len() - 4);
    out
}

fn long_text() -> String {
    (0..200).map(|i| format!("{{\"number\":{i}}},")).collect()
}

fn a_message_is_compressed_once_for_each_way_it_is_put_on_the_wire(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let narrow = format!("{AGREED}; server_max_window_bits=9");
    let mut peers = Vec::new();
    for extensions in [None, Some(AGREED), Some(&*narrow)] {
        for envelope in [false, true] {
            for _ in 0..4 * loops {
                let offer = Offer { grant: GRANT, envelope, extensions, ..Offer::default() };
                let mut peer = Peer::open(&bench, offer);
                if envelope {
                    assert_eq!(peer.message().0, TEXT, "the hello");
                }
                peers.push((extensions.is_some(), envelope, peer));
            }
        }
    }
    let payload = long_text();
    for round in 1..=3 {
        bench.publish("a", &payload);
        for (compresses, envelope, peer) in &mut peers {
            let (first, message, compressed) = peer.message();
            assert_eq!((first, compressed), (TEXT, *compresses));
            // No JSON, so a string in the envelope.
            let expected = match envelope {
                true => serde_json::json!({"channel": "a", "data": payload}).to_string(),
                false => payload.clone(),
            };
            assert_eq!(String::from_utf8(message).unwrap(), expected);
        }
        // Two forms, two windows, in each loop.
        assert_eq!(bench.stat("compressed"), round * 4 * loops as u64);
    }
    assert!(bench.stat("compressed_to") < bench.stat("compressed_from") / 2);
}

fn short_messages_and_those_that_do_not_compress_go_as_they_are(loops: usize) {
    let bench = Bench::new(loops, &[("compression-threshold", "100")]);
    let mut peer = Peer::agreed(&bench);
    let mut state = 1u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 56) as u8
    };
    let noise: Vec<u8> = (0..10_000).map(|_| random()).collect();
    for (payload, compressed) in
        [(vec![b'x'; 99], false), (vec![b'x'; 100], true), (Vec::new(), false), (noise, false)]
    {
        bench.publish("a", &payload);
        let (_, message, was) = peer.message();
        assert_eq!((message == payload, was), (true, compressed), "{} bytes", payload.len());
    }
}

fn what_a_browser_compresses_is_heard_by_all(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let (mut speaker, mut plain) = (Peer::agreed(&bench), bench.open(GRANT));
    let payload = long_text();
    let wire = deflated(payload.as_bytes());
    for cut in [0, 1, wire.len() / 2, wire.len()] {
        speaker.send(&frame(0x41, &wire[..cut]));
        speaker.send(&frame(0x89, b"between"));
        speaker.send(&frame(0x80, &wire[cut..]));
        speaker.send(&frame(TEXT, b"plain"));
        assert_eq!(speaker.frame(), (0x8A, b"between".to_vec()));
        for expected in [&*payload, "plain"] {
            assert_eq!(plain.text(), expected);
            assert_eq!(speaker.message().1, expected.as_bytes());
        }
    }
}

fn what_is_wrong_closes_with_its_code_and_nobody_else_notices(loops: usize) {
    let bench = Bench::new(loops, &[("max-message-size", "64k")]);
    let mut healthy = Peer::agreed(&bench);
    let zeros = deflated(&vec![b'0'; 16 << 20]);
    let bomb = frame(TEXT | RSV1, &zeros);
    assert!(zeros.len() < 64 * 1024, "{}", zeros.len());
    let good = frame(TEXT | RSV1, &deflated(b"good"));
    let cases: [(&[u8], u16); 6] = [
        (&bomb, 1009),
        (&frame(0x41, &zeros[..100]), 0),
        (&frame(TEXT | RSV1, &[0xFF, 0xFF]), 1002),
        (&frame(TEXT | RSV1, &deflated(b"\xFF")), 1007),
        (&frame(0x89 | RSV1, b""), 1002),
        (&[frame(0x41, b"\xF2"), frame(0x80 | RSV1, b"")].concat(), 1002),
    ];
    for (bytes, code) in cases {
        let mut peer = Peer::agreed(&bench);
        peer.send(bytes);
        if code == 0 {
            // Only the beginning of a bomb: nothing is known yet, and nothing is kept of it.
            continue;
        }
        assert_eq!(peer.closed(), code);
        healthy.send(&good);
        assert_eq!(healthy.message().1, b"good");
    }
    // Who did not agree must not compress.
    let mut other = bench.open(GRANT);
    other.write(&good);
    assert_eq!(other.closed().0, 1002);
}

fn a_mirror_returns_compressed_what_came_compressed(loops: usize) {
    let bench = Bench::new(loops, &[("compression-threshold", "0")]);
    let offer = Offer { mirror: true, extensions: Some(AGREED), ..Offer::default() };
    let mut peer = Peer::open(&bench, offer);
    let payload = long_text();
    peer.send(&frame(0xC2, &deflated(payload.as_bytes())));
    assert_eq!(peer.message(), (0x82, payload.into_bytes(), true));
}

fn a_half_compressed_message_goes_on_in_another_engine(loops: usize) {
    let [here, there] = [(); 2].map(|()| Bench::new(loops, &[]));
    let mut peer = Peer::agreed(&here);
    let wire = deflated(long_text().as_bytes());
    for (at, cut) in [1, 20, wire.len()].into_iter().enumerate() {
        let (from, to) = if at % 2 == 0 { (&here, &there) } else { (&there, &here) };
        peer.send(&frame(0x41, &wire[..cut]));
        // The answer tells that the fragment before it was read.
        peer.send(&frame(0x89, b"read"));
        assert_eq!(peer.frame(), (0x8A, b"read".to_vec()));
        let state = from.local().export(Duration::from_millis(100)).unwrap();
        to.local().import(state, true).unwrap();
        peer.send(&frame(0x80, &wire[cut..]));
        assert_eq!(peer.message(), (TEXT, long_text().into_bytes(), true));
    }
}

with_one_and_three_loops!(
    a_message_is_compressed_once_for_each_way_it_is_put_on_the_wire,
    short_messages_and_those_that_do_not_compress_go_as_they_are,
    what_a_browser_compresses_is_heard_by_all,
    what_is_wrong_closes_with_its_code_and_nobody_else_notices,
    a_mirror_returns_compressed_what_came_compressed,
    a_half_compressed_message_goes_on_in_another_engine,
);
