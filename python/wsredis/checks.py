"""Django's system checks for wsredis: what is wrong with a setup is said at start, with its cure.

They look at settings, at the environment and at the views; they connect to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.urls import URLPattern, URLResolver, get_resolver
from django.urls.resolvers import LocalePrefixPattern
from django.utils.module_loading import import_string

from . import _broker
from ._channel import has_control

# Every setting of ours.
SETTINGS = ["WSREDIS_REDIS_URL", "WSREDIS_CHANNEL_PREFIX", "WSREDIS_KEY_PREFIX"]

# The engine's limit, in bytes.
MAX_PREFIX = 128

# Decorators in these modules answer who may not with a redirect.
REDIRECTING = {"django.contrib.auth.decorators", "django.contrib.admin.views.decorators"}


def check_settings(app_configs: Any, **_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    url = getattr(settings, "WSREDIS_REDIS_URL", None)
    if url is None:
        url = os.environ.get("WSREDIS_REDIS_URL")
    if url:
        found += _url(url)
    for name in ("WSREDIS_CHANNEL_PREFIX", "WSREDIS_KEY_PREFIX"):
        prefix = getattr(settings, name, "")
        if not isinstance(prefix, str) or len(prefix.encode()) > MAX_PREFIX or has_control(prefix):
            found.append(
                Error(
                    f"{name} is {prefix!r}.",
                    hint=f"A text of up to {MAX_PREFIX} bytes without control characters.",
                    id="wsredis.E003",
                )
            )
    for name in SETTINGS:
        # Where the plugin runs, the environment has what its own options say.
        plugins, ours = os.environ.get(name), getattr(settings, name, None)
        if plugins is not None and ours is not None and plugins != ours:
            shown = [_broker.masked(text) if "URL" in name else text for text in (ours, plugins)]
            found.append(
                Warning(
                    f"{name} is {shown[0]!r} in the settings and {shown[1]!r} in the environment.",
                    hint="Messages may be published where no engine listens. Remove the setting: "
                    "under uWSGI the plugin sets the environment to what its options say.",
                    id="wsredis.W001",
                )
            )
    for name in dir(settings):
        if name.startswith("WSREDIS_") and name not in SETTINGS:
            found.append(
                Warning(
                    f"There is no setting {name}.",
                    hint=f"There are {', '.join(SETTINGS)}.",
                    id="wsredis.W002",
                )
            )
    names = [config.name for config in apps.get_app_configs()]
    served_by = "django.contrib.staticfiles"
    if served_by in names and names.index(served_by) < names.index("wsredis"):
        found.append(
            Warning(
                f"'wsredis' stands behind {served_by!r} in INSTALLED_APPS.",
                hint="runserver is that one's and serves no websockets: put 'wsredis' above it.",
                id="wsredis.W003",
            )
        )
    return found


def _url(url: Any) -> list[CheckMessage]:
    if find_spec("redis") is None:
        return [
            Error(
                "WSREDIS_REDIS_URL is set, and redis-py is not installed.",
                hint="pip install 'wsredis[redis]'",
                id="wsredis.E002",
            )
        ]
    try:
        if not isinstance(url, str):
            raise _broker.NotReachable(f"it is {url!r}")
        _broker.client(url)
    except _broker.NotReachable as error:
        return [
            Error(
                f"WSREDIS_REDIS_URL: {error}",
                hint="It reads redis://127.0.0.1:6379, or unix:///run/redis.sock.",
                id="wsredis.E001",
            )
        ]
    return []


def check_reach(app_configs: Any, **_: Any) -> list[CheckMessage]:
    """Only `check --deploy` asks: on a developer's machine, one process is all there is."""
    if getattr(settings, "WSREDIS_REDIS_URL", None) or os.environ.get("WSREDIS_REDIS_URL"):
        return []
    return [
        Warning(
            "WSREDIS_REDIS_URL is not set: management commands, Celery and cron jobs can not "
            "publish, only what runs inside uWSGI.",
            hint="Set it, and the plugin's wsredis-redis-url to the same; or silence this check.",
            id="wsredis.W007",
        )
    ]


def check_views(app_configs: Any, **_: Any) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    asks_for_users = ""
    if not getattr(settings, "ROOT_URLCONF", None):
        return found
    for route, view, is_translated in _views(get_resolver()):
        name = f"The websocket view {view.__module__}.{view.__qualname__} at {route!r}"
        if any(above in REDIRECTING for above in _above(view)):
            found.append(
                Warning(
                    f"{name} is behind a decorator that redirects to the login page.",
                    hint="A handshake follows no redirect: for a browser that is a no without a "
                    "reason. Put @websocket above; it answers 401.",
                    id="wsredis.W004",
                )
            )
        if is_translated:
            found.append(
                Warning(
                    f"{name} is in i18n_patterns.",
                    hint="Without a language before it that URL is a redirect, and a handshake "
                    "follows none. Move it to the urlpatterns beside.",
                    id="wsredis.W005",
                )
            )
        if not view.websocket.anonymous:
            asks_for_users = asks_for_users or name
    if asks_for_users and not _has_users():
        found.append(
            Warning(
                f"{asks_for_users} asks who the user is, and no middleware says it.",
                hint="Add 'django.contrib.auth.middleware.AuthenticationMiddleware' to MIDDLEWARE, "
                "or say @websocket(anonymous=True) and look in the view.",
                id="wsredis.W006",
            )
        )
    return found


def _views(
    resolver: Any, route: str = "", is_translated: bool = False
) -> Iterator[tuple[str, Any, bool]]:
    """Every websocket view: its URL, what the URL calls, and whether a language goes before it."""
    for entry in resolver.url_patterns:
        here = route + str(entry.pattern)
        if isinstance(entry, URLResolver):
            inside = isinstance(entry.pattern, LocalePrefixPattern)
            yield from _views(entry, here, is_translated or inside)
        elif isinstance(entry, URLPattern) and hasattr(entry.callback, "websocket"):
            yield here, entry.callback, is_translated


def _above(view: Any) -> Iterator[str]:
    """The modules of the decorators above @websocket. What they wrap has the same attributes."""
    ours = view.websocket
    while view is not ours and hasattr(view, "__wrapped__"):
        yield getattr(view, "__globals__", {}).get("__name__", "")
        view = view.__wrapped__


def _has_users() -> bool:
    from django.contrib.auth.middleware import AuthenticationMiddleware

    for path in settings.MIDDLEWARE:
        middleware = import_string(path)
        if isinstance(middleware, type) and issubclass(middleware, AuthenticationMiddleware):
            return True
    return False
