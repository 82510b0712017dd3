//! How a socket comes in: its answer waits for its channels, what was read behind the request is not lost, and what
//! does not fit is refused with a whole HTTP answer.

mod util;

use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use util::browser::{BINARY, CLOSE, TEXT, frame};
use util::{Bench, FakeRedis, Offer, wait_until};
use wsredis::engine::Event;
use wsredis::error::Kind;
use wsredis::sys;

fn the_answer_waits_until_redis_has_confirmed_the_channels(loops: usize) {
    let redis = FakeRedis::start();
    redis.hold("SUBSCRIBE");
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("join-timeout", "1m")]);
    let mut browser = bench.offer(Offer { grant: r#"{"subscribe":["news"]}"#, ..Offer::default() });
    redis.wait_for("SUBSCRIBE news", 1);
    assert!(browser.is_silent(), "the answer was written before the channel was heard");
    redis.release("SUBSCRIBE");
    let answer = browser.opened();
    assert_eq!(answer, util::engine::ANSWER);
    redis.publish("news", "first");
    assert_eq!(browser.text(), "first");
    assert_eq!(bench.stat("gaps_told"), 0);
}

fn the_answer_waits_for_the_last_of_several_channels(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("join-timeout", "1m")]);
    // As many as there are loops: each loop is told of the first channel.
    let _others: Vec<_> = (0..loops).map(|_| bench.open(r#"{"subscribe":["a"]}"#)).collect();
    redis.hold("SUBSCRIBE");
    let mut browser =
        bench.offer(Offer { grant: r#"{"subscribe":["a","b"]}"#, ..Offer::default() });
    redis.wait_for("SUBSCRIBE b", 1);
    redis.publish("a", "too early");
    assert!(browser.is_silent());
    redis.release("SUBSCRIBE");
    browser.opened();
    redis.publish("b", "of b");
    // What came while the answer waited is behind it, not lost.
    assert_eq!((browser.text(), browser.text()), ("too early".into(), "of b".into()));
}

fn nobody_waits_while_redis_is_away_and_the_gap_is_told_when_it_is_back(loops: usize) {
    let mut redis = FakeRedis::absent();
    let settings = [("redis-url", &*redis.url()), ("join-timeout", "1m"), ("gap-spread", "0")];
    let bench = Bench::new(loops, &settings);
    let grant = r#"{"subscribe":["news"]}"#;
    let (mut told, _) = bench.open_envelope(grant);
    let mut raw = bench.open(grant);
    assert!(bench.engine.health().is_err());
    redis.listen();
    let gap = told.json();
    assert_eq!((&gap["type"], &gap["channel"]), (&"gap".into(), &"news".into()));
    assert_eq!(raw.closed(), (1012, "continuity lost".into()));
    redis.publish("news", "1");
    assert_eq!(told.json()["data"], 1);
}

/// A link that needed several attempts is as good as any once it is up.
fn the_answer_waits_for_its_channels_after_redis_came_up_late(loops: usize) {
    let mut redis = FakeRedis::absent();
    let settings =
        [("redis-url", &*redis.url()), ("join-timeout", "1m"), ("redis-backoff-limit", "50ms")];
    let bench = Bench::new(loops, &settings);
    let early = bench.open("{}");
    // The log has a line a second of it.
    wait_until("every link has failed many times", || bench.count_logged("can not be opened") == 2);
    redis.listen();
    bench.wait_for("redis_down", 0);
    drop(early);
    for _ in 0..loops {
        let mut browser = bench.open(r#"{"subscribe":["news"]}"#);
        redis.publish("news", "not lost");
        assert_eq!(browser.text(), "not lost");
    }
    assert_eq!(bench.stat("gaps_told"), 0);
}

fn a_frozen_redis_holds_the_answer_for_the_join_timeout_only(loops: usize) {
    let redis = FakeRedis::start();
    redis.hold("SUBSCRIBE");
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("join-timeout", "50ms")]);
    let (mut browser, _) = bench.open_envelope(r#"{"subscribe":["news"]}"#);
    redis.release("SUBSCRIBE");
    assert_eq!(browser.json()["type"], "gap");
    redis.publish("news", "\"after\"");
    assert_eq!(browser.json()["data"], "after");
    assert_eq!(bench.stat("gaps_told"), 1);
}

fn a_second_socket_of_a_channel_need_not_wait(loops: usize) {
    let redis = FakeRedis::start();
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("join-timeout", "1m")]);
    let grant = r#"{"subscribe":["news"]}"#;
    let _first: Vec<_> = (0..loops).map(|_| bench.open(grant)).collect();
    redis.hold("*");
    let _second: Vec<_> = (0..loops).map(|_| bench.open(grant)).collect();
    assert_eq!(redis.count("SUBSCRIBE news"), loops, "once a loop");
}

fn frames_behind_the_request_are_read_wherever_they_are_cut(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let two = [frame(TEXT, b"first"), frame(BINARY, b"\x00second\xff")].concat();
    for cut in 0..=two.len() {
        let (leftover, rest) = two.split_at(cut);
        let mut browser = bench.offer(Offer { mirror: true, leftover, ..Offer::default() });
        browser.write(rest);
        browser.opened();
        assert_eq!(browser.text(), "first", "cut at {cut}");
        assert_eq!(browser.binary(), b"\x00second\xff", "cut at {cut}");
    }
}

fn what_is_behind_the_request_is_published_only_once_the_socket_hears(loops: usize) {
    let redis = FakeRedis::start();
    redis.hold("SUBSCRIBE");
    let bench = Bench::new(loops, &[("redis-url", &redis.url()), ("join-timeout", "1m")]);
    let leftover = frame(TEXT, b"me");
    let grant = r#"{"subscribe":["chat"],"publish":["chat"],"echo":true}"#;
    let mut browser = bench.offer(Offer { grant, leftover: &leftover, ..Offer::default() });
    redis.wait_for("SUBSCRIBE chat", 1);
    assert_eq!(redis.count("PUBLISH"), 0);
    redis.release("SUBSCRIBE");
    browser.opened();
    assert_eq!(browser.text(), "me");
}

fn a_browser_that_closes_behind_its_request_is_answered_in_order(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let leftover = frame(CLOSE, &1000u16.to_be_bytes());
    let mut browser = bench.offer(Offer { leftover: &leftover, ..Offer::default() });
    browser.opened();
    assert_eq!(browser.closed().0, 1000);
    bench.wait_until_empty();
}

/// The end of the stream came with data that filled the loop's buffer, or while the answer was held: epoll tells of it
/// only once.
fn a_browser_that_goes_at_once_is_noticed_at_once(loops: usize) {
    let redis = FakeRedis::start();
    redis.hold("SUBSCRIBE");
    let settings = [("redis-url", &*redis.url()), ("join-timeout", "1m"), ("ping-interval", "0")];
    let bench = Bench::new(loops, &settings);
    let (mut browser, host) = UnixStream::pair().unwrap();
    let long = frame(TEXT, &[b'x'; 1000]).repeat(70);
    std::io::Write::write_all(&mut browser, &long).unwrap();
    browser.shutdown(std::net::Shutdown::Write).unwrap();
    let offer = Offer { grant: r#"{"subscribe":["news"]}"#, ..Offer::default() };
    bench.engine.adopt(bench.adoption(host.into(), offer)).unwrap();
    redis.wait_for("SUBSCRIBE news", 1);
    redis.release("SUBSCRIBE");
    bench.wait_until_empty();
    assert_eq!((bench.stat("received"), bench.stat("closed/lost")), (70, 1));
}

fn a_socket_over_the_limit_gets_the_whole_refusal(loops: usize) {
    let bench = Bench::new(loops, &[("max-sockets", "2"), ("max-sockets-per-user", "1")]);
    let ann = bench.open(r#"{"user":"ann"}"#);
    let refused = |grant: &str| {
        let mut browser = bench.offer(Offer { grant, ..Offer::default() });
        String::from_utf8(browser.read_to_end()).unwrap()
    };
    let answer = refused(r#"{"user":"ann"}"#);
    assert!(answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    assert!(answer.ends_with("\r\n\r\nService Unavailable\n"), "{answer}");
    let bob = bench.open(r#"{"user":"bob"}"#);
    assert!(refused("{}").starts_with("HTTP/1.1 503 "));
    assert_eq!((bench.stat("refused/full"), bench.stat("sockets")), (2, 2));
    assert!(bench.has_logged("max-sockets-per-user is reached"));
    // Who leaves makes room.
    drop(ann);
    bench.wait_for("sockets", 1);
    bench.open(r#"{"user":"ann"}"#);
    drop(bob);
}

fn a_descriptor_within_the_reserve_is_refused(loops: usize) {
    let reserve = 65_536.min(sys::max_open_files()).to_string();
    let bench = Bench::new(loops, &[("fd-reserve", &reserve)]);
    let mut browser = bench.offer(Offer::default());
    let answer = String::from_utf8(browser.read_to_end()).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(bench.has_logged("fd-reserve"), "{}", bench.log_text());
}

fn an_engine_that_was_stopped_gives_the_descriptor_back(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let browser = bench.open("{}");
    drop(browser);
    bench.wait_until_empty();
    assert!(bench.engine.stop(10_000));
    let (mut browser, host) = bench.connection();
    let number = host.as_raw_fd();
    let (error, adoption) = bench.engine.adopt(bench.adoption(host, Offer::default())).unwrap_err();
    assert_eq!((error.kind, adoption.fd.as_raw_fd()), (Kind::Stopped, number));
    // It is still the host's: nothing was written to it, and only the host closes it.
    drop(adoption);
    let mut rest = Vec::new();
    browser.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"");
}

fn events_tell_of_every_socket_that_comes_and_goes(loops: usize) {
    let bench = Bench::new(loops, &[]);
    bench.engine.events_fd().unwrap();
    let (mut browser, id) = bench.open_envelope("{}");
    wait_until("it is told", || {
        bench.engine.next_event().unwrap() == Some(Event::Opened(id.clone()))
    });
    assert_eq!(bench.engine.next_event().unwrap(), None);
    browser.close(3000);
    browser.closed();
    wait_until("it is told", || {
        bench.engine.next_event().unwrap() == Some(Event::Closed(id.clone(), 1000))
    });
    assert_eq!(bench.engine.next_event().unwrap(), None);
}

#[test]
fn only_connected_stream_sockets_can_be_adopted() {
    let kind = |fd: &dyn AsRawFd| sys::check_stream_socket(fd.as_raw_fd()).map_err(|e| e.kind);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tcp = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(kind(&tcp), Ok(()));
    assert_eq!(kind(&UnixStream::pair().unwrap().0), Ok(()));
    assert_eq!(kind(&listener), Err(Kind::Fd));
    assert_eq!(kind(&UdpSocket::bind("127.0.0.1:0").unwrap()), Err(Kind::Fd));
    assert_eq!(kind(&std::io::pipe().unwrap().0), Err(Kind::Fd));
    let gone = OwnedFd::from(tcp).as_raw_fd();
    assert_eq!(sys::check_stream_socket(gone).map_err(|e| e.kind), Err(Kind::Fd));
}

with_one_and_three_loops!(
    the_answer_waits_until_redis_has_confirmed_the_channels,
    the_answer_waits_for_the_last_of_several_channels,
    nobody_waits_while_redis_is_away_and_the_gap_is_told_when_it_is_back,
    the_answer_waits_for_its_channels_after_redis_came_up_late,
    a_frozen_redis_holds_the_answer_for_the_join_timeout_only,
    a_second_socket_of_a_channel_need_not_wait,
    frames_behind_the_request_are_read_wherever_they_are_cut,
    what_is_behind_the_request_is_published_only_once_the_socket_hears,
    a_browser_that_closes_behind_its_request_is_answered_in_order,
    a_browser_that_goes_at_once_is_noticed_at_once,
    a_socket_over_the_limit_gets_the_whole_refusal,
    a_descriptor_within_the_reserve_is_refused,
    an_engine_that_was_stopped_gives_the_descriptor_back,
    events_tell_of_every_socket_that_comes_and_goes,
);
