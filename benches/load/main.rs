//! The load generator: thousands of sockets against a site, of which each is judged for itself, and
//! browsers that behave as badly as they can.
//!
//! ```text
//! load SCENARIO --url http://127.0.0.1:8080 [--redis redis://127.0.0.1:6379] [--pid PID] …
//!
//! fanout     sockets hear every message of their channels once and in order
//! isolation  partial frames of all sockets interleave, connections are cut: nobody hears another's
//! slow       some do not read, or send halves of messages: the others notice nothing
//! attack     flooders send --attack pings, messages, fragments, unfinished or garbage
//! resets     connections end at any state of the protocol
//! herd       all connections are cut at once and come back
//! speak      sockets send messages, as fast as they are taken or at a pace, and a ping at the end
//! ```
//!
//! One thread and one poll. `--pid` names the process whose processor time and memory is told. At
//! the end it writes one line of JSON with the figures; it judges sockets, never the site. What the
//! figures have to be is said where it is called: tests/uwsgi/hostile.py. It ends after --limit
//! seconds (600) in any case.

mod attack;
#[path = "../common/browser.rs"]
#[allow(dead_code, reason = "only the bystander says one thing at a time")]
mod browser;
mod crowd;
mod fanout;
#[path = "../common/figures.rs"]
#[allow(dead_code, reason = "only the bystander measures silence")]
mod figures;
mod herd;
mod inflated;
mod isolation;
#[path = "../common/judge.rs"]
#[allow(dead_code, reason = "only the bystander asks whether there is anything yet")]
mod judge;
mod mark;
#[path = "../common/message.rs"]
mod message;
mod options;
mod process;
#[path = "../common/redis.rs"]
mod redis;
mod resets;
#[path = "../common/site.rs"]
mod site;
mod slow;
mod source;
mod speak;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crowd::{Crowd, Scenario};
use options::Options;

fn run(options: Options) -> Result<Value, String> {
    let end = Instant::now() + Duration::from_secs_f64(options.limit);
    let mut report = json!({ "scenario": options.scenario, "sockets": options.sockets });
    let mut crowd = Crowd::new(options)?;
    let mut scenario: Box<dyn Scenario> = match crowd.options.scenario.as_str() {
        "fanout" => Box::new(fanout::Fanout::new(&mut crowd)?),
        "isolation" => Box::new(isolation::Isolation::new(&mut crowd)?),
        "slow" => Box::new(slow::Slow::new(&mut crowd)?),
        "attack" => Box::new(attack::Flood::new(&mut crowd)?),
        "resets" => Box::new(resets::Resets::new(&mut crowd)?),
        "herd" => Box::new(herd::Herd::new(&mut crowd)?),
        "speak" => Box::new(speak::Speak::new(&mut crowd)?),
        other => return Err(format!("there is no scenario {other}")),
    };
    let mut is_over = false;
    while !is_over && Instant::now() < end {
        is_over = crowd.turn(scenario.as_mut())?;
    }
    report["in_time"] = json!(is_over);
    crowd.tell(&mut report);
    scenario.tell(&crowd, &mut report);
    crowd.close(scenario.as_mut())?;
    Ok(report)
}

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(run) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
