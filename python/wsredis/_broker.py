"""Brokers: where a message goes so that every browser gets it.

Redis if a URL is known; else the engine of this process, if it has one (`runserver`); else, inside
uWSGI, the plugin's engine, by RPC. A broker takes what it is given whole or raises: it never does
nothing in silence, and never makes anybody wait for longer than `TIMEOUT`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol
from urllib.parse import parse_qsl, urlencode, urlsplit

if TYPE_CHECKING:
    from ._engine import Engine

# A view must not hang because Redis is frozen or its machine gone. A third of this each for: the
# connection's turn, connecting, an answer.
TIMEOUT = 3.0

# Before the name of a key that holds a channel's retained value, as `key-prefix` of the engine.
KEY_PREFIX = "wsredis:"

# uWSGI's RPC counts lengths in 16 bits and arguments in 8, and cuts what is longer without a word.
# Two arguments are the channel and the length.
RPC_PART = 60_000
RPC_MAX = RPC_PART * (254 - 2)


class PublishError(Exception):
    """The message was not published, or it is not known to be: the text says why."""


class NotReachable(PublishError):
    """There is no broker that this process could reach; the text has the cure."""


class Message(NamedTuple):
    """What a broker is given: checked, and as bytes."""

    channel: str
    payload: bytes
    # Seconds for which it is the channel's retained value; None: it is not.
    retain: int | None


class Broker(Protocol):
    # Whether `send` waits for somebody else, and so is nothing for an event loop.
    waits: bool

    def send(self, messages: Sequence[Message]) -> None:
        """Publishes all of them in their order, or raises PublishError."""


@dataclass(frozen=True)
class Place:
    """Where an app says that its messages go. None: the environment says."""

    url: str | None = None
    channel_prefix: str | None = None
    key_prefix: str | None = None

    def broker(self) -> Broker:
        """The broker for it. Raises NotReachable where there is none."""
        if _installed:
            return _installed[-1]
        url = self.url or os.environ.get("WSREDIS_REDIS_URL")
        if url:
            return RedisBroker(
                url,
                _said(self.channel_prefix, "WSREDIS_CHANNEL_PREFIX", ""),
                _said(self.key_prefix, "WSREDIS_KEY_PREFIX", KEY_PREFIX),
            )
        return _own_engine[-1] if _own_engine else _rpc_broker()


# What takes every message instead, the last one first: the outbox of a test.
_installed: list[Broker] = []

# The engine that this process runs by itself.
_own_engine: list[Broker] = []


def install(broker: Broker) -> None:
    """From now on `broker` takes every message, until it is removed."""
    _installed.append(broker)


def remove(broker: Broker) -> None:
    _installed.remove(broker)


def own(engine: Engine) -> None:
    """`engine` is this process's own: it takes the messages where there is no Redis."""
    _own_engine[:] = [EngineBroker(engine)]


def _said(setting: str | None, variable: str, default: str) -> str:
    return os.environ.get(variable, default) if setting is None else setting


# ---- Redis ----

# By process and URL. No lock, which a fork could catch in a locked state: setdefault is atomic, and
# a client that two threads make at once is one too many for a moment. A child finds none of its
# own and makes one; uWSGI forks without telling Python, so the process id has to tell.
_clients: dict[tuple[int, str], Any] = {}


class RedisBroker:
    """A Redis, on one connection of this process."""

    waits = True

    def __init__(self, url: str, channel_prefix: str, key_prefix: str) -> None:
        self.url = url
        self.channel_prefix = channel_prefix
        # The channel prefix stands before everything: it is what keeps sites apart.
        self.key_prefix = f"{channel_prefix}{key_prefix}last:"

    def send(self, messages: Sequence[Message]) -> None:
        try:
            import redis
        except ImportError:
            raise NotReachable(
                "publishing to Redis needs redis-py. Cure: pip install 'wsredis[redis]'"
            ) from None
        try:
            self._send(client(self.url), messages)
        except (redis.ConnectionError, redis.TimeoutError) as error:
            # Not tried again: the first try may have arrived, and nobody wants a message twice.
            raise NotReachable(
                f"Redis at {masked(self.url)} cannot be reached: {error}. "
                "Cure: start it, or correct WSREDIS_REDIS_URL"
            ) from error
        except (redis.RedisError, OSError) as error:
            raise PublishError(
                f"Redis at {masked(self.url)} refused the message: {error}"
            ) from error

    def _send(self, redis: Any, messages: Sequence[Message]) -> None:
        if len(messages) == 1 and messages[0].retain is None:
            redis.publish(self.channel_prefix + messages[0].channel, messages[0].payload)
            return
        # One MULTI: all or none, and the retained value never differs from what was published.
        with redis.pipeline(transaction=True) as pipeline:
            for channel, payload, retain in messages:
                if retain is not None:
                    pipeline.set(self.key_prefix + channel, payload, ex=retain)
                pipeline.publish(self.channel_prefix + channel, payload)
            pipeline.execute()


