"""wsredis for Django: a decorator and a response for websocket views, and publishing.

    @websocket
    def room(request, room):
        channel = f"room:{room}"
        return WebSocketGrant(request, subscribe=[channel], publish=[channel], sender=True)

The view is an ordinary one: sessions, the ORM and anything slow are allowed, for the socket is
not here yet. With ``"wsredis"`` in INSTALLED_APPS, ``{% static 'wsredis/wsredis.js' %}`` is the
browser's side. Settings, each also an environment variable: ``WSREDIS_REDIS_URL`` and
``WSREDIS_CHANNEL_PREFIX``.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Iterable
from typing import Any, Callable

from django.conf import settings
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.cache import add_never_cache_headers
from django.utils.crypto import salted_hmac
from django.utils.http import is_same_domain

from . import _publish
from ._channel import checked_channel
from ._grant import GRANT_HEADER, NO_PLUGIN, ORIGIN, grant, plugin_version

__all__ = ["WebSocketGrant", "publish", "publish_on_commit", "session_digest", "websocket"]


def websocket(
    view: Callable[..., HttpResponse] | None = None, *, anonymous: bool = False
) -> Callable[..., Any]:
    """Makes a view the place where websockets knock: ``@websocket``.

    An anonymous user is answered 401, for a handshake cannot follow a redirect to a login page;
    ``@websocket(anonymous=True)`` lets everybody through to the view. It stands above any other
    decorator: a ``login_required`` above it would redirect first. Only GET is answered, and
    nothing is ever cached. A plain GET runs the view too: the plugin turns its grant into a 426,
    which tells the browser's script that it may connect.
    """
    if view is None:
        return functools.partial(websocket, anonymous=anonymous)
    if inspect.iscoroutinefunction(view):
        raise TypeError(
            f"@websocket is for ordinary views, and {view.__qualname__} is async. Cure: def "
            "instead of async def; it runs for milliseconds and never holds the socket"
        )

    @functools.wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        if request.method != "GET":
            response: HttpResponse = HttpResponseNotAllowed(["GET"])
        elif not anonymous and not _user(request).is_authenticated:
            response = HttpResponse("Log in first.\n", "text/plain; charset=utf-8", 401)
        else:
            response = view(request, *args, **kwargs)
        # A grant is for this user and this moment; it must not be stored, nor turned into a 304.
        add_never_cache_headers(response)
        return response

    # Django 5.1's LoginRequiredMiddleware would redirect before the 401 above could be said.
    answer.login_required = False  # type: ignore[attr-defined]
    return answer


class WebSocketGrant(HttpResponse):
    """The answer "yes" to a handshake: what this websocket may hear and speak.

    The fields are those of `wsredis.grant`. From the request come ``user`` (the primary key),
    ``session`` (see `session_digest`), and, among the ``origins``, the Origin of this request
    where Django's own CSRF check trusts it. ``sender=True`` stands for ``{"user": username}``.

    Without the plugin it is a 501 that names the cure. `grant` has the text for tests.
    """

    def __init__(
        self,
        request: HttpRequest,
        *,
        subscribe: Iterable[str] = (),
        publish: Iterable[str] = (),
        sender: Any = None,
        origins: Iterable[str] = (),
        **fields: Any,
    ) -> None:
        user: Any = getattr(request, "user", None)
        if user is not None and user.is_authenticated:
            fields.setdefault("user", str(user.pk))
            if sender is True:
                sender = {"user": user.get_username()}
        elif sender is True:
            raise ValueError("sender=True needs a logged-in user; else say who it is: sender={…}")
        fields.setdefault("session", session_digest(request))
        origin = _trusted_origin(request)
        self.grant = grant(
            subscribe=subscribe,
            publish=publish,
            sender=sender,
            origins=[*origins, origin] if origin else origins,
            **fields,
        )
        if plugin_version() is None:
            # Nobody would remove the header, and it says more than a browser should know.
            super().__init__(NO_PLUGIN, "text/plain; charset=utf-8", 501)
        else:
            super().__init__(headers={GRANT_HEADER: self.grant})


def session_digest(request: HttpRequest) -> str | None:
    """What a grant calls this request's session: a keyed hash, for the key itself is a secret.

    None without a session. With the signed-cookies backend, which has no key of its own, it
    changes whenever the session does.
    """
    key = getattr(getattr(request, "session", None), "session_key", None)
    return salted_hmac("wsredis.session", key, algorithm="sha256").hexdigest() if key else None


def publish(channel: str, message: Any) -> None:
    """Publishes `message` to everybody who hears `channel`, now.

    Text and bytes go as they are, anything else as JSON, dates and decimals as Django writes
    them. Raises as `wsredis.publish` does: NotReachable and PublishError.
    """
    _publish.publish(
        channel,
        _payload(message),
        url=getattr(settings, "WSREDIS_REDIS_URL", None),
        prefix=getattr(settings, "WSREDIS_CHANNEL_PREFIX", None),
    )


def publish_on_commit(
    channel: str, message: Any, *, using: str | None = None, robust: bool = False
) -> None:
    """Publishes `message` once the current transaction is committed; never if it is rolled back.

    The message is written out now: what happens to the object afterwards does not change it, and
    what is wrong with it is raised here. `using` and `robust` are those of Django's
    ``transaction.on_commit``: a robust publish that fails is logged and stops nothing.
    """
    checked_channel(channel)
    transaction.on_commit(
        functools.partial(publish, channel, _payload(message)), using=using, robust=robust
    )


def _payload(message: Any) -> bytes:
    return _publish.to_bytes(message, functools.partial(json.dumps, cls=DjangoJSONEncoder))


def _user(request: HttpRequest) -> Any:
    try:
        return request.user
    except AttributeError:
        raise ImproperlyConfigured(
            "@websocket asks who the user is, and this request has none. Cure: put "
            "'django.contrib.auth.middleware.AuthenticationMiddleware' into MIDDLEWARE, or say "
            "@websocket(anonymous=True) and look for yourself"
        ) from None


def _trusted_origin(request: HttpRequest) -> str | None:
    """The request's Origin, if Django's CSRF check would accept a POST from there.

    The engine compares Origin and Host by itself. Only Django knows about CSRF_TRUSTED_ORIGINS,
    with its wildcards, and about USE_X_FORWARDED_HOST.
    """
    origin = request.headers.get("Origin", "")
    if not ORIGIN.fullmatch(origin):
        return None
    try:
        if origin == f"{request.scheme}://{request.get_host()}":
            return origin
    except DisallowedHost:
        # The Host is a stranger's, and so not a reason to trust; the setting still is.
        pass
    asked_scheme, _, asked_host = origin.partition("://")
    for trusted in settings.CSRF_TRUSTED_ORIGINS:
        scheme, _, host = trusted.partition("://")
        # "https://*.example.com" trusts the subdomains, which is_same_domain writes ".example.com".
        if scheme == asked_scheme and is_same_domain(asked_host, host.lstrip("*")):
            return origin
    return None
