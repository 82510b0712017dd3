//! A scripted Redis: does what a test says and remembers what it was asked.
//!
//! One thread takes connections, one serves each. Everything they decide is decided under one lock, so that a test can
//! change the script between two commands. Its parser of commands is its own: it must not share the engine's mistakes.

use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::DEADLINE;

/// A command as it came: the words, as text where they are UTF-8.
pub type Words = Vec<String>;

/// What it knows and is told to do.
#[derive(Default)]
pub struct Script {
    /// Every command in the order of arrival, with the number of its connection.
    pub commands: Vec<(usize, Words)>,
    /// When connections came.
    pub accepted: Vec<Instant>,
    /// Commands that wait: their connection goes no further. `*` is all of them.
    held: HashSet<String>,
    /// Errors instead of answers, by what the command begins with (`SUBSCRIBE secret`).
    errors: HashMap<String, String>,
    /// Connections that are closed as soon as they have answered so many commands.
    kick_after: Option<usize>,
    /// Connections are closed as soon as they come.
    hangs_up: bool,
    /// Answers to these commands are cut after so many bytes, and the connection with them, once.
    cut: Option<(String, usize)>,
    /// One byte at a time.
    trickles: bool,
    links: HashMap<usize, Link>,
    /// Connections that sent what is no command.
    strays: usize,
    /// Connections so far.
    numbers: usize,
    closed: bool,
}

struct Link {
    stream: TcpStream,
    channels: HashSet<String>,
}

struct Shared {
    script: Mutex<Script>,
    changed: Condvar,
}

/// A scripted Redis on a port of its own.
pub struct FakeRedis {
    port: u16,
    shared: Arc<Shared>,
    acceptor: Option<JoinHandle<()>>,
}

