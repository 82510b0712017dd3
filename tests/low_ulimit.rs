//! A low limit of open files: told once, at the first socket, with what fits and the cure.
//!
//! The limit is a process's, so this program runs itself once more under each.

mod util;

use std::process::Command;

use util::{Bench, Offer};
use wsredis::sys;

/// The limit of files and how many of them are kept free, and what the line says then.
const LIMITS: [(u64, u64, &str); 5] = [
    (
        256,
        64,
        "room for about 192 sockets; raise the limit of open files (ulimit -n, uWSGI: max-fd)",
    ),
    (
        1024,
        64,
        "room for about 960 sockets; raise the limit of open files (ulimit -n, uWSGI: max-fd)",
    ),
    (
        1024,
        2000,
        "room for about 0 sockets; raise the limit of open files (ulimit -n, uWSGI: max-fd)",
    ),
    (
        2063,
        64,
        "room for about 1999 sockets; raise the limit of open files (ulimit -n, uWSGI: max-fd)",
    ),
    (2064, 64, "room for about 2000 sockets"),
];
const RESERVE: &str = "WSREDIS_TEST_RESERVE";

#[test]
fn a_low_limit_of_open_files_is_told_once_with_what_fits_and_the_cure() {
    for (limit, reserve, line) in LIMITS {
        let output = Command::new("sh")
            .arg("-c")
            .arg(format!(
                "ulimit -n {limit} && exec \"$0\" --exact says_what_fits --ignored --nocapture"
            ))
            .arg(std::env::current_exe().unwrap())
            .env(RESERVE, reserve.to_string())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && text.contains("1 passed"), "{limit}: {text}");
        let told: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("told: ")).collect();
        assert_eq!(told.len(), 1, "{limit}: {text}");
        // A warning where it is low, else a line among the others.
        let level = if line.contains(';') { "Warn" } else { "Info" };
        assert!(told[0].starts_with(level) && told[0].ends_with(line), "{limit}: {told:?}");
    }
}

#[test]
#[ignore = "run by the other test, under its limit"]
fn says_what_fits() {
    let reserve = std::env::var(RESERVE).unwrap();
    let bench = Bench::new(3, &[("fd-reserve", &reserve)]);
    assert!(!bench.has_logged("room for"), "nothing is started yet");
    let mut served = 0;
    for _ in 0..5 {
        let mut browser = bench.offer(Offer::default());
        let mut status = [0; 12];
        std::io::Read::read_exact(browser.stream(), &mut status).unwrap();
        served += u64::from(status == *b"HTTP/1.1 101");
    }
    // Where nothing fits that is what browsers are told.
    let fits = sys::max_open_files().saturating_sub(reserve.parse().unwrap()) > 0;
    assert_eq!(served, if fits { 5 } else { 0 });
    for (level, line) in bench.logged("room for") {
        println!("told: {level:?} {line}");
    }
}
