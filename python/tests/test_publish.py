"""A message is published whole, or an exception says why it was not."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
import wsredis
from redis_process import Redis

redis = pytest.importorskip("redis", reason="redis-py is not installed: publishing is NOT tested")


class Listener:
    """Hears channels of a Redis; `next` is the payload that came next."""

    def __init__(self, server, *channels: str) -> None:
        self.pubsub = redis.Redis.from_url(server.url).pubsub()
        self.pubsub.subscribe(*channels)
        for _ in channels:
            assert self.pubsub.get_message(timeout=5)["type"] == "subscribe"

    def next(self) -> bytes:
        message = self.pubsub.get_message(timeout=5)
        assert message is not None, "no message within 5 s"
        return message["data"]


class Monitor:
    """What one Redis is told, without the handshakes of connections."""

    def __init__(self, server) -> None:
        self.socket = socket.create_connection(("127.0.0.1", server.port), 5)
        self.socket.sendall(b"MONITOR\r\n")
        self.lines = self.socket.makefile("r", newline="\r\n")
        assert self.lines.readline() == "+OK\r\n"

    def until(self, last: str) -> list[str]:
        """The commands up to `last`, each with its first argument."""
        told: list[str] = []
        while last not in told:
            words = re.findall(r'"((?:[^"\\]|\\.)*)"', self.lines.readline())
            words = [word.encode().decode("unicode_escape").encode("latin-1") for word in words]
            if words[0] not in (b"HELLO", b"CLIENT", b"AUTH", b"SELECT"):
                told.append(b" ".join(words[:2]).decode())
        return told


@pytest.mark.parametrize(
    ("message", "payload"),
    [
        ("zoë", "zoë".encode()),
        ("", b""),
        (b"\x00\xff", b"\x00\xff"),
        (bytearray(b"ab"), b"ab"),
        (memoryview(b"ab"), b"ab"),
        ({"n": [1, None, True]}, b'{"n": [1, null, true]}'),
        (7, b"7"),
        (None, b"null"),
        (b"x" * 1_000_000, b"x" * 1_000_000),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_a_message_arrives_as_it_was_meant(redis_server, message, payload):
    listener = Listener(redis_server, "zoë:1")
    wsredis.publish("zoë:1", message, url=redis_server.url)
    assert listener.next() == payload


def test_the_environment_says_where_and_with_which_prefix(redis_server, monkeypatch):
    monkeypatch.setenv("WSREDIS_REDIS_URL", redis_server.url)
    monkeypatch.setenv("WSREDIS_CHANNEL_PREFIX", "staging:")
    listener = Listener(redis_server, "staging:news", "other:news")
    wsredis.publish("news", "a")
    assert listener.next() == b"a"
    wsredis.publish("news", "b", prefix="other:")
    assert listener.next() == b"b"


def test_several_channels_get_one_message_and_in_one_transaction(redis_server):
    listener, monitor = Listener(redis_server, "a", "b"), Monitor(redis_server)
    wsredis.publish(["a", "b", "a"], {"n": 1}, url=redis_server.url)
    assert [listener.next(), listener.next()] == [b'{"n": 1}'] * 2
    assert monitor.until("EXEC") == ["MULTI", "PUBLISH a", "PUBLISH b", "EXEC"]


def test_a_retained_value_is_written_in_the_same_transaction_and_before_the_message(redis_server):
    monitor = Monitor(redis_server)
    where = {"url": redis_server.url, "prefix": "p:"}
    wsredis.publish("zoë", b"\x00v", retain=timedelta(seconds=59.5), **where)
    key = "p:wsredis:last:zoë"
    told = ["MULTI", f"SET {key}", "PUBLISH p:zoë", "EXEC"]
    assert monitor.until("EXEC") == told
    assert redis_server.client.get(key) == b"\x00v"
    assert 0 < redis_server.client.ttl(key) <= 60
    wsredis.publish("zoë", "w", **where)
    assert redis_server.client.get(key) == b"\x00v", "only what is said to be retained is"


@pytest.mark.parametrize("retain", [0, -1, True, 1.5, "60", timedelta(0), 400 * 86_400])
def test_a_time_that_is_none_retains_nothing(retain):
    with pytest.raises(ValueError, match="retain"):
        wsredis.publish("news", "x", retain=retain, url="redis://127.0.0.1:1")


def test_many_are_published_in_their_order_and_in_one_go(redis_server):
    listener = Listener(redis_server, *(f"c{n}" for n in range(3)))
    messages = ((f"c{n % 3}", n) for n in range(1000))
    wsredis.publish_many(messages, retain=60, url=redis_server.url)
    assert [listener.next() for _ in range(1000)] == [b"%d" % n for n in range(1000)]
    assert redis_server.client.get("wsredis:last:c0") == b"999"
    wsredis.publish_many([], url=redis_server.url)


def test_of_many_none_is_published_if_one_may_not_be(redis_server):
    redis_server.client.execute_command(
        "ACL", "SETUSER", "ann", "on", ">pw", "+@all", "resetchannels", "&allowed"
    )
    listener = Listener(redis_server, "allowed")
    url = redis_server.url.replace("://", "://ann:pw@")
    with pytest.raises(wsredis.PublishError, match="refused"):
        wsredis.publish_many([("allowed", 1), ("forbidden", 2), ("allowed", 3)], url=url)
    with pytest.raises(ValueError, match="reserved"):
        wsredis.publish_many([("allowed", 4), ("__forbidden", 5)], url=url)
    wsredis.publish("allowed", 6, url=url)
    assert listener.next() == b"6"


def test_a_coroutine_publishes_and_its_loop_goes_on(redis_server):
    listener = Listener(redis_server, "news")

    async def publish():
        turns = 0
        redis_server.freeze()
        task = asyncio.create_task(wsredis.apublish("news", "x", url=redis_server.url))
        while turns < 20:
            await asyncio.sleep(0.005)
            turns += 1
        assert not task.done(), "nobody has answered yet"
        redis_server.thaw()
        await task

    # Each asyncio.run is a loop of its own, as each async view under WSGI has.
    for _ in range(2):
        asyncio.run(publish())
        assert listener.next() == b"x"


def test_who_is_excluded_can_not_be_said_yet():
    with pytest.raises(NotImplementedError, match="control channel"):
        wsredis.publish("news", "x", exclude="id", url="redis://127.0.0.1:1")


def test_a_process_and_its_fork_have_one_connection_each(redis_server):
    listener = Listener(redis_server, "news")
    control = redis.Redis.from_url(redis_server.url)
    before = connections(control)
    for n in range(3):
        wsredis.publish("news", str(n), url=redis_server.url)
    child = os.fork()
    if child == 0:
        # os._exit: pytest must not run a second time in here.
        try:
            wsredis.publish("news", "child", url=redis_server.url)
            wsredis.publish("news", "child again", url=redis_server.url)
            os._exit(0)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    wsredis.publish("news", "parent", url=redis_server.url)
    expected = [b"0", b"1", b"2", b"child", b"child again", b"parent"]
    assert [listener.next() for _ in expected] == expected
    assert connections(control) - before == 2, "one of this process, one of its fork"


def connections(control) -> int:
    """How many connections this Redis has ever taken."""
    return control.info("stats")["total_connections_received"]


def test_threads_share_the_connection_and_lose_nothing(redis_server):
    listener = Listener(redis_server, "news")
    threads = [
        threading.Thread(
            target=wsredis.publish, args=("news", str(n)), kwargs={"url": redis_server.url}
        )
        for n in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {listener.next() for _ in threads} == {str(n).encode() for n in range(20)}


def test_a_restarted_redis_is_found_again_by_itself(redis_server):
    wsredis.publish("news", "a", url=redis_server.url)
    control = redis.Redis.from_url(redis_server.url)
    control.client_kill_filter(_type="normal", skipme=True)
    listener = Listener(redis_server, "news")
    wsredis.publish("news", "b", url=redis_server.url)
    assert listener.next() == b"b"


def test_an_absent_redis_is_not_reachable_and_its_password_is_not_told():
    with pytest.raises(wsredis.NotReachable, match="Cure: start it") as caught:
        wsredis.publish("news", "a", url="redis://ann:secret@127.0.0.1:1/0")
    assert "secret" not in str(caught.value)
    assert "redis://ann:***@127.0.0.1:1/0" in str(caught.value)


def test_a_redis_that_says_no_is_an_error(redis_server):
    control = redis.Redis.from_url(redis_server.url)
    control.execute_command("ACL", "SETUSER", "deaf", "on", ">pw", "+@all", "-publish", "&*")
    url = redis_server.url.replace("://", "://deaf:pw@")
    with pytest.raises(wsredis.PublishError, match="refused"):
        wsredis.publish("news", "a", url=url)


@pytest.mark.parametrize("scheme", ["unix", "redis+unix", "valkey+unix"])
def test_a_unix_socket_and_a_login_are_written_as_the_plugin_writes_them(tmp_path, scheme):
    server = Redis("--unixsocket", str(tmp_path / "redis.sock"), "--requirepass", "p w")
    try:
        control = redis.Redis.from_url(server.url, password="p w")
        control.execute_command("ACL", "SETUSER", "ann", "on", ">p w", "+@all", "&*")
        pubsub = control.pubsub()
        pubsub.subscribe("news")
        assert pubsub.get_message(timeout=5)["type"] == "subscribe"
        url = f"{scheme}://{tmp_path}/redis.sock?db=0&user=ann&pass=p%20w"
        wsredis.publish("news", "a", url=url)
        assert pubsub.get_message(timeout=5)["data"] == b"a"
    finally:
        server.stop()


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://h:port/"])
def test_a_url_that_is_none_is_said_to_be_none(url):
    with pytest.raises(wsredis.NotReachable, match="no Redis URL"):
        wsredis.publish("news", "a", url=url)


def test_without_any_broker_the_cure_is_named():
    with pytest.raises(wsredis.NotReachable, match="WSREDIS_REDIS_URL") as caught:
        wsredis.publish("news", "a")
    assert isinstance(caught.value, wsredis.PublishError)


def test_without_redis_py_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(wsredis.NotReachable, match="pip install"):
        wsredis.publish("news", "a", url="redis://127.0.0.1:1")


@pytest.mark.parametrize("channel", ["", "__x", "a\nb", 7, b"a", {"a": 1}, ["a", ""], [7]])
def test_a_bad_channel_name_is_refused_before_anything_is_sent(channel):
    with pytest.raises(ValueError):
        wsredis.publish(channel, "a")


def test_a_message_that_is_no_json_is_refused():
    with pytest.raises(TypeError):
        wsredis.publish("news", {"a": object()})


class Uwsgi:
    """The `uwsgi` module with the plugin's RPC, which cuts lengths as the real one does."""

    def __init__(self, answer: bytes | None = b"ok") -> None:
        self.answer = answer
        self.published: list[tuple[bytes, bytes]] = []

    def call(self, name: bytes, channel: bytes, length: bytes, *parts: bytes) -> bytes | None:
        assert name == b"wsredis-publish" and len(parts) + 2 < 255
        payload = b"".join(part[: len(part) % 65_536] for part in parts)
        if int(length) != len(payload):
            return b"the parts are short"
        self.published.append((channel, payload))
        return self.answer

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "uwsgi", SimpleNamespace(call=self.call))


