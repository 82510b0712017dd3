//! What the app does to single sockets, and what the host is told of them.

mod util;

use util::Bench;
use wsredis::engine::{Event, Who};
use wsredis::error::Kind;

const ALL: &str = r#"{"subscribe":["a"],"user":"ann","session":"s1"}"#;

fn the_app_closes_by_user_session_channel_and_socket(loops: usize) {
    let bench = Bench::new(loops, &[]);
    let mut other = bench.open(r#"{"subscribe":["b"],"user":"bob","session":"s2"}"#);
    for who in [Who::User("ann".into()), Who::Session("s1".into()), Who::Channel("a".into())] {
        let mut browsers: Vec<_> = (0..2 * loops).map(|_| bench.open(ALL)).collect();
        bench.engine.kick(&who).unwrap();
        for browser in &mut browsers {
            assert_eq!(browser.closed(), (4403, "kicked".to_owned()));
        }
    }
    let (mut one, id) = bench.open_envelope(ALL);
    let (mut another, _) = bench.open_envelope(ALL);
    bench.engine.send(&id, b"only you").unwrap();
    assert_eq!(one.text(), "only you");
    bench.engine.kick(&Who::Socket(id.clone())).unwrap();
    assert_eq!(one.closed().0, 4403);
    bench.publish("a", "still here");
    assert_eq!(another.json()["data"], "still here");
    bench.publish("b", "I as well");
    assert_eq!(other.text(), "I as well");
    for wrong in ["", "x", "1-1", "0-0-0", "0-0-0-0", &format!("{id}0-")] {
        assert_eq!(bench.engine.send(wrong, b"").unwrap_err().kind, Kind::NotFound, "{wrong:?}");
    }
}

fn a_host_that_asks_is_told_what_happens(loops: usize) {
    let bench = Bench::new(loops, &[]);
    bench.engine.events_fd().unwrap();
    let (mut browser, id) = bench.open_envelope(ALL);
    browser.close(1000);
    browser.closed();
    bench.wait_until_empty();
    let events: Vec<_> = std::iter::from_fn(|| bench.engine.next_event().unwrap()).collect();
    assert_eq!(events, [Event::Opened(id.clone()), Event::Closed(id, 1000)]);
}

with_one_and_three_loops!(
    the_app_closes_by_user_session_channel_and_socket,
    a_host_that_asks_is_told_what_happens,
);
