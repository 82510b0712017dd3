"""What a site's own tests get: an outbox, assertions, and a real engine without a server."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import unittest
from pathlib import Path

import pytest
import wsredis
from wsredis import testing
from wsredis.testing import Closed, LibraryMissing, Refused, Site, assertGranted, assertNotGranted

pytest.importorskip("django", reason="Django is not installed: wsredis.testing is NOT tested")

from django.test import Client, TestCase, override_settings  # noqa: E402
from wsredis.django import publish, publish_on_commit  # noqa: E402

# ---- without a server ----


@pytest.mark.parametrize(
    ("message", "data"),
    [({"n": [1]}, {"n": [1]}), ("text", "text"), ("7", 7), (b"\xff", b"\xff"), ("", "")],
)
def test_the_outbox_has_what_a_page_would_get(wsredis_outbox, message, data):
    wsredis.publish(["a", "b"], message, retain=5)
    wsredis.publish("c", message)
    assert wsredis_outbox.on("a") == wsredis_outbox.on("b") == wsredis_outbox.on("c") == [data]
    assert wsredis_outbox.on("d") == []
    assert [(sent.channel, sent.retain) for sent in wsredis_outbox] == [
        ("a", 5),
        ("b", 5),
        ("c", None),
    ]


@override_settings(WSREDIS_REDIS_URL="redis://127.0.0.1:1")
def test_with_the_outbox_nothing_goes_where_the_settings_say(wsredis_outbox):
    publish("news", "x")
    assert wsredis_outbox.on("news") == ["x"]


def test_afterwards_all_is_as_before():
    with Site() as outer:
        with Site() as inner:
            wsredis.publish("a", 1)
            assert wsredis.plugin_version() == wsredis.__version__
        wsredis.publish("a", 2)
    assert (inner.outbox.on("a"), outer.outbox.on("a")) == ([1], [2])
    assert wsredis.plugin_version() is None
    with pytest.raises(wsredis.NotReachable):
        wsredis.publish("a", 3)


@pytest.mark.parametrize("under_uwsgi", [True, False])
def test_a_grant_is_known_by_what_it_says(ann, under_uwsgi, request):
    if under_uwsgi:
        request.getfixturevalue("plugin")
    response = ann.get("/room/lobby/")
    grant = assertGranted(response, subscribe=["room:lobby"], publish=("room:lobby",))
    assert grant["user"] == str(ann.user.pk)
    assertGranted(response, sender={"user": "ann"}, echo=None)
    for wrong in ({"subscribe": []}, {"publish": ["room:lobby", "b"]}, {"echo": True}):
        with pytest.raises(AssertionError, match=next(iter(wrong))):
            assertGranted(response, **wrong)
    with pytest.raises(AssertionError, match="grants"):
        assertNotGranted(response)


def test_a_no_is_known_by_its_status(ann):
    for response, status in ((ann.get("/room/closed/"), 403), (Client().get("/room/a/"), 401)):
        assertNotGranted(response)
        assertNotGranted(response, status)
        with pytest.raises(AssertionError, match=str(status)):
            assertNotGranted(response, 404)
        with pytest.raises(AssertionError, match=f"{status} and grants nothing"):
            assertGranted(response)


# ---- with the engine ----


def test_two_browsers_talk_to_each_other_and_hear_the_site(wsredis_server, ann):
    with wsredis_server.connect("/room/lobby/", ann) as one:
        other = wsredis_server.connect("/class-room/lobby/", ann)
        assert one.socket_id and one.socket_id != other.socket_id
        publish("room:lobby", {"n": 1})
        for browser in (one, other):
            assert browser.receive() == {"channel": "room:lobby", "data": {"n": 1}}
        one.send("hello")
        said = {"sender": {"user": "ann"}, "data": "hello"}
        assert other.receive() == {"channel": "room:lobby", "data": said}
        one.receive_nothing()
        publish("room:lobby", b"\xff")
        assert one.receive() == {"channel": "room:lobby", "data": b"\xff"}
        assert wsredis_server.outbox.on("room:lobby") == [{"n": 1}, b"\xff"]


def test_a_raw_socket_hears_bare_messages_of_every_size(wsredis_server, tables):
    browser = wsredis_server.connect("/news/", subprotocol=None)
    assert browser.socket_id == ""
    for size in (0, 125, 126, 65_535, 65_536, 300_000):
        wsredis.publish("news", "é" * (size // 2))
        assert browser.receive() == "é" * (size // 2)
    wsredis.publish("news", b"\xff" * 200, retain=60)
    assert browser.receive() == b"\xff" * 200


def test_what_it_sends_may_have_every_size(wsredis_server, ann):
    one = wsredis_server.connect("/room/lobby/", ann)
    other = wsredis_server.connect("/room/lobby/", ann)
    for size in (0, 50, 200, 60_000):
        one.send("x" * size)
        assert other.receive()["data"]["data"] == "x" * size


def test_a_channel_that_is_not_granted_closes_the_socket(wsredis_server, ann):
    browser = wsredis_server.connect("/room/lobby/", ann)
    browser.send("hello", channel="room:other")
    assert browser.wait_closed().code == 1008
    with pytest.raises(Closed):
        browser.receive()
    browser.close()


def test_the_views_no_is_refused_with_its_answer(wsredis_server, ann):
    with pytest.raises(Refused) as refused:
        wsredis_server.connect("/room/closed/", ann)
    assert refused.value.http == refused.value.response.status_code == 403
    with pytest.raises(Refused, match="401"):
        wsredis_server.connect("/room/lobby/")


def test_the_engine_judges_the_origin_as_in_production(wsredis_server, ann):
    with pytest.raises(Refused, match="403.*evil"):
        wsredis_server.connect("/room/lobby/", ann, origin="https://evil.example")
    wsredis_server.connect("/room/lobby/", ann, origin="https://trusted.example")
    wsredis_server.connect("/room/lobby/", ann, host="site.example")
    wsredis_server.connect("/room/lobby/", ann, secure=True)


def test_the_end_of_the_test_closes_every_socket_and_leaves_no_descriptor(ann):
    def descriptors():
        gc.collect()
        return len(os.listdir("/proc/self/fd"))

    def run():
        with Site() as site:
            browsers = [site.connect("/room/lobby/", ann) for _ in range(5)]
        return browsers

    run()
    before, threads = descriptors(), threading.active_count()
    for _ in range(5):
        assert all(browser._connection.fileno() < 0 for browser in run())
    # What an earlier test left behind may end meanwhile.
    assert descriptors() <= before and threading.active_count() <= threads


def test_without_the_library_only_connect_fails_and_says_the_cure(ann, monkeypatch):
    monkeypatch.setenv("WSREDIS_LIBRARY", "/nowhere/libwsredis.so")
    testing.Engine.__init__.__globals__["library"].cache_clear()
    try:
        with Site() as site:
            wsredis.publish("news", 1)
            assertGranted(ann.get("/room/lobby/"))
            with pytest.raises(LibraryMissing, match="Cure: .*make install.*WSREDIS_LIBRARY"):
                site.connect("/room/lobby/", ann)
        assert site.outbox.on("news") == [1]
    finally:
        testing.Engine.__init__.__globals__["library"].cache_clear()


# ---- as a test case ----


class RoomTests(testing.WebSocketTests, TestCase):
    """Django's own TestCase: what it runs is a site's test."""

    def setUp(self):
        super().setUp()
        from django.contrib.auth.models import User

        self.client.force_login(User.objects.create_user("bob"))

    def test_in_its_transaction_the_view_sees_its_user(self):
        self.assertGranted(self.client.get("/room/1/"), subscribe=["room:1"])
        self.assertNotGranted(Client().get("/room/1/"), 401)
        socket = self.connect("/room/1/")
        with self.captureOnCommitCallbacks(execute=True):
            publish_on_commit("room:1", "hello")
            self.assertEqual(self.outbox, [])
        self.assertEqual(socket.receive(), {"channel": "room:1", "data": "hello"})
        self.assertEqual(self.outbox.on("room:1"), ["hello"])

    def test_another_test_has_an_outbox_of_its_own(self):
        self.assertEqual(self.outbox, [])


# The tests' database is made by a fixture here, and by manage.py test in a site.
RoomTests = pytest.mark.usefixtures("tables")(RoomTests)

SITE_TESTS = """
import os
from django.test import TestCase
from wsredis.testing import WebSocketTests
from wsredis.django import publish


