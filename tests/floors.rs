//! The plan of the floors stays true: no file imports upward or sideways, the pure floors touch
//! neither the system nor the clock, and `unsafe` stays in its two rooms.
//!
//! It reads text, not Rust: whole-line and trailing comments and items under `#[cfg(test)]` are
//! cut, and the layout is taken to be rustfmt's.

use std::fs;
use std::path::Path;

/// The nouns of each floor, from the ground up.
const FLOORS: [&[&str]; 6] = [
    &["error", "cause", "config", "log", "meter", "sys", "testing"],
    &["resp", "ws"],
    &["echo", "grant", "hub", "rate", "timer", "write_queue"],
    &["redis", "socket"],
    &["engine"],
    &["ffi"],
];

fn floor(noun: &str) -> Option<usize> {
    FLOORS.iter().position(|nouns| nouns.contains(&noun))
}

/// May a file of the noun `from` import `to`? The ground is free within itself, but for `error`,
/// which everybody stands on: it takes numbers from `sys` and knows no other type.
fn allowed(from: &str, to: &str) -> bool {
    match (floor(from), floor(to)) {
        _ if from == to => true,
        (Some(0), Some(0)) => from != "error" || to == "sys",
        (Some(from), Some(to)) => to < from,
        _ => false,
    }
}

