"""The library by ctypes: what it says is what comes out, and a misuse is an exception."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import socket
import threading

import pytest
from conftest import ROOT
from redis_process import wait_until
from wsredis import _engine
from wsredis._engine import Engine, EngineError, LibraryMissing, Request

UPGRADE = [
    ("Host", "site.example"),
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "MDEyMzQ1Njc4OWFiY2RlZg=="),
]
HEADER = re.sub(r"/\*.*?\*/", "", (ROOT / "include/wsredis.h").read_text(), flags=re.S)


@pytest.fixture
def engine():
    engine = Engine({"redis-url": "none", "channel-prefix": "p:"})
    yield engine
    engine.stop()


def request(*more, leave=()):
    lines = [line for line in UPGRADE if line[0] not in leave]
    return Request("GET", "HTTP/1.1", [*lines, *more], "127.0.0.1")


def in_header(struct: str) -> list[str]:
    """The fields of a struct of the header, in their order."""
    body = re.search(rf"typedef struct {{([^}}]*)}} {struct};", HEADER)[1]
    return re.findall(r"(\w+);", body)


@pytest.mark.parametrize(
    ("struct", "ours"),
    [
        ("wsredis_header", _engine._Header),
        ("wsredis_request", _engine._Request),
        ("wsredis_adoption", _engine._Adoption),
    ],
)
def test_the_structs_are_those_of_the_header(struct, ours):
    assert [field[0] for field in ours._fields_] == in_header(struct)


def test_the_numbers_are_those_of_the_header():
    for name, number in (("GRANT", 3), ("STOPPED", 8), ("WRONG_PROCESS", 9)):
        assert getattr(_engine, name) == number
        assert re.search(rf"WSREDIS_STATUS_{name} = {number},", HEADER)
    assert f"#define WSREDIS_ABI_VERSION {_engine.ABI}\n" in HEADER
    assert f"#define WSREDIS_ANSWER_SIZE {_engine.ANSWER_SIZE}\n" in HEADER


def test_the_functions_take_as_many_arguments_as_in_the_header():
    for name, arguments in _engine._FUNCTIONS.items():
        told = re.search(rf"wsredis_status wsredis_{name}\(([^)]*)\);", HEADER)[1]
        assert len(told.split(",")) == len(arguments), name


def test_an_adopted_connection_is_the_engines_and_hears(engine, caplog):
    ours, theirs = socket.socketpair()
    grant = '{"subscribe":["a"],"publish":["a"],"echo":true}'
    http, answer, why = engine.handshake(request(), grant, [("Set-Cookie", " a=b")])
    assert (http, why) == (101, "") and b"\r\nSet-Cookie: a=b\r\n" in answer
    early = b"\x81\x83\0\0\0\0one"
    engine.adopt(theirs, grant, answer, early, "127.0.0.1", "site.example")
    assert theirs.fileno() == -1
    ours.settimeout(5)
    with ours.makefile("rb") as read:
        assert read.read(len(answer)) == answer
        assert read.read(5) == b"\x81\x03one"
        engine.publish("a", b"two")
        assert read.read(5) == b"\x81\x03two"
        assert engine.stats()["sockets"] == 1
        engine.stop()
        assert read.read(4) == b"\x88\x0c\x03\xf4"
    ours.close()


def test_a_refusal_has_its_reason(engine):
    http, answer, why = engine.handshake(request(leave=["Sec-WebSocket-Key"]), "{}")
    assert http == 400 and answer.startswith(b"HTTP/1.1 400 ") and "Key" in why
    http, _, why = engine.handshake(request(("Origin", "https://evil.example")), "{}")
    assert http == 403 and "evil.example" in why
    assert engine.refusal(503).startswith(b"HTTP/1.1 503 ")


def test_a_bad_grant_and_a_bad_setting_are_errors_that_name_it(engine):
    with pytest.raises(EngineError, match="subscribes") as error:
        engine.handshake(request(), '{"subscribes":[]}')
    assert error.value.status == _engine.GRANT
    with pytest.raises(EngineError, match="max-sockets"):
        Engine({"max-sockets": "many"})
    with pytest.raises(EngineError, match="nobody-knows"):
        Engine({"nobody-knows": "1"})


def test_what_is_no_connection_is_refused_and_stays_the_callers(engine):
    _, answer, _ = engine.handshake(request(), "{}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as unusable:
        with pytest.raises(EngineError):
            engine.adopt(unusable, "{}", answer)
        assert unusable.fileno() >= 0


def test_a_stopped_engine_says_so_and_stopping_twice_is_fine(engine):
    engine.publish("a", b"x")
    engine.stop()
    engine.stop()
    for call in (
        lambda: engine.publish("a", b"x"),
        engine.stats,
        lambda: engine.handshake(request(), "{}"),
    ):
        with pytest.raises(EngineError, match="stopped"):
            call()


def test_stopping_while_others_publish_frees_nothing_under_them():
    for _ in range(20):
        engine, began, errors = Engine({"redis-url": "none"}), threading.Event(), []

        def publish(engine=engine, began=began, errors=errors):
            try:
                while True:
                    engine.publish("a", b"x")
                    began.set()
            except EngineError as error:
                errors.append(error.status)

        threads = [threading.Thread(target=publish) for _ in range(3)]
        for thread in threads:
            thread.start()
        assert began.wait(5)
        engine.stop()
        for thread in threads:
            thread.join(5)
        assert errors == [_engine.STOPPED] * 3


def test_a_child_of_a_fork_is_told_and_hangs_on_no_lock(engine):
    engine.publish("a", b"x")
    with engine._lock:
        # The lock is held in the child for ever: no thread that would release it is there.
        child = os.fork()
        if child == 0:
            try:
                engine.stop()
                engine.publish("a", b"x")
                os._exit(1)
            except EngineError as error:
                os._exit(0 if error.status == _engine.WRONG_PROCESS else 2)
            finally:
                os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.publish("a", b"x")


def test_what_it_logs_comes_to_the_logger_from_its_own_threads(caplog):
    caplog.set_level(logging.DEBUG, "wsredis")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        port = nobody.getsockname()[1]
    engine = Engine({"redis-url": f"redis://:secret@127.0.0.1:{port}"})
    try:
        engine.publish("a", b"x")
        wait_until(lambda: any(line.levelno >= logging.WARNING for line in caplog.records))
    finally:
        engine.stop()
    assert str(port) in caplog.text and "secret" not in caplog.text


def test_a_library_of_another_version_is_not_used(monkeypatch):
    class Other:
        def __init__(self, path):
            self.wsredis_abi_version = lambda: 7

    monkeypatch.setattr(ctypes, "CDLL", Other)
    _engine.library.cache_clear()
    try:
        with pytest.raises(LibraryMissing, match="version 7 .*same release"):
            Engine()
    finally:
        _engine.library.cache_clear()
