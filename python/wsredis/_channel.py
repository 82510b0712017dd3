"""Channel names: the one rule that grants and publishing share.

It is the engine's own rule, checked here too so that a wrong name is an exception with a
traceback in the app and not a refused handshake with a line in a log.
"""

from __future__ import annotations

import unicodedata

# The engine's limit, in bytes of UTF-8.
MAX_CHANNEL = 255


def checked_channel(channel: object) -> str:
    """`channel`, if it is a valid channel name.

    Raises ValueError with the reason otherwise.
    """
    if not isinstance(channel, str):
        raise ValueError(f"a channel name is text, not {type(channel).__name__}: {channel!r}")
    if not channel:
        raise ValueError("a channel name is empty")
    try:
        length = len(channel.encode())
    except UnicodeEncodeError:
        raise ValueError(f"channel name {channel!r} has no UTF-8 form") from None
    if length > MAX_CHANNEL:
        raise ValueError(
            f"channel name {channel[:40]!r}… has {length} bytes, more than {MAX_CHANNEL}"
        )
    if has_control(channel):
        raise ValueError(f"channel name {channel!r} holds a control character")
    if channel.startswith("__"):
        # Redis' keyspace notifications and the engine's own channels begin like this.
        raise ValueError(f"channel name {channel!r} begins with '__', which is reserved")
    return channel


def has_control(text: str) -> bool:
    """Whether `text` holds a control character: a line break, a NUL, an escape."""
    return any(unicodedata.category(character) == "Cc" for character in text)
