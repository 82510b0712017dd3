//! Names of channels that want to be more than a name: whatever passes the grant is one word of one command on Redis.

mod util;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::json;
use util::{Bench, Dice, FakeRedis, RealRedis, rounds, wait_until};
use wsredis::grant::Grant;
use wsredis::resp;

/// What names are made of here.
const PARTS: [&[u8]; 32] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"*",
    b"?",
    b"[a-z]",
    b"\\",
    b"__keyspace@0__:*",
    b"__",
    b"_",
    b"__sentinel__:hello",
    b"{tag}",
    b"{",
    b"}",
    b"\"",
    b"'",
    b" ",
    b"$1\r\n",
    b"*2\r\n$9\r\nSUBSCRIBE\r\n",
    b"PUBLISH a b\r\n",
    b":1",
    b"\xff",
    b"\xc3",
    b"\xed\xa0\x80",
    "é".as_bytes(),
    "\u{85}".as_bytes(),
    b"\x7f",
    "\u{2028}".as_bytes(),
    "\u{1F600}".as_bytes(),
    b"news",
    b"\x1b[2J",
];

/// A name of some parts; one in sixteen is about as long as a name may be.
fn name(dice: &mut Dice) -> Vec<u8> {
    let mut name = Vec::new();
    for _ in 0..dice.below(5) {
        name.extend_from_slice(dice.pick(&PARTS));
        if dice.below(3) == 0 {
            name.push(b'a' + dice.below(26) as u8);
        }
    }
    if dice.below(16) == 0 {
        let len = 250 + dice.below(10);
        name.resize(len.max(name.len()), b'x');
    }
    name
}

/// The rule of the README in other words than the engine's.
fn is_allowed(name: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    let is_control = |c: char| matches!(c as u32, 0..0x20 | 0x7f..0xa0);
    (1..=255).contains(&name.len()) && name.get(..2) != Some(b"__") && !text.chars().any(is_control)
}

/// A grant with a name in it, as an app's JSON encoder would write it. What is no text goes in as it is.
fn grant_of(name: &[u8]) -> Vec<u8> {
    match std::str::from_utf8(name) {
        Ok(name) => json!({ "subscribe": [name], "publish": [name] }).to_string().into_bytes(),
        Err(_) => [&b"{\"subscribe\":[\""[..], name, b"\"]}"].concat(),
    }
}

/// The words of the command that the bytes begin with, and what is behind it. Takes nothing but what RESP2 says.
fn parse(bytes: &[u8]) -> Option<(Vec<&[u8]>, &[u8])> {
    fn number(bytes: &[u8], kind: u8) -> Option<(usize, &[u8])> {
        let rest = bytes.strip_prefix(&[kind])?;
        let end = rest.iter().position(|byte| !byte.is_ascii_digit())?;
        let number = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
        Some((number, rest[end..].strip_prefix(b"\r\n")?))
    }
    let (count, mut rest) = number(bytes, b'*')?;
    let mut words = Vec::new();
    for _ in 0..count {
        let (len, word) = number(rest, b'$')?;
        words.push(word.get(..len)?);
        rest = word[len..].strip_prefix(b"\r\n")?;
    }
    Some((words, rest))
}

#[test]
fn a_name_is_allowed_by_its_rule_and_is_one_word_of_every_command() {
    let (mut dice, mut out) = (Dice::new(5), Vec::new());
    let (mut allowed, mut refused) = (0, 0);
    for _ in 0..rounds(200_000, 1_000_000) {
        let name = name(&mut dice);
        let granted = Grant::parse(&grant_of(&name), 10);
        assert_eq!(granted.is_ok(), is_allowed(&name), "{:?}", String::from_utf8_lossy(&name));
        // What is refused must not become anything else on its way either.
        out.clear();
        let payload = dice.pick(&PARTS);
        let commands: [&[&[u8]]; 4] = [
            &[b"SUBSCRIBE", &name],
            &[b"UNSUBSCRIBE", &name],
            &[b"PUBLISH", &name, payload],
            &[b"PING"],
        ];
        commands.iter().for_each(|words| resp::command(&mut out, words));
        let mut rest = &out[..];
        for words in commands {
            let (parsed, behind) = parse(rest).expect("it is RESP2");
            assert_eq!(parsed, words);
            rest = behind;
        }
        assert!(rest.is_empty());
        match granted {
            Ok(grant) => {
                assert_eq!(grant.subscribe[0].as_bytes(), name);
                allowed += 1;
            }
            Err(_) => refused += 1,
        }
    }
    println!("{allowed} names allowed, {refused} refused");
    assert!(allowed > 10_000 && refused > 10_000);
}

