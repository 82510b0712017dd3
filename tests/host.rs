//! `examples/host.c`, the smallest complete host, built by gcc and driven from outside: the ABI as
//! a C program sees it, over real connections.

mod util;

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};
use util::build::{self, Link};
use util::c_host::{Host, head, program, upgrade};
use util::{RealRedis, wait_until};

fn text(socket: &mut WebSocket<TcpStream>) -> String {
    loop {
        match socket.read().unwrap() {
            Message::Text(text) => return text.as_str().to_owned(),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?} instead of text"),
        }
    }
}

/// A masked text frame of at most 125 bytes.
fn text_frame(payload: &str) -> Vec<u8> {
    let mask = [0x11, 0x22, 0x33, 0x44];
    let masked = payload.bytes().zip(mask.into_iter().cycle()).map(|(byte, mask)| byte ^ mask);
    [0x81, 0x80 | payload.len() as u8].into_iter().chain(mask).chain(masked).collect()
}

fn talk(host: &Host) {
    let (mut ann, mut bob, mut other) = (host.join("room"), host.join("room"), host.join("other"));
    for i in 0..100 {
        ann.send(Message::text(format!("from ann {i}"))).unwrap();
        assert_eq!(text(&mut bob), format!("from ann {i}"));
        bob.send(Message::text(format!("from bob {i}"))).unwrap();
        assert_eq!(text(&mut ann), format!("from bob {i}"));
    }
    // The first thing that the other room hears is its own.
    host.join("other").send(Message::text("elsewhere")).unwrap();
    assert_eq!(text(&mut other), "elsewhere");
}

#[test]
fn two_browsers_in_a_room_hear_each_other_and_no_other_room() {
    for loops in ["loops=1", "loops=3"] {
        let Some(host) = Host::start(&[loops]) else { return };
        talk(&host);
    }
}

#[test]
fn who_may_only_hear_is_not_heard_and_who_may_only_speak_hears_nothing() {
    let Some(host) = Host::start(&[]) else { return };
    let (mut both, mut hears) = (host.join("room"), host.enter("/news/room").unwrap());
    let mut speaks = host.enter("/inbox/room").unwrap();
    hears.send(Message::text("from who only hears")).unwrap();
    // What a socket has sent before its pong has been read.
    hears.send(Message::Ping("read".into())).unwrap();
    assert_eq!(hears.read().unwrap(), Message::Pong("read".into()));
    speaks.send(Message::text("from who only speaks")).unwrap();
    for socket in [&mut both, &mut hears] {
        assert_eq!(text(socket), "from who only speaks");
    }
    speaks.send(Message::Ping("next".into())).unwrap();
    assert_eq!(speaks.read().unwrap(), Message::Pong("next".into()));
}

#[test]
fn the_host_runs_with_the_static_library_too() {
    let Some(program) = program(Link::Static) else { return };
    talk(&Host::run(Command::new(program).arg("0")));
}

#[test]
fn a_frame_behind_the_handshake_arrives_wherever_the_bytes_are_cut() {
    let Some(host) = Host::start(&[]) else { return };
    let mut listener = host.join("cuts");
    let bytes = |n: usize| {
        let mut bytes = upgrade("/ws/cuts", "");
        bytes.extend(text_frame(&format!("cut {n:04}")));
        bytes
    };
    for cut in 1..=bytes(0).len() {
        let bytes = bytes(cut);
        let mut stream = host.connect();
        stream.write_all(&bytes[..cut]).unwrap();
        // Only so that the parts are mostly read apart: together they must do as well.
        thread::sleep(Duration::from_millis(1));
        stream.write_all(&bytes[cut..]).unwrap();
        assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
        assert_eq!(text(&mut listener), format!("cut {cut:04}"));
    }
    let mut stream = host.connect();
    for byte in bytes(0) {
        stream.write_all(&[byte]).unwrap();
    }
    assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
    assert_eq!(text(&mut listener), "cut 0000");
}

