//! A log that takes nothing, or is not there: the host goes on serving, and no line of it ever reaches a browser.

#[path = "c/build.rs"]
mod build;
mod util;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use util::browser::{TEXT, frame};
use util::keeper::Folder;
use util::wire::{Frame, frames, read_to_end};
use util::{Browser, wait_until};

/// `examples/host.c` with its log redirected by the shell; ends with the test.
struct Host {
    child: Child,
    port: u16,
}

impl Host {
    fn start(program: &Path, redirection: &str) -> Host {
        let mut child = Command::new("sh")
            .args(["-c", &format!("exec \"$0\" 0 log-level=debug {redirection}")])
            .arg(program)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Host { child, port: port.unwrap_or_else(|| panic!("{redirection}: {line:?}")) }
    }

    fn request(&self, more: &str) -> Browser {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let head = format!(
            "GET /ws/log HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\n\
             Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
        );
        stream.write_all(head.as_bytes()).unwrap();
        Browser::new(stream)
    }

    fn open(&self) -> Browser {
        let mut browser = self.request("");
        browser.opened();
        browser
    }

    /// Does what is logged: by the engine, and by the host itself.
    fn provoke(&self) {
        for bytes in [frame(0x83, b""), frame(TEXT, b"\xff")] {
            let mut browser = self.open();
            browser.write(&bytes);
            let (seen, _) = read_to_end(browser.stream());
            let (frames, behind) = frames(&seen);
            assert!(matches!(&frames[..], [Frame { first: 0x88, .. }]), "{frames:?}");
            assert!(behind.is_empty(), "{:?}", String::from_utf8_lossy(behind));
        }
        let mut refused = self.request("Origin: http://evil.test\r\n");
        let mut answer = String::new();
        refused.stream().read_to_string(&mut answer).unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 403 ") && answer.ends_with("\r\n\r\nForbidden\n"),
            "{answer}"
        );
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_host_whose_log_is_full_or_closed_goes_on_serving() {
    if !build::has("gcc") {
        return;
    }
    let program =
        build::compile("examples/host.c", "host-log", build::Link::Shared, &build::SANITIZED);
    for redirection in ["2>/dev/full", "2>&-", "2>&- 0<&-"] {
        let mut host = Host::start(&program, redirection);
        let (mut ann, mut bob) = (host.open(), host.open());
        for number in 0..20 {
            host.provoke();
            ann.send(&format!("{number}"));
            assert_eq!(bob.text(), format!("{number}"), "{redirection}");
        }
        // No line went to them: what they hear next is what is said next.
        bob.send("over");
        assert_eq!(ann.text(), "over", "{redirection}");
        assert_eq!(host.child.try_wait().unwrap(), None, "{redirection}: the host has ended");
    }
}

/// It writes to its errors where nobody listens to its log.
#[test]
fn a_keeper_without_standard_descriptors_gives_their_numbers_to_no_socket() {
    if !build::has("gcc") {
        return;
    }
    let program =
        build::compile("examples/keeper.c", "keeper-log", build::Link::Shared, &build::SANITIZED);
    let folder = Folder::new();
    let ini = format!("{}.ini", folder.path());
    fs::write(&ini, format!("[wsredis]\nkeeper = {}\n", folder.path())).unwrap();
    let mut keeper = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$1\" <&- >&- 2>&-"])
        .arg(program)
        .arg(&ini)
        .spawn()
        .unwrap();
    wait_until("it listens", || Path::new(&folder.path()).exists());
    for fd in 0..3 {
        let file = fs::read_link(format!("/proc/{}/fd/{fd}", keeper.id())).unwrap();
        assert_eq!(file, Path::new("/dev/null"), "{fd}");
    }
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}
