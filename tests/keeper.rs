//! A keeper in a process of its own, and hosts that hand their sockets to it: what it promises them,
//! and what becomes of it when they, or it, go wrong.

mod util;

#[path = "c/build.rs"]
mod build;

use std::fs;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use util::{Bench, Offer, wait_until};
use wsredis::engine::Who;
use wsredis::error::Kind;

/// `examples/keeper.c`.
fn program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        build::compile("examples/keeper.c", "keeper", build::Link::Shared, &["-O2"])
    })
}

/// A folder for one test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!(
            "wsredis-test-{}-{:x}",
            std::process::id(),
            wsredis::sys::random()
        ));
        fs::create_dir(&path).unwrap();
        Folder(path)
    }

    fn path(&self) -> String {
        self.0.join("keeper").to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A keeper that runs; killed with the test, if it has not ended.
struct Keeper {
    child: Child,
    log: PathBuf,
}

impl Keeper {
    fn start(folder: &Folder, settings: &[(&str, &str)]) -> Self {
        let name = format!("{:x}", wsredis::sys::random());
        let (ini, log) = (folder.0.join(name.clone() + ".ini"), folder.0.join(name + ".log"));
        let mut text = format!("[wsredis]\nkeeper = {}\n", folder.path());
        for (key, value) in settings {
            text += &format!("{key} = {value}\n");
        }
        fs::write(&ini, text).unwrap();
        let child = Command::new(program())
            .arg(ini)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let keeper = Keeper { child, log };
        wait_until("the keeper listens", || keeper.log().contains("wsredis: keeper 0"));
        keeper
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// Waits for its end; the exit code.
    fn wait(&mut self) -> Option<i32> {
        wait_until("the keeper has ended", || self.child.try_wait().unwrap().is_some());
        self.child.wait().unwrap().code()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("{}", self.log());
        }
    }
}

/// A host whose engine is in the keeper of this folder.
fn host(folder: &Folder) -> Bench {
    Bench::new(1, &[("keeper", &folder.path())])
}

#[test]
fn an_engine_in_a_keeper_does_what_an_engine_does() {
    let folder = Folder::new();
    let mut keeper = Keeper::start(&folder, &[]);
    let (host, other) = (host(&folder), self::host(&folder));
    let mut ann = host.open(r#"{"subscribe":["a"],"user":"ann"}"#);
    let (mut bob, id) = other.open_envelope(r#"{"subscribe":["a"],"publish":["a"]}"#);
    host.publish("a", "1");
    assert_eq!(ann.text(), "1");
    assert_eq!(bob.json()["data"], 1);
    bob.send(r#"{"channel":"a","data":2}"#);
    assert_eq!(ann.text(), "2");
    other.engine.send(&id, b"only you").unwrap();
    assert_eq!(bob.text(), "only you");
    assert_eq!(host.stat("sockets"), 2);
    host.engine.health().unwrap();
    assert_eq!(host.engine.send("1-0-0", b"x").unwrap_err().kind, Kind::NotFound);
    host.engine.kick(&Who::User("ann".into())).unwrap();
    assert_eq!(ann.closed().0, 4403);
    keeper.signal("-TERM");
    assert_eq!(bob.closed().0, 1012);
    assert_eq!(keeper.wait(), Some(0));
    assert!(!Path::new(&folder.path()).exists());
    let gone = host.try_offer(Offer::default()).err().unwrap();
    assert_eq!(gone.kind, Kind::Stopped, "{gone}");
}

#[test]
fn a_host_keeps_no_descriptor_of_what_it_handed_over() {
    let folder = Folder::new();
    let _keeper = Keeper::start(&folder, &[]);
    let host = host(&folder);
    let _first = host.open("{}");
    let (browser, fd) = host.connection();
    let number = fd.as_raw_fd();
    host.engine.adopt(host.adoption(fd, Offer::default())).unwrap();
    assert!(!Path::new(&format!("/proc/self/fd/{number}")).exists());
    drop(browser);
}
