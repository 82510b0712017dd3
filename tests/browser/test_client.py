"""wsredis.js in a real browser, against a server that answers whatever a test wants.

Delays are read from the client's own events, so no test waits for them: what the client would do
in half a minute is known when it says so.
"""

from __future__ import annotations

import http
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

server_module = pytest.importorskip(
    "websockets.sync.server", reason="websockets is not installed: wsredis.js is NOT tested"
)
from websockets.datastructures import Headers  # noqa: E402
from websockets.http11 import Response  # noqa: E402

SCRIPT = Path(__file__).parents[2] / "python/wsredis/static/wsredis/wsredis.js"

PAGE = b"""<!doctype html><title>wsredis.js</title><link rel=icon href=data:,>
<script src=/wsredis.js></script>
<script>
  const log = [];
  function start(options) {
    window.socket = new WSRedis("/ws", Object.assign({ minDelay: 20, maxDelay: 40 }, options));
    for (const type of ["open", "close", "message", "gap", "dropped", "lost", "status"])
      socket.addEventListener(type, (event) => log.push(Object.assign({ type }, event.detail)));
  }
</script>"""


class Server:
    """Says hello to each websocket and keeps it; `refusal` and `plain` change its mind."""

    def __init__(self) -> None:
        self.sockets: list = []
        self.received: list = []
        self.handshakes = 0
        self.asked = 0
        self.hello = True
        self.refusal: int | None = None  # the HTTP status of a handshake; None: 101
        self.plain: tuple[int, dict] = (426, {})  # the answer to the same URL without an upgrade
        self.changed = threading.Condition()
        self.server = server_module.serve(
            self._socket,
            "127.0.0.1",
            0,
            process_request=self._request,
            subprotocols=["wsredis.v1"],
            select_subprotocol=lambda _, offered: offered[0] if offered else None,
            close_timeout=1,
        )
        self.url = f"http://127.0.0.1:{self.server.socket.getsockname()[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _request(self, connection, request):
        if request.path == "/":
            return answer(200, PAGE, {"Content-Type": "text/html"})
        if request.path == "/wsredis.js":
            return answer(200, SCRIPT.read_bytes(), {"Content-Type": "text/javascript"})
        with self.changed:
            self.changed.notify_all()
            if "Upgrade" not in request.headers:
                self.asked += 1
                return answer(self.plain[0], b"", self.plain[1])
            self.handshakes += 1
            return None if self.refusal is None else answer(self.refusal, b"", {})

    def _socket(self, ws) -> None:
        if self.hello and ws.subprotocol == "wsredis.v1":
            ws.send(json.dumps({"type": "hello", "socket": f"s{self.handshakes}"}))
        with self.changed:
            self.sockets.append(ws)
            self.changed.notify_all()
        for message in ws:
            with self.changed:
                self.received.append(message)
                self.changed.notify_all()

    def socket(self, n: int = 1):
        """The nth websocket."""
        self.wait(lambda: len(self.sockets) >= n)
        return self.sockets[n - 1]

    def wait(self, condition) -> None:
        with self.changed:
            assert self.changed.wait_for(condition, timeout=10), "the browser did not come"

    def stop(self) -> None:
        self.server.shutdown()
        for ws in self.sockets:
            ws.socket.close()


def answer(status: int, body: bytes, headers: dict) -> Response:
    reason = http.HTTPStatus(status).phrase
    fields = {"Content-Length": str(len(body)), "Connection": "close", **headers}
    return Response(status, reason, Headers(fields), body)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def page(browser, server):
    context = browser.new_context()
    page = context.new_page()
    page.set_default_timeout(10_000)
    page.goto(server.url)
    yield page
    context.close()


def event(page, type: str, n: int = 1) -> dict:
    """The nth event of a type."""
    handle = page.wait_for_function(
        "([type, n]) => log.filter((event) => event.type === type)[n - 1]", arg=[type, n]
    )
    return handle.json_value()


def status(page, name: str, reason: str | None = None) -> dict:
    """The last status, once it is `name` (for `reason`)."""
    handle = page.wait_for_function(
        """([name, reason]) => {
          const last = log.filter((event) => event.type === "status").pop();
          return last && last.status === name && (!reason || last.reason === reason) && last;
        }""",
        arg=[name, reason],
    )
    return handle.json_value()


