"""wsredis for Django: a decorator and a response for websocket views, and publishing.

    @websocket
    def room(request, room):
        channel = f"room:{room}"
        return WebSocketGrant(request, subscribe=[channel], publish=[channel], sender=True)

The view is an ordinary one: sessions, the ORM and anything slow are allowed, for the socket is
not here yet. With ``"wsredis"`` in INSTALLED_APPS, ``{% static 'wsredis/wsredis.js' %}`` is the
browser's side, ``./manage.py runserver`` serves websockets, and system checks explain a wrong
setup. Settings, each also an environment variable: ``WSREDIS_REDIS_URL``,
``WSREDIS_CHANNEL_PREFIX`` and ``WSREDIS_KEY_PREFIX``.
"""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Awaitable, Iterable
from typing import Any, Callable, TypeVar, overload

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import DisallowedHost, ImproperlyConfigured
from django.core.serializers.json import DjangoJSONEncoder
from django.db import transaction
from django.http import HttpRequest, HttpResponse, HttpResponseNotAllowed
from django.utils.cache import add_never_cache_headers
from django.utils.crypto import salted_hmac
from django.utils.http import is_same_domain

from . import _publish
from ._broker import NotReachable, Place, PublishError
from ._grant import GRANT_HEADER, NO_PLUGIN, ORIGIN, grant, plugin_version
from ._names import EVERYONE, group_channel, named, user_channel

__all__ = [
    "EVERYONE",
    "NotReachable",
    "PublishError",
    "WebSocketGrant",
    "WebSocketMixin",
    "apublish",
    "group_channel",
    "publish",
    "publish_many",
    "publish_on_commit",
    "session_channel",
    "session_digest",
    "user_channel",
    "websocket",
]

# ---- views ----


# A view stays what it is to a type checker.
View = TypeVar("View", bound=Callable[..., Any])


@overload
def websocket(view: View, *, anonymous: bool = ...) -> View: ...


@overload
def websocket(view: None = None, *, anonymous: bool = ...) -> Callable[[View], View]: ...


def websocket(view: Callable[..., Any] | None = None, *, anonymous: bool = False) -> Any:
    """Makes a view the place where websockets knock: ``@websocket``. The view may be async.

    An anonymous user is answered 401, for a handshake cannot follow a redirect to a login page;
    ``@websocket(anonymous=True)`` lets everybody through to the view. It stands above any other
    decorator: a ``login_required`` above it would redirect first. Only GET is answered, and
    nothing is ever cached. A plain GET runs the view too: the plugin turns its grant into a 426,
    which tells the browser's script that it may connect.

    Class-based views take `WebSocketMixin`. A view of REST framework says by its own classes who
    may, so it is ``websocket(Room.as_view(), anonymous=True)``, or the same above ``@api_view``.
    """
    if view is None:
        return functools.partial(websocket, anonymous=anonymous)
    if isinstance(view, type):
        raise TypeError(
            f"@websocket is for functions, and {view.__qualname__} is a class. Cure: class "
            f"{view.__name__}(WebSocketMixin, …), or websocket({view.__name__}.as_view())"
        )
    answer: Any = (_async_answer if iscoroutinefunction(view) else _answer)(view, anonymous)
    # Django 5.1's LoginRequiredMiddleware would redirect before the 401 above could be said.
    answer.login_required = False
    # By these the system checks find it, also underneath other decorators.
    answer.websocket = answer
    answer.anonymous = anonymous
    return answer


def _answer(view: Callable[..., Any], anonymous: bool) -> Callable[..., HttpResponse]:
    @functools.wraps(view)
    def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = _refusal(request, anonymous) or view(request, *args, **kwargs)
        if inspect.iscoroutine(response):
            response.close()
            raise TypeError(
                f"{view!r} is async and does not look it. Cure: @websocket right above the "
                "async def; for a class WebSocketMixin, not method_decorator"
            )
        # A grant is for this user and this moment; it must not be stored, nor turned into a 304.
        add_never_cache_headers(response)
        return response

    return answer


