"""``./manage.py runserver`` serves the site and its websockets, and stays what it is: it reloads,
a debugger may stop it, and without the library it is Django's own."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import socket
import subprocess
import threading

import pytest

pytest.importorskip("django", reason="Django is not installed: runserver is NOT tested")

from redis_process import wait_until  # noqa: E402
from wsredis._browser import Browser, Closed  # noqa: E402


class Server:
    """A runserver of a site; `log` is what it has said so far."""

    def __init__(self, site, *options: str, **env: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.log = ""
        self.process = subprocess.Popen(
            site.command("runserver", f"127.0.0.1:{self.port}", "--skip-checks", *options),
            cwd=site.folder,
            env={**site.env, **env},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # The reloader's child is in its group, and ends with it.
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()
        wait_until(self._answers, 20)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.log += line

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.log
        with contextlib.suppress(OSError):
            return self.get("/static/wsredis/wsredis.js")[0] == 200
        return False

    def get(self, path: str, **headers: str) -> tuple[int, str, dict]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            return response.status, response.read().decode(), dict(response.getheaders())

    def knock(self, path: str = "/news/", behind: bytes = b"", origin: str = "") -> socket.socket:
        """Sends a handshake."""
        host = f"127.0.0.1:{self.port}"
        request = [
            f"GET {path} HTTP/1.1",
            f"Host: {host}",
            "Connection: Upgrade",
            "Upgrade: websocket",
            f"Origin: {origin or f'http://{host}'}",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
            "Sec-WebSocket-Protocol: wsredis.v1",
        ]
        connection = socket.create_connection(("127.0.0.1", self.port), 10)
        connection.sendall("\r\n".join(request).encode() + b"\r\n\r\n" + behind)
        return connection

    def connect(self, path: str = "/news/", behind: bytes = b"") -> Browser:
        return Browser(self.knock(path, behind), {"publish": ["news"]}, 10)

    def end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process.stdin.close()


@pytest.fixture
def serve(site):
    with contextlib.ExitStack() as stack:

        def start(*options: str, **env: str) -> Server:
            server = Server(site, *options, **env)
            stack.callback(server.end)
            return server

        yield start


@pytest.mark.parametrize("options", [["--noreload"], ["--noreload", "--nothreading"]])
def test_a_websocket_lives_beside_the_site_and_its_static_files(serve, options):
    server = serve(*options)
    assert re.search(r"Websockets are served by wsredis .*without Redis", server.log), server.log
    with server.connect() as one, server.connect() as other:
        assert b"Set-Cookie: seen=1" in one.head and b"WSRedis" not in one.head
        assert server.get("/post/?text=hello")[0] == 200
        for browser in (one, other):
            assert browser.receive() == {"channel": "news", "data": "hello"}
        one.send({"n": 1})
        assert other.receive() == {"channel": "news", "data": {"n": 1}}
    wait_until(lambda: '"GET /news/ HTTP/1.1" 101' in server.log)


def test_what_comes_right_behind_the_handshake_is_not_lost(serve):
    server = serve("--noreload")
    message = b'{"channel":"news","data":"early"}'
    frame = bytes([0x81, 0x80 | len(message)]) + bytes(4) + message
    with server.connect() as other:
        for _ in range(20):
            server.connect(behind=frame)
            assert other.receive() == {"channel": "news", "data": "early"}


def test_what_is_no_websocket_gets_what_the_plugin_would_answer(serve):
    server = serve("--noreload")
    status, _, headers = server.get("/news/")
    assert status == 426 and "WSRedis-Grant" not in headers
    with server.knock(origin="https://evil.example") as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 403 ")
    with server.knock("/post/?text=x") as connection:
        answer = connection.recv(4096)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"WSRedis" not in answer
    wait_until(lambda: "handshake refused: 403" in server.log and "evil.example" in server.log)


def test_a_bad_grant_is_a_500_whose_reason_is_in_the_log_only(serve, site):
    urls = site.folder / "urls.py"
    urls.write_text(
        urls.read_text()
        + """
def bad(request):
    from wsredis import GRANT_HEADER
    return HttpResponse(headers={GRANT_HEADER: '{"subscribes":["news"]}'})


