"""Publishing from Django: where the settings say, and with the transaction."""

from __future__ import annotations

import asyncio
from datetime import date

import pytest

pytest.importorskip("django", reason="Django is not installed: wsredis.django is NOT tested")

import wsredis  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.contrib.sessions.backends.db import SessionStore  # noqa: E402
from django.contrib.sessions.backends.signed_cookies import (  # noqa: E402
    SessionStore as CookieStore,
)
from django.db import connection, transaction  # noqa: E402
from django.test import RequestFactory, override_settings  # noqa: E402
from wsredis import _broker  # noqa: E402
from wsredis.django import (  # noqa: E402
    apublish,
    publish,
    publish_many,
    publish_on_commit,
    session_channel,
    session_digest,
    user_channel,
)


@pytest.fixture
def published(monkeypatch):
    """What would have gone to Redis: (URL, channel, payload), or with the retained value's key."""
    sent: list[tuple] = []

    def send(broker, messages):
        for channel, payload, retain in messages:
            key = [] if retain is None else [broker.key_prefix + channel, retain]
            sent.append((broker.url, broker.channel_prefix + channel, payload, *key))

    monkeypatch.setattr(_broker.RedisBroker, "send", send)
    return sent


@override_settings(WSREDIS_REDIS_URL="redis://a", WSREDIS_CHANNEL_PREFIX="p:")
def test_publish_reads_the_settings(published):
    publish("news", {"day": date(2026, 1, 2)})
    assert published == [("redis://a", "p:news", b'{"day": "2026-01-02"}')]


@override_settings(
    WSREDIS_REDIS_URL="redis://a", WSREDIS_CHANNEL_PREFIX="p:", WSREDIS_KEY_PREFIX="k:"
)
def test_a_retained_value_has_both_prefixes(published):
    publish("news", "x", retain=60)
    assert published == [("redis://a", "p:news", b"x", "p:k:last:news", 60)]


def test_publish_reads_the_environment_where_no_setting_is(published, monkeypatch):
    monkeypatch.setenv("WSREDIS_REDIS_URL", "redis://b")
    publish("news", "x")
    assert published == [("redis://b", "news", b"x")]


@override_settings(WSREDIS_REDIS_URL="redis://a", WSREDIS_CHANNEL_PREFIX="")
def test_an_empty_prefix_of_the_settings_wins_over_the_environment(published, monkeypatch):
    monkeypatch.setenv("WSREDIS_CHANNEL_PREFIX", "p:")
    publish("news", "x")
    assert published == [("redis://a", "news", b"x")]


@override_settings(WSREDIS_REDIS_URL="redis://a")
def test_the_others_publish_as_publish_does(published):
    asyncio.run(apublish(["a", "b"], {"day": date(2026, 1, 2)}))
    publish_many([("a", 1), ("b", date(2026, 1, 2))])
    assert published == [
        ("redis://a", "a", b'{"day": "2026-01-02"}'),
        ("redis://a", "b", b'{"day": "2026-01-02"}'),
        ("redis://a", "a", b"1"),
        ("redis://a", "b", b'"2026-01-02"'),
    ]


def test_publish_without_a_broker_is_no_silence():
    for attempt in (
        lambda: publish("news", "x"),
        lambda: publish_many([("news", "x")]),
        lambda: asyncio.run(apublish("news", "x")),
    ):
        with pytest.raises(wsredis.NotReachable, match="WSREDIS_REDIS_URL"):
            attempt()


@override_settings(WSREDIS_REDIS_URL="redis://a")
def test_on_commit_publishes_what_the_message_was_then_and_only_after_the_commit(published):
    message = {"n": 1}
    with transaction.atomic():
        publish_on_commit(["news", "more"], message, retain=5)
        message["n"] = 2
        assert published == []
    key = "wsredis:last:"
    assert published == [
        ("redis://a", "news", b'{"n": 1}', key + "news", 5),
        ("redis://a", "more", b'{"n": 1}', key + "more", 5),
    ]


@override_settings(WSREDIS_REDIS_URL="redis://a")
def test_on_commit_publishes_nothing_after_a_rollback(published):
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        publish_on_commit("news", "x")
        raise ZeroDivisionError
    assert published == [] and connection.get_autocommit()


def test_on_commit_refuses_at_once_what_it_could_never_publish(published):
    with transaction.atomic():
        with pytest.raises(ValueError):
            publish_on_commit("__news", "x")
        with pytest.raises(TypeError):
            publish_on_commit("news", {"a": object()})
        with pytest.raises(ValueError):
            publish_on_commit("news", "x", retain=-1)


def test_a_robust_publish_that_fails_is_logged_and_stops_nothing(caplog):
    with transaction.atomic():
        publish_on_commit("news", "x", robust=True)
    assert "no broker" in caplog.text


# ---- whose channel ----


def test_a_users_channel_is_the_users_whether_asked_by_user_or_key(tables):
    user = User.objects.create_user("zoë")
    try:
        assert user_channel(user) == user_channel(user.pk) == f"user:{user.pk}"
    finally:
        user.delete()
    with pytest.raises(ValueError, match="no primary key"):
        user_channel(User(username="ann"))


def test_a_sessions_channel_is_its_own_and_does_not_tell_its_key(tables):
    session, other = SessionStore(), SessionStore()
    session.create()
    other.create()
    request = RequestFactory().get("/")
    request.session = session
    channel = session_channel(request)
    assert channel == session_channel(session) == f"session:{session_digest(request)}"
    assert channel != session_channel(other) and session.session_key not in channel


def test_a_session_without_a_key_that_stays_has_no_channel():
    with pytest.raises(ValueError, match="save"):
        session_channel(SessionStore())
    with pytest.raises(ValueError, match="Middleware"):
        session_channel(RequestFactory().get("/"))
    cookie = CookieStore()
    cookie["a"] = 1
    cookie.save()
    with pytest.raises(ValueError, match="SESSION_ENGINE"):
        session_channel(cookie)


@pytest.mark.parametrize("path", ["post", "async-post"])
def test_views_of_both_kinds_publish(ann, wsredis_outbox, path):
    assert ann.get(f"/{path}/lobby/?text=hello").status_code == 204
    assert wsredis_outbox.on("room:lobby") == [{"text": "hello"}]
