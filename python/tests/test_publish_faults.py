"""However Redis is out of order, publishing ends in time: with an error, or with the message."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time

import pytest
import wsredis
from redis_process import wait_until
from wsredis._broker import TIMEOUT

pytest.importorskip("redis", reason="redis-py is not installed: publishing is NOT tested")

# For a machine that is busy with something else.
SLACK = 1.0


@contextlib.contextmanager
def in_time():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < TIMEOUT + SLACK


ATTEMPTS = {
    "publish": lambda url: wsredis.publish("news", "x", url=url),
    "retain": lambda url: wsredis.publish("news", "x", retain=60, url=url),
    "large": lambda url: wsredis.publish("news", b"x" * 30_000_000, url=url),
    "many": lambda url: wsredis.publish_many([("news", n) for n in range(1000)], url=url),
    "async": lambda url: asyncio.run(wsredis.apublish("news", "x", url=url)),
}


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_frozen_redis_is_an_error_in_time_and_none_once_it_thaws(redis_server, attempt):
    wsredis.publish("news", "a", url=redis_server.url)
    redis_server.freeze()
    with in_time(), pytest.raises(wsredis.PublishError, match="cannot be reached"):
        attempt(redis_server.url)
    # The kernel takes a connection for it, and nobody greets.
    with in_time(), pytest.raises(wsredis.PublishError, match="cannot be reached"):
        attempt(redis_server.url)
    redis_server.thaw()
    attempt(redis_server.url)


def test_many_views_at_once_wait_no_longer_for_a_frozen_redis(redis_server):
    wsredis.publish("news", "a", url=redis_server.url)
    redis_server.freeze()
    took: list[float] = []

    def view():
        began = time.monotonic()
        with pytest.raises(wsredis.PublishError):
            wsredis.publish("news", "x", url=redis_server.url)
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=view) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(took) == 16 and max(took) < TIMEOUT + SLACK


class HalfOpen:
    """Before a Redis, and from `cut` on a connection whose other end is gone without a word: what
    is sent is taken, as by a kernel that waits for a lost cable, and nothing comes back."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_cut = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self.listener.getsockname()[1]}"
        self.sockets = [self.listener]
        self.connections = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near = self.listener.accept()[0]
                far = socket.create_connection(("127.0.0.1", self.port))
                self.connections += 1
                self.sockets += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                if not self.is_cut.is_set():
                    to.sendall(data)

    def close(self) -> None:
        for each in self.sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()


@pytest.fixture
def half_open(redis_server):
    proxy = HalfOpen(redis_server.port)
    yield proxy
    proxy.close()


@pytest.mark.parametrize("attempt", ATTEMPTS.values(), ids=ATTEMPTS)
def test_a_half_open_connection_is_an_error_in_time_and_is_not_used_again(half_open, attempt):
    wsredis.publish("news", "a", url=half_open.url)
    assert half_open.connections == 1
    half_open.is_cut.set()
    with in_time(), pytest.raises(wsredis.PublishError, match="cannot be reached"):
        attempt(half_open.url)
    half_open.is_cut.clear()
    attempt(half_open.url)
    assert half_open.connections == 2


def test_a_connection_that_is_never_made_is_an_error_in_time():
    # Its queue is full: the kernel answers nobody else.
    with socket.socket() as listener, socket.socket() as first, socket.socket() as second:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for waiting in (first, second):
            waiting.setblocking(False)
            waiting.connect_ex(listener.getsockname())
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}"
        with in_time(), pytest.raises(wsredis.NotReachable):
            wsredis.publish("news", "a", url=url)


GEVENT = """
from gevent import monkey
monkey.patch_all()
import gevent, sys, time
import wsredis

url, frozen = sys.argv[1:]
if frozen == "no":
    jobs = [gevent.spawn(wsredis.publish, "news", str(n), url=url) for n in range(100)]
    gevent.joinall(jobs, raise_error=True)
else:
    wsredis.publish("news", "first", url=url)
    print("publishing", flush=True)
    assert sys.stdin.readline() == "frozen\\n"
    job = gevent.spawn(wsredis.publish, "news", "x", url=url)
    turns = 0
    while not job.ready():
        gevent.sleep(0.01)
        turns += 1
    # Others ran meanwhile, as often as they liked.
    assert turns > 20, turns
    assert isinstance(job.exception, wsredis.PublishError), job.exception
"""


def gevent_process(url, frozen):
    pytest.importorskip("gevent", reason="gevent is not installed: it is NOT tested")
    return subprocess.Popen(
        [sys.executable, "-c", GEVENT, url, frozen],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_hundred_greenlets_share_the_connection_and_lose_nothing(redis_server):
    with redis_server.client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe("news")
        assert redis_server.client.pubsub_numsub("news") == [(b"news", 1)]
        before = redis_server.client.info("stats")["total_connections_received"]
        _, said = (process := gevent_process(redis_server.url, "no")).communicate(timeout=30)
        assert process.returncode == 0, said
        heard: set[bytes] = set()
        wait_until(lambda: listens(listener, heard) == 100)
        after = redis_server.client.info("stats")["total_connections_received"]
    assert after - before == 1


def listens(listener, heard) -> int:
    if message := listener.get_message(timeout=1):
        heard.add(message["data"])
    return len(heard)


def test_one_greenlet_that_waits_for_a_frozen_redis_stops_no_other(redis_server):
    process = gevent_process(redis_server.url, "yes")
    assert process.stdout.readline() == "publishing\n"
    redis_server.freeze()
    _, said = process.communicate("frozen\n", timeout=30)
    assert process.returncode == 0, said