@pytest.mark.parametrize("length", [0, 1, 59_999, 60_000, 60_001, 65_535, 65_536, 1 << 20])
def test_inside_uwsgi_the_engine_gets_the_whole_message(monkeypatch, plugin, length):
    uwsgi = Uwsgi()
    uwsgi.install(monkeypatch)
    payload = os.urandom(length)
    wsredis.publish("zoë", payload)
    assert uwsgi.published == [("zoë".encode(), payload)]


def test_what_the_rpc_could_not_carry_is_refused_before_it_is_cut(monkeypatch, plugin):
    Uwsgi().install(monkeypatch)
    with pytest.raises(wsredis.PublishError, match="at most"):
        wsredis.publish("news", b"x" * (252 * 60_000 + 1))


@pytest.mark.parametrize(
    ("answer", "reason"),
    [(b"error: the feed of a loop is full", "message: the feed"), (None, "did not answer")],
)
def test_the_engines_no_is_an_error(monkeypatch, plugin, answer, reason):
    Uwsgi(answer).install(monkeypatch)
    with pytest.raises(wsredis.PublishError, match=reason):
        wsredis.publish("news", "a")


def test_inside_uwsgi_many_go_one_by_one_and_how_far_it_came_is_said(monkeypatch, plugin):
    uwsgi = Uwsgi()
    uwsgi.install(monkeypatch)
    wsredis.publish(["a", "b"], 1)
    asyncio.run(wsredis.apublish("c", 2))
    assert uwsgi.published == [(b"a", b"1"), (b"b", b"1"), (b"c", b"2")]
    messages = [("a", 1), ("a", b"x" * (252 * 60_000 + 1))]
    with pytest.raises(wsredis.PublishError, match="1 of 2 messages before it"):
        wsredis.publish_many(messages)


def test_the_engines_own_broker_retains_nothing_and_says_so(monkeypatch, plugin):
    uwsgi = Uwsgi()
    uwsgi.install(monkeypatch)
    with pytest.raises(wsredis.PublishError, match="retain= needs Redis"):
        wsredis.publish("news", "a", retain=60)
    assert uwsgi.published == []


def test_uwsgi_without_the_plugin_is_not_reachable(monkeypatch):
    uwsgi = Uwsgi()
    uwsgi.install(monkeypatch)
    with pytest.raises(wsredis.NotReachable, match="need-plugin"):
        wsredis.publish("news", "a")
    assert uwsgi.published == []


def test_redis_comes_before_the_rpc(redis_server, monkeypatch, plugin):
    uwsgi = Uwsgi()
    uwsgi.install(monkeypatch)
    monkeypatch.setenv("WSREDIS_REDIS_URL", redis_server.url)
    listener = Listener(redis_server, "news")
    wsredis.publish("news", json.dumps(1))
    assert listener.next() == b"1" and uwsgi.published == []
