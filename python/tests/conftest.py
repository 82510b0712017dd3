"""What the tests share: Django's settings, a Redis of their own, a clean environment."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from redis_process import Redis


@pytest.fixture
def redis_server() -> Iterator[Redis]:
    server = Redis()
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WSREDIS_")]:
        monkeypatch.delenv(name)


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
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        CSRF_TRUSTED_ORIGINS=["https://trusted.example", "https://*.wild.example"],
        STATIC_URL="/static/",
        USE_TZ=True,
    )
    django.setup()
