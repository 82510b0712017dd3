//! How a keeper comes to be and ends: leases, signals, starters and watchers, and who needs another.

mod util;

use std::ffi::CString;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use util::keeper::{Folder, Keeper, LEASE, Peer, in_a_process, part, program};
use util::{Browser, Offer, RealRedis, wait_until};
use wsredis::config::Config;
use wsredis::engine::{Event, keeper};
use wsredis::error::Kind;
use wsredis::log::{Level, Log};
use wsredis::sys;

/// The settings of the keeper at `path`.
fn config(path: &str, settings: &[(&str, &str)]) -> Config {
    let mut config = Config::new();
    config.set("keeper", path).unwrap();
    config.set("keeper-grace", "300ms").unwrap();
    for (key, value) in settings {
        config.set(key, value).unwrap();
    }
    config
}

/// Starts `examples/keeper.c`, which can be found by `path` among its arguments.
fn command(path: &str) -> keeper::Command {
    let argv = [program().as_os_str().as_bytes(), b"/proc/self/fd/0", path.as_bytes()];
    keeper::Command { argv: argv.map(|word| CString::new(word).unwrap()).to_vec(), user: None }
}

fn start(path: &str, settings: &[(&str, &str)]) -> wsredis::error::Result<()> {
    let limit = Duration::from_secs(10);
    keeper::start(&config(path, settings), &command(path), limit, &Log::none())
}

/// The processes that were started with `path` among their arguments.
fn processes(path: &str) -> Vec<u32> {
    let all = fs::read_dir("/proc").unwrap().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_meant = |process: &u32| {
        let words = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).nth(2) == Some(path.as_bytes())
    };
    numbers.filter(is_meant).collect()
}

/// The folder of keepers that are nobody's children: killed with the test.
struct Nursery(Folder);

impl Nursery {
    fn new() -> Self {
        Nursery(Folder::new())
    }

    fn path(&self) -> String {
        self.0.path()
    }

    /// The process of the keeper that answers.
    fn keeper(&self) -> u32 {
        Peer::welcomed(&self.path()).1
    }
}

impl Drop for Nursery {
    fn drop(&mut self) {
        for process in processes(&self.path()) {
            signal(process, "-KILL");
        }
    }
}

fn signal(process: u32, name: &str) {
    let _ = Command::new("kill").args([name, &process.to_string()]).status();
}

/// Another process that holds a lease, until its input ends or it is killed with the test.
struct Holder(Child);

impl Holder {
    fn new(command: &mut Command) -> Self {
        Holder(command.spawn().unwrap())
    }

    /// Its lines, from the first on that it says on purpose.
    fn lines(&mut self) -> impl Iterator<Item = String> + use<> {
        let lines = BufReader::new(self.0.stdout.take().unwrap()).lines();
        lines.map_while(Result::ok).filter_map(|line| line.strip_prefix("> ").map(str::to_owned))
    }

    fn end(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.end();
    }
}

/// Plays the part of a process that stays until its input ends.
fn stay() {
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    std::process::exit(0);
}

#[test]
fn a_leased_keeper_whom_nobody_comes_for_ends_and_one_without_a_lease_stays() {
    let (kept, leased) = (Folder::new(), Folder::new());
    let grace = [("keeper-grace", "200ms")];
    let stays = Keeper::start(&kept, &grace);
    let begin = Instant::now();
    let ends = Keeper::spawn(&leased, &grace, true);
    assert_eq!(ends.wait(), Some(0));
    assert!(begin.elapsed() >= Duration::from_millis(200));
    assert!(leased.is_clean());
    assert!(ends.log().contains("nobody holds its lease"), "{}", ends.log());
    // It has seen the same time pass. A lease that came and went makes it like the other.
    let mut browser = kept.host().open("{}");
    assert!(!stays.has_ended());
    let (peer, _) = Peer::welcomed(&kept.path());
    peer.send(&(LEASE, false), &[]).unwrap();
    drop(peer);
    assert_eq!(browser.closed().0, 1001);
    assert_eq!(stays.wait(), Some(0));
    assert!(kept.is_clean());
}

