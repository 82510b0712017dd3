//! A real redis-server in a folder and on a port of its own, ended by its process id.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use super::wait_until;

/// A server that lives as long as this value.
pub struct RealRedis {
    port: u16,
    folder: PathBuf,
    child: Option<Child>,
}

/// Folders of one test program.
static NUMBER: AtomicU32 = AtomicU32::new(0);

impl RealRedis {
    /// Starts one, or says loudly that the test is skipped because there is none.
    pub fn start() -> Option<Self> {
        if Command::new("redis-server").arg("--version").stdout(Stdio::null()).status().is_err() {
            let required =
                std::env::var_os("WSREDIS_REQUIRE_ALL").is_some_and(|value| value == "1");
            assert!(!required, "redis-server is not installed, and WSREDIS_REQUIRE_ALL is set");
            eprintln!("SKIPPED: redis-server is not installed; nothing was tested here");
            return None;
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("wsredis-test-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut redis = RealRedis { port, folder, child: None };
        redis.run();
        Some(redis)
    }

    /// Runs it, on the same port as before, and waits until it answers.
    pub fn run(&mut self) {
        let child = Command::new("redis-server")
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "no", "--loglevel", "warning", "--unixsocket"])
            .arg(self.unix_path())
            .arg("--dir")
            .arg(&self.folder)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.child = Some(child);
        wait_until("redis-server answers", || self.try_connect().is_ok());
    }

    /// Ends it without warning, as a power cut would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Stops it in its tracks (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let id = self.child.as_ref().expect("it runs").id().to_string();
        let status = Command::new("kill").args(["-s", name, &id]).status().unwrap();
        assert!(status.success());
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub fn unix_path(&self) -> PathBuf {
        self.folder.join("redis.sock")
    }

    fn try_connect(&self) -> redis::RedisResult<redis::Connection> {
        let mut connection = redis::Client::open(self.url())?.get_connection()?;
        redis::cmd("PING").exec(&mut connection)?;
        Ok(connection)
    }

    /// A connection like that of any program of the site.
    pub fn connect(&self) -> redis::Connection {
        self.try_connect().expect("redis-server answers")
    }

    /// Publishes as another program would. Returns how many connections heard it.
    pub fn publish(&self, channel: &str, payload: impl AsRef<[u8]>) -> u64 {
        let mut connection = self.connect();
        redis::cmd("PUBLISH").arg(channel).arg(payload.as_ref()).query(&mut connection).unwrap()
    }

    /// The channels that anyone is subscribed to, sorted.
    pub fn channels(&self) -> Vec<String> {
        let mut connection = self.connect();
        let mut channels: Vec<String> =
            redis::cmd("PUBSUB").arg("CHANNELS").query(&mut connection).unwrap();
        channels.sort();
        channels
    }

    /// How many connections are subscribed to a channel.
    pub fn subscribers(&self, channel: &str) -> u64 {
        let mut connection = self.connect();
        let answer: (String, u64) =
            redis::cmd("PUBSUB").arg("NUMSUB").arg(channel).query(&mut connection).unwrap();
        answer.1
    }
}

impl Drop for RealRedis {
    fn drop(&mut self) {
        self.kill();
        let _ = fs::remove_dir_all(&self.folder);
    }
}
