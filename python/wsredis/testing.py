"""For a site's own tests: what was published, who was granted what, and a real engine to talk to.

    class RoomTests(WebSocketTests, TestCase):
        def test_members_hear_the_room(self):
            self.client.force_login(ann)
            self.assertGranted(self.client.get("/ws/room/1/"), subscribe=["room:1"])
            socket = self.connect("/ws/room/1/")
            publish("room:1", "hello")
            self.assertEqual(socket.receive(), {"channel": "room:1", "data": "hello"})
            self.assertEqual(self.outbox.on("room:1"), ["hello"])

With pytest, the fixtures ``wsredis_outbox`` and ``wsredis_server`` are the same. The view runs in
the test itself, by the client of the framework (Django's, Flask's): its transaction is the test's,
no port is opened, and no server runs. Only `connect` needs the library (see `LibraryMissing`).
"""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from . import __version__, _broker
from ._broker import Message
from ._browser import SUBPROTOCOL, Browser, Closed
from ._engine import Engine, EngineError, LibraryMissing, Request
from ._grant import GRANT_HEADER

__all__ = [
    "Browser",
    "Closed",
    "LibraryMissing",
    "Outbox",
    "Published",
    "Refused",
    "Site",
    "WebSocketTests",
    "assertGranted",
    "assertNotGranted",
]

TIMEOUT = 5.0


class Published(Message):
    """A message that was published: `channel`, `payload` in bytes, and `retain` in seconds."""

    @property
    def data(self) -> Any:
        """As a ``wsredis.v1`` page gets it: JSON as its value, else text, else bytes."""
        try:
            return json.loads(self.payload)
        except ValueError:
            pass
        try:
            return self.payload.decode()
        except UnicodeDecodeError:
            return self.payload


class Outbox(list[Published]):
    """What was published, in its order."""

    def on(self, channel: str) -> list[Any]:
        """The data of each message on one channel."""
        return [message.data for message in self if message.channel == channel]


class Refused(Exception):
    """A handshake was refused: by the view, whose `response` says how, or by the engine."""

    def __init__(self, http: int, why: str, response: Any) -> None:
        super().__init__(f"{http}: {why}")
        self.http, self.response = http, response


class Site:
    """Stands in for the server while it is entered: ``with Site() as site``.

    What is published comes into `outbox`, wherever the settings would send it, and from the first
    `connect` on also to the sockets. Grants are answered as the plugin would have it.
    """

    waits = False

    def __init__(self) -> None:
        self.outbox = Outbox()
        self._engine: Engine | None = None
        self._browsers: list[Browser] = []
        self._version: str | None = None

    def __enter__(self) -> Site:
        _broker.install(self)
        self._version = os.environ.get("WSREDIS_VERSION")
        os.environ["WSREDIS_VERSION"] = __version__
        return self

    def __exit__(self, *_: object) -> None:
        if self._version is None:
            os.environ.pop("WSREDIS_VERSION", None)
        else:
            os.environ["WSREDIS_VERSION"] = self._version
        _broker.remove(self)
        for browser in self._browsers:
            browser.close()
        if self._engine:
            self._engine.stop()

    def send(self, messages: Sequence[Message]) -> None:
        """What `publish` calls."""
        self.outbox += [Published(*message) for message in messages]
        if self._engine:
            # The values that Redis retains are nobody's here: there is no Redis.
            without = [message._replace(retain=None) for message in messages]
            _broker.EngineBroker(self._engine).send(without)

    @property
    def engine(self) -> Engine:
        """The engine, with its own broker; made when it is needed."""
        if self._engine is None:
            self._engine = Engine({"redis-url": "none", "stop-timeout": "500ms"})
        return self._engine

    def connect(
        self,
        path: str,
        client: Any = None,
        *,
        subprotocol: str | None = SUBPROTOCOL,
        host: str = "testserver",
        origin: str | None = None,
        timeout: float = TIMEOUT,
        **extra: Any,
    ) -> Browser:
        """Opens a websocket at `path`: the view is asked by `client` (of Django, with its cookies
        and its user; or of Flask), and its grant becomes a socket of the engine.

        ``subprotocol``  what the page offers; None: nothing, as ``new WebSocket(url)`` does.
        ``origin``       of the page; None: the site's own.
        ``extra``        for the client's ``get``, such as ``secure=True`` of Django's.

        Raises Refused, with the view's response.
        """
        if client is None:
            from django.test import Client

            client = Client()
        scheme = "https" if extra.get("secure") else "http"
        headers = {
            "Host": host,
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Origin": origin or f"{scheme}://{host}",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        }
        if subprotocol is not None:
            headers["Sec-WebSocket-Protocol"] = subprotocol
        response = client.get(path, headers=headers, **extra)
        grant = response.headers.get(GRANT_HEADER)
        if grant is None or not 200 <= response.status_code < 300:
            raise Refused(response.status_code, "the view granted nothing", response)
        request = Request("GET", "HTTP/1.1", headers.items(), "127.0.0.1")
        try:
            http, text, why = self.engine.handshake(request, grant)
        except EngineError as error:
            raise Refused(500, str(error), response) from error
        if http != 101:
            raise Refused(http, why, response)
        ours, engines = socket.socketpair()
        self.engine.adopt(engines, grant, text, b"", request.remote_address, host)
        browser = Browser(ours, json.loads(grant), timeout)
        self._browsers.append(browser)
        return browser


def assertGranted(response: Any, **expected: Any) -> dict[str, Any]:
    """The view's answer is a grant, and says exactly this of each field that is named; the order of
    a list does not matter. Fields that are not named are not looked at. Returns the grant."""
    text = _grant_of(response)
    if text is None:
        raise AssertionError(f"the answer is {response.status_code} and grants nothing")
    grant: dict[str, Any] = json.loads(text)
    for field, value in expected.items():
        said = grant.get(field)
        if isinstance(value, (list, tuple, set, frozenset)):
            value, said = sorted(value), sorted(said or [])
        if said != value:
            raise AssertionError(f"{field} is {said!r} in the grant, not {value!r}: {text}")
    return grant


def assertNotGranted(response: Any, status: int | None = None) -> None:
    """The view's answer is no grant, and if `status` is given, it has that one."""
    text = _grant_of(response)
    if text is not None:
        raise AssertionError(f"the answer grants {text}")
    if status is not None and response.status_code != status:
        raise AssertionError(f"the answer is {response.status_code}, not {status}")


def _grant_of(response: Any) -> str | None:
    # WebSocketGrant has it in either case, but without the plugin it is answered with 501.
    text: str | None = getattr(response, "grant", None)
    if text is None and 200 <= response.status_code < 300:
        text = response.headers.get(GRANT_HEADER)
    return text


class WebSocketTests:
    """`Site` for a test case of unittest or Django: stands before ``TestCase`` among its bases.

    `connect` asks by ``self.client``. In Django's ``TestCase``, what waits for the commit is
    published by ``with self.captureOnCommitCallbacks(execute=True)``.
    """

    assertGranted = staticmethod(assertGranted)
    assertNotGranted = staticmethod(assertNotGranted)

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.wsredis = Site()
        self.wsredis.__enter__()
        self.addCleanup(self.wsredis.__exit__)  # type: ignore[attr-defined]

    @property
    def outbox(self) -> Outbox:
        return self.wsredis.outbox

    def connect(self, path: str, client: Any = None, **options: Any) -> Browser:
        return self.wsredis.connect(path, client or self.client, **options)  # type: ignore[attr-defined]