#[test]
fn when_the_holder_of_the_lease_has_ended_browsers_are_told_within_the_grace() {
    if let Some(path) = part() {
        start(&path, &[]).unwrap();
        println!("\n> started");
        return stay();
    }
    let nursery = Nursery::new();
    let test = "when_the_holder_of_the_lease_has_ended_browsers_are_told_within_the_grace";
    let mut holder = Holder::new(&mut in_a_process(test, &nursery.path()));
    assert_eq!(holder.lines().next().unwrap(), "started");
    let mut browser = nursery.0.host().open("{}");
    holder.end();
    let begin = Instant::now();
    assert_eq!(browser.closed().0, 1001);
    assert!(begin.elapsed() >= Duration::from_millis(250), "the grace is for the next holder");
    wait_until("it has ended", || nursery.0.is_clean() && processes(&nursery.path()).is_empty());
}

#[test]
fn a_signal_ends_it_in_order_within_the_stop_timeout() {
    for name in ["-TERM", "-INT", "-QUIT"] {
        let folder = Folder::new();
        let keeper = Keeper::start(&folder, &[("stop-timeout", "500ms")]);
        let host = folder.host();
        let mut browsers: Vec<Browser> = (0..3).map(|_| host.open("{}")).collect();
        // It answers no close frame, for which there would be 5 s.
        let mut deaf = host.open("{}");
        for ignored in ["-HUP", "-PIPE"] {
            keeper.signal(ignored);
        }
        host.open("{}");
        keeper.freeze();
        let waiting: Vec<Browser> = (0..3).map(|_| host.offer(Offer::default())).collect();
        let late = folder.host();
        let not_let_in = late.offer(Offer::default());
        keeper.signal(name);
        let begin = Instant::now();
        keeper.signal("-CONT");
        for browser in &mut browsers {
            assert_eq!(browser.closed().0, 1012);
        }
        assert_eq!(keeper.wait(), Some(0));
        let took = begin.elapsed();
        assert!((400..3000).contains(&took.as_millis()), "{name}: {took:?}");
        assert!(folder.is_clean());
        assert!(matches!(deaf.read(), Ok(tungstenite::Message::Close(Some(_)))));
        for mut browser in waiting.into_iter().chain([not_let_in]) {
            let answer = browser.read_to_end();
            assert!(answer.starts_with(b"HTTP/1.1 503 "), "{}", String::from_utf8_lossy(&answer));
        }
    }
}

#[test]
fn messages_that_wait_when_it_is_told_to_end_are_published() {
    let Some(redis) = RealRedis::start() else { return };
    let mut connection = redis.connect();
    let mut listener = connection.as_pubsub();
    listener.subscribe("a").unwrap();
    listener.set_read_timeout(Some(util::DEADLINE)).unwrap();
    let mut heard = || listener.get_message().unwrap().get_payload::<String>().unwrap();
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[("redis-url", &redis.url())]);
    let host = folder.host();
    host.publish("a", "1");
    assert_eq!(heard(), "1");
    keeper.freeze();
    host.engine.publish("a", b"2").unwrap();
    folder.host().engine.publish("a", b"3").unwrap();
    keeper.signal("-TERM");
    keeper.signal("-CONT");
    assert_eq!([heard(), heard()].map(|text| text.parse::<u8>().unwrap()).iter().sum::<u8>(), 5);
    assert_eq!(keeper.wait(), Some(0));
}

#[test]
fn events_go_on_with_another_keeper_at_the_same_descriptor() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[]);
    let host = folder.host();
    let fd = host.engine.events_fd().unwrap();
    let next = || {
        let mut event = Ok(None);
        wait_until("an event comes", || {
            let _ = sys::wait_readable(&fd, 100);
            event = host.engine.next_event();
            !matches!(event, Ok(None))
        });
        event
    };
    host.stat("sockets");
    let (mut browser, id) = host.open_envelope("{}");
    assert_eq!(next().unwrap(), Some(Event::Opened(id.clone())));
    browser.close(1000);
    browser.closed();
    assert_eq!(next().unwrap(), Some(Event::Closed(id, 1000)));
    assert_eq!(host.engine.next_event().unwrap(), None);

    let _lost = host.open("{}");
    assert!(matches!(next().unwrap(), Some(Event::Opened(_))));
    keeper.kill();
    let _another = Keeper::start(&folder, &[]);
    assert!(matches!(next().unwrap(), Some(Event::Overflow(_))));
    assert_eq!(host.engine.events_fd().unwrap(), fd);
    host.stat("sockets");
    let (_browser, id) = host.open_envelope("{}");
    assert_eq!(next().unwrap(), Some(Event::Opened(id)));
}

