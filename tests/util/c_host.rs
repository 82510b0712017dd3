//! `examples/host.c` as a process under test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use tungstenite::WebSocket;

use super::DEADLINE;
use super::build::{self, Link};

pub fn program(link: Link) -> Option<PathBuf> {
    static SHARED: OnceLock<PathBuf> = OnceLock::new();
    static STATIC: OnceLock<PathBuf> = OnceLock::new();
    if !build::has("gcc") {
        return None;
    }
    Some(match link {
        Link::Shared => SHARED
            .get_or_init(|| build::compile("examples/host.c", "host", link, &build::SANITIZED))
            .clone(),
        Link::Static => STATIC
            .get_or_init(|| build::compile("examples/host.c", "host-static", link, &["-O2"]))
            .clone(),
    })
}

/// A host that runs; it ends with the test.
pub struct Host {
    child: Child,
    port: u16,
    stdout: BufReader<ChildStdout>,
}

impl Host {
    pub fn start(arguments: &[&str]) -> Option<Host> {
        Some(Host::run(Command::new(program(Link::Shared)?).arg("0").args(arguments)))
    }

    /// For a test that sends faster than a browser may.
    pub fn start_without_rates(arguments: &[&str]) -> Option<Host> {
        Host::start(&[arguments, &["max-message-rate=0"]].concat())
    }

    /// Without sanitizers, where memory and time are measured.
    pub fn start_fast(arguments: &[&str]) -> Option<Host> {
        Some(Host::run(Command::new(program(Link::Static)?).arg("0").args(arguments)))
    }

    /// With so many descriptors at most.
    pub fn start_with_files(limit: usize, arguments: &[&str]) -> Option<Host> {
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("ulimit -n {limit}; exec \"$0\" 0 \"$@\"")]);
        Some(Host::run(shell.arg(program(Link::Shared)?).args(arguments)))
    }

    pub fn run(command: &mut Command) -> Host {
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let port = line.trim().rsplit(':').next().and_then(|port| port.parse().ok());
        Host { child, port: port.unwrap_or_else(|| panic!("{line:?}")), stdout }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    /// A websocket in a room, or the refusal.
    pub fn try_join(&self, room: &str) -> Result<WebSocket<TcpStream>, tungstenite::Error> {
        self.enter(&format!("/ws/{room}"))
    }

    /// A websocket at a path, or the refusal.
    pub fn enter(&self, path: &str) -> Result<WebSocket<TcpStream>, tungstenite::Error> {
        let url = format!("ws://127.0.0.1:{}{path}", self.port);
        match tungstenite::client(url, self.connect()) {
            Ok((socket, _)) => Ok(socket),
            Err(tungstenite::HandshakeError::Failure(error)) => Err(error),
            Err(error) => panic!("{error}"),
        }
    }

    pub fn join(&self, room: &str) -> WebSocket<TcpStream> {
        self.try_join(room).unwrap()
    }

    pub fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }

    pub fn files(&self) -> usize {
        fs::read_dir(self.proc("fd")).unwrap().count()
    }

    /// Time on a processor so far, in hundredths of a second.
    pub fn cpu(&self) -> u64 {
        let stat = fs::read_to_string(self.proc("stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    }

    /// Time that its thread, which reads the requests, was on a processor so far.
    pub fn busy(&self) -> Duration {
        let text = fs::read_to_string(self.proc("schedstat")).unwrap();
        Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
    }

    /// Bytes of memory that it has touched.
    pub fn resident(&self) -> usize {
        let status = fs::read_to_string(self.proc("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
    }

    /// Its numbers.
    pub fn stats(&mut self) -> serde_json::Value {
        self.signal("-USR1");
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap()
    }

    /// How many handshakes were refused for this reason.
    pub fn refused(&mut self, name: &str) -> u64 {
        self.stats()["refused"][name].as_u64().unwrap()
    }

    pub fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end; the exit code.
    pub fn wait(&mut self, limit: Duration) -> Option<i32> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "the host still runs after {limit:?}");
            thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn assert_alive(&mut self) {
        assert_eq!(self.child.try_wait().unwrap(), None, "the host has ended");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An upgrade request; `more` are header lines, `path` may be wrong.
pub fn upgrade(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: example.test\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
    .into_bytes()
}

pub fn head(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        bytes.push(byte[0]);
    }
    String::from_utf8(bytes).unwrap()
}
