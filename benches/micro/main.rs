//! What the pure parts cost by themselves, on floors 1 and 2: codecs, hub, write queue.
//!
//! ```text
//! cargo bench --bench micro [NAME]
//! ```
//!
//! Each figure is of a hundred messages, or of a thousand sockets. They say where a change of
//! `benches/compare` comes from; that is where it is judged.

use std::hint::black_box;
use std::io::Write;
use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use wsredis::hub::{Form, Hub};
use wsredis::resp::{self, Decoder, Reply};
use wsredis::write_queue::{Segment, WriteQueue};
use wsredis::ws::frame::{self, Data, OpCode};
use wsredis::ws::message::{Assembler, Incoming};

const MESSAGES: usize = 100;
const SOCKETS: u32 = 1000;
const TEXT: OpCode = OpCode::Data(Data::Text);

/// Masked text frames of 64 bytes, as browsers send them.
fn frames() -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..MESSAGES {
        bytes.extend_from_slice(&[0x81, 0x80 | 64, 1, 2, 3, 4]);
        let begin = bytes.len();
        bytes.extend_from_slice(&[b'a'; 64]);
        frame::unmask(&mut bytes[begin..], [1, 2, 3, 4], 0);
    }
    bytes
}

/// Messages of a channel as Redis pushes them.
fn pushes() -> Vec<u8> {
    let mut bytes = Vec::new();
    for number in 0..MESSAGES {
        let text = format!("{number:064}");
        write!(bytes, "*3\r\n$7\r\nmessage\r\n$4\r\nroom\r\n$64\r\n{text}\r\n")
            .expect("writing to a Vec does not fail");
    }
    bytes
}

fn codecs(criterion: &mut Criterion) {
    let bytes = frames();
    criterion.bench_function("frame: parse 100 headers", |bencher| {
        bencher.iter(|| {
            let frames = bytes.chunks(70).map(frame::parse);
            frames.filter(|parsed| black_box(parsed).is_ok()).count()
        });
    });
    let mut payload = vec![b'a'; 16 << 10];
    criterion.bench_function("frame: unmask 16 KiB", |bencher| {
        bencher.iter(|| frame::unmask(black_box(&mut payload), [1, 2, 3, 4], 1));
    });
    criterion.bench_function("message: read 100 of 64 bytes", |bencher| {
        bencher.iter_batched_ref(
            || bytes.clone(),
            |bytes| {
                let mut count = 0;
                let mut each = |said: Incoming<'_>| {
                    count += usize::from(matches!(said, Incoming::Text(_)));
                    ControlFlow::Continue(())
                };
                Assembler::default().feed(bytes, 1 << 16, None, &mut each).expect("they are whole");
                assert_eq!(count, MESSAGES);
            },
            BatchSize::SmallInput,
        );
    });
    let bytes = pushes();
    criterion.bench_function("resp: read 100 pushes", |bencher| {
        let mut decoder = Decoder::new(1 << 20);
        bencher.iter(|| {
            let mut count = 0;
            let mut each =
                |reply: Reply<'_>| count += usize::from(matches!(reply, Reply::Message { .. }));
            decoder.feed(&bytes, &mut each).expect("it is RESP");
            assert_eq!(count, MESSAGES);
        });
    });
    criterion.bench_function("resp: write 100 commands", |bencher| {
        let (mut out, payload) = (Vec::new(), [b'a'; 64]);
        bencher.iter(|| {
            out.clear();
            for _ in 0..MESSAGES {
                resp::command(black_box(&mut out), &[b"PUBLISH", b"room", &payload]);
            }
        });
    });
}

/// A hub in which all hear the same channel, or each one of its own.
fn hub_of(names: impl Fn(u32) -> String) -> Hub {
    let mut hub = Hub::default();
    for socket in 0..SOCKETS {
        hub.join(socket, Form::Raw.into(), &[names(socket)]);
    }
    hub
}

fn hub(criterion: &mut Criterion) {
    let room = |_| "room".to_owned();
    let own = |socket: u32| format!("room{socket}");
    criterion.bench_function("hub: 1000 join a channel", |bencher| {
        bencher.iter(|| black_box(hub_of(room)));
    });
    criterion.bench_function("hub: 1000 leave a channel", |bencher| {
        bencher.iter_batched_ref(
            || hub_of(room),
            |hub| (0..SOCKETS).for_each(|socket| hub.leave(socket, |left| _ = black_box(left))),
            BatchSize::SmallInput,
        );
    });
    criterion.bench_function("hub: 1000 channels of one are found", |bencher| {
        let hub = hub_of(own);
        let names: Vec<_> = (0..SOCKETS).map(own).collect();
        bencher.iter(|| {
            let listeners = |name: &String| {
                let channel = hub.find(black_box(name)).expect("it was joined");
                hub.groups(channel).iter().map(|group| group.sockets.len()).sum::<usize>()
            };
            assert_eq!(names.iter().map(listeners).sum::<usize>(), SOCKETS as usize);
        });
    });
}

fn queue(criterion: &mut Criterion) {
    criterion.bench_function("write_queue: 1000 get eight frames and are flushed", |bencher| {
        let mut queues: Vec<_> = (0..SOCKETS).map(|_| WriteQueue::default()).collect();
        let mut scratch = Vec::new();
        bencher.iter(|| {
            let segment = Segment::default();
            let mut from = 0;
            for now in 0..8 {
                let to = segment.append(|out| frame::append(out, TEXT, &[b'a'; 64]));
                for queue in &mut queues {
                    queue.push(&segment, (from, to), 7, now);
                }
                from = to;
            }
            segment.seal();
            for queue in &mut queues {
                let is_empty = queue.flush(&mut scratch, |bytes| Ok(black_box(bytes).len()));
                assert!(is_empty.expect("everything is taken"));
            }
        });
    });
}

criterion_group!(benches, codecs, hub, queue);
criterion_main!(benches);