#[test]
fn of_several_starters_at_once_all_have_the_same_keeper() {
    for _ in 0..3 {
        let nursery = Nursery::new();
        let path = nursery.path();
        thread::scope(|scope| {
            let starters: Vec<_> = (0..4).map(|_| scope.spawn(|| start(&path, &[]))).collect();
            for starter in starters {
                starter.join().unwrap().unwrap();
            }
        });
        wait_until("one is left", || processes(&path).len() == 1);
        wait_until("it is the one that answers", || processes(&path) == [nursery.keeper()]);
        nursery.0.host().open("{}");
    }
}

#[test]
fn a_keeper_has_nothing_of_its_starter_but_what_it_needs() {
    const TEST: &str = "a_keeper_has_nothing_of_its_starter_but_what_it_needs";
    if let Some(path) = part() {
        start(&path, &[]).unwrap();
        println!("\n> started");
        return stay();
    }
    let nursery = Nursery::new();
    let secret = nursery.0.0.join("secret");
    fs::write(&secret, "").unwrap();
    // A descriptor that its starter did not protect, and a variable that is not for everyone.
    let again = in_a_process(TEST, &nursery.path());
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("exec \"$0\" \"$@\" 9<{}", secret.display())]);
    shell.arg(again.get_program()).args(again.get_args());
    shell.envs(again.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("DATABASE_PASSWORD", "x").env("LANG", "C");
    shell.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut holder = Holder::new(&mut shell);
    assert_eq!(holder.lines().next().unwrap(), "started");
    assert!(has_open(holder.0.id(), &secret), "the test must leave it open");

    let process = nursery.keeper();
    assert!(!has_open(process, &secret));
    let environment = fs::read(format!("/proc/{process}/environ")).unwrap();
    let names: Vec<_> = (environment.split(|byte| *byte == 0))
        .filter_map(|word| word.split(|byte| *byte == b'=').next())
        .map(|name| String::from_utf8(name.to_vec()).unwrap())
        .filter(|name| !name.is_empty())
        .collect();
    assert!(names.contains(&"WSREDIS_KEEPER".into()) && names.contains(&"LANG".into()));
    for name in ["DATABASE_PASSWORD", "WSREDIS_TEST_PART", "HOME"] {
        assert!(!names.contains(&name.to_owned()), "{names:?}");
    }
    let (parent, session) = family(process);
    assert_ne!(parent, holder.0.id());
    assert_ne!(session, family(holder.0.id()).1, "a session of its own");
    let numbers = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    let links = numbers.filter_map(|entry| fs::read_link(entry.path()).ok());
    let strange: Vec<_> = links
        .map(|link| link.to_string_lossy().into_owned())
        .filter(|link| {
            let own = ["socket:", "anon_inode:", "/memfd:", "/dev/null", "pipe:"];
            !own.iter().any(|begin| link.starts_with(begin)) && !link.ends_with("keeper.lock")
        })
        // Its output and errors are those of its starter.
        .filter(|link| !std::path::absolute(link).is_ok_and(|link| is_ours(&link)))
        .collect();
    assert!(strange.is_empty(), "{strange:?}");
}

/// Is this what our own output or errors are?
fn is_ours(path: &Path) -> bool {
    [1, 2].iter().any(|n| fs::read_link(format!("/proc/self/fd/{n}")).is_ok_and(|p| p == path))
}

fn has_open(process: u32, path: &Path) -> bool {
    let fds = fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    fds.filter_map(|fd| fs::read_link(fd.path()).ok()).any(|link| link == path)
}

/// The parent and the session of a process.
fn family(process: u32) -> (u32, u32) {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let behind: Vec<&str> = stat.rsplit(") ").next().unwrap().split(' ').collect();
    (behind[1].parse().unwrap(), behind[3].parse().unwrap())
}

