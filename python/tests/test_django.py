"""In Django a handshake is an ordinary request, whatever middleware stands around it."""

from __future__ import annotations

import asyncio
import json

import pytest

pytest.importorskip("django", reason="Django is not installed: wsredis.django is NOT tested")

from asgiref.sync import sync_to_async  # noqa: E402
from django.contrib.auth.models import AnonymousUser  # noqa: E402
from django.contrib.staticfiles import finders  # noqa: E402
from django.core.exceptions import ImproperlyConfigured  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.test import AsyncClient, Client, RequestFactory  # noqa: E402
from django.urls import resolve  # noqa: E402
from django.utils.decorators import method_decorator  # noqa: E402
from django.views.generic import View  # noqa: E402
from wsredis.django import WebSocketGrant, session_digest, websocket  # noqa: E402


def granted(response) -> dict:
    assert response.status_code == 200, response.content
    return json.loads(response["WSRedis-Grant"])


# The same room as a function and as a class, each sync and async.
ROOMS = ["room", "async-room", "class-room", "async-class-room"]


@pytest.mark.parametrize("kind", ROOMS)
def test_a_user_is_granted_what_the_view_says(plugin, ann, kind):
    grant = granted(ann.get(f"/{kind}/lobby/"))
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


@pytest.mark.parametrize("kind", ROOMS)
def test_an_anonymous_user_is_told_401_and_not_sent_to_a_login_page(plugin, tables, kind):
    response = Client().get(f"/{kind}/lobby/")
    assert response.status_code == 401 and "WSRedis-Grant" not in response


@pytest.mark.parametrize("path", ["news", "class-news"])
def test_a_view_may_let_anonymous_users_in(plugin, tables, path):
    assert granted(Client().get(f"/{path}/")) == {"subscribe": ["news"]}


@pytest.mark.parametrize("kind", ROOMS)
def test_a_websocket_view_is_never_cached_and_is_let_through_to_its_401(plugin, tables, kind):
    response = Client().get(f"/{kind}/lobby/")
    assert "no-store" in response["Cache-Control"]
    view = resolve(f"/{kind}/lobby/").func
    assert view.login_required is False and view.websocket is view


def test_an_async_view_is_served_by_an_async_handler_too(plugin, ann):
    async def ask():
        client = AsyncClient()
        await sync_to_async(client.force_login)(ann.user)
        return await client.get("/async-room/lobby/")

    assert granted(asyncio.run(ask()))["sender"] == {"user": "ann"}


@pytest.mark.parametrize("kind", ROOMS)
def test_the_views_no_stays_the_views(plugin, ann, kind):
    assert ann.get(f"/{kind}/closed/").status_code == 403


def test_a_long_no_stays_the_views(plugin, tables):
    response = Client().get("/long-no/", headers={"accept-encoding": "gzip"})
    assert response.status_code == 403


@pytest.mark.parametrize("kind", ROOMS)
@pytest.mark.parametrize("method", ["post", "put", "head", "options", "delete"])
def test_only_get_reaches_the_view(plugin, ann, method, kind):
    response = getattr(ann, method)(f"/{kind}/lobby/")
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


def test_a_class_is_refused_where_it_is_written():
    with pytest.raises(TypeError, match="WebSocketMixin.*as_view"):

        @websocket
        class Room(View):
            pass


def test_a_method_decorator_is_fine_and_where_it_is_not_it_says_so(plugin):
    @method_decorator(websocket(anonymous=True), name="dispatch")
    class News(View):
        def get(self, request):
            return WebSocketGrant(request, subscribe=["news"])

    @method_decorator(websocket(anonymous=True), name="dispatch")
    class AsyncNews(View):
        async def get(self, request):
            return WebSocketGrant(request, subscribe=["news"])

    request = RequestFactory().get("/")
    assert granted(News.as_view()(request)) == {"subscribe": ["news"]}
    with pytest.raises(TypeError, match="WebSocketMixin"):
        AsyncNews.as_view()(request)


def test_the_browsers_script_is_a_static_file_of_the_app():
    assert finders.find("wsredis/wsredis.js")