def client(url: str) -> Any:
    """The client of this process for `url`. Raises NotReachable for what is no URL of Redis."""
    place = (os.getpid(), url)
    return _clients.get(place) or _clients.setdefault(place, _new_client(url))


def _new_client(url: str) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    try:
        # One connection, waited for like Redis itself: more threads than that are rarely in a
        # PUBLISH of a tenth of a millisecond, and a frozen Redis must not collect connections.
        pool = redis.BlockingConnectionPool.from_url(
            _dialect(url),
            max_connections=1,
            timeout=TIMEOUT / 3,
            socket_timeout=TIMEOUT / 3,
            socket_connect_timeout=TIMEOUT / 3,
            # redis-py's own default is to try three times more.
            retry=Retry(NoBackoff(), 0),
        )
    except ValueError as error:
        raise NotReachable(f"{masked(url)} is no Redis URL: {error}") from None
    return redis.Redis(connection_pool=pool)


def _dialect(url: str) -> str:
    """`url` as redis-py writes it: the plugin and the app must be content with the same one."""
    if "://" not in url:
        return url
    parts = urlsplit(url)
    scheme = {
        "valkey": "redis",
        "valkeys": "rediss",
        "redis+unix": "unix",
        "valkey+unix": "unix",
    }.get(parts.scheme, parts.scheme)
    names = {"user": "username", "pass": "password"}
    query = urlencode([(names.get(name, name), value) for name, value in parse_qsl(parts.query)])
    # Not urlunsplit: it would write unix:/path, which redis-py does not know.
    return f"{scheme}://{parts.netloc}{parts.path}" + (f"?{query}" if query else "")


def masked(url: str) -> str:
    """`url` without its password, for people to read."""
    scheme, separator, rest = url.partition("://")
    credentials, at, place = rest.rpartition("@")
    user = credentials.partition(":")[0]
    place = place.partition("?")[0]
    return f"{scheme}{separator}{user}:***@{place}" if at else f"{scheme}{separator}{place}"


# ---- engines ----


class _OneByOne:
    """A broker that takes one message at a time, at once, and keeps none."""

    waits = False

    def send(self, messages: Sequence[Message]) -> None:
        if any(message.retain is not None for message in messages):
            raise PublishError(
                "retain= needs Redis: the engine's own broker keeps no values. Cure: set "
                "WSREDIS_REDIS_URL, and the plugin's wsredis-redis-url to the same"
            )
        for sent, message in enumerate(messages):
            try:
                self.send_one(message.channel, message.payload)
            except PublishError as error:
                if sent == 0:
                    raise
                text = f"{error} ({sent} of {len(messages)} messages before it were published)"
                raise type(error)(text) from error

    def send_one(self, channel: str, payload: bytes) -> None:
        raise NotImplementedError


class EngineBroker(_OneByOne):
    """An engine in this very process."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def send_one(self, channel: str, payload: bytes) -> None:
        from ._engine import EngineError

        try:
            self.engine.publish(channel, payload)
        except EngineError as error:
            raise PublishError(f"the engine did not take the message: {error}") from error


class _RpcBroker(_OneByOne):
    """The engine that uWSGI's plugin reaches."""

    def __init__(self, uwsgi: Any) -> None:
        self.uwsgi = uwsgi

    def send_one(self, channel: str, payload: bytes) -> None:
        length = len(payload)
        if length > RPC_MAX:
            raise PublishError(f"the message has {length} bytes; the RPC carries at most {RPC_MAX}")
        parts = [payload[at : at + RPC_PART] for at in range(0, length, RPC_PART)]
        # Everything is bytes: uWSGI takes text by its number of characters.
        answer = self.uwsgi.call(b"wsredis-publish", channel.encode(), str(length).encode(), *parts)
        if answer != b"ok":
            reason = answer.decode("utf-8", "replace") if answer else "the plugin did not answer"
            reason = reason[7:] if reason.startswith("error: ") else reason
            raise PublishError(f"the engine did not take the message: {reason}")


def _rpc_broker() -> Broker:
    try:
        # The module exists only inside a uWSGI process.
        import uwsgi
    except ImportError:
        raise NotReachable(
            "no broker: WSREDIS_REDIS_URL is not set, and this process is not uWSGI. "
            "Cure: set it to what the plugin's wsredis-redis-url says, such as "
            "redis://127.0.0.1:6379. The embedded broker is reached from inside uWSGI only"
        ) from None
    if "WSREDIS_VERSION" not in os.environ:
        raise NotReachable(
            "no broker: WSREDIS_REDIS_URL is not set, and uWSGI runs without the wsredis plugin. "
            "Cure: need-plugin = /path/to/wsredis_plugin.so"
        )
    return _RpcBroker(uwsgi)