impl FakeRedis {
    /// One that listens.
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut redis = Self::on(&listener);
        redis.accept_on(listener);
        redis
    }

    /// One whose port is known and closed.
    pub fn absent() -> Self {
        Self::on(&TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn on(listener: &TcpListener) -> Self {
        let port = listener.local_addr().unwrap().port();
        let shared = Shared { script: Mutex::default(), changed: Condvar::new() };
        FakeRedis { port, shared: Arc::new(shared), acceptor: None }
    }

    /// Its address for `redis-url`.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Begins to listen.
    pub fn listen(&mut self) {
        // Another test's outgoing connection may have the port for a moment.
        let mut listener = None;
        super::wait_until("the port is free", || {
            listener = TcpListener::bind(("127.0.0.1", self.port)).ok();
            listener.is_some()
        });
        self.accept_on(listener.unwrap());
    }

    fn accept_on(&mut self, listener: TcpListener) {
        self.script().closed = false;
        let shared = Arc::clone(&self.shared);
        self.acceptor = Some(thread::spawn(move || accept(&listener, &shared)));
    }

    /// Closes the port and every connection.
    pub fn close(&mut self) {
        self.script().closed = true;
        self.shared.changed.notify_all();
        if let Some(acceptor) = self.acceptor.take() {
            let _ = TcpStream::connect(("127.0.0.1", self.port)); // Wakes it.
            acceptor.join().unwrap();
        }
        self.drop_links();
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        self.shared.script.lock().unwrap()
    }

    /// Lets commands of this verb wait, or all (`*`).
    pub fn hold(&self, verb: &str) {
        self.script().held.insert(verb.into());
    }

    /// Lets them go on.
    pub fn release(&self, verb: &str) {
        self.script().held.remove(verb);
        self.shared.changed.notify_all();
    }

    /// Answers commands that begin so with an error.
    pub fn refuse(&self, begin: &str, error: &str) {
        self.script().errors.insert(begin.into(), error.into());
    }

    /// Answers them as it should again.
    pub fn allow(&self, begin: &str) {
        self.script().errors.remove(begin);
    }

    /// Closes every connection as soon as it has answered so many commands.
    pub fn kick_after(&self, answers: Option<usize>) {
        self.script().kick_after = answers;
    }

    /// Closes every connection as soon as it comes.
    pub fn hang_up(&self, hangs_up: bool) {
        self.script().hangs_up = hangs_up;
    }

    /// Cuts the next answer to such a command after so many bytes.
    pub fn cut(&self, verb: &str, bytes: usize) {
        self.script().cut = Some((verb.into(), bytes));
    }

    /// Writes everything one byte at a time.
    pub fn trickle(&self) {
        self.script().trickles = true;
    }

    /// Closes every connection.
    pub fn drop_links(&self) {
        for (_, link) in self.script().links.drain() {
            let _ = link.stream.shutdown(Shutdown::Both);
        }
    }

    /// Closes the connections that have subscribed, or those that have not.
    pub fn drop_subscribers(&self, subscribers: bool) {
        self.script().links.retain(|_, link| {
            let is_meant = link.channels.is_empty() != subscribers;
            if is_meant {
                let _ = link.stream.shutdown(Shutdown::Both);
            }
            !is_meant
        });
    }

    /// Publishes as another program would. Returns how many connections heard it.
    pub fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) -> usize {
        publish(&mut self.script(), channel, payload.as_ref())
    }

    /// Writes bytes to every subscribing connection.
    pub fn write_to_subscribers(&self, bytes: &[u8]) {
        for link in self.script().links.values_mut().filter(|link| !link.channels.is_empty()) {
            let _ = link.stream.write_all(bytes);
        }
    }

    /// How many connections are subscribed to a channel.
    pub fn subscribers(&self, channel: &str) -> usize {
        self.script().links.values().filter(|link| link.channels.contains(channel)).count()
    }

    /// How many connections have said something and are open.
    pub fn links(&self) -> usize {
        self.script().links.len()
    }

    /// How many commands came that begin so.
    pub fn count(&self, begin: &str) -> usize {
        count(&self.script(), begin)
    }

    /// The last word of every command that begins so, in the order of arrival.
    pub fn said(&self, begin: &str) -> Vec<String> {
        let script = self.script();
        let commands = script.commands.iter().filter(|(_, words)| begins_with(words, begin));
        commands.filter_map(|(_, words)| words.last().cloned()).collect()
    }

    /// Every command so far, in the order of arrival; they are forgotten.
    pub fn take_commands(&self) -> Vec<Words> {
        self.script().commands.drain(..).map(|(_, words)| words).collect()
    }

    /// How many connections sent bytes that are no command.
    pub fn strays(&self) -> usize {
        self.script().strays
    }

    /// When connections came, since the test looked.
    pub fn take_accepted(&self) -> Vec<Instant> {
        std::mem::take(&mut self.script().accepted)
    }

    /// Waits until so many commands have come that begin so.
    #[track_caller]
    pub fn wait_for(&self, begin: &str, times: usize) {
        self.wait(&format!("{times} times {begin}"), |script| count(script, begin) >= times);
    }

    /// Waits until so many connections are subscribed to a channel.
    #[track_caller]
    pub fn wait_for_subscribers(&self, channel: &str, times: usize) {
        self.wait(&format!("{times} subscribers of {channel}"), |script| {
            script.links.values().filter(|link| link.channels.contains(channel)).count() == times
        });
    }

    /// Waits until so many connections have come since the test looked.
    #[track_caller]
    pub fn wait_for_accepted(&self, times: usize) {
        self.wait(&format!("{times} connections"), |script| script.accepted.len() >= times);
    }

    #[track_caller]
    fn wait(&self, what: &str, mut condition: impl FnMut(&Script) -> bool) {
        let begin = Instant::now();
        let mut script = self.script();
        while !condition(&script) {
            let left = DEADLINE.saturating_sub(begin.elapsed());
            assert!(!left.is_zero(), "waited in vain for {what}; {:?}", script.commands);
            let pause = left.min(Duration::from_millis(100));
            script = self.shared.changed.wait_timeout(script, pause).unwrap().0;
        }
    }
}

impl Drop for FakeRedis {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.close();
        }
    }
}

fn count(script: &Script, begin: &str) -> usize {
    script.commands.iter().filter(|(_, words)| begins_with(words, begin)).count()
}

/// Whole words only: `SUBSCRIBE a` is no beginning of `SUBSCRIBE ab`.
fn begins_with(words: &Words, begin: &str) -> bool {
    let line = words.join(" ");
    line == begin || line.strip_prefix(begin).is_some_and(|rest| rest.starts_with(' '))
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming().flatten() {
        let mut script = shared.script.lock().unwrap();
        if script.closed {
            return;
        }
        script.numbers += 1;
        let number = script.numbers;
        script.accepted.push(Instant::now());
        if script.hangs_up {
            continue;
        }
        let link = Link { stream: stream.try_clone().unwrap(), channels: HashSet::new() };
        script.links.insert(number, link);
        drop(script);
        shared.changed.notify_all();
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            let _ = serve(number, stream, &shared);
            shared.script.lock().unwrap().links.remove(&number);
            shared.changed.notify_all();
        });
    }
}