/// Different names that are allowed.
fn allowed_names(count: usize) -> Vec<String> {
    let mut dice = Dice::new(6);
    let mut names = Vec::new();
    while names.len() < count {
        let name = name(&mut dice);
        if is_allowed(&name) {
            let name = String::from_utf8(name).unwrap();
            if !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names
}

/// Lets browsers hear and speak on all these names; each message comes back on its channel. Returns the commands that
/// Redis must have been sent for it; those of the links' own health are not among them.
fn use_names(bench: &Bench, names: &[String]) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for some in names.chunks(50) {
        let grant = json!({ "subscribe": some, "publish": some, "echo": true }).to_string();
        let (mut browser, _) = bench.open_envelope(&grant);
        for name in some {
            browser.send(&json!({ "channel": name, "data": "hi" }).to_string());
            let came = browser.json();
            assert_eq!((&came["channel"], &came["data"]), (&json!(name), &json!("hi")));
            for words in
                [&["SUBSCRIBE", name][..], &["PUBLISH", name, "hi"], &["UNSUBSCRIBE", name]]
            {
                commands.push(words.iter().map(|word| (*word).to_owned()).collect());
            }
        }
    }
    bench.wait_until_empty();
    bench.wait_for("channels", 0);
    commands
}

/// Compares commands without their order: the first one that differs.
#[track_caller]
fn assert_same<T: Ord + std::fmt::Debug>(mut seen: Vec<T>, mut expected: Vec<T>) {
    seen.sort();
    expected.sort();
    let differs = seen.iter().zip(&expected).find(|(seen, expected)| seen != expected);
    assert_eq!((differs, seen.len()), (None, expected.len()));
}

#[test]
fn a_recorder_sees_the_intended_commands_and_no_others() {
    let redis = FakeRedis::start();
    let bench = Bench::new(1, &[("redis-url", &redis.url()), ("channel-linger", "0")]);
    let expected = use_names(&bench, &allowed_names(300));
    let mut seen = redis.take_commands();
    seen.retain(|words| *words != ["PING"]);
    assert_same(seen, expected);
    assert_eq!(redis.strays(), 0, "bytes that were no command");
}

/// A word as MONITOR writes it.
fn quoted(word: &str) -> String {
    let byte = |byte: u8| match byte {
        b'"' | b'\\' => format!("\\{}", byte as char),
        0x20..0x7f => (byte as char).to_string(),
        _ => format!("\\x{byte:02x}"),
    };
    format!("\"{}\"", word.bytes().map(byte).collect::<String>())
}

#[test]
fn a_real_redis_is_sent_the_intended_commands_and_no_others() {
    let Some(redis) = RealRedis::start() else { return };
    let mut monitor = TcpStream::connect(("127.0.0.1", redis.port())).unwrap();
    monitor.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    monitor.write_all(b"MONITOR\r\n").unwrap();
    let mut lines = BufReader::new(monitor).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "+OK");
    let bench = Bench::new(1, &[("redis-url", &redis.url()), ("channel-linger", "0")]);
    let expected: Vec<String> = use_names(&bench, &allowed_names(300))
        .iter()
        .map(|words| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "))
        .collect();
    wait_until("every channel is left", || redis.channels().is_empty());
    redis.publish("the end", "");
    // `+1700000000.000000 [0 127.0.0.1:1234] "SUBSCRIBE" "name"`
    let mut seen = Vec::new();
    for line in lines {
        let line = line.unwrap();
        let command = line.split_once("] ").unwrap().1.to_owned();
        if command.starts_with("\"PUBLISH\" \"the end\"") {
            break;
        }
        // Pings of the links, and what the test itself asked.
        let own = ["\"PING\"", "\"PUBSUB\"", "\"CLIENT\"", "\"HELLO\""];
        if !own.iter().any(|word| command.starts_with(word)) {
            seen.push(command);
        }
    }
    assert_same(seen, expected);
}
