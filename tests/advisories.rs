//! Faults that others in this field had to publish, one test each. A name begins with the advisory's
//! number; the text says the class of fault in general terms, and our rule.

mod util;

use std::fs;
use std::ops::ControlFlow;
use std::thread;
use std::time::Duration;

use util::browser::{BINARY, CLOSE, PING, TEXT, frame};
use util::{Bench, Dice, RealRedis, wait_until};
use wsredis::cause::{Cause, Refusal};
use wsredis::ws::deflate::{Deflater, Inflater, Window};
use wsredis::ws::handshake::{Allowed, Request, Verdict, answer, spoken_of};
use wsredis::ws::message::{Assembler, Incoming};
use wsredis::ws::origin::Policy;

/// Time that this thread was on a processor. The kernel adds it up when the thread pauses.
fn busy() -> Duration {
    thread::sleep(Duration::from_micros(1));
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

/// What `work` costs, undisturbed: the least of three times.
fn cost(mut work: impl FnMut()) -> Duration {
    let once = |_| {
        let before = busy();
        work();
        busy() - before
    };
    (0..3).map(once).min().unwrap()
}

type Header<'a> = (&'a [u8], &'a [u8]);

/// A good handshake without the header `name`, then with `more`.
fn handshake_with(name: &[u8], more: &[Header]) -> Verdict {
    let good: [Header; 5] = [
        (b"Host", b"app.example"),
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade"),
        (b"Sec-WebSocket-Key", b"dGhlIHNhbXBsZSBub25jZQ=="),
        (b"Sec-WebSocket-Version", b"13"),
    ];
    let mut headers: Vec<Header> =
        good.into_iter().filter(|(n, _)| !n.eq_ignore_ascii_case(name)).collect();
    headers.extend_from_slice(more);
    let request = Request {
        method: b"GET",
        protocol: b"HTTP/1.1",
        headers: &headers,
        remote_address: b"10.0.0.1",
        https: None,
    };
    let policy = Policy::parse("same-host", "10.0.0.0/8").unwrap();
    let allowed = Allowed { compression: true, ..Allowed::default() };
    answer(&request, &allowed, &policy, b"").unwrap()
}

fn is_refused_with(verdict: &Verdict, refusal: Refusal) -> bool {
    matches!(verdict, Verdict::Refuse(given, _) if *given == refusal)
}

/// Every header that a handshake is judged by, and one that it is not.
const JUDGED: [&[u8]; 12] = [
    b"Host",
    b"Upgrade",
    b"Connection",
    b"Sec-WebSocket-Key",
    b"Sec-WebSocket-Version",
    b"Sec-WebSocket-Protocol",
    b"Sec-WebSocket-Extensions",
    b"Origin",
    b"X-Forwarded-Host",
    b"X-Forwarded-Proto",
    b"Content-Length",
    b"X-Anything",
];

/// The spec's bound for one handshake where the code is optimised, else room for a slow machine.
fn budget() -> Duration {
    Duration::from_millis(if cfg!(debug_assertions) { 500 } else { 50 })
}

/// A header of many megabytes was parsed anew with each read: minutes of work for one handshake. A
/// handshake costs a fixed number of passes over its bytes, however long it is. How much is read of
/// one is for whoever reads: tests/hostile_handshakes.rs has the host's limits, and the bytes that
/// come one by one.
#[test]
fn cve_2023_43669_a_long_header_is_judged_in_linear_time() {
    let mut slowest = Duration::ZERO;
    for name in JUDGED {
        for filler in [b'a', b',', b' ', b'\t', b';', b'=', b'"', b'.', b':', b'/', 0xff] {
            let value = vec![filler; 20 << 20];
            let judge = |value: &[u8]| cost(|| drop(handshake_with(name, &[(name, value)])));
            let (short, long) = (judge(&value[..value.len() / 16]), judge(&value));
            let what = format!("{} of {:?}", String::from_utf8_lossy(name), filler as char);
            assert!(long < budget(), "{what}: {long:?}");
            slowest = slowest.max(long);
            // Sixteen times as long: the square would be 256 times.
            assert!(long < short * 64 + Duration::from_millis(5), "{what}: {short:?}, {long:?}");
        }
    }
    println!("20 MB in one header: at most {slowest:?}");
}

/// More headers than somebody had room for were a crash. There is no number of them that is special.
#[test]
fn cve_2024_37890_thousands_of_headers_are_judged_like_a_few() {
    let mut slowest = Duration::ZERO;
    for name in JUDGED {
        for value in [&b""[..], b"a", b"upgrade", b"websocket", b"13", b"0"] {
            let judge = |count: usize| {
                let headers = vec![(name, value); count];
                cost(|| drop(handshake_with(name, &headers)))
            };
            let (few, many) = (judge(2_000), judge(100_000));
            let what = String::from_utf8_lossy(name);
            assert!(many < budget(), "{what}: {many:?}");
            slowest = slowest.max(many);
            assert!(many < few * 200 + Duration::from_millis(5), "{what}: {few:?}, {many:?}");
        }
    }
    println!("100,000 headers: at most {slowest:?}");
    let headers = vec![(&b"X-Anything"[..], &b"a"[..]); 100_000];
    assert!(matches!(handshake_with(b"", &headers), Verdict::Accept(_)));
}

/// A regular expression took exponential time for a list of subprotocols. The list is read once, by
/// hand, up to a kilobyte over all its lines; more is refused.
#[test]
fn cve_2021_32640_a_list_of_subprotocols_is_read_once() {
    let name = &b"Sec-WebSocket-Protocol"[..];
    let mut dice = Dice::new(1);
    let values: Vec<Vec<u8>> = (0..5_000)
        .map(|_| (0..dice.below(1024)).map(|_| b"a, \t,b\"(="[dice.below(9)]).collect())
        .collect();
    let took = cost(|| values.iter().for_each(|value| drop(handshake_with(b"", &[(name, value)]))));
    assert!(took < Duration::from_secs(1), "{took:?} for 5,000 lists");
    let spaces = [&b"a"[..], &vec![b' '; 1022], b"b"].concat();
    assert!(is_refused_with(&handshake_with(b"", &[(name, &spaces)]), Refusal::Malformed));
    let longer = vec![b','; 1025];
    assert!(is_refused_with(&handshake_with(b"", &[(name, &longer)]), Refusal::Malformed));
}

/// The name of an extension was looked up in an object that had more names than its own. A name that
/// is not permessage-deflate is passed over, whatever it is, and so are its parameters'.
#[test]
fn nsp_550_an_extension_of_any_name_is_passed_over() {
    for offer in [
        "constructor",
        "__proto__",
        "toString",
        "hasOwnProperty; valueOf",
        "constructor; constructor=constructor",
        "permessage-deflate; constructor",
        "permessage-deflate; __proto__=1",
        "x-webkit-deflate-frame",
        "permessage-bzip2, constructor",
    ] {
        let verdict = handshake_with(b"", &[(b"Sec-WebSocket-Extensions", offer.as_bytes())]);
        let Verdict::Accept(answer) = verdict else { panic!("{offer}: {verdict:?}") };
        assert_eq!(spoken_of(&answer).unwrap().deflate, None, "{offer}");
        let text = String::from_utf8(answer).unwrap();
        assert!(!text.contains("Sec-WebSocket-Extensions"), "{text}");
    }
}

/// A crafted offer of permessage-deflate made a server spin. An offer is at most a kilobyte, read
/// once, and is agreed on, passed over or malformed; what we answer is what was offered.
#[test]
fn nchan_1_2_0_a_crafted_offer_of_compression_costs_next_to_nothing() {
    let pieces = [
        "permessage-deflate",
        ";",
        ",",
        "=",
        "\"",
        "\\",
        " ",
        "\t",
        "client_max_window_bits",
        "server_max_window_bits",
        "server_no_context_takeover",
        "client_no_context_takeover",
        "0",
        "8",
        "9",
        "15",
        "16",
        "-1",
        "99999999999999999999",
        "constructor",
    ];
    let (mut dice, mut agreed) = (Dice::new(2), 0);
    let before = busy();
    for _ in 0..20_000 {
        let count = dice.below(30);
        let mut offer = String::from(["", "permessage-deflate"][dice.below(2)]);
        for _ in 0..count {
            offer.push_str(pieces[dice.below(pieces.len())]);
        }
        match handshake_with(b"", &[(b"Sec-WebSocket-Extensions", offer.as_bytes())]) {
            Verdict::Accept(answer) => {
                // It can be read back, or an engine would not take it.
                agreed += u32::from(spoken_of(&answer).expect(&offer).deflate.is_some());
            }
            refused => assert!(is_refused_with(&refused, Refusal::Malformed), "{offer}"),
        }
    }
    let each = (busy() - before) / 20_000;
    assert!(agreed > 100 && each < Duration::from_millis(1), "{agreed} agreed, {each:?} each");
    for (offer, times) in [("permessage-deflate;a,", 46), (";a", 510), ("a=\"\\", 250), (",", 1023)]
    {
        let offer = format!("permessage-deflate{}", offer.repeat(times));
        let line = (&b"Sec-WebSocket-Extensions"[..], &offer.as_bytes()[..1024.min(offer.len())]);
        let took = cost(|| drop(handshake_with(b"", &[line])));
        assert!(took < Duration::from_millis(5), "{took:?} for {offer}");
    }
}

/// What comes of `bytes`, and what the assembler holds afterwards and held at most.
fn feed(assembler: &mut Assembler, bytes: &[u8], max: usize) -> (Result<usize, Cause>, usize) {
    let (mut came, mut input) = (0, bytes.to_vec());
    let fed = assembler.feed(&mut input, max, None, &mut |incoming| {
        came += match incoming {
            Incoming::Text(text) => text.len(),
            Incoming::Binary(bytes) => bytes.len(),
            Incoming::Ping(bytes) | Incoming::Pong(bytes) => bytes.len(),
            Incoming::Close(_) | Incoming::TinyFragment => 0,
        };
        ControlFlow::Continue(())
    });
    (fed.map(|()| came), assembler.heap_bytes())
}

/// Many small fragments, each an object of its own, pinned fifteen times their bytes. All fragments
/// lie in one flat buffer, and what is too big together is closed with 1009.
#[test]
fn cve_2026_48779_a_flood_of_fragments_costs_no_more_than_their_bytes() {
    const MAX: usize = 64 << 10;
    for size in [0, 1, 2] {
        let mut assembler = Assembler::default();
        assert_eq!(feed(&mut assembler, &frame(0x02, b""), MAX).0, Ok(0));
        let fragment = frame(0x00, &b"xx"[..size]);
        for i in 1..=131_000 {
            let (fed, heap) = feed(&mut assembler, &fragment, MAX);
            assert!(heap <= 2 * MAX + 512, "{heap} bytes for {i} fragments of {size}");
            if i * size > MAX {
                assert_eq!(fed, Err(Cause::TooBig));
                assert_eq!(heap, 0);
                break;
            }
            assert_eq!(fed, Ok(0));
        }
    }
    // The same through an engine, beside somebody who notices nothing; and with a rate, which is used up first.
    for (rate, cause) in [("0", "closed/too_big"), ("20", "closed/rate")] {
        let bench = Bench::new(1, &[("max-control-rate", rate)]);
        let mut bystander = bench.open(r#"{"subscribe":["a"]}"#);
        let mut flooders: Vec<_> = (0..20).map(|_| bench.open("{}")).collect();
        let flood = [frame(0x02, b"x"), frame(0x00, b"x").repeat(131_000)].concat();
        for flooder in &mut flooders {
            let _ = std::io::Write::write_all(flooder.stream(), &flood);
            bench.publish("a", "still here");
            assert_eq!(bystander.text(), "still here");
            assert!(bench.stat("socket_bytes") < 20 * (2 * MAX as u64 + 4096));
        }
        bench.wait_for("sockets", 1);
        assert_eq!(bench.stat(cause), 20);
    }
}

/// Bytes of foreign memory stood in the reason of a close frame. A reason on the wire is one of the
/// table; a browser's own is never repeated.
#[test]
fn cve_2026_45736_a_close_reason_comes_from_the_table_only() {
    let bench = Bench::new(1, &[]);
    let secret = "secret-of-the-browser";
    let close = |code: u16| frame(CLOSE, &[&code.to_be_bytes()[..], secret.as_bytes()].concat());
    let hostile = [
        close(1000),
        close(1001),
        close(3000),
        close(4999),
        close(1005),
        close(999),
        close(65535),
        frame(CLOSE, b"x"),
        frame(CLOSE, &[0x03, 0xe8, 0xff, 0xfe]),
        frame(TEXT, b"\xff\xff"),
        frame(0x83, secret.as_bytes()),
        frame(0xf1, secret.as_bytes()),
        frame(0x00, secret.as_bytes()),
        frame(0x09, secret.as_bytes()),
        frame(PING, &[b'x'; 126]),
        frame(BINARY, &[b'x'; (64 << 10) + 1]),
    ];
    for bytes in &hostile {
        let mut browser = bench.open("{}");
        browser.write(bytes);
        let (code, reason) = browser.closed();
        let is_ours =
            Cause::ALL.iter().any(|cause| (cause.code(), cause.reason()) == (code, &reason));
        // A code that the browser chose itself comes back alone.
        assert!(is_ours || reason.is_empty(), "{code} {reason:?} for {bytes:?}");
    }
    bench.wait_until_empty();
    assert!(!bench.log_text().contains(secret), "{}", bench.log_text());
}

/// A length of 64 bits overflowed when it was added to what had been read. Its highest bit is an
/// error of the protocol, and the rest is compared with the limit before anything is added or
/// allocated.
#[test]
fn cve_2020_27813_a_length_of_64_bits_is_judged_before_it_is_added() {
    for max in [1 << 16, 64 << 20] {
        for first in [BINARY, TEXT, 0x02] {
            for (len, cause) in [
                (u64::MAX, Cause::Protocol),
                (1 << 63, Cause::Protocol),
                ((1 << 63) - 1, Cause::TooBig),
                (u64::MAX >> 2, Cause::TooBig),
                (1 << 32, Cause::TooBig),
                (max as u64 + 1, Cause::TooBig),
            ] {
                let header = |first| {
                    [&[first, 0xff][..], &u64::to_be_bytes(len), &[0; 4], b"behind"].concat()
                };
                let mut assembler = Assembler::default();
                assert_eq!(feed(&mut assembler, &header(first), max), (Err(cause), 0), "{len:#x}");
                // Added to what came before, nothing wraps around.
                let (fed, _) = feed(&mut assembler, &frame(0x02, b"first fragment"), max);
                assert_eq!(fed, Ok(0));
                assert_eq!(feed(&mut assembler, &header(0x80), max), (Err(cause), 0), "{len:#x}");
            }
        }
        // The largest that is allowed is believed only as far as it comes.
        let mut assembler = Assembler::default();
        let header = [&[BINARY, 0xff][..], &u64::to_be_bytes(max as u64), &[0; 4], b"x"].concat();
        let (fed, heap) = feed(&mut assembler, &header, max);
        assert!(fed == Ok(0) && heap < (64 << 10) + 1024, "{heap} bytes");
    }
}

/// The most memory that this process has had.
fn peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// A small compressed frame became gigabytes. Inflating stops at the limit of a message, with 1009,
/// before a byte more is kept.
#[test]
fn ghsa_frh3_6pv6_rc8j_a_deflate_bomb_is_1009_at_the_limit_of_a_message() {
    let mut deflater = Deflater::default();
    let zeros = vec![0; 64 << 20];
    let piece = deflater.deflate(Window::default(), &zeros).unwrap().to_vec();
    assert!(piece.len() < 700_000, "{} bytes", piece.len());
    drop(zeros);
    // Blocks that are not the last one may follow each other: a gigabyte in ten megabytes.
    let tail = [0, 0, 0xff, 0xff];
    let bomb = [&piece[..], &tail].concat().repeat(16);
    for max in [125, 64 << 10, 16 << 20] {
        for payload in [&piece, &bomb] {
            let before = peak();
            let mut inflater = Inflater::default();
            let took = cost(|| assert_eq!(inflater.inflate(payload, max), Err(Cause::TooBig)));
            assert!(took < Duration::from_millis(500), "{took:?} for {max}");
            assert!(peak() - before < 200 << 20, "{} MiB", (peak() - before) >> 20);
        }
    }
    // The frame itself is within the limit, and the socket it came from is closed.
    let mut inflater = Inflater::default();
    let mut bytes = frame(0xc2, &bomb);
    let max = 16 << 20;
    let closed = Assembler::default()
        .feed(&mut bytes, max, Some(&mut inflater), &mut |incoming| panic!("{incoming:?}"));
    assert_eq!(closed, Err(Cause::TooBig));
    // The next one, of another socket, is inflated as if nothing had been.
    let small = deflater.deflate(Window::default(), &[b'a'; 1000]).unwrap().to_vec();
    assert_eq!(inflater.inflate(&small, 1000), Ok(&[b'a'; 1000][..]));
}

/// One packet that nobody had foreseen ended the whole process. Whatever a browser sends ends its
/// own socket at most. (So does a fault of ours on the way: src/engine/panics.rs.)
#[test]
fn cve_2022_21676_and_cve_2024_38355_garbage_ends_its_own_socket_only() {
    let bench = Bench::new(2, &[]);
    let mut bystander = bench.open(r#"{"subscribe":["a"],"publish":["a"],"echo":true}"#);
    let mut dice = Dice::new(3);
    for round in 0..60 {
        let mut hostile: Vec<_> = (0..20)
            .map(|i| match i % 3 {
                0 => bench.open("{}"),
                1 => bench.open(r#"{"subscribe":["b"],"publish":["b"],"sender":{"a":1}}"#),
                _ => bench.open_envelope(r#"{"subscribe":["b"],"publish":["b"]}"#).0,
            })
            .collect();
        for browser in &mut hostile {
            let count = 1 + dice.below(400);
            let mut bytes: Vec<u8> = dice.bytes(count);
            // Often enough something that goes deeper than the first two bytes.
            match dice.below(4) {
                0 => bytes[0] = [TEXT, BINARY, CLOSE, PING, 0x01, 0x00][dice.below(6)],
                1 => bytes = frame([TEXT, BINARY, 0xc1, 0x8a, 0x01][dice.below(5)], &bytes),
                2 => {
                    let json = r#"{"type":"x","channel":"b","data":{"a":[]},"#;
                    bytes = frame(TEXT, &json.as_bytes()[..1 + dice.below(json.len() - 1)]);
                }
                _ => {}
            }
            let _ = std::io::Write::write_all(browser.stream(), &bytes);
        }
        let text = format!("round {round}");
        bystander.send(&text);
        assert_eq!(bystander.text(), text);
    }
    bench.wait_for("sockets", 1);
    assert_eq!(bench.stat("closed/internal"), 0, "{}", bench.log_text());
    bench.engine.health().unwrap();
}

/// Memory of one subscriber was used for another when Redis did not answer. What Redis sends after a
/// silence goes to who listens now, and to nobody else.
#[test]
fn nchan_1_2_2_after_a_silence_of_redis_everybody_gets_only_his_own() {
    let Some(redis) = RealRedis::start() else { return };
    let settings = [
        ("redis-url", redis.url()),
        ("channel-linger", "0".into()),
        ("join-timeout", "10ms".into()),
        ("redis-ping-interval", "1m".into()),
        // They are let in without Redis, and would be told by a close.
        ("on-gap", "ignore".into()),
    ];
    let settings: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
    let bench = Bench::new(1, &settings);
    let grant = |name: &str| format!(r#"{{"subscribe":["{name}"]}}"#);
    for round in 0..10 {
        let old: Vec<_> = (0..20).map(|i| bench.open(&grant(&format!("old{i}")))).collect();
        wait_until("all are subscribed", || redis.channels().len() == 20);
        redis.signal("STOP");
        drop(old);
        bench.wait_for("sockets", 0);
        // They take the places of those who went, while Redis knows of neither.
        let mut new: Vec<_> = (0..20).map(|i| bench.open(&grant(&format!("new{i}")))).collect();
        redis.signal("CONT");
        wait_until("only the new ones are subscribed", || {
            let channels = redis.channels();
            channels.len() == 20 && channels.iter().all(|channel| channel.starts_with("new"))
        });
        for i in 0..20 {
            assert_eq!(redis.publish(&format!("old{i}"), "for somebody who went"), 0);
            assert_eq!(redis.publish(&format!("new{i}"), format!("{round} {i}")), 1);
        }
        for (i, browser) in new.iter_mut().enumerate() {
            assert_eq!(browser.text(), format!("{round} {i}"));
        }
        drop(new);
        bench.wait_for("sockets", 0);
        wait_until("nobody is subscribed", || redis.channels().is_empty());
    }
}

/// A crafted frame was read past its end. A frame hands out what came of it, all of it, or nothing:
/// cut anywhere, with any length in its header.
#[test]
fn cve_2021_40516_a_crafted_frame_is_never_read_past_its_end() {
    let mut dice = Dice::new(4);
    for _ in 0..100_000 {
        let count = dice.below(40);
        let payload: Vec<u8> = (0..count).map(|_| dice.below(128) as u8).collect();
        let mut bytes = frame([TEXT, BINARY, PING, CLOSE, 0x01, 0x8a][dice.below(6)], &payload);
        match dice.below(3) {
            // Another length than that of what follows.
            0 => bytes[1] = 0x80 | dice.below(128) as u8,
            1 => bytes.truncate(dice.below(bytes.len())),
            _ => {}
        }
        let sent = bytes.len();
        let (mut assembler, mut whole) = (Assembler::default(), Assembler::default());
        let mut came = Ok(0);
        for byte in &bytes {
            came = match (came, feed(&mut assembler, &[*byte], 1 << 16).0) {
                (Ok(before), Ok(more)) => Ok(before + more),
                (error @ Err(_), _) | (_, error) => error,
            };
        }
        assert!(came.is_err() || came.is_ok_and(|came| came <= sent), "{came:?} of {bytes:02x?}");
        // A buffer that ends where the frame ends says the same.
        bytes.shrink_to_fit();
        assert_eq!(feed(&mut whole, &bytes, 1 << 16).0, came, "{bytes:02x?}");
    }
}

/// A page of another site opened a websocket with the cookies of the visitor (CWE-1385; accounts of a
/// well-known service were taken over that way in 2023). The Origin is compared as a whole, and a
/// cookie without an Origin is refused. All spellings: tests/vectors/origins.txt.
#[test]
fn cwe_1385_a_page_of_another_site_gets_no_socket() {
    let cookie: Header = (b"Cookie", b"session=1");
    let with = |headers: &[Header]| handshake_with(b"", headers);
    assert!(matches!(with(&[cookie, (b"Origin", b"https://app.example")]), Verdict::Accept(_)));
    for origin in ["https://evil.example", "https://app.example.evil.example", "null", ""] {
        let verdict = with(&[cookie, (b"Origin", origin.as_bytes())]);
        assert!(is_refused_with(&verdict, Refusal::Origin), "{origin}: {verdict:?}");
    }
    assert!(is_refused_with(&with(&[cookie]), Refusal::Origin));
}

/// The faults of uWSGI itself lie beside the way of a websocket. What the reader is told to run has
/// none of them.
#[test]
fn cve_2018_6758_cve_2018_7490_cve_2023_27522_cve_2024_24795_the_least_uwsgi_is_named() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/SECURITY.md")).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("uWSGI 2.0.26 or newer"));
    for id in ["CVE-2018-6758", "CVE-2018-7490", "CVE-2023-27522", "CVE-2024-24795"] {
        assert!(text.contains(id), "{id}");
    }
}