#[test]
fn a_request_that_may_not_pass_gets_its_answer() {
    let Some(mut host) = Host::start(&["examples/host.ini"]) else { return };
    let long = "a".repeat(65);
    let folded = upgrade("/ws/a", "X-Folded: one\r\n two\r\n");
    // Five are those of the upgrade.
    let headers = |count| (5..count).map(|i| format!("X-{i}: x\r\n")).collect::<String>();
    let with = |from: &str, to: &str| {
        String::from_utf8(upgrade("/ws/a", "")).unwrap().replace(from, to).into_bytes()
    };
    let cases: Vec<(u16, Vec<u8>)> = vec![
        (404, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (404, upgrade("/ws/", "")),
        (404, upgrade("/ws/a/b", "")),
        (404, upgrade("/ws/a%22", "")),
        (404, upgrade("/ws/a\",\"b", "")),
        (404, upgrade(&format!("/ws/{long}"), "")),
        (426, b"GET /ws/a HTTP/1.1\r\nHost: a\r\n\r\n".to_vec()),
        (426, with("Version: 13", "Version: 12")),
        (400, with("dGhlIHNhbXBsZSBub25jZQ==", "short")),
        (400, b"what?\r\n\r\n".to_vec()),
        (400, b"\r\n\r\n".to_vec()),
        (400, b"GET /ws/a\r\n\r\n".to_vec()),
        (400, with("Host:", "Host :")),
        (400, with("Host:", ":")),
        (400, with("Host: example.test", "Host")),
        (400, folded),
        (101, upgrade("/ws/a", &headers(100))),
        (431, upgrade("/ws/a", &headers(101))),
        (400, with("example.test", "example\0test")),
        (431, vec![b'x'; 16 << 10]),
        (431, vec![b'x'; 60_000]),
        (403, upgrade("/ws/a", "Origin: http://evil.test\r\n")),
        (403, upgrade("/ws/a", "Cookie: session=1\r\n")),
        (101, upgrade("/ws/a?token=secret", "Origin: http://example.test\r\n")),
        (101, upgrade(&format!("/ws/{}", &long[1..]), "")),
    ];
    for (status, request) in cases {
        let name = String::from_utf8_lossy(&request[..request.len().min(300)]).into_owned();
        let mut stream = host.connect();
        stream.write_all(&request).unwrap();
        let head = head(&mut stream);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{name}\n{head}");
        assert_eq!(status == 426, head.contains("Sec-WebSocket-Version: 13"), "{head}");
    }
    // One that goes away in the middle of its request is no fault of anybody's.
    let mut stream = host.connect();
    stream.write_all(b"GET /ws/a HT").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(head(&mut stream).starts_with("HTTP/1.1 400 "));
    host.assert_alive();
    talk(&host);
}

#[test]
fn three_hundred_sockets_cost_a_descriptor_each_and_all_hear_one() {
    let Some(host) = Host::start(&["loops=2"]) else { return };
    let mut speaker = host.join("hall");
    let before = (host.files(), fs::read_dir(host.proc("task")).unwrap().count());
    let mut sockets: Vec<_> = (0..300).map(|_| host.join("hall")).collect();
    let after = (host.files(), fs::read_dir(host.proc("task")).unwrap().count());
    assert_eq!(after, (before.0 + 300, before.1));
    for i in 0..10 {
        speaker.send(Message::text(format!("message {i}"))).unwrap();
    }
    for socket in &mut sockets {
        for i in 0..10 {
            assert_eq!(text(socket), format!("message {i}"));
        }
    }
    drop(sockets);
    wait_until("the descriptors are given back", || host.files() == before.0);
}

/// While nothing happens the host must not work: less than a twentieth of a processor.
fn assert_idle(host: &Host) {
    let (cpu, began) = (host.cpu(), Instant::now());
    thread::sleep(Duration::from_secs(1));
    let used = host.cpu() - cpu;
    assert!(u128::from(used) * 10 < began.elapsed().as_millis() / 20, "{used} ticks while idle");
}

/// Tries to join so often; those who could. The others were told when to come back.
fn crowd(host: &Host, attempts: usize) -> Vec<WebSocket<TcpStream>> {
    let (mut sockets, mut refused) = (Vec::new(), 0);
    for _ in 0..attempts {
        match host.try_join("full") {
            Ok(socket) => sockets.push(socket),
            Err(tungstenite::Error::Http(answer)) => {
                assert_eq!(answer.status(), 503);
                let after: u64 = answer.headers()["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=10).contains(&after), "{after}");
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(sockets.len() + refused, attempts);
    sockets
}

#[test]
fn at_the_limit_of_descriptors_browsers_are_told_to_come_back_and_can() {
    let Some(mut host) = Host::start_with_files(300, &[]) else { return };
    let mut sockets = crowd(&host, 1000);
    assert!((200..=236).contains(&sockets.len()), "{} sockets", sockets.len());
    assert_idle(&host);
    let (last, others) = sockets.split_last_mut().unwrap();
    last.send(Message::text("we are still served")).unwrap();
    for socket in others {
        assert_eq!(text(socket), "we are still served");
    }
    let count = sockets.len();
    drop(sockets);
    let mut again = Vec::new();
    wait_until("as many as before can come back", || {
        again.extend(host.try_join("full"));
        again.len() == count
    });
    host.assert_alive();
}

#[test]
fn at_the_limit_of_descriptors_a_lost_redis_is_found_again() {
    let Some(mut redis) = RealRedis::start() else { return };
    let url = format!("redis-url={}", redis.url());
    let Some(mut host) = Host::start_with_files(300, &[&url, "on-gap=ignore"]) else { return };
    let mut sockets = crowd(&host, 1000);
    assert!((200..=236).contains(&sockets.len()), "{} sockets", sockets.len());
    let talk = |text: &str, sockets: &mut [WebSocket<TcpStream>]| {
        let (speaker, others) = sockets.split_first_mut().unwrap();
        speaker.send(Message::text(text)).unwrap();
        others.iter_mut().for_each(|socket| assert_eq!(self::text(socket), text));
    };
    talk("before", &mut sockets);
    for round in 0..3 {
        redis.kill();
        // Browsers who come while it is away are no harm.
        drop(crowd(&host, 100));
        assert_idle(&host);
        redis.run();
        wait_until("the room is heard again", || redis.subscribers("full") == 1);
        wait_until("it can be spoken to", || host.stats()["redis_down"] == 0);
        talk(&format!("after {round}"), &mut sockets);
        assert!(crowd(&host, 100).is_empty(), "it is as full as before");
    }
    assert_idle(&host);
    drop(sockets);
    let mut again = Vec::new();
    wait_until("there is room again", || {
        again.extend(host.try_join("full"));
        again.len() == 200
    });
    host.assert_alive();
}

#[test]
fn a_host_without_a_descriptor_for_accept_waits_without_spinning() {
    let Some(mut host) = Host::start_with_files(60, &["fd-reserve=0"]) else { return };
    // The kernel connects them all; the host can not accept the last ones.
    let ask = |_| {
        let mut stream = host.connect();
        stream.write_all(&upgrade("/ws/full", "")).unwrap();
        stream
    };
    let streams: Vec<_> = (0..100).map(ask).collect();
    // The kernel gives the lowest that is free: none is left below this one.
    wait_until("every descriptor is used", || host.proc("fd/59").symlink_metadata().is_ok());
    assert_idle(&host);
    // As the first leave, the others get their turn.
    for mut stream in streams {
        assert!(head(&mut stream).starts_with("HTTP/1.1 101 "));
    }
    host.assert_alive();
    talk(&host);
}

#[test]
fn on_sigterm_every_browser_is_told_1012_and_the_host_ends_well() {
    for signal in ["-TERM", "-INT"] {
        let Some(mut host) = Host::start(&["loops=3"]) else { return };
        let mut sockets: Vec<_> = (0..30).map(|i| host.join(&format!("room{}", i % 4))).collect();
        let began = Instant::now();
        host.signal(signal);
        for socket in &mut sockets {
            match socket.read().unwrap() {
                Message::Close(Some(frame)) => assert_eq!(frame.code, CloseCode::Restart),
                other => panic!("{other:?}"),
            }
            while socket.read().is_ok() {}
        }
        assert_eq!(host.wait(Duration::from_secs(3)), Some(0));
        assert!(began.elapsed() < Duration::from_secs(3));
    }
}

#[test]
fn browsers_that_answer_nothing_do_not_keep_the_host_from_ending() {
    let Some(mut host) = Host::start(&[]) else { return };
    let _half_a_request = {
        let mut stream = host.connect();
        stream.write_all(b"GET /ws/mute HTTP/1.1\r\n").unwrap();
        stream
    };
    let _mute: Vec<_> = (0..10).map(|_| host.join("mute")).collect();
    host.signal("-TERM");
    assert_eq!(host.wait(Duration::from_secs(3)), Some(0));
}

#[test]
fn browsers_that_vanish_in_the_middle_of_writes_raise_no_sigpipe_and_disturb_nobody() {
    const MESSAGES: usize = 10_000;
    let Some(mut host) = Host::start_without_rates(&["loops=2"]) else { return };
    let status = fs::read_to_string(host.proc("status")).unwrap();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
    let ignored = u64::from_str_radix(ignored.trim(), 16).unwrap();
    assert_eq!(ignored & (1 << 12), 0, "SIGPIPE must be at its default for this test");
    let (mut speaker, mut bystander) = (host.join("storm"), host.join("storm"));
    let (done, vanished) = (AtomicBool::new(false), AtomicUsize::new(0));
    let vanishing = AtomicUsize::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !done.load(Relaxed) {
                    let mut socket = host.join("storm");
                    // Something has come and is not read: closing sends a reset.
                    let _ = socket.get_mut().peek(&mut [0]);
                    drop(socket);
                    vanished.fetch_add(1, Relaxed);
                }
                vanishing.fetch_sub(1, Relaxed);
            });
        }
        for first in (0..MESSAGES).step_by(20) {
            for i in first..first + 20 {
                speaker.send(Message::text(format!("{i}"))).unwrap();
            }
            for i in first..first + 20 {
                assert_eq!(text(&mut bystander), format!("{i}"));
            }
        }
        done.store(true, Relaxed);
        // Whoever joined last waits for something to come.
        while vanishing.load(Relaxed) > 0 {
            speaker.send(Message::text("over")).unwrap();
            thread::sleep(Duration::from_millis(5));
        }
    });
    assert!(vanished.load(Relaxed) > 100, "{vanished:?} vanished");
    host.assert_alive();
}

#[test]
fn a_wrong_argument_is_told_and_nothing_starts() {
    let Some(program) = program(Link::Shared) else { return };
    let ini = build::library_folder().join("wrong.ini");
    fs::write(&ini, "[wsredis]\nloops = 2\nmax-message-size = many\n").unwrap();
    let file_line = format!("{}:3: ", ini.display());
    let cases = [
        (vec!["no-such-key=1"], "no-such-key"),
        (vec!["loops=0"], "1 to 64"),
        (vec!["loops=2", "loops=3"], "loops"),
        (vec![ini.to_str().unwrap()], &file_line),
        (vec!["no-such-file.ini"], "no-such-file.ini"),
    ];
    let mut texts = HashSet::new();
    for (arguments, why) in cases {
        let output = Command::new(&program).arg("0").args(&arguments).output().unwrap();
        let text = build::text_of(&output);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {text}");
        assert!(text.contains(why), "{arguments:?}: {text}");
        assert!(texts.insert(text), "each says something of its own");
    }
    let output = Command::new(&program).output().unwrap();
    assert!(build::text_of(&output).contains("usage: host PORT"));
}
