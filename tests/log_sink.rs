//! A log that takes nothing, or is not there: the host goes on serving, and no line of it ever reaches a browser.

mod util;

use std::io::{Read, Write};
use std::process::Command;

use tungstenite::{Message, WebSocket};
use util::build::Link;
use util::c_host::{Host, program, upgrade};
use util::wire::{Frame, frames, read_to_end};

fn text(socket: &mut WebSocket<std::net::TcpStream>) -> String {
    socket.read().unwrap().into_text().unwrap().as_str().to_owned()
}

/// Does what is logged, by the engine and by the host itself.
fn provoke(host: &Host) {
    // A reserved opcode; text that is none.
    for bytes in [&[0x83, 0x80, 0, 0, 0, 0][..], &[0x81, 0x81, 0, 0, 0, 0, 0xFF]] {
        let mut socket = host.join("log");
        socket.get_mut().write_all(bytes).unwrap();
        let (seen, _) = read_to_end(socket.get_mut());
        let (frames, behind) = frames(&seen);
        assert!(matches!(&frames[..], [Frame { first: 0x88, .. }]), "{frames:?}");
        assert!(behind.is_empty(), "{:?}", String::from_utf8_lossy(behind));
    }
    let mut refused = host.connect();
    refused.write_all(&upgrade("/ws/log", "Origin: http://evil.test\r\n")).unwrap();
    let mut answer = String::new();
    refused.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nForbidden\n"), "{answer}");
}

#[test]
fn a_host_whose_log_is_full_or_closed_goes_on_serving() {
    let Some(program) = program(Link::Shared) else { return };
    for redirection in ["2>/dev/full", "2>&-", "2>&- 0<&-"] {
        let line = format!("exec \"$0\" 0 log-level=debug {redirection}");
        let mut host = Host::run(Command::new("sh").args(["-c", &line]).arg(&program));
        let (mut ann, mut bob) = (host.join("log"), host.join("log"));
        for number in 0..20 {
            provoke(&host);
            ann.send(Message::text(number.to_string())).unwrap();
            assert_eq!(text(&mut bob), number.to_string(), "{redirection}");
        }
        // No line went to them: what they hear next is what is said next.
        bob.send(Message::text("over")).unwrap();
        assert_eq!(text(&mut ann), "over", "{redirection}");
        host.assert_alive();
    }
}