#[test]
fn a_watcher_writes_its_lines_and_starts_another_when_it_has_died() {
    if let Some(path) = part() {
        thread::spawn(stay);
        let sink = Arc::new(|_: Level, line: &str| println!("\n> {line}"));
        let log = Log::new(sink, Level::Info);
        keeper::watch(&config(&path, &[]), &command(&path), &log).unwrap();
        unreachable!("it watches for ever");
    }
    let nursery = Nursery::new();
    let test = "a_watcher_writes_its_lines_and_starts_another_when_it_has_died";
    let mut holder = Holder::new(&mut in_a_process(test, &nursery.path()));
    let lines = Arc::new(Mutex::new(Vec::<String>::new()));
    let (all, its) = (Arc::clone(&lines), holder.lines());
    thread::spawn(move || its.for_each(|line| all.lock().unwrap().push(line)));
    let count = |text: &str| lines.lock().unwrap().iter().filter(|l| l.contains(text)).count();
    let nobody = || {
        let peer = Peer::welcomed(&nursery.path()).0;
        let _ = peer.send_raw(b"noise", &[]);
    };
    wait_until("it listens", || Path::new(&nursery.path()).exists());
    let host = nursery.0.host();
    for round in 1..=2 {
        wait_until("a keeper answers", || host.engine.stats().is_ok());
        let process = nursery.keeper();
        wait_until("its lines come", || {
            nobody();
            count("closes the connection") >= round
        });
        let begin = Instant::now();
        signal(process, "-KILL");
        wait_until("another answers", || {
            host.engine.stats().is_ok() && nursery.keeper() != process
        });
        println!("another answers {:?} after the death of the last", begin.elapsed());
        wait_until("its death was told", || count("starting another") == round);
    }
    drop(holder);
    wait_until("without its watcher it ends", || nursery.0.is_clean());
}

#[test]
fn another_keeper_is_made_only_for_what_a_keeper_looks_at() {
    let nursery = Nursery::new();
    let path = nursery.path();
    start(&path, &[]).unwrap();
    let first = nursery.keeper();
    let host = nursery.0.host();
    let mut browser = host.open(r#"{"subscribe":["a"]}"#);
    start(&path, &[]).unwrap();
    start(&path, &[("allowed-origins", "*"), ("trusted-proxies", "127.0.0.1")]).unwrap();
    assert_eq!((nursery.keeper(), processes(&path).len()), (first, 1));
    start(&path, &[("ping-interval", "24s")]).unwrap();
    let second = nursery.keeper();
    assert_ne!(second, first);
    host.engine.publish("a", b"still here").unwrap();
    assert_eq!(browser.text(), "still here");
    wait_until("the first has gone", || processes(&path) == [second]);
    // What a setting can not be read as is said at once, not waited for.
    let begin = Instant::now();
    let wrong = keeper::Command { argv: vec![c"/no/such/program".into()], user: None };
    let other = config(&path, &[("ping-interval", "23s")]);
    let error = keeper::start(&other, &wrong, Duration::from_secs(10), &Log::none()).unwrap_err();
    assert!(error.kind == Kind::Io && begin.elapsed() < Duration::from_secs(5), "{error}");
    assert_eq!(nursery.keeper(), second);
    let closed = thread::spawn(move || browser.closed().0);
    keeper::stop(&config(&path, &[]), Duration::from_secs(5)).unwrap();
    assert_eq!(closed.join().unwrap(), 1012);
    wait_until("it has ended", || nursery.0.is_clean());
    keeper::stop(&config(&path, &[]), Duration::from_secs(5)).unwrap();
}

/// It writes to its errors where nobody listens to its log.
#[test]
fn a_keeper_without_standard_descriptors_gives_their_numbers_to_no_socket() {
    let nursery = Nursery::new();
    let ini = nursery.0.0.join("keeper.ini");
    fs::write(&ini, format!("[wsredis]\nkeeper = {}\n", nursery.path())).unwrap();
    let mut keeper = Command::new("sh")
        .args(["-c", "exec \"$0\" \"$1\" <&- >&- 2>&-"])
        .args([program().as_os_str(), ini.as_os_str()])
        .spawn()
        .unwrap();
    wait_until("it listens", || fs::exists(nursery.path()).unwrap());
    for fd in 0..3 {
        let file = fs::read_link(format!("/proc/{}/fd/{fd}", keeper.id())).unwrap();
        assert_eq!(file, Path::new("/dev/null"), "{fd}");
    }
    keeper.kill().unwrap();
    keeper.wait().unwrap();
}