/// Serves one connection until it ends.
fn serve(number: usize, stream: TcpStream, shared: &Shared) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut answered = 0;
    loop {
        let (words, payload) = match read_command(&mut reader) {
            Ok(command) => command?,
            Err(_) => {
                shared.script.lock().unwrap().strays += 1;
                return None;
            }
        };
        let mut script = shared.script.lock().unwrap();
        script.commands.push((number, words.clone()));
        shared.changed.notify_all();
        while script.held.contains("*") || script.held.contains(&words[0]) {
            script = shared.changed.wait(script).unwrap();
            if script.closed || !script.links.contains_key(&number) {
                return None;
            }
        }
        let error = script.errors.iter().find(|(begin, _)| begins_with(&words, begin));
        let answer = match error {
            Some((_, error)) => format!("-{error}\r\n").into_bytes(),
            None => answer(&mut script, number, &words, &payload),
        };
        if script.cut.as_ref().is_some_and(|(verb, _)| *verb == words[0]) {
            let (_, bytes) = script.cut.take()?;
            let _ = (&stream).write_all(&answer[..bytes.min(answer.len())]);
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
        if script.trickles {
            stream.set_nodelay(true).ok()?;
            for byte in answer {
                (&stream).write_all(&[byte]).ok()?;
            }
        } else {
            (&stream).write_all(&answer).ok()?;
        }
        answered += 1;
        if script.kick_after.is_some_and(|answers| answered >= answers) {
            let _ = stream.shutdown(Shutdown::Both);
            return None;
        }
        drop(script);
        shared.changed.notify_all();
    }
}

fn answer(script: &mut Script, number: usize, words: &Words, payload: &[u8]) -> Vec<u8> {
    let link = script.links.get_mut(&number);
    match (words[0].as_str(), link) {
        ("SUBSCRIBE" | "UNSUBSCRIBE", Some(link)) => {
            let mut bytes = Vec::new();
            for channel in &words[1..] {
                match words[0].as_str() {
                    "SUBSCRIBE" => link.channels.insert(channel.clone()),
                    _ => link.channels.remove(channel),
                };
                bytes.extend_from_slice(b"*3\r\n");
                bulk(&mut bytes, words[0].to_lowercase().as_bytes());
                bulk(&mut bytes, channel.as_bytes());
                bytes.extend_from_slice(format!(":{}\r\n", link.channels.len()).as_bytes());
            }
            bytes
        }
        ("PING", Some(link)) if !link.channels.is_empty() => {
            b"*2\r\n$4\r\npong\r\n$0\r\n\r\n".to_vec()
        }
        ("PING", _) => b"+PONG\r\n".to_vec(),
        ("AUTH" | "SELECT", _) => b"+OK\r\n".to_vec(),
        ("PUBLISH", _) => format!(":{}\r\n", publish(script, &words[1], payload)).into_bytes(),
        (other, _) => format!("-ERR unknown command '{other}'\r\n").into_bytes(),
    }
}

fn publish(script: &mut Script, channel: &str, payload: &[u8]) -> usize {
    let mut bytes = b"*3\r\n".to_vec();
    bulk(&mut bytes, b"message");
    bulk(&mut bytes, channel.as_bytes());
    bulk(&mut bytes, payload);
    let mut heard = 0;
    for link in script.links.values_mut().filter(|link| link.channels.contains(channel)) {
        heard += 1;
        let _ = link.stream.write_all(&bytes);
    }
    heard
}

fn bulk(bytes: &mut Vec<u8>, payload: &[u8]) {
    bytes.extend_from_slice(format!("${}\r\n", payload.len()).as_bytes());
    bytes.extend_from_slice(payload);
    bytes.extend_from_slice(b"\r\n");
}

/// Bytes that are no command of RESP2, exactly as it says.
struct Stray;

/// The words of one command, and the last one as bytes. `None`: the connection has ended.
fn read_command(reader: &mut impl BufRead) -> Result<Option<(Words, Vec<u8>)>, Stray> {
    let Some(count) = read_number(reader, '*')? else { return Ok(None) };
    let mut words = Vec::new();
    let mut last = Vec::new();
    for _ in 0..count {
        let Some(len) = read_number(reader, '$')? else { return Ok(None) };
        last = vec![0; len + 2];
        if reader.read_exact(&mut last).is_err() {
            return Ok(None);
        }
        if !last.ends_with(b"\r\n") {
            return Err(Stray);
        }
        last.truncate(len);
        words.push(String::from_utf8_lossy(&last).into_owned());
    }
    Ok(Some((words, last)))
}

fn read_number(reader: &mut impl BufRead, kind: char) -> Result<Option<usize>, Stray> {
    let mut line = Vec::new();
    match reader.read_until(b'\n', &mut line) {
        Err(_) => return Ok(None),
        // The connection may end anywhere.
        Ok(_) if !line.ends_with(b"\n") => return Ok(None),
        Ok(_) => {}
    }
    let line = String::from_utf8(line).map_err(|_| Stray)?;
    let digits = line.strip_prefix(kind).and_then(|rest| rest.strip_suffix("\r\n")).ok_or(Stray)?;
    match digits.bytes().all(|byte| byte.is_ascii_digit()) {
        true => digits.parse().map(Some).map_err(|_| Stray),
        false => Err(Stray),
    }
}
