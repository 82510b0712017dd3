"""The Django app: with it come the browser's script, `runserver` and the system checks."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class WsredisConfig(AppConfig):
    name = "wsredis"
    verbose_name = "wsredis"

    def ready(self) -> None:
        from . import checks as ours

        checks.register(ours.check_settings, "wsredis")
        checks.register(ours.check_views, "wsredis")
        checks.register(ours.check_reach, "wsredis", deploy=True)
