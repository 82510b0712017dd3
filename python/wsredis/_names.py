"""Names of channels for people, groups and everybody.

A name says whose channel it is, whatever the primary key or the group's name looks like: what is
no letter, digit or one of ``_.-~`` is percent-encoded, and what would be longer than a channel's
name may be is a digest. Two different users never share a channel.
"""

from __future__ import annotations

import hashlib
from typing import Any
from urllib.parse import quote
from uuid import UUID

from ._channel import MAX_CHANNEL

# For what concerns all. A grant lists it like any other channel.
EVERYONE = "everyone"


def user_channel(user: Any) -> str:
    """The channel of one user: of a Django user, or of a primary key (number, text, UUID)."""
    key = getattr(user, "pk", user)
    if key is None:
        raise ValueError(f"{user!r} has no primary key: it is anonymous, or was not saved yet")
    # Whatever a model's key is, its text is what tells two of them apart.
    return named("user", _text(key) if key is user else str(key))


def group_channel(group: Any) -> str:
    """The channel of one group: of a Django group, or of its name."""
    return named("group", _text(getattr(group, "name", group)))


def named(kind: str, name: str) -> str:
    """The channel ``kind:name``, with `name` escaped. No two names have the same."""
    if not name:
        raise ValueError(f"the name of a {kind} is empty")
    # Half a surrogate pair has no UTF-8, but it can stand in a name, and then it must not fail.
    raw = name.encode("utf-8", "surrogatepass")
    channel = f"{kind}:{quote(raw, safe='')}"
    if len(channel) > MAX_CHANNEL:
        # Nothing that is escaped holds a '#'.
        channel = f"{kind}:#{hashlib.sha256(raw).hexdigest()}"
    return channel


def _text(key: object) -> str:
    # True is an int and bytes have a text, and neither is what somebody meant.
    if isinstance(key, bool) or not isinstance(key, (str, int, UUID)):
        raise ValueError(f"a text, a number or a UUID names a channel, not {key!r}")
    return str(key)
