"""In Django a handshake is an ordinary request, whatever middleware stands around it."""

from __future__ import annotations

import json
from datetime import date

import pytest

pytest.importorskip("django", reason="Django is not installed: wsredis.django is NOT tested")

import wsredis  # noqa: E402
from django.contrib.auth.models import AnonymousUser, User  # noqa: E402
from django.contrib.staticfiles import finders  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import Client, RequestFactory, override_settings  # noqa: E402
from wsredis import _publish  # noqa: E402
from wsredis.django import (  # noqa: E402
    WebSocketGrant,
    publish,
    publish_on_commit,
    session_digest,
    websocket,
)


@pytest.fixture(scope="module", autouse=True)
def tables():
    call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture
def ann():
    user = User.objects.create_user("ann", password="pw")
    client = Client()
    client.force_login(user)
    client.user = user
    yield client
    user.delete()


def granted(response) -> dict:
    assert response.status_code == 200, response.content
    return json.loads(response["WSRedis-Grant"])


def test_a_user_is_granted_what_the_view_says(plugin, ann):
    grant = granted(ann.get("/room/lobby/"))
    session = grant.pop("session")
    assert grant == {
        "subscribe": ["room:lobby"],
        "publish": ["room:lobby"],
        "sender": {"user": "ann"},
        "user": str(ann.user.pk),
    }
    assert len(session) == 64 and ann.session.session_key not in session


def test_the_same_session_has_the_same_digest_and_another_one_another(plugin, ann):
    first = granted(ann.get("/room/a/"))["session"]
    assert granted(ann.get("/room/b/"))["session"] == first
    other = Client()
    other.force_login(ann.user)
    assert granted(other.get("/room/a/"))["session"] != first


def test_an_anonymous_user_is_told_401_and_not_sent_to_a_login_page(plugin):
    response = Client().get("/room/lobby/")
    assert response.status_code == 401 and "WSRedis-Grant" not in response


def test_a_view_may_let_anonymous_users_in(plugin):
    assert granted(Client().get("/news/")) == {"subscribe": ["news"]}


def test_the_views_no_stays_the_views(plugin, ann):
    assert ann.get("/room/closed/").status_code == 403
    response = Client().get("/long-no/", headers={"accept-encoding": "gzip"})
    assert response.status_code == 403


@pytest.mark.parametrize("method", ["post", "put", "head", "options", "delete"])
def test_only_get_reaches_the_view(plugin, ann, method):
    response = getattr(ann, method)("/room/lobby/")
    assert response.status_code == 405 and "WSRedis-Grant" not in response


def test_a_grant_is_never_cached_nor_turned_into_a_304(plugin, ann):
    response = ann.get("/room/lobby/", headers={"accept-encoding": "gzip", "if-none-match": "*"})
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"] and "private" in response["Cache-Control"]
    assert "Content-Encoding" not in response and response.content == b""
    ann.logout()
    assert ann.get("/room/lobby/").status_code == 401


def test_a_view_may_set_a_cookie(plugin):
    @websocket(anonymous=True)
    def view(request):
        response = WebSocketGrant(request, subscribe=["a"])
        response.set_cookie("seen", "1")
        return response

    assert view(RequestFactory().get("/")).cookies["seen"].value == "1"


def test_without_the_plugin_the_grant_stays_here_and_the_cure_is_said(ann):
    response = ann.get("/room/lobby/")
    assert response.status_code == 501 and "WSRedis-Grant" not in response
    assert b"need-plugin" in response.content
    assert json.loads(response.grant)["publish"] == ["room:lobby"]


ORIGINS = [
    # Origin, Host, whether the grant names it
    ("https://trusted.example", "site.example", True),
    ("https://a.wild.example", "site.example", True),
    ("https://wild.example", "site.example", True),
    ("http://site.example", "site.example", True),
    ("http://trusted.example", "site.example", False),
    ("https://evil.example", "site.example", False),
    ("https://evilwild.example", "site.example", False),
    ("https://trusted.example.evil.example", "site.example", False),
    ("https://evil@trusted.example", "site.example", False),
    ("https://trusted.example/", "site.example", False),
    ("https://[", "site.example", False),
    ("null", "site.example", False),
    ("http://stranger.example", "stranger.example", False),
    ("https://trusted.example", "stranger.example", True),
]


@pytest.mark.parametrize(("origin", "host", "named"), ORIGINS)
def test_an_origin_is_allowed_as_djangos_csrf_check_would(plugin, origin, host, named):
    request = RequestFactory().get("/", headers={"origin": origin, "host": host})
    grant = json.loads(WebSocketGrant(request, origins=["https://always.example"]).grant)
    expected = ["https://always.example"] + ([origin] if named else [])
    assert grant["origins"] == expected


def test_what_the_view_says_comes_before_what_the_request_says(plugin, ann):
    request = RequestFactory().get("/")
    request.user, request.session = ann.user, ann.session
    grant = json.loads(WebSocketGrant(request, user="u", session=None, sender=["x"]).grant)
    assert grant == {"user": "u", "sender": ["x"]}


def test_nobody_cannot_be_the_sender(plugin):
    request = RequestFactory().get("/")
    for request.user in (None, AnonymousUser()):
        with pytest.raises(ValueError, match="sender"):
            WebSocketGrant(request, publish=["a"], sender=True)


def test_a_request_without_a_session_has_no_digest():
    assert session_digest(RequestFactory().get("/")) is None


def test_a_site_without_users_is_told_what_to_do():
    view = websocket(lambda request: HttpResponse())
    with pytest.raises(ImproperlyConfigured, match="anonymous=True"):
        view(RequestFactory().get("/"))


def test_an_async_view_is_refused_where_it_is_written():
    async def view(request):
        return HttpResponse()

    with pytest.raises(TypeError, match="async"):
        websocket(view)


def test_the_browsers_script_is_a_static_file_of_the_app():
    assert finders.find("wsredis/wsredis.js")


@pytest.fixture
def published(monkeypatch):
    sent: list[tuple] = []
    monkeypatch.setattr(_publish, "_publish_redis", lambda *message: sent.append(message))
    return sent


@override_settings(WSREDIS_REDIS_URL="redis://a", WSREDIS_CHANNEL_PREFIX="p:")
def test_publish_reads_the_settings(published):
    publish("news", {"day": date(2026, 1, 2)})
    assert published == [("redis://a", "p:news", b'{"day": "2026-01-02"}')]


def test_publish_reads_the_environment_where_no_setting_is(published, monkeypatch):
    monkeypatch.setenv("WSREDIS_REDIS_URL", "redis://b")
    publish("news", "x")
    assert published == [("redis://b", "news", b"x")]


def test_publish_without_a_broker_is_no_silence():
    with pytest.raises(wsredis.NotReachable):
        publish("news", "x")


@override_settings(WSREDIS_REDIS_URL="redis://a")
def test_on_commit_publishes_what_the_message_was_then_and_only_after_the_commit(published):
    message = {"n": 1}
    with transaction.atomic():
        publish_on_commit("news", message)
        message["n"] = 2
        assert published == []
    assert published == [("redis://a", "news", b'{"n": 1}')]


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
