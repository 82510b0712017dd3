"""What the tests share: Django's settings, a Redis of their own, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from redis_process import Redis


# Installed, the package brings it by itself.
pytest_plugins = ["wsredis.pytest_plugin"]

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = os.environ.get("WSREDIS_LIBRARY") or str(ROOT / "target/release/libwsredis.so")


@pytest.fixture(scope="session")
def tables() -> None:
    """Django's tables, in memory."""
    from django.core.management import call_command

    call_command("migrate", run_syncdb=True, verbosity=0)


@pytest.fixture
def ann(tables: None) -> Iterator[Any]:
    """The client of a user who is logged in; `ann.user` is the user."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client()
    client.user = User.objects.create_user("ann", password="pw")
    client.force_login(client.user)
    yield client
    client.user.delete()


@pytest.fixture
def site(tmp_path: Path) -> Any:
    """A Django site with a manage.py."""
    from django_site import Site

    return Site(tmp_path)


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WSREDIS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("WSREDIS_LIBRARY", LIBRARY)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment as the plugin leaves it."""
    monkeypatch.setenv("WSREDIS_VERSION", "0.1.0")


def pytest_configure() -> None:
    try:
        import django
        from django.conf import settings
    except ImportError:
        return
    settings.configure(
        SECRET_KEY="for tests only",
        ALLOWED_HOSTS=["testserver", "site.example"],
        ROOT_URLCONF="urls",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            *(["rest_framework"] if find_spec("rest_framework") else []),
            "wsredis",
        ],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.middleware.cache.UpdateCacheMiddleware",
            "django.middleware.gzip.GZipMiddleware",
            "django.middleware.http.ConditionalGetMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.locale.LocaleMiddleware",
            "django.middleware.common.CommonMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            *(
                ["django.contrib.auth.middleware.LoginRequiredMiddleware"]
                if django.VERSION >= (5, 1)
                else []
            ),
            "django.middleware.clickjacking.XFrameOptionsMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ],
        # A name, so that the threads of async views see the same one.
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "NAME": "file:wsredis?mode=memory&cache=shared",
            }
        },
        CSRF_TRUSTED_ORIGINS=["https://trusted.example", "https://*.wild.example"],
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()
