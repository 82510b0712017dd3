"""A wrong setup is explained at start, each fault by its number and with its cure."""

from __future__ import annotations

import sys
from functools import partial

import pytest

pytest.importorskip("django", reason="Django is not installed: the system checks are NOT tested")

from django.conf import settings  # noqa: E402
from django.conf.urls.i18n import i18n_patterns  # noqa: E402
from django.contrib.auth.decorators import login_required, permission_required  # noqa: E402
from django.contrib.auth.mixins import LoginRequiredMixin  # noqa: E402
from django.core.checks import run_checks  # noqa: E402
from django.test import override_settings  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.utils.decorators import method_decorator  # noqa: E402
from django.views.decorators.cache import never_cache  # noqa: E402
from django.views.generic import View  # noqa: E402
from urls import Room, news, room  # noqa: E402
from wsredis.django import websocket  # noqa: E402


def found(**changed) -> dict[str, str]:
    """What is wrong with these settings: the numbers, and what is said."""
    deploy = changed.pop("deploy", False)
    # The tests' own URLs have a fault on purpose.
    changed.setdefault("ROOT_URLCONF", type("Urls", (), {"urlpatterns": [path("a/", room)]}))
    with override_settings(**changed):
        messages = run_checks(tags=["wsredis"], include_deployment_checks=deploy)
    assert all(message.hint for message in messages), "without a cure"
    return {message.id: f"{message.msg} {message.hint}" for message in messages}


def urls(*patterns):
    return {"ROOT_URLCONF": type("Urls", (), {"urlpatterns": [*patterns]})}


def test_a_right_setup_is_not_spoken_of():
    right = urls(path("a/", room), path("b/", include([path("c/", Room.as_view())])))
    assert found(**right) == {}
    url, prefix = "redis://127.0.0.1:6379", "site:"
    assert found(WSREDIS_REDIS_URL=url, WSREDIS_CHANNEL_PREFIX=prefix, deploy=True, **right) == {}


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://h:port/", 6379])
def test_e001_a_url_that_is_none(url, monkeypatch):
    assert list(found(WSREDIS_REDIS_URL=url)) == ["wsredis.E001"]
    if isinstance(url, str):
        monkeypatch.setenv("WSREDIS_REDIS_URL", url)
        assert list(found()) == ["wsredis.E001"]


def test_e001_does_not_tell_the_password():
    said = found(WSREDIS_REDIS_URL="redis://ann:secret@host:port/")["wsredis.E001"]
    assert "secret" not in said and "ann:***@host" in said


def test_e002_redis_py_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.setattr("wsredis.checks.find_spec", lambda name: None)
    assert "pip install" in found(WSREDIS_REDIS_URL="redis://127.0.0.1")["wsredis.E002"]


@pytest.mark.parametrize("name", ["WSREDIS_CHANNEL_PREFIX", "WSREDIS_KEY_PREFIX"])
@pytest.mark.parametrize("prefix", [b"p", 7, "a\nb", "é" * 65])
def test_e003_a_prefix_that_is_none(name, prefix):
    assert name in found(**{name: prefix})["wsredis.E003"]


def test_w001_the_settings_and_the_plugin_differ(monkeypatch):
    monkeypatch.setenv("WSREDIS_REDIS_URL", "redis://:secret@127.0.0.1:1")
    assert found(WSREDIS_REDIS_URL="redis://:secret@127.0.0.1:1") == {}
    said = found(WSREDIS_REDIS_URL="redis://127.0.0.1:2")["wsredis.W001"]
    assert "127.0.0.1:1" in said and "127.0.0.1:2" in said and "secret" not in said


def test_w002_a_setting_that_nobody_knows():
    assert "WSREDIS_URL" in found(WSREDIS_URL="redis://127.0.0.1")["wsredis.W002"]


def test_w003_another_runserver_comes_first():
    apps = ["wsredis", "django.contrib.staticfiles"]
    assert found(INSTALLED_APPS=apps) == {}
    assert "put 'wsredis' above" in found(INSTALLED_APPS=apps[::-1])["wsredis.W003"]


@pytest.mark.parametrize("decorator", [login_required, permission_required("auth.add_user")])
def test_w004_a_decorator_above_redirects(decorator):
    view = never_cache(decorator(never_cache(room)))
    assert "401" in found(**urls(path("a/", view)))["wsredis.W004"]
    assert found(**urls(path("a/", never_cache(room)))) == {}
    assert found(**urls(path("a/", websocket(decorator(never_cache(lambda r: None)))))) == {}


def test_classes_and_what_is_around_them_are_looked_through():
    decorated = method_decorator(websocket, name="dispatch")(type("Decorated", (View,), {}))
    mixed = type("Mixed", (LoginRequiredMixin, Room), {})
    views = [decorated.as_view(), mixed.as_view(), partial(room), never_cache(Room.as_view())]
    assert found(**urls(*(path(f"{n}/", view) for n, view in enumerate(views)))) == {}
    above = login_required(mixed.as_view())
    assert list(found(**urls(path("a/", above)))) == ["wsredis.W004"]


def test_a_site_without_urls_has_none_to_be_checked():
    assert found(ROOT_URLCONF=None) == {}


def test_w005_a_language_goes_before_the_url():
    inside = i18n_patterns(path("a/", include([path("b/", news)])))
    assert "i18n_patterns" in found(**urls(*inside))["wsredis.W005"]


def test_w006_nothing_says_who_the_user_is():
    middleware = [name for name in settings.MIDDLEWARE if "Authentication" not in name]
    assert "AuthenticationMiddleware" in found(MIDDLEWARE=middleware)["wsredis.W006"]
    assert found(MIDDLEWARE=middleware, **urls(path("a/", news))) == {}


def test_w007_only_a_deployment_is_asked_how_commands_reach_the_browsers(monkeypatch):
    assert found() == {}
    assert "Celery" in found(deploy=True)["wsredis.W007"]
    monkeypatch.setenv("WSREDIS_REDIS_URL", "redis://127.0.0.1")
    assert found(deploy=True) == {}
