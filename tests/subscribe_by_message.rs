//! No message of a browser adds a channel to what its grant allows, in whatever language it asks.

mod util;

use std::io::{Read, Write};

use serde_json::json;
use util::browser::{BINARY, CLOSE, PING, Stream, TEXT, frame};
use util::wire::{frames, read_to_end};
use util::{Bench, Dice, Offer, RealRedis, wait_until};

const MESSAGES: usize = 10_000;
/// Below the messages a second that a socket may send.
const OF_ONE_SOCKET: usize = 100;
const GRANT: &str = r#"{"subscribe":["open"],"publish":["chat"]}"#;

/// Channels that somebody might want to hear.
fn wanted(dice: &mut Dice) -> String {
    let number = dice.below(1000);
    let names =
        ["secret", "private-room", "*", "__keyspace@0__:*", "chat", "user.1", "a\r\nb", "{tag}"];
    format!("{}{number}", dice.pick(&names))
}

/// A wish to subscribe, in the shape of some protocol between browsers and servers, or of Redis itself.
fn wish(dice: &mut Dice) -> String {
    let name = wanted(dice);
    let verb = dice.pick(&["subscribe", "SUBSCRIBE", "join", "psubscribe", "listen", "ssubscribe"]);
    match dice.below(22) {
        // A command with an identifier that is JSON itself.
        0 => {
            json!({"command": verb, "identifier": json!({"channel": name}).to_string()}).to_string()
        }
        // An event with the channel in its data.
        1 => json!({"event": format!("push:{verb}"), "data": {"channel": name}}).to_string(),
        2 => json!({"event": verb, "channel": name, "auth": "key:signature"}).to_string(),
        // Numbered commands, also several in one message.
        3 => json!({"id": dice.below(99), verb: {"channel": name, "recover": true}}).to_string(),
        4 => {
            format!("{{\"id\":1,\"connect\":{{}}}}\n{}", json!({"id": 2, verb: {"channel": name}}))
        }
        5 => json!({"method": verb, "params": [name], "id": 1, "jsonrpc": "2.0"}).to_string(),
        // An event as an array behind numbers.
        6 => format!("42{}", json!([verb, name])),
        7 => format!("40/{name},"),
        8 => json!([null, "1", format!("room:{name}"), "room_join", {}]).to_string(),
        9 => json!([32, 1, {}, name]).to_string(),
        // Frames of text lines with headers.
        10 => format!("{verb}\nid:sub-0\ndestination:/topic/{name}\nack:auto\n\n\0"),
        // Redis, inline and as an array with lengths.
        11 => format!("{verb} {name}\r\n"),
        12 => format!("*2\r\n${}\r\n{verb}\r\n${}\r\n{name}\r\n", verb.len(), name.len()),
        13 => format!("x\r\n*2\r\n$9\r\nSUBSCRIBE\r\n${}\r\n{name}\r\n", name.len()),
        // Our own grant and envelope, from the wrong side.
        14 => json!({verb: [name]}).to_string(),
        15 => json!({"type": verb, "channel": name}).to_string(),
        16 => json!({"channel": name, "data": {"type": verb}}).to_string(),
        17 => json!({"channel": "chat", "data": 1, verb: [name]}).to_string(),
        18 => format!("WSRedis-Grant: {}\r\n", json!({verb: [name]})),
        19 => json!({"action": verb, "channels": [name, "other"], "topic": name}).to_string(),
        20 => json!({"t": 1, "d": {"op": verb, "room": name}}).to_string(),
        _ => format!("/{verb} #{name}"),
    }
}

/// A message: a wish as it is or broken, as text or as bytes, now and then in two fragments.
fn message(dice: &mut Dice) -> Vec<u8> {
    let mut payload = wish(dice).into_bytes();
    match dice.below(6) {
        0 => {
            let at = dice.below(payload.len());
            payload[at] = dice.below(128) as u8;
        }
        1 => payload.truncate(dice.below(payload.len() + 1)),
        2 => {
            let len = dice.below(60);
            payload = dice.bytes(len);
        }
        _ => {}
    }
    // Broken text would close the socket; that is not what is asked for here.
    let text = std::str::from_utf8(&payload).is_ok() && dice.below(4) > 0;
    let first = if text { TEXT } else { BINARY };
    match dice.below(8) {
        0 if payload.len() > 40 => {
            let (begin, end) = payload.split_at(20);
            [frame(first & 0x0F, begin), frame(0x80, end)].concat()
        }
        _ => frame(first, &payload),
    }
}

/// How often Redis has carried a command out.
fn calls(redis: &RealRedis, command: &str) -> u64 {
    let text: String = redis::cmd("INFO").arg("commandstats").query(&mut redis.connect()).unwrap();
    let line =
        text.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

/// Has everything been read, and is the socket still open? Closes it in any case.
fn is_still_served(stream: &mut Stream) -> bool {
    // One that is being closed answers no ping any more.
    let _ = stream.write_all(&frame(PING, b"are you there?"));
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    let answer = loop {
        let n = stream.read(&mut buffer).expect("an answer comes");
        seen.extend_from_slice(&buffer[..n]);
        let Some(at) = seen.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let answer =
            frames(&seen[at + 4..]).0.into_iter().find(|frame| matches!(frame.first, 0x88 | 0x8A));
        match answer {
            Some(answer) => break answer,
            None => assert!(n > 0, "it ended without a word"),
        }
    };
    let _ = stream.write_all(&frame(CLOSE, &1000u16.to_be_bytes()));
    assert!(read_to_end(stream).1.is_some(), "it ends");
    answer.first == 0x8A
}

fn no_message_adds_a_channel(loops: usize) {
    let Some(redis) = RealRedis::start() else { return };
    let bench = Bench::new(loops, &[("redis-url", &redis.url())]);
    let _listeners: Vec<_> = (0..loops).map(|_| bench.open(GRANT)).collect();
    let is_unchanged = || {
        assert_eq!(redis.channels(), ["open"]);
        let patterns: u64 = redis::cmd("PUBSUB").arg("NUMPAT").query(&mut redis.connect()).unwrap();
        assert_eq!(patterns, 0);
        assert_eq!(calls(&redis, "subscribe"), loops as u64, "one of each loop");
        assert_eq!(calls(&redis, "psubscribe") + calls(&redis, "ssubscribe"), 0);
    };
    is_unchanged();
    let (mut dice, mut sent, mut refused) = (Dice::new(loops as u64), 0, 0);
    for socket in 0.. {
        // One that breaks a rule of the envelope is closed: the others are tried one by one.
        let envelope = socket % 2 == 1;
        let count = if envelope { 20 } else { OF_ONE_SOCKET };
        for _ in 0..if envelope { count } else { 1 } {
            let mut browser = bench.offer(Offer { grant: GRANT, envelope, ..<_>::default() });
            for _ in 0..if envelope { 1 } else { count } {
                browser.write(&message(&mut dice));
                sent += 1;
            }
            refused += u64::from(!is_still_served(browser.stream()));
        }
        is_unchanged();
        if sent >= MESSAGES {
            break;
        }
    }
    // Raw sockets may say anything on their channel; envelopes were nearly all refused.
    let (received, published) = (bench.stat("received"), bench.stat("published"));
    println!("{sent} messages, {received} taken for channel chat, {refused} sockets refused");
    assert!(received as usize > sent / 2 && received == published);
    wait_until("Redis has them all", || calls(&redis, "publish") == published);
    is_unchanged();
}

with_one_and_three_loops!(no_message_adds_a_channel);