urlpatterns += [path("bad/", bad)]
"""
    )
    server = serve("--noreload")
    with server.knock("/bad/") as connection:
        answer = connection.recv(4096)
    assert answer.startswith(b"HTTP/1.1 500 ") and b"subscribes" not in answer
    wait_until(lambda: "handshake refused: 500" in server.log and "subscribes" in server.log)


def test_changed_code_is_reloaded_and_the_browsers_can_come_back(serve, site):
    server = serve()
    browser = server.connect()
    assert server.get("/post/?text=a")[1] == "one"
    assert browser.receive()["data"] == "a"
    urls = site.folder / "urls.py"
    changed = urls.read_text().replace('VERSION = "one"', 'VERSION = "two"')

    # What changes before the reloader has looked for the first time, it does not notice.
    def is_closed():
        urls.write_text(changed)
        with contextlib.suppress(TimeoutError):
            return browser.wait_closed(2).code == 1012

    wait_until(is_closed, 20)

    # The old process may answer until its very end.
    def is_new():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return server.get("/post/?text=x")[1] == "two"

    wait_until(is_new, 20)
    with server.connect() as browser:
        assert server.get("/post/?text=b")[1] == "two"
        assert browser.receive()["data"] == "b"


def test_a_view_may_stop_in_the_debugger_while_its_sockets_live(serve, site):
    urls = site.folder / "urls.py"
    urls.write_text(
        urls.read_text()
        + """
@websocket(anonymous=True)
def stop(request):
    answer = ["news"]
    breakpoint()
    return WebSocketGrant(request, subscribe=answer)


urlpatterns += [path("stop/", stop)]
"""
    )
    server = serve("--noreload")
    browser = server.connect()
    stopped = server.knock("/stop/")
    wait_until(lambda: re.search(r"urls\.py\(\d+\)stop\(\)", server.log))
    # The view stands still; the site and the socket go on.
    server.get("/post/?text=meanwhile")
    assert browser.receive()["data"] == "meanwhile"
    server.process.stdin.write("answer.append('more')\ncontinue\n")
    server.process.stdin.flush()
    with Browser(stopped, {}, 10) as late:
        server.get("/post/?text=both")
        for each in (browser, late):
            assert each.receive()["data"] == "both"


def test_with_redis_it_hears_what_anybody_publishes(serve, redis_server):
    server = serve("--noreload", WSREDIS_REDIS_URL=redis_server.url, WSREDIS_CHANNEL_PREFIX="p:")
    assert "on Redis" in server.log
    with server.connect() as browser:
        redis_server.client.publish("p:news", "from elsewhere")
        assert browser.receive()["data"] == "from elsewhere"
        server.get("/post/?text=from+here")
        assert browser.receive()["data"] == "from here"


def test_without_the_library_the_site_is_served_and_the_cure_is_said(serve):
    server = serve("--noreload", WSREDIS_LIBRARY="/nowhere/libwsredis.so")
    assert re.search(r"No websockets: .*Cure: .*make install", server.log), server.log
    status, body, headers = server.get("/news/")
    assert status == 501 and "WSREDIS_LIBRARY" in body and "WSRedis-Grant" not in headers
    with server.knock() as connection:
        assert connection.recv(4096).startswith(b"HTTP/1.1 501 ")


def test_a_wrong_setting_ends_it_with_the_reason(site):
    done = site.manage(
        "runserver",
        "127.0.0.1:0",
        "--noreload",
        "--skip-checks",
        WSREDIS_REDIS_URL="http://127.0.0.1",
    )
    assert done.returncode == 1 and "redis-url" in done.stderr, done.stderr


def test_ctrl_c_closes_the_sockets_in_order(serve):
    server = serve("--noreload")
    browser = server.connect()
    server.process.send_signal(signal.SIGINT)
    closed = browser.wait_closed()
    assert isinstance(closed, Closed) and closed.code == 1012
    assert server.process.wait(10) == 0


def test_the_runserver_of_another_app_keeps_what_it_does(serve, site):
    commands = site.folder / "shop/management/commands"
    commands.mkdir(parents=True)
    for folder in (commands, commands.parent, commands.parents[1]):
        (folder / "__init__.py").touch()
    (commands / "runserver.py").write_text(
        "from django.core.management.commands import runserver\n"
        "class Command(runserver.Command):\n"
        "    def get_handler(self, *args, **options):\n"
        "        print('the shop is open')\n"
        "        handler = super().get_handler(*args, **options)\n"
        "        def application(environ, start_response):\n"
        "            if environ['PATH_INFO'].startswith('/static/'):\n"
        "                start_response('200 OK', [('Content-Length', '0')])\n"
        "                return []\n"
        "            return handler(environ, start_response)\n"
        "        return application\n"
    )
    settings = site.folder / "settings.py"
    settings.write_text(settings.read_text().replace('"wsredis",', '"wsredis",\n    "shop",'))
    server = serve("--noreload")
    assert "the shop is open" in server.log
    with server.connect() as browser:
        server.get("/post/?text=x")
        assert browser.receive()["data"] == "x"