/// The text without its comments.
fn uncommented(text: &str) -> String {
    let line = |line: &'_ str| match line.trim_start().starts_with("//") {
        true => String::new(),
        false => line.split(" //").next().unwrap_or_default().trim_end().to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// The uncommented text without the items that are compiled for tests only.
fn for_users(code: &str) -> String {
    let mut test_item = None;
    let mut kept = Vec::new();
    for line in code.lines() {
        let indent = line.len() - line.trim_start().len();
        match test_item {
            // An item ends with the first line of its own indentation that closes something.
            Some(start) if indent == start && line.ends_with(['}', ';', ',']) => test_item = None,
            Some(_) => {}
            None if line.trim_start().starts_with("#[cfg(test)]") => test_item = Some(indent),
            None => kept.push(line),
        }
    }
    kept.join("\n")
}

fn is_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// The first name behind each `root` (`crate::`, `std::`), also of each entry of a `{group}`.
fn names_behind(code: &str, root: &str) -> Vec<String> {
    code.match_indices(root)
        .filter(|(at, _)| !code[..*at].ends_with(|c| is_name(c) || c == ':'))
        .flat_map(|(at, _)| entries(&code[at + root.len()..]))
        .map(|entry| entry.trim_start().chars().take_while(|c| is_name(*c)).collect())
        .collect()
}

/// The entries of the group at the beginning of `rest`, or `rest` itself where there is none.
fn entries(rest: &str) -> Vec<&str> {
    let Some(group) = rest.strip_prefix('{') else { return vec![rest] };
    let (mut entries, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                entries.push(&group[start..at]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    // A comma behind the last entry makes an empty one.
    entries.retain(|entry| !entry.trim().is_empty());
    entries
}

fn has_word(code: &str, word: &str) -> bool {
    code.split(|c| !is_name(c)).any(|found| found == word)
}

/// What is wrong with the file at `path` below `src`.
fn faults(path: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut fault = |what: String| faults.push(format!("src/{path} {what}"));
    let everything = uncommented(text);
    let code = for_users(&everything);
    let noun = path.split('/').next().unwrap_or_default().trim_end_matches(".rs");

    if path != "sys.rs" && noun != "ffi" && has_word(&everything, "unsafe") {
        fault("is unsafe: only sys and ffi may be".to_owned());
    }
    // Timers take the monotonic clock: the wall clock jumps.
    if has_word(&everything, "SystemTime") {
        fault("names SystemTime".to_owned());
    }
    // A pattern hears what was never granted.
    if has_word(&everything, "PSUBSCRIBE") {
        fault("names PSUBSCRIBE".to_owned());
    }
    // The table of contents names every module.
    if path == "lib.rs" {
        return faults;
    }
    let Some(own_floor) = floor(noun) else {
        fault("stands on no floor: give its noun a place in tests/floors.rs".to_owned());
        return faults;
    };
    // `super` of a file at depth 1 is the crate; `super::super` of a file within a folder is.
    let depth = path.trim_end_matches("/mod.rs").split('/').count();
    for root in ["crate::".to_owned(), "super::".repeat(depth)] {
        for name in names_behind(&code, &root).iter().filter(|name| !allowed(noun, name)) {
            fault(format!("(floor {own_floor}) imports {root}{name}"));
        }
    }
    if own_floor == 1 || own_floor == 2 {
        let of_std = names_behind(&code, "std::");
        for word in ["mio", "libc", "Instant"] {
            if has_word(&code, word) {
                fault(format!("(floor {own_floor}) names {word}"));
            }
        }
        for module in ["net", "thread"] {
            if of_std.iter().any(|name| name == module) {
                let cure = "; the types of addresses alone are in core::net";
                let cure = if module == "net" { cure } else { "" };
                fault(format!("(floor {own_floor}) names std::{module}{cure}"));
            }
        }
    }
    faults
}

/// Collects the faults of every `.rs` file in `folder`, and how many files there were.
fn search(folder: &Path, below: &str, found: &mut Vec<String>) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name is UTF-8");
        if path.is_dir() {
            files += search(&path, &format!("{below}{name}/"), found);
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            found.extend(faults(&format!("{below}{name}"), &text));
            files += 1;
        }
    }
    files
}

#[test]
fn every_file_keeps_to_its_floor() {
    let mut found = Vec::new();
    let files = search(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), "", &mut found);
    assert!(files > 10, "only {files} files were found");
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn planted_faults_are_found() {
    for (path, text) in [
        ("hub.rs", "use crate::engine::Engine;"),
        ("hub.rs", "use crate::write_queue::Segment;"),
        ("hub.rs", "use super::socket::Socket;"),
        ("hub.rs", "fn a() -> crate::redis::Link {\n}"),
        ("hub.rs", "use crate::{\n    error::Result,\n    socket::{self, Socket},\n};"),
        ("hub.rs", "use crate::{error::{Error, Result}, timer};"),
        ("hub.rs", "use crate::*;"),
        ("hub.rs", "#[cfg(test)]\nmod tests {\n}\n\nuse crate::engine::Engine;"),
        ("hub.rs", "#[cfg(test)]\nuse crate::engine::Engine;\nuse crate::socket::Socket;"),
        ("hub.rs", "use std::time::{Duration, Instant};"),
        ("hub.rs", "fn now() { std::time::SystemTime::now(); }"),
        ("hub.rs", "use std::{net, sync::Arc};"),
        ("hub.rs", "std::thread::yield_now();"),
        ("ws/mod.rs", "use mio::Token;"),
        ("ws/mod.rs", "use super::resp::Reply;"),
        ("ws/frame.rs", "use super::super::resp::Reply;"),
        ("resp.rs", "libc::close(1);"),
        ("redis/mod.rs", "use crate::socket::Socket;"),
        ("socket.rs", "use crate::redis::Link;"),
        ("engine/mod.rs", "use crate::ffi::guard;"),
        ("error.rs", "use crate::config::Config;"),
        ("config/mod.rs", "use crate::grant::Grant;"),
        ("novelty.rs", ""),
        ("hub.rs", "#[cfg(test)]\nmod tests {\n    unsafe {}\n}"),
        ("engine/mod.rs", "unsafe { x() }"),
        ("engine/mod.rs", "use std::time::{Duration, SystemTime};"),
        ("redis/mod.rs", "let verb = b\"PSUBSCRIBE\";"),
        ("lib.rs", "unsafe { x() }"),
    ] {
        assert_eq!(faults(path, text).len(), 1, "{path}: {text}: {:?}", faults(path, text));
    }
}

#[test]
fn what_is_allowed_is_not_a_fault() {
    for (path, text) in [
        ("hub.rs", "use crate::error::{Error, Result};\nuse crate::{config, ws::Frame};"),
        ("hub.rs", "// use crate::engine::Engine;\nlet a = 1; // crate::engine, unsafe, Instant"),
        ("hub.rs", "//! [`crate::engine::Engine`]\n/// unsafe"),
        ("hub.rs", "#[cfg(test)]\nmod tests {\n    use crate::engine::Engine;\n}"),
        ("ws/origin.rs", "use core::net::IpAddr;"),
        ("hub.rs", "use std::time::Duration;\nlet thread = InstantOffer;"),
        ("ws/frame.rs", "use super::Opcode;\nuse crate::ws::message::Message;"),
        ("redis/mod.rs", "use ::redis::Value;\nuse mio::Token;\nuse crate::resp::Reply;"),
        ("engine/mod.rs", "use crate::{redis::Link, socket::Socket};\nuse std::thread;"),
        ("error.rs", "crate::sys::EMFILE"),
        ("ffi/mod.rs", "unsafe { x() }\nuse crate::engine::Engine;"),
        ("lib.rs", "#![deny(unsafe_code)]\npub mod engine;"),
    ] {
        assert_eq!(faults(path, text), Vec::<String>::new(), "{text}");
    }
}
