"""A Django site in a folder, with a manage.py: for tests of commands, in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import wsredis

SETTINGS = """
SECRET_KEY = "for tests only"
DEBUG = True
ROOT_URLCONF = "urls"
INSTALLED_APPS = [
    "wsredis",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}
STATIC_URL = "/static/"
USE_TZ = True
"""

URLS = """
from django.http import HttpResponse
from django.urls import path
from wsredis.django import WebSocketGrant, publish, websocket


@websocket(anonymous=True)
def news(request):
    response = WebSocketGrant(request, subscribe=["news"], publish=["news"])
    response.set_cookie("seen", "1")
    return response


def post(request):
    publish("news", request.GET["text"])
    return HttpResponse(VERSION)


VERSION = "one"
urlpatterns = [path("news/", news), path("post/", post)]
"""


class Site:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "settings.py").write_text(SETTINGS)
        (folder / "urls.py").write_text(URLS)
        (folder / "manage.py").write_text(
            "import sys\n"
            "from django.core.management import execute_from_command_line\n"
            "execute_from_command_line(sys.argv)\n"
        )
        self.env = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "settings",
            "PYTHONPATH": os.pathsep.join([str(folder), str(Path(wsredis.__file__).parents[1])]),
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "manage.py", *arguments]

    def manage(self, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*arguments),
            cwd=self.folder,
            env={**self.env, **env},
            capture_output=True,
            text=True,
            timeout=60,
        )