def test_messages_go_both_ways_by_channel(page, server):
    page.evaluate("start(); socket.on('a', (...args) => log.push({ type: 'a', args }))")
    assert event(page, "open")["socket"] == "s1"
    assert page.evaluate("[socket.id, socket.status]") == ["s1", "open"]
    server.socket().send('{"channel":"b","data":1}')
    server.socket().send('{"channel":"a","data":{"x":[null,"y"]}}')
    assert event(page, "a")["args"] == [{"x": [None, "y"]}, "a"]
    assert event(page, "message") == {"type": "message", "channel": "b", "data": 1}
    assert page.evaluate("socket.send('a', { text: 'zoë' })") is True
    server.wait(lambda: server.received)
    assert server.received == ['{"channel":"a","data":{"text":"zoë"}}']


def test_binary_data_is_base64_on_the_wire_and_bytes_in_the_page(page, server):
    page.evaluate("start(); socket.on('a', (data) => log.push({ type: 'a', data: [...data] }))")
    event(page, "open")
    server.socket().send('{"channel":"a","data":"AP8B","encoding":"base64"}')
    assert event(page, "a")["data"] == [0, 255, 1]
    page.evaluate("socket.send('a', new Uint8Array([0, 255, 1]))")
    page.evaluate("socket.send('a', new Uint8Array([7, 0, 255, 1]).subarray(1))")
    page.evaluate("socket.send('a', new Uint8Array([0, 255, 1]).buffer)")
    server.wait(lambda: len(server.received) == 3)
    assert set(server.received) == {'{"channel":"a","data":"AP8B","encoding":"base64"}'}


def test_a_raw_socket_gets_and_sends_bare_payloads(page, server):
    page.evaluate("start({ protocol: null })")
    event(page, "open")
    server.socket().send("{not json")
    assert event(page, "message") == {"type": "message", "data": "{not json"}
    page.evaluate("socket.send('x')")
    server.wait(lambda: server.received)
    assert server.received == ["x"] and server.socket().subprotocol is None


def test_a_handler_that_throws_keeps_no_other_from_the_message(page, server):
    page.evaluate(
        "start(); socket.on('a', () => { throw Error('mine'); })"
        ".on('a', (data) => log.push({ type: 'second', data }))"
    )
    event(page, "open")
    with page.expect_event("pageerror") as error:
        server.socket().send('{"channel":"a","data":1}')
    assert "mine" in str(error.value)
    assert event(page, "second")["data"] == 1


def test_a_handler_that_was_removed_hears_nothing(page, server):
    page.evaluate(
        "start(); const heard = () => log.push({ type: 'heard' });"
        "socket.on('a', heard).off('a', heard).off('b', heard)"
    )
    event(page, "open")
    server.socket().send('{"channel":"a","data":1}')
    event(page, "message")
    assert page.evaluate("log.filter((event) => event.type === 'heard').length") == 0


@pytest.mark.parametrize("type", ["gap", "dropped", "lost"])
def test_what_may_be_missing_is_told_by_channel(page, server, type):
    page.evaluate("start()")
    event(page, "open")
    server.socket().send('{"type":"tomorrow","channel":"a"}')
    server.socket().send(json.dumps({"type": type, "channel": "a"}))
    assert event(page, type) == {"type": type, "channel": "a"}
    server.socket().send(json.dumps({"type": type, "channel": "b", "count": 7}))
    assert event(page, type, 2) == {"type": type, "channel": "b", "count": 7}
    assert page.evaluate("log.filter((event) => event.type === 'message').length") == 0


@pytest.mark.parametrize(
    ("code", "reason"), [(1000, "closed"), (1008, "not granted"), (4403, "kicked")]
)
def test_it_stays_away_where_the_server_says_so(page, server, code, reason):
    page.evaluate("start()")
    event(page, "open")
    server.socket().close(code, "why")
    last = status(page, "stopped")
    assert (last["reason"], last["code"]) == (reason, code)
    assert event(page, "close") == {"type": "close", "code": code, "reason": "why"}
    assert page.evaluate("Object.keys(socket._timers)") == []
    page.evaluate("dispatchEvent(new Event('online'))")
    assert page.evaluate("socket.status") == "stopped"


@pytest.mark.parametrize(
    "code", [1001, 1002, 1003, 1007, 1009, 1011, 1012, 1013, 3000, 4000, 4008, 4010, 4012]
)
def test_it_comes_back_spread_out_in_time(page, server, code):
    page.evaluate("start()")
    event(page, "open")
    server.socket().close(code)
    assert event(page, "open", 2) == {"type": "open", "socket": "s2", "again": True}
    waited = page.evaluate("log.find((event) => event.status === 'waiting')")
    assert (waited["code"], waited["reason"]) == (code, "lost") and 0 <= waited["delay"] <= 20
    assert server.asked == 0, "a connection that was open has told why it ended"


