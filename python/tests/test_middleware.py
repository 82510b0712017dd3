"""What stands around a view does not break a handshake, and what does is said to."""

from __future__ import annotations

import json

import pytest

django = pytest.importorskip(
    "django", reason="Django is not installed: wsredis.django is NOT tested"
)

from django.conf import settings  # noqa: E402
from django.conf.urls.i18n import i18n_patterns  # noqa: E402
from django.db import connection, transaction  # noqa: E402
from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from urls import news, urlpatterns  # noqa: E402
from wsredis.django import publish_on_commit  # noqa: E402

# What a browser's handshake carries besides; gzip and the validators are what middleware looks at.
HANDSHAKE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
    "Origin": "http://testserver",
    "Accept-Encoding": "gzip, deflate, br",
    "Accept-Language": "de,en;q=0.5",
    "Cache-Control": "no-cache",
}


class Translated:
    """A URLconf with the views below a language's prefix, too."""

    urlpatterns = [*urlpatterns, *i18n_patterns(path("translated/", news))]


def handshake(client, url, **more):
    return client.get(url, headers={**HANDSHAKE, **more.pop("headers", {})}, **more)


def is_granted(response) -> bool:
    return response.status_code == 200 and "WSRedis-Grant" in response


def only(*middleware):
    """The middleware of most sites, and these before it."""
    return override_settings(
        MIDDLEWARE=[
            *middleware,
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ]
    )


def test_with_all_of_djangos_middleware_at_once(plugin, ann):
    assert len(settings.MIDDLEWARE) >= 11
    response = handshake(ann, "/room/lobby/")
    assert is_granted(response) and response.content == b""
    assert "Content-Encoding" not in response and "ETag" not in response


@only("django.middleware.locale.LocaleMiddleware")
def test_the_language_of_a_browser_does_not_move_a_websocket(plugin, ann):
    assert is_granted(handshake(ann, "/room/lobby/"))


@only("django.middleware.locale.LocaleMiddleware")
@override_settings(ROOT_URLCONF=Translated, LANGUAGES=[("en", "English"), ("de", "Deutsch")])
def test_in_i18n_patterns_only_the_url_with_its_language_is_granted(plugin, ann):
    assert is_granted(handshake(ann, "/de/translated/"))
    response = handshake(ann, "/translated/")
    assert response.status_code == 302 and "WSRedis-Grant" not in response


@only("django.middleware.security.SecurityMiddleware")
@override_settings(
    SECURE_SSL_REDIRECT=True, SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https")
)
def test_the_redirect_to_https_refuses_ws_and_lets_wss_pass(plugin, ann):
    origin = {"Origin": "https://testserver"}
    assert is_granted(handshake(ann, "/room/lobby/", secure=True, headers=origin))
    by_a_proxy = {**origin, "X-Forwarded-Proto": "https"}
    assert is_granted(handshake(ann, "/room/lobby/", headers=by_a_proxy))
    response = handshake(ann, "/room/lobby/")
    assert response.status_code == 301 and "WSRedis-Grant" not in response


@only("django.middleware.gzip.GZipMiddleware")
def test_a_grant_is_not_zipped_and_a_long_no_arrives(plugin, ann):
    response = handshake(ann, "/room/lobby/")
    assert is_granted(response) and "Content-Encoding" not in response
    response = handshake(ann, "/long-no/")
    assert response.status_code == 403 and response["Content-Encoding"] == "gzip"


@only("django.middleware.http.ConditionalGetMiddleware")
def test_a_grant_has_no_etag_and_is_never_not_modified(plugin, ann):
    for validators in (
        {},
        {"If-None-Match": "*"},
        {"If-Modified-Since": "Tue, 01 Jan 2030 00:00:00 GMT"},
    ):
        response = handshake(ann, "/room/lobby/", headers=validators)
        assert is_granted(response) and "ETag" not in response


@only(
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.cache.FetchFromCacheMiddleware",
)
def test_a_grant_is_made_anew_for_each_browser(plugin, ann):
    assert json.loads(handshake(ann, "/room/lobby/")["WSRedis-Grant"])["sender"] == {"user": "ann"}
    assert handshake(Client(), "/room/lobby/").status_code == 401


def test_login_required_above_is_a_redirect_and_below_it_never_comes_to_it(plugin, ann):
    response = handshake(Client(), "/login-first/lobby/")
    assert response.status_code == 302 and "WSRedis-Grant" not in response
    assert handshake(Client(), "/login-below/lobby/").status_code == 401
    assert is_granted(handshake(ann, "/login-first/lobby/"))
    assert is_granted(handshake(ann, "/login-below/lobby/"))


@pytest.fixture
def atomic_requests(tables):
    connection.settings_dict["ATOMIC_REQUESTS"] = True
    yield
    connection.settings_dict["ATOMIC_REQUESTS"] = False


def test_a_view_in_a_transaction_has_committed_when_its_grant_is_answered(
    plugin, atomic_requests, ann
):
    response = handshake(ann, "/atomic/")
    assert is_granted(response) and response["X-Atomic"] == "True"
    assert not connection.in_atomic_block


def test_what_waits_for_the_commit_is_published_before_the_answer_leaves(
    tables, wsredis_outbox, atomic_requests
):
    with transaction.atomic():
        publish_on_commit("news", "x")
        assert wsredis_outbox == []
    assert wsredis_outbox.on("news") == ["x"]
