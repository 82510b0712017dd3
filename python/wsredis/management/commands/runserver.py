"""``./manage.py runserver``, which also serves websockets: by the engine, in this process.

The engine's threads are its own: a view may stop in a debugger while its sockets live. When the
code changes, the process ends and the sockets are closed with 1012, upon which the browser's
script comes back. Without the library the site is served as always, and the cure is said.
"""

from __future__ import annotations

import atexit
import os
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.management.base import CommandError

from wsredis import _broker
from wsredis._devserver import AdoptingServer, adopting
from wsredis._engine import Engine, EngineError, LibraryMissing


def _next_command() -> Any:
    """The runserver that would be there without us: of the apps behind this one, or Django's."""
    names = [config.name for config in apps.get_app_configs()]
    for name in [*names[names.index("wsredis") + 1 :], "django.core"]:
        module = f"{name}.management.commands.runserver"
        if find_spec(f"{name}.management") and find_spec(module):
            return import_module(module).Command
    raise AssertionError("Django has a runserver")


class Command(_next_command()):  # type: ignore[misc]
    engine: Engine | None = None

    def inner_run(self, *args: Any, **options: Any) -> None:
        """Runs in the process that serves, and there anew after each change of the code."""
        self._start_engine()
        super().inner_run(*args, **options)

    def _start_engine(self) -> None:
        keys = {
            "redis-url": _said("WSREDIS_REDIS_URL"),
            "channel-prefix": _said("WSREDIS_CHANNEL_PREFIX"),
        }
        try:
            engine = Engine({key: value for key, value in keys.items() if value})
        except LibraryMissing as error:
            self.stdout.write(self.style.WARNING(f"No websockets: {error}\n"))
            return
        except EngineError as error:
            raise CommandError(f"wsredis: {error}") from None
        atexit.register(engine.stop)
        self.engine = engine
        self.server_cls: Any = type("WSGIServer", (AdoptingServer, self.server_cls), {})
        # The sign that a grant is understood here, as the plugin gives it.
        os.environ["WSREDIS_VERSION"] = engine.version
        _broker.own(engine)
        place = "on Redis" if keys["redis-url"] else "in this process alone, without Redis"
        self.stdout.write(f"Websockets are served by wsredis {engine.version}, {place}.\n")

    def get_handler(self, *args: Any, **options: Any) -> Any:
        handler = super().get_handler(*args, **options)
        return adopting(handler, self.engine) if self.engine else handler


def _said(name: str) -> str:
    setting = getattr(settings, name, None)
    return os.environ.get(name, "") if setting is None else str(setting)