class RoomTests(WebSocketTests, TestCase):
    def test_one(self):
        socket = self.connect("/news/")
        publish("news", os.getpid())
        self.assertEqual(socket.receive()["data"], os.getpid())

    def test_two(self):
        self.assertEqual(self.outbox, [])
"""


def test_manage_py_test_runs_them_also_in_parallel(site):
    (site.folder / "tests.py").write_text(SITE_TESTS)
    for options in ([], ["--parallel", "2"]):
        done = site.manage("test", *options)
        assert done.returncode == 0 and "Ran 2 tests" in done.stderr, done.stderr


XDIST_TESTS = """
import wsredis


def app(path, headers):
    class Response:
        status_code = 200
        headers = {wsredis.GRANT_HEADER: wsredis.grant(subscribe=["news"])}
    return Response


class Client:
    get = staticmethod(app)


def test_it(wsredis_server, n):
    sockets = [wsredis_server.connect("/", Client()) for _ in range(3)]
    wsredis.publish("news", n)
    assert [socket.receive()["data"] for socket in sockets] == [n] * 3
    assert wsredis_server.outbox.on("news") == [n]
"""


def test_many_of_them_run_at_once_under_xdist(tmp_path):
    pytest.importorskip("xdist", reason="pytest-xdist is not installed: it is NOT tested")
    (tmp_path / "test_it.py").write_text(XDIST_TESTS)
    (tmp_path / "conftest.py").write_text(
        "pytest_plugins = ['wsredis.pytest_plugin']\n"
        "def pytest_generate_tests(metafunc):\n"
        "    metafunc.parametrize('n', range(12))\n"
    )
    package = Path(wsredis.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", tmp_path],
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0 and "12 passed" in done.stdout, done.stdout + done.stderr


def test_it_works_for_other_frameworks_clients(wsredis_server):
    flask = pytest.importorskip("flask", reason="Flask is not installed: it is NOT tested")
    app = flask.Flask(__name__)

    @app.get("/ws/<room>", websocket=True)  # for Flask a handshake is another thing than a GET
    @app.get("/ws/<room>")
    def socket(room):
        if room == "closed":
            flask.abort(403)
        return wsredis.answer(subscribe=[f"room:{room}"])

    client = app.test_client()
    assertGranted(client.get("/ws/a"), subscribe=["room:a"])
    assertNotGranted(client.get("/ws/closed"), 403)
    browser = wsredis_server.connect("/ws/a", client)
    wsredis.publish("room:a", json.dumps([1]))
    assert browser.receive() == {"channel": "room:a", "data": [1]}
    with pytest.raises(Refused, match="403"):
        wsredis_server.connect("/ws/closed", client)


def test_the_mixin_is_for_plain_unittest_too():
    class Tests(testing.WebSocketTests, unittest.TestCase):
        def runTest(self):
            wsredis.publish("news", 1)
            self.assertEqual(self.outbox.on("news"), [1])

    result = Tests().run()
    assert result.wasSuccessful() and result.testsRun == 1, result.errors
