//! A keeper under test: a process of its own, its hosts, and a peer that speaks its wire by itself, rightly or wrongly.
//! The wire's numbers are written here once more on purpose: a change of them is another version.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use serde::Serialize;
use wsredis::sys;

use super::engine::no_rates;
use super::{Bench, DEADLINE, build, wait_until};

/// `examples/keeper.c`.
pub fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        build::compile("examples/keeper.c", "keeper", build::Link::Shared, &["-O2"])
    })
}

/// This very test again, in a process of its own that plays another part. It ends with its standard input.
pub fn in_a_process(test: &str, part: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(PART, part);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// The part that this process plays.
pub fn part() -> Option<String> {
    std::env::var(PART).ok()
}

const PART: &str = "WSREDIS_TEST_PART";

/// A folder for one test, with the path of its keeper.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Self {
        let name = format!("wsredis-test-{}-{:x}", std::process::id(), sys::random());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    pub fn path(&self) -> String {
        self.0.join("keeper").to_str().unwrap().to_owned()
    }

    /// Is nothing left of a keeper: neither its path nor its lock?
    pub fn is_clean(&self) -> bool {
        !self.0.join("keeper").exists() && !self.0.join("keeper.lock").exists()
    }

    /// A host whose engine is in the keeper of this folder.
    pub fn host(&self) -> Bench {
        Bench::new(1, &[("keeper", &self.path())])
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A keeper that runs; killed with the test, if it has not ended.
pub struct Keeper {
    child: Mutex<Child>,
    log: PathBuf,
}

impl Keeper {
    /// A keeper that listens, after it took over from the one that was there.
    pub fn start(folder: &Folder, settings: &[(&str, &str)]) -> Self {
        let keeper = Keeper::spawn(folder, settings, false);
        wait_until("the keeper listens", || {
            assert!(!keeper.has_ended(), "the keeper did not stay");
            keeper.log().contains("wsredis: keeper 0")
        });
        keeper
    }

    /// A process that is about to be a keeper.
    pub fn spawn(folder: &Folder, settings: &[(&str, &str)], leased: bool) -> Self {
        let name = format!("{:x}", sys::random());
        let (ini, log) = (folder.0.join(name.clone() + ".ini"), folder.0.join(name + ".log"));
        let mut text = format!("[wsredis]\nkeeper = {}\n", folder.path());
        for (key, value) in no_rates(settings).iter().chain(settings) {
            text += &format!("{key} = {value}\n");
        }
        fs::write(&ini, text).unwrap();
        let mut command = Command::new(program());
        command.arg(ini).stdin(Stdio::null()).stderr(fs::File::create(&log).unwrap());
        if leased {
            command.env("WSREDIS_KEEPER_LEASED", "1");
        }
        Keeper { child: Mutex::new(command.spawn().unwrap()), log }
    }

    pub fn id(&self) -> u32 {
        self.child.lock().unwrap().id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn signal(&self, name: &str) {
        let id = self.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Stops it in its tracks.
    pub fn freeze(&self) {
        self.signal("-STOP");
        wait_until("the keeper stands still", || self.state() == "T");
    }

    /// As the kernel sees it: `R`, `S`, `T`, ….
    fn state(&self) -> String {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        stat.rsplit(") ").next().unwrap_or_default().chars().take(1).collect()
    }

    /// Ends it without warning.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn has_ended(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_some()
    }

    /// Waits for its end; the exit code.
    pub fn wait(&self) -> Option<i32> {
        wait_until("the keeper has ended", || self.has_ended());
        self.child.lock().unwrap().wait().unwrap().code()
    }

    /// How many descriptors it has.
    pub fn descriptors(&self) -> usize {
        descriptors(self.id())
    }

    /// Its memory in KiB.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap();
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// How many descriptors a process has.
pub fn descriptors(process: u32) -> usize {
    fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count)
}

/// The version of the wire that this speaks.
pub const VERSION: u8 = 2;

/// The numbers of the messages.
pub const LEASE: u8 = 1;
pub const RETIRE: u8 = 3;
pub const TAKE_OVER: u8 = 4;
pub const ADOPT: u8 = 5;
pub const PUBLISH: u8 = 6;
pub const ASK: u8 = 8;
pub const WATCH: u8 = 9;
pub const ANSWER: u8 = 10;

/// What a peer heard: who said it and what, and what came with it.
pub struct Heard {
    pub version: u8,
    pub body: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// A connection to or of a keeper that knows no rules.
pub struct Peer(pub OwnedFd);

impl Peer {
    pub fn connect(path: &str) -> Self {
        Peer(sys::packet_connect(Path::new(path)).unwrap())
    }

    /// A connection that has heard the keeper's first word; and the keeper's process.
    pub fn welcomed(path: &str) -> (Self, u32) {
        let peer = Peer::connect(path);
        let heard = peer.hear().expect("a welcome");
        let (number, _, _, process): (u8, &str, u64, u32) =
            postcard::from_bytes(&heard.body).unwrap();
        assert_eq!((heard.version, number), (VERSION, 0));
        (peer, process)
    }

    /// Sends bytes as they are.
    pub fn send_raw(&self, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
        sys::send_packet(&self.0, &[bytes], descriptors)
    }

    /// Sends a message: a tuple of its number and its fields.
    pub fn send(&self, message: &impl Serialize, descriptors: &[RawFd]) -> io::Result<()> {
        self.send_as(VERSION, message, descriptors)
    }

    pub fn send_as(
        &self,
        version: u8,
        message: &impl Serialize,
        descriptors: &[RawFd],
    ) -> io::Result<()> {
        self.send_raw(&packet(version, 0, &postcard::to_allocvec(message).unwrap()), descriptors)
    }

    /// The next packet; `None` at the end of the connection.
    #[track_caller]
    pub fn hear(&self) -> Option<Heard> {
        let mut buffer = vec![0; 1 << 17];
        assert!(sys::wait_readable(&self.0, DEADLINE.as_millis() as u32).unwrap(), "silence");
        let received = sys::receive_packet(&self.0, &mut buffer).ok()?;
        let mut descriptors = received.descriptors;
        if received.len < 6 {
            return None;
        }
        let length = u32::from_le_bytes(buffer[2..6].try_into().unwrap()) as usize;
        let body = match buffer[1] {
            0 => buffer[6..received.len].to_vec(),
            _ => sys::read_memory_file(&descriptors.pop().unwrap(), length).unwrap(),
        };
        assert_eq!(body.len(), length);
        Some(Heard { version: buffer[0], body, descriptors })
    }

    /// Waits until the other side has closed the connection, whatever it says before.
    #[track_caller]
    pub fn ended(&self) {
        while self.hear().is_some() {}
    }
}

/// A packet of this version: flags, length and body.
pub fn packet(version: u8, flags: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![version, flags];
    packet.extend_from_slice(&(body.len() as u32).to_le_bytes());
    packet.extend_from_slice(body);
    packet
}

/// The message that hands a socket over with this grant.
pub fn adopt(grant: &str) -> impl Serialize {
    let answer = super::engine::ANSWER.as_bytes();
    (ADOPT, grant.as_bytes().to_vec(), answer.to_vec(), b"".to_vec(), "", "", 0u64, false)
}

/// The message that asks for the counters.
pub fn ask_stats(number: u64) -> impl Serialize {
    (ASK, number, 2u8)
}

/// Retried for as long as it is busy.
pub fn patiently(mut send: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut result = send();
    wait_until("there is room", || {
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
            result = send();
            return false;
        }
        true
    });
    result
}

/// The longest time that a call may take which must not wait, on a busy machine.
pub const AT_ONCE: Duration = Duration::from_millis(50);
