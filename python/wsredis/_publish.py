"""Publishing: messages to everybody who hears their channels.

Here they are checked and written out; `_broker` has where they go.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Callable, Union

from ._broker import Message, Place
from ._channel import checked_channel

# The longest that a value is retained: a year.
MAX_RETAIN = 365 * 86_400

Channels = Union[str, Iterable[str]]
Retain = Union[int, timedelta, None]


def publish(
    channel: Channels,
    message: Any,
    *,
    retain: Retain = None,
    exclude: str | None = None,
    url: str | None = None,
    prefix: str | None = None,
) -> None:
    """Publishes `message` to everybody who hears `channel`, which may be a list of channels.

    Text and bytes go as they are, anything else as JSON. (A page that speaks ``wsredis.v1`` gets
    text that is JSON as its value.)

    ``retain``   seconds (or a timedelta) for which it also is the channel's retained value, written
                 at the same instant. It needs Redis.
    ``exclude``  the id of a socket that is not to get it. No engine can do that yet: it raises.
    ``url``, ``prefix``  where to, instead of the environment's ``WSREDIS_REDIS_URL`` and
                 ``WSREDIS_CHANNEL_PREFIX``. Without a URL the engine of this process or of this
                 uWSGI gets the message.

    Several channels, and a retained value with its message, are one transaction on Redis. It is
    given up after 3 s (`TIMEOUT`) at most, whatever state Redis is in.

    Raises ValueError for a wrong channel name, TypeError for a message that is no JSON,
    NotReachable without a broker, PublishError when the broker did not take it. After either of
    these two the message was not published, or (a timeout) it may have been.
    """
    send(Place(url, prefix), to_channels(channel, message, retain, exclude))


def publish_many(
    messages: Iterable[tuple[str, Any]],
    *,
    retain: Retain = None,
    url: str | None = None,
    prefix: str | None = None,
) -> None:
    """Publishes pairs of a channel and a message: in one go, in their order, and on Redis all of
    them or none. Otherwise as `publish`."""
    send(Place(url, prefix), to_pairs(messages, retain))


async def apublish(
    channel: Channels,
    message: Any,
    *,
    retain: Retain = None,
    exclude: str | None = None,
    url: str | None = None,
    prefix: str | None = None,
) -> None:
    """`publish`, for coroutines: the event loop goes on while Redis is waited for."""
    await asend(Place(url, prefix), to_channels(channel, message, retain, exclude))


# ---- what the three are made of ----


def to_channels(
    channel: Channels,
    message: Any,
    retain: Retain,
    exclude: str | None,
    encode: Callable[[Any], str] = json.dumps,
) -> list[Message]:
    """One message to each of the channels, checked."""
    if exclude is not None:
        raise NotImplementedError(
            "exclude= needs an engine that hears a control channel, which none does yet. "
            "Cure: send who wrote it in the message, and let the page ignore its own"
        )
    payload, seconds = to_bytes(message, encode), retained(retain)
    channels = _channels(channel)
    return [Message(checked_channel(name), payload, seconds) for name in channels]


def to_pairs(
    messages: Iterable[tuple[str, Any]],
    retain: Retain,
    encode: Callable[[Any], str] = json.dumps,
) -> list[Message]:
    """Each message to its channel, checked."""
    seconds = retained(retain)
    return [
        Message(checked_channel(channel), to_bytes(message, encode), seconds)
        for channel, message in messages
    ]


def send(place: Place, messages: list[Message]) -> None:
    # Nobody has to be there to be told nothing.
    if messages:
        place.broker().send(messages)


async def asend(place: Place, messages: list[Message]) -> None:
    if not messages:
        return
    broker = place.broker()
    if broker.waits:
        # A thread, and not a connection of this event loop: under WSGI every async view has a
        # loop of its own, which would end with a connection in its hands.
        await asyncio.to_thread(broker.send, messages)
    else:
        broker.send(messages)


def to_bytes(message: Any, encode: Callable[[Any], str] = json.dumps) -> bytes:
    """The payload of a message: text and bytes as they are, anything else through `encode`."""
    if isinstance(message, (bytes, bytearray, memoryview)):
        return bytes(message)
    return (message if isinstance(message, str) else encode(message)).encode()


def retained(retain: Retain) -> int | None:
    """The seconds that `retain` says."""
    if isinstance(retain, timedelta):
        # Rounded up: half a second must not become none.
        retain = -int(-retain.total_seconds() // 1)
    if retain is None:
        return None
    if isinstance(retain, bool) or not isinstance(retain, int) or not 0 < retain <= MAX_RETAIN:
        raise ValueError(f"retain is a whole number of seconds, above 0, not {retain!r}")
    return retain


def _channels(channel: Channels) -> list[str]:
    if isinstance(channel, str):
        return [channel]
    if isinstance(channel, (bytes, Mapping)) or not isinstance(channel, Iterable):
        raise ValueError(f"a channel name is text, or there is a list of them, not {channel!r}")
    # A dict keeps the order and drops a channel that is named twice.
    return list(dict.fromkeys(channel))