def _async_answer(
    view: Callable[..., Any], anonymous: bool
) -> Callable[..., Awaitable[HttpResponse]]:
    @functools.wraps(view)
    async def answer(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        # In a thread, because the user comes out of the database. From then on request.user is
        # there, for the view and for its WebSocketGrant.
        response = await sync_to_async(_refusal)(request, anonymous)
        response = response or await view(request, *args, **kwargs)
        add_never_cache_headers(response)
        return response

    return answer


def _refusal(request: HttpRequest, anonymous: bool) -> HttpResponse | None:
    """What is answered before the view is asked; None: ask it."""
    if request.method != "GET":
        return HttpResponseNotAllowed(["GET"])
    user = getattr(request, "user", None)
    if user is None and not anonymous:
        raise ImproperlyConfigured(
            "@websocket asks who the user is, and this request has none. Cure: put "
            "'django.contrib.auth.middleware.AuthenticationMiddleware' into MIDDLEWARE, or say "
            "@websocket(anonymous=True) and look for yourself"
        )
    # Asked in either case: it is what loads the user, who is lazy.
    if user is not None and user.is_authenticated or anonymous:
        return None
    return HttpResponse("Log in first.\n", "text/plain; charset=utf-8", 401)


class WebSocketMixin:
    """`websocket` for class-based views, sync or async: first among the bases of a ``View``.

    class Room(WebSocketMixin, View):
        def get(self, request, room):
            return WebSocketGrant(request, subscribe=[f"room:{room}"])
    """

    # True: also who is not logged in gets to the view.
    anonymous = False

    @classmethod
    def as_view(cls, **initkwargs: Any) -> Any:
        view = super().as_view(**initkwargs)  # type: ignore[misc]
        return websocket(view, anonymous=initkwargs.get("anonymous", cls.anonymous))


class WebSocketGrant(HttpResponse):
    """The answer "yes" to a handshake: what this websocket may hear and speak.

    The fields are those of `wsredis.grant`. From the request come ``user`` (the primary key),
    ``session`` (see `session_digest`), and, among the ``origins``, the Origin of this request
    where Django's own CSRF check trusts it. ``sender=True`` stands for ``{"user": username}``.

    Without the plugin it is a 501 that names the cure. `grant` has the text for tests.
    """

    def __init__(
        self,
        request: Any,
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


def _trusted_origin(request: Any) -> str | None:
    """The request's Origin, if Django's CSRF check would accept a POST from there.

    The engine compares Origin and Host by itself. Only Django knows about CSRF_TRUSTED_ORIGINS,
    with its wildcards, and about USE_X_FORWARDED_HOST.
    """
    origin: str = request.headers.get("Origin", "")
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


# ---- sessions ----


def session_digest(of: Any) -> str | None:
    """What a grant calls a request's session: a keyed hash, for the key itself is a secret.

    Takes a request or a session. None without one. With the signed-cookies backend, which has no
    key of its own, it changes whenever the session does.
    """
    key = getattr(getattr(of, "session", of), "session_key", None)
    return salted_hmac("wsredis.session", key, algorithm="sha256").hexdigest() if key else None


def session_channel(of: Any) -> str:
    """The channel of one session: of a request or of a session store.

    Raises ValueError for a session that was not saved yet and has no key, and for one whose key
    changes with what is in it.
    """
    session = getattr(of, "session", of)
    if "signed_cookies" in type(session).__module__:
        raise ValueError(
            "a session in a signed cookie has no name that stays. Cure: SESSION_ENGINE = "
            "'django.contrib.sessions.backends.db', or another one on the server"
        )
    digest = session_digest(session)
    if digest is None:
        raise ValueError(
            f"{of!r} has no session with a key. Cure: SessionMiddleware, and for a visitor that "
            "is new request.session.save()"
        )
    return named("session", digest)


# ---- publishing ----


def publish(
    channel: _publish.Channels,
    message: Any,
    *,
    retain: _publish.Retain = None,
    exclude: str | None = None,
) -> None:
    """Publishes `message` to everybody who hears `channel` (or one of these channels), now.

    As `wsredis.publish`, and dates, decimals and UUIDs are written as Django writes them. Raises
    as it does: NotReachable and PublishError.
    """
    messages = _publish.to_channels(channel, message, retain, exclude, _encode)
    _publish.send(_place(), messages)


async def apublish(
    channel: _publish.Channels,
    message: Any,
    *,
    retain: _publish.Retain = None,
    exclude: str | None = None,
) -> None:
    """`publish` for async views: nobody else waits while Redis is waited for."""
    messages = _publish.to_channels(channel, message, retain, exclude, _encode)
    await _publish.asend(_place(), messages)


def publish_many(messages: Iterable[tuple[str, Any]], *, retain: _publish.Retain = None) -> None:
    """Publishes pairs of a channel and a message in one go: on Redis all of them or none."""
    _publish.send(_place(), _publish.to_pairs(messages, retain, _encode))


def publish_on_commit(
    channel: _publish.Channels,
    message: Any,
    *,
    retain: _publish.Retain = None,
    exclude: str | None = None,
    using: str | None = None,
    robust: bool = False,
) -> None:
    """Publishes `message` once the current transaction is committed; never if it is rolled back.

    The message is written out now: what happens to the object afterwards does not change it, and
    what is wrong with it is raised here. `using` and `robust` are those of Django's
    ``transaction.on_commit``: a robust publish that fails is logged and stops nothing.
    """
    messages = _publish.to_channels(channel, message, retain, exclude, _encode)

    # A function, for Django logs the name of what has failed.
    def publish_committed() -> None:
        _publish.send(_place(), messages)

    transaction.on_commit(publish_committed, using=using, robust=robust)


def _place() -> Place:
    return Place(
        getattr(settings, "WSREDIS_REDIS_URL", None),
        getattr(settings, "WSREDIS_CHANNEL_PREFIX", None),
        getattr(settings, "WSREDIS_KEY_PREFIX", None),
    )


_encode = functools.partial(json.dumps, cls=DjangoJSONEncoder)
