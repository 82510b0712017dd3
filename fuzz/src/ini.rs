//! The `[wsredis]` section of a file: read, written and read again.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use wsredis::config::{Config, keys};
use wsredis::error::{Kind, Result};

thread_local! {
    static FILE: (File, PathBuf) = file();
    static DEFAULTS: (Config, String) = {
        let config = Config::new();
        let fields = fields(&config);
        (config, fields)
    };
}

/// A file without a name, in memory where the system has a place for it, and a path to it.
fn file() -> (File, PathBuf) {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { memory.into() } else { std::env::temp_dir() };
    let path = folder.join(format!("wsredis-fuzz-{}.ini", std::process::id()));
    let file = File::create(&path).expect("a temporary file can be made");
    std::fs::remove_file(&path).expect("it was made");
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    (file, path.into())
}

/// Writes the file and reads it.
fn load(config: &mut Config, text: &[u8]) -> Result<()> {
    FILE.with(|(file, path)| {
        file.set_len(0).and_then(|()| file.write_all_at(text, 0)).expect("it can be written");
        let result = config.load_ini(path);
        if let Err(error) = &result {
            assert!(error.text.contains("/proc/self/fd/"), "which file? {error}");
        }
        result
    })
}

/// The value of every key.
fn values(config: &Config) -> Vec<&str> {
    keys().iter().map(|key| config.text(key.name).expect("each key has a text")).collect()
}

/// The fields, without where they were set.
fn fields(config: &Config) -> String {
    let shown = format!("{config:?}");
    shown.split(", set: [").next().unwrap_or_default().to_owned()
}

/// A file that is taken can be written and read again, and means the same; one that is refused
/// changes nothing, for a reason of one line without the password.
pub fn check(data: &[u8]) {
    DEFAULTS.with(|(config, before)| check_with(config, before, data));
}

fn check_with(defaults: &Config, before: &str, data: &[u8]) {
    let mut config = defaults.clone();
    if let Err(error) = load(&mut config, data) {
        assert_eq!(error.kind, Kind::Config);
        assert_eq!(fields(&config), before);
        assert_eq!(config.ini(), "[wsredis]\n");
        let text = &error.text;
        assert!(text.chars().count() < 1000 && !text.chars().any(char::is_control), "{text:?}");
        // The word that marks a password, where it is only one.
        let is_url = |line: &&[u8]| {
            line.split(|byte| *byte == b'=')
                .next()
                .is_some_and(|key| key.trim_ascii() == b"redis-url")
        };
        let lines = data.split(|byte| *byte == b'\n');
        let holds = |line: &[u8]| line.windows(4).any(|part| part == b"pa55");
        if lines.clone().filter(is_url).any(holds) && !lines.filter(|line| !is_url(line)).any(holds)
        {
            assert!(!text.contains("pa55"), "{text}");
        }
        return;
    }
    let text = config.ini();
    let mut again = defaults.clone();
    load(&mut again, text.as_bytes()).expect("what is written can be read");
    assert_eq!(again.ini(), text);
    assert_eq!(values(&again), values(&config));
    assert_eq!(fields(&again), fields(&config));
    // One by one, as a host sets them.
    let mut by_host = defaults.clone();
    for key in keys() {
        let value = config.text(key.name).unwrap_or_default();
        by_host.set(key.name, value).expect("it was taken from the file, or is the default");
    }
    assert_eq!(fields(&by_host), fields(&config));
    if let Err(error) = config.check(1) {
        assert_eq!(error.kind, Kind::Config);
    }
}
