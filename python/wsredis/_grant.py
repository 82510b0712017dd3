"""Grants: what one websocket may hear and speak, as the text of the ``WSRedis-Grant`` header.

Pure functions, and a helper for plain WSGI. What is wrong is a ValueError here, in the view
that said it. Nothing is sent from here; the header is the plugin's to read and remove.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Callable

from ._channel import checked_channel, has_control

GRANT_HEADER = "WSRedis-Grant"

# The answer where nobody would take the socket: it says what to do, not only what is wrong.
NO_PLUGIN = (
    "This process does not run under uWSGI with the wsredis plugin: it cannot hold websockets.\n"
    "Cure: start it with uWSGI and need-plugin = /path/to/wsredis_plugin.so (need-plugin stops\n"
    "uWSGI where the plugin cannot be loaded; plugin would go on without it). On your own machine\n"
    "./manage.py runserver does it too, with 'wsredis' in INSTALLED_APPS and libwsredis.so where\n"
    "the loader or WSREDIS_LIBRARY finds it; in tests, wsredis.testing.\n"
)

# The engine's limits, in bytes: over them a grant is refused there, so it is refused here.
MAX_IDENTITY = 255
MAX_HEARTBEAT = 125
MAX_SUBPROTOCOL = 128
MAX_SENDER = 4096
MAX_ORIGINS = 20
MAX_EXPIRES_IN = 10 * 365 * 86_400

# What RFC 6454 §6.2 calls the ASCII serialization of an origin: no path, not even a slash.
ORIGIN = re.compile(r"https?://[A-Za-z0-9._-]+(:[0-9]+)?|https?://\[[0-9A-Fa-f:.]+\](:[0-9]+)?")

# The letters RFC 6455 §4.1 allows in a subprotocol: those of an HTTP token.
_TOKEN = frozenset("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")


def plugin_version() -> str | None:
    """The version of the plugin that this process runs under, or None.

    The plugin sets ``WSREDIS_VERSION`` before the app is loaded.
    """
    return os.environ.get("WSREDIS_VERSION") or None


def grant(
    *,
    subscribe: Iterable[str] = (),
    publish: Iterable[str] = (),
    sender: Any = None,
    echo: bool = False,
    user: str | None = None,
    session: str | None = None,
    expires_in: int | timedelta | None = None,
    heartbeat: str | None = None,
    subprotocol: str | None = None,
    format: str | None = None,
    origins: Iterable[str] = (),
    slow: str | None = None,
) -> str:
    """The value of the ``WSRedis-Grant`` header: what one websocket may do. The rest is denied.

    ``subscribe``    channels it hears.
    ``publish``      channels its messages go to; without it they are dropped.
    ``sender``       any JSON value; its messages arrive as ``{"sender": …, "data": …}``, and the
                     browser cannot change it. None: they arrive as they were sent.
    ``echo``         whether it hears its own messages.
    ``user``, ``session``  opaque texts by which it can be found later.
    ``expires_in``   seconds (or a timedelta) until it is closed with 4401 and must ask again.
    ``heartbeat``    a text it is sent when nothing else was.
    ``subprotocol``  the one to choose; it must be among those the browser offers.
    ``format``       ``"auto"`` (text if it is UTF-8, else binary) or ``"binary"``.
    ``origins``      further allowed origins, such as ``https://example.com``.
    ``slow``         when it does not read: ``"close"``, or ``"latest"`` for only the newest message
                     of each channel.

    Raises ValueError for anything the engine would refuse.
    """
    fields: dict[str, Any] = {
        "subscribe": _channels("subscribe", subscribe),
        "publish": _channels("publish", publish),
        "sender": sender,
        "echo": _boolean("echo", echo),
        "user": _identity("user", user),
        "session": _identity("session", session),
        "expires_in": _seconds("expires_in", expires_in),
        "heartbeat": _text("heartbeat", heartbeat, MAX_HEARTBEAT),
        "subprotocol": _subprotocol(subprotocol),
        "format": _choice("format", format, "auto", "binary"),
        "origins": _origins(origins),
        "slow": _choice("slow", slow, "close", "latest"),
    }
    # A field that says nothing is left out, so that a header stays short and the default the
    # engine's. `sender` may well be 0 or "": only None means that there is none.
    said = {k: v for k, v in fields.items() if (v is not None if k == "sender" else v)}
    try:
        # ensure_ascii makes `é` and line breaks into escapes: no header can be smuggled in, and
        # no server re-encodes it. allow_nan=False because NaN is not JSON.
        text = json.dumps(said, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
        # Half a surrogate pair passes as an escape but is text nowhere else.
        json.dumps(said, ensure_ascii=False).encode()
        length = len(json.dumps(sender, separators=(",", ":")))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"the grant cannot be written as JSON: {error}") from error
    if length > MAX_SENDER:
        # It stands around every message of this socket.
        raise ValueError(f"sender has {length} bytes of JSON, more than {MAX_SENDER}")
    return text


def wsgi_grant(
    environ: Mapping[str, Any], start_response: Callable[..., Any], **fields: Any
) -> list[bytes]:
    """Answers a handshake with `answer`: ``return wsgi_grant(environ, start_response,
    subscribe=["news"])``. Other methods than GET get 405."""
    if environ["REQUEST_METHOD"] != "GET":
        start_response("405 Method Not Allowed", [("Allow", "GET"), ("Content-Length", "0")])
        return []
    body, status, headers = answer(**fields)
    text = body.encode()
    said = {200: "200 OK", 501: "501 Not Implemented"}[status]
    start_response(said, [*headers.items(), ("Content-Length", str(len(text)))])
    return [text] if text else []


def answer(**fields: Any) -> tuple[str, int, dict[str, str]]:
    """Body, status and headers of an answer with ``grant(**fields)``, in the order in which Flask
    takes them: ``return wsredis.answer(subscribe=["news"])``.

    Where the plugin is not loaded it is a 501 with the cure, and the grant, which may say more than
    a browser should know, stays here.
    """
    value = grant(**fields)
    if plugin_version() is None:
        kind = "text/plain; charset=utf-8"
        return NO_PLUGIN, 501, {"Content-Type": kind, "Cache-Control": "no-store"}
    return "", 200, {GRANT_HEADER: value, "Cache-Control": "no-store"}


def _channels(field: str, value: Iterable[str]) -> list[str]:
    try:
        # A dict keeps the order and drops a channel that is named twice.
        return list(dict.fromkeys(checked_channel(name) for name in _items(field, value)))
    except ValueError as error:
        raise ValueError(f"{field}: {error}") from None


def _items(field: str, value: object) -> list[Any]:
    # A string is an iterable of strings too: subscribe="news" would be four channels.
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise ValueError(f"must be a list, such as {field}=[…], not {value!r}")
    return list(value)


def _boolean(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{field} is True or False, not {value!r}")
    return value


def _text(field: str, value: object, most: int) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or not value:
        raise ValueError(f"{field} is a text that is not empty, not {value!r}")
    length = len(value.encode("utf-8", "replace"))
    if length > most:
        raise ValueError(f"{field} has {length} bytes, more than {most}")
    return value


def _identity(field: str, value: object) -> str | None:
    text = _text(field, value, MAX_IDENTITY)
    # It may stand in a log line.
    if text is not None and has_control(text):
        raise ValueError(f"{field} holds a control character: {text!r}")
    return text


def _seconds(field: str, value: object) -> int | None:
    if value is None:
        return None
    if isinstance(value, timedelta):
        # Rounded up: a grant of half a second must not become one of none.
        value = -int(-value.total_seconds() // 1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= MAX_EXPIRES_IN:
        raise ValueError(f"{field} is a whole number of seconds from now, above 0, not {value!r}")
    return value


def _subprotocol(value: object) -> str | None:
    text = _text("subprotocol", value, MAX_SUBPROTOCOL)
    if text is not None and not _TOKEN.issuperset(text):
        raise ValueError(f"subprotocol is one word without separators, not {text!r}")
    return text


def _choice(field: str, value: object, *choices: str) -> str | None:
    if value is None:
        return None
    if value not in choices:
        known = " or ".join(f'"{choice}"' for choice in choices)
        raise ValueError(f"{field} is {known}, not {value!r}")
    return str(value)


def _origins(value: Iterable[str]) -> list[str]:
    try:
        origins = list(dict.fromkeys(_items("origins", value)))
    except (ValueError, TypeError) as error:
        raise ValueError(f"origins: {error}") from None
    if len(origins) > MAX_ORIGINS:
        raise ValueError(f"origins lists {len(origins)}, more than {MAX_ORIGINS}")
    for origin in origins:
        if not isinstance(origin, str) or not ORIGIN.fullmatch(origin):
            raise ValueError(f"an origin reads https://example.com, without a path, not {origin!r}")
    return origins
