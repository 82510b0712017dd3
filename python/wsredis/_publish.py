"""Publishing: one message to everybody who hears a channel.

Where it goes: to Redis, if a URL is known; else, inside uWSGI, to the engine of this process by
the plugin's RPC. It either hands the whole message over or raises: it never publishes a part and
never does nothing in silence. One pool of connections per URL and process, made at first need.
"""

from __future__ import annotations

import json
import os
from typing import Any, Callable
from urllib.parse import parse_qsl, urlencode, urlsplit

from ._channel import checked_channel

# A view must not hang because Redis is frozen. Connecting and answering have this much each.
TIMEOUT = 2.0

# uWSGI's RPC counts lengths in 16 bits and arguments in 8, and cuts what is longer without a word.
# Two arguments are the channel and the length.
RPC_PART = 60_000
RPC_MAX = RPC_PART * (254 - 2)

# By URL. No lock, which a fork could catch in a locked state: setdefault is atomic, and a client
# that two threads make at once is one too many for a moment.
_clients: dict[str, Any] = {}


class PublishError(Exception):
    """The message was not published, or it is not known to be: the text says why."""


class NotReachable(PublishError):
    """There is no broker that this process could reach; the text has the cure."""


def publish(
    channel: str, message: Any, *, url: str | None = None, prefix: str | None = None
) -> None:
    """Publishes `message` to everybody who hears `channel`.

    Text and bytes go as they are, anything else as JSON. (A page that speaks ``wsredis.v1`` gets
    text that is JSON as its value.) `url` and `prefix` default to the
    environment's ``WSREDIS_REDIS_URL`` and ``WSREDIS_CHANNEL_PREFIX``. Without a URL, inside
    uWSGI, the plugin's own engine gets the message.

    Raises ValueError for a wrong channel name, TypeError for a message that is no JSON,
    NotReachable without a broker, PublishError when the broker did not take it.
    """
    checked_channel(channel)
    payload = to_bytes(message)
    url = url or os.environ.get("WSREDIS_REDIS_URL")
    if url:
        if prefix is None:
            prefix = os.environ.get("WSREDIS_CHANNEL_PREFIX", "")
        _publish_redis(url, prefix + channel, payload)
    else:
        _publish_rpc(channel, payload)


def to_bytes(message: Any, encode: Callable[[Any], str] = json.dumps) -> bytes:
    """The payload of a message: text and bytes as they are, anything else through `encode`."""
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    return (message if isinstance(message, str) else encode(message)).encode()


def _publish_redis(url: str, channel: str, payload: bytes) -> None:
    try:
        import redis
    except ImportError:
        raise NotReachable(
            "publishing to Redis needs redis-py. Cure: pip install 'wsredis[redis]'"
        ) from None
    try:
        _client(url).publish(channel, payload)
    except (redis.ConnectionError, redis.TimeoutError) as error:
        # Not tried again: the first try may have arrived, and nobody wants a message twice.
        raise NotReachable(
            f"Redis at {masked(url)} cannot be reached: {error}. "
            "Cure: start it, or correct WSREDIS_REDIS_URL"
        ) from error
    except (redis.RedisError, OSError) as error:
        raise PublishError(f"Redis at {masked(url)} refused the message: {error}") from error


def _client(url: str) -> Any:
    # After a fork redis-py's pool lets go of the parent's connection and makes its own.
    return _clients.get(url) or _clients.setdefault(url, _new_client(url))


def _new_client(url: str) -> Any:
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    import redis

    try:
        # One connection, waited for like Redis itself: more threads than that are rarely in a
        # PUBLISH of a tenth of a millisecond, and a frozen Redis must not collect connections.
        pool = redis.BlockingConnectionPool.from_url(
            _dialect(url),
            max_connections=1,
            timeout=TIMEOUT,
            socket_timeout=TIMEOUT,
            socket_connect_timeout=TIMEOUT,
            # redis-py's own default is to try three times more: 2 s would become 8.
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


def _publish_rpc(channel: str, payload: bytes) -> None:
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
    if len(payload) > RPC_MAX:
        raise PublishError(
            f"the message has {len(payload)} bytes; the RPC carries at most {RPC_MAX}"
        )
    parts = [payload[at : at + RPC_PART] for at in range(0, len(payload), RPC_PART)]
    # Everything is bytes: uWSGI takes text by its number of characters.
    answer = uwsgi.call(b"wsredis-publish", channel.encode(), str(len(payload)).encode(), *parts)
    if answer != b"ok":
        reason = answer.decode("utf-8", "replace") if answer else "the plugin did not answer"
        reason = reason[7:] if reason.startswith("error: ") else reason
        raise PublishError(f"the engine did not take the message: {reason}")