def test_it_comes_back_after_a_message_that_took_too_long(page, server):
    page.evaluate("start()")
    event(page, "open")
    server.socket().close(1008, "message not finished")
    assert event(page, "open", 2)["again"] is True
    waited = page.evaluate("log.find((event) => event.status === 'waiting')")
    assert (waited["code"], waited["reason"]) == (1008, "lost")


def test_it_comes_back_after_a_connection_that_was_cut(page, server):
    page.evaluate("start()")
    event(page, "open")
    server.socket().socket.shutdown(2)
    event(page, "open", 2)
    assert event(page, "close")["code"] == 1006


def test_after_a_rate_limit_it_waits_half_a_minute_whatever_happens_in_the_page(page, server):
    page.evaluate("start()")
    event(page, "open")
    server.socket().close(4029)
    assert status(page, "waiting", "rate limited")["delay"] >= 30_000
    page.evaluate("dispatchEvent(new Event('online'))")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    assert page.evaluate("socket.status") == "waiting" and server.handshakes == 1


def test_an_expired_grant_is_asked_for_at_once_but_only_once(page, server):
    page.evaluate("start({ minDelay: 1000, maxDelay: 60000 })")
    event(page, "open")
    server.socket().close(4401)
    event(page, "open", 2)
    assert page.evaluate("log.filter((event) => event.status === 'waiting').length") == 0
    server.socket(2).close(4401)
    assert status(page, "waiting")["code"] == 4401


def test_an_expired_grant_after_a_good_connection_is_asked_for_at_once_again(page, server):
    page.evaluate("start({ stableAfter: 0 })")
    for n in (1, 2, 3):
        event(page, "open", n)
        page.wait_for_function("!socket._expired")
        server.socket(n).close(4401)
    event(page, "open", 4)
    assert page.evaluate("log.filter((event) => event.status === 'waiting').length") == 0


def test_delays_double_up_to_a_limit_until_a_connection_was_good(page, server):
    page.evaluate("Math.random = () => 1; start({ minDelay: 10, maxDelay: 40 })")
    for n in range(1, 6):
        event(page, "open", n)
        server.socket(n).close(1012)
    event(page, "open", 6)
    waits = page.evaluate("log.filter((e) => e.status === 'waiting').map((e) => e.delay)")
    assert waits == [10, 20, 40, 40, 40]
    page.evaluate("socket.close(); log.length = 0; start({ minDelay: 10, stableAfter: 0 })")
    for n in (1, 2):
        event(page, "open", n)
        page.wait_for_function("socket._attempt === 0")
        server.socket(6 + n).close(1012)
    event(page, "open", 3)
    waits = page.evaluate("log.filter((e) => e.status === 'waiting').map((e) => e.delay)")
    assert waits == [10, 10]


@pytest.mark.parametrize(("code", "reason"), [(401, "unauthorized"), (403, "forbidden")])
def test_a_refused_handshake_is_asked_about_once_and_a_no_is_final(page, server, code, reason):
    server.refusal, server.plain = code, (code, {})
    page.evaluate("start()")
    last = status(page, "stopped")
    assert (last["reason"], last["code"]) == (reason, code)
    assert (server.handshakes, server.asked) == (1, 1)
    assert page.evaluate("Object.keys(socket._timers)") == []
    server.refusal = None
    page.evaluate("socket.connect()")
    assert event(page, "open")["socket"] == "s2", "whoever logged in may connect again"


def test_a_redirect_is_a_no(page, server):
    server.refusal, server.plain = 302, (302, {"Location": "/login"})
    page.evaluate("start()")
    assert status(page, "stopped")["reason"] == "redirected"


def test_who_may_connect_goes_on_trying(page, server):
    server.refusal = 503
    page.evaluate("start()")
    server.wait(lambda: server.handshakes == 3)
    server.refusal = None
    event(page, "open")
    told = page.evaluate("log.find((event) => event.reason === 'refused')")
    assert told["code"] == 426


def test_a_server_that_refuses_whom_it_would_have_is_asked_ever_more_rarely(page, server):
    server.refusal = 503
    page.evaluate("Math.random = () => 1; start({ minDelay: 10, maxDelay: 400 })")
    server.wait(lambda: server.asked == 4)
    page.wait_for_function("log.filter((event) => event.reason === 'refused').length === 4")
    waits = page.evaluate("log.filter((e) => e.reason === 'refused').map((e) => e.delay)")
    assert waits == [10, 40, 160, 400]


