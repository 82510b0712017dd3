//! A keeper that runs out of descriptors: every handshake gets an answer, and it comes back.

mod util;

use std::io::Read;
use std::process::Command;

use util::keeper::{Folder, Keeper};
use util::{Browser, Offer, wait_until};
use wsredis::error::Kind;

/// The status of the answer that a browser gets; 0 if it is cut.
fn status(browser: &mut Browser) -> u16 {
    let mut head = [0; 12];
    match browser.stream().read_exact(&mut head) {
        Ok(()) => std::str::from_utf8(&head[9..]).unwrap().parse().unwrap(),
        Err(_) => 0,
    }
}

#[test]
fn without_descriptors_every_handshake_is_answered_and_those_there_go_on() {
    let folder = Folder::new();
    let keeper = Keeper::start(&folder, &[]);
    let id = keeper.id().to_string();
    let limited = Command::new("prlimit").args(["--pid", &id, "--nofile=150:150"]).status();
    assert!(limited.expect("util-linux is there").success());
    let host = folder.host();
    let mut first = host.open(r#"{"subscribe":["a"]}"#);

    let (mut browsers, mut busy) = (Vec::new(), 0);
    for _ in 0..400 {
        match host.try_offer(Offer::default()) {
            Ok(browser) => browsers.push(browser),
            Err(error) => {
                // The host's own 503.
                assert_eq!(error.kind, Kind::Busy, "{error}");
                busy += 1;
            }
        }
    }
    let answers: Vec<u16> = browsers.iter_mut().map(status).collect();
    let count = |wanted| answers.iter().filter(|status| **status == wanted).count();
    println!("{} times 101, {} times 503, {busy} times busy", count(101), count(503));
    assert_eq!(count(101) + count(503), browsers.len(), "nobody is cut");
    assert!(count(101) > 50 && count(503) + busy > 200);
    host.publish("a", "still here");
    assert_eq!(first.text(), "still here");

    drop(browsers);
    wait_until("there is room again", || {
        let mut browser = match host.try_offer(Offer::default()) {
            Ok(browser) => browser,
            Err(_) => return false,
        };
        status(&mut browser) == 101
    });
}
