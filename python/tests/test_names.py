"""A name of a channel is the right one for everybody, whatever the names of people are."""

from __future__ import annotations

import json
from types import SimpleNamespace
from uuid import UUID

import pytest
import wsredis
from wsredis._names import named

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis is not installed")
from hypothesis import strategies  # noqa: E402

# Nothing is kept for another run, and on a busy machine nothing is too slow.
hypothesis.settings.register_profile("wsredis", database=None, deadline=None)
hypothesis.settings.load_profile("wsredis")

# Any text at all: control characters, half surrogate pairs, and longer than a channel may be.
NAMES = strategies.text(strategies.characters(exclude_categories=[]), min_size=1, max_size=400)


def test_the_common_names_are_readable():
    assert wsredis.user_channel(7) == "user:7"
    assert wsredis.user_channel("ann") == "user:ann"
    key = UUID("12345678-1234-5678-1234-567812345678")
    assert wsredis.user_channel(key) == f"user:{key}"
    assert wsredis.group_channel("chatters") == "group:chatters"
    assert wsredis.group_channel("the others: all") == "group:the%20others%3A%20all"
    assert wsredis.EVERYONE == "everyone"


def test_a_user_is_known_by_the_key_and_a_group_by_the_name():
    assert wsredis.user_channel(SimpleNamespace(pk=7)) == "user:7"
    assert wsredis.user_channel(SimpleNamespace(pk=("de", 7))) == named("user", "('de', 7)")
    assert wsredis.group_channel(SimpleNamespace(name="a")) == "group:a"


@hypothesis.given(NAMES)
def test_every_name_is_a_channel_that_a_grant_may_hold(name):
    for channel in (wsredis.user_channel(name), wsredis.group_channel(name)):
        assert channel.isascii() and channel.isprintable() and len(channel) <= 255
        assert json.loads(wsredis.grant(subscribe=[channel])) == {"subscribe": [channel]}


@hypothesis.given(NAMES, NAMES)
def test_two_names_never_share_a_channel(one, other):
    channels = {
        channel(name)
        for channel in (wsredis.user_channel, wsredis.group_channel)
        for name in (one, other)
    }
    assert len(channels) == (2 if one == other else 4)
    assert wsredis.EVERYONE not in channels


@pytest.mark.parametrize("length", range(80, 260))
def test_a_long_name_can_not_be_made_to_look_like_another_one(length):
    long = "é" * length
    channel = wsredis.user_channel(long)
    # Who goes by the digest of another's name is somebody else.
    assert wsredis.user_channel(channel.removeprefix("user:")) != channel
    assert wsredis.user_channel(long + "é") != channel


@pytest.mark.parametrize("key", [None, "", True, b"ann", 1.5, object(), SimpleNamespace(pk=None)])
def test_what_names_nobody_is_refused(key):
    with pytest.raises(ValueError):
        wsredis.user_channel(key)
    with pytest.raises(ValueError):
        wsredis.group_channel(getattr(key, "pk", key))