def test_a_busy_server_is_given_the_time_it_asked_for(page, server):
    server.refusal, server.plain = 503, (503, {"Retry-After": "7"})
    page.evaluate("start()")
    last = status(page, "waiting", "busy")
    assert 7_000 <= last["delay"] <= 7_040 and last["code"] == 503
    page.evaluate("dispatchEvent(new Event('online'))")
    assert page.evaluate("socket.status") == "waiting"


@pytest.mark.parametrize("value", ["soon", "-5", "99999999999", "Wed, 21 Oct 2026 07:28:00 GMT"])
def test_a_strange_retry_after_is_neither_a_storm_nor_forever(page, server, value):
    server.refusal, server.plain = 503, (503, {"Retry-After": value})
    page.evaluate("Math.random = () => 1; start()")
    assert 20 <= status(page, "waiting", "busy")["delay"] <= 3_600_040


@pytest.mark.parametrize("code", [200, 404, 500, 501])
def test_what_must_be_repaired_is_told_and_looked_at_now_and_then(page, server, code):
    server.refusal, server.plain = 500, (code, {})
    page.evaluate("Math.random = () => 1; start({ maxDelay: 500 })")
    last = status(page, "waiting", "failed")
    assert (last["code"], last["delay"]) == (code, 500)
    server.refusal = None
    event(page, "open")


def test_an_absent_server_is_found_when_it_comes(page, server):
    page.route("**/ws", lambda route: route.abort())
    server.refusal = 503
    page.evaluate("start()")
    page.wait_for_function("log.some((event) => event.reason === 'unreachable')")
    server.refusal = None
    event(page, "open")


def test_a_server_that_never_answers_is_given_up(page, server):
    server.hello = False
    page.evaluate("start({ connectTimeout: 50 })")
    server.socket(2)
    server.hello = True
    event(page, "open")


def test_coming_online_or_looking_at_the_page_ends_the_wait(page, server):
    page.evaluate("Math.random = () => 1; start({ minDelay: 600000, maxDelay: 600000 })")
    event(page, "open")
    server.socket(1).close(1012)
    status(page, "waiting", "lost")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    event(page, "open", 2)
    server.socket(2).close(1012)
    status(page, "waiting", "lost")
    page.evaluate("dispatchEvent(new Event('online'))")
    event(page, "open", 3)


def test_offline_is_said_and_waited_out(page, server):
    page.evaluate("start({ maxDelay: 600000 })")
    event(page, "open")
    page.context.set_offline(True)
    server.socket().socket.shutdown(2)
    assert status(page, "offline")["delay"] == 600_000
    page.context.set_offline(False)
    event(page, "open", 2)


def test_a_heartbeat_is_swallowed_and_its_absence_is_a_lost_connection(page, server):
    page.evaluate("start({ heartbeat: '--beat--', heartbeatTimeout: 300 })")
    event(page, "open")
    server.socket().send("--beat--")
    server.socket().send('{"channel":"a","data":1}')
    event(page, "message")
    event(page, "open", 2)
    assert event(page, "close")["code"] == 4012
    assert page.evaluate("log.filter((event) => event.type === 'message').length") == 1


def test_nothing_is_sent_and_nothing_kept_while_there_is_no_connection(page, server):
    assert page.evaluate("start(); socket.send('a', 1)") is False
    event(page, "open")
    server.socket().close(1012)
    event(page, "open", 2)
    page.evaluate("socket.send('a', 2)")
    server.wait(lambda: server.received)
    assert server.received == ['{"channel":"a","data":2}']


def test_close_is_for_good_also_while_connecting_or_waiting(page, server):
    page.evaluate("start()")
    event(page, "open")
    page.evaluate("socket.close()")
    assert status(page, "stopped")["reason"] == "closed"
    assert event(page, "close")["code"] == 1000
    page.evaluate("start(); socket.close()")
    server.refusal = 503
    page.evaluate("log.length = 0; start({ minDelay: 60000, maxDelay: 60000 })")
    status(page, "waiting", "refused")
    page.evaluate("socket.close(); dispatchEvent(new Event('online'))")
    assert page.evaluate("[socket.status, Object.keys(socket._timers).length]") == ["stopped", 0]


def test_a_worker_can_have_one_too(page, server):
    page.evaluate(
        """() => {
          const code = `importScripts("${location.origin}/wsredis.js");
            new WSRedis("${location.origin}/ws").on("a", (data) => postMessage(data));`;
          const worker = new Worker(URL.createObjectURL(new Blob([code])));
          worker.onmessage = (event) => log.push({ type: "worker", data: event.data });
        }"""
    )
    server.socket().send('{"channel":"a","data":"from afar"}')
    assert event(page, "worker")["data"] == "from afar"
