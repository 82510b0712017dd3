"""The views that the Django tests ask."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.db import connection
from django.http import HttpResponse
from django.urls import path
from django.views.generic import View
from wsredis.django import WebSocketGrant, WebSocketMixin, apublish, publish, websocket


def grant_room(request, room):
    if room == "closed":
        raise PermissionDenied
    channel = f"room:{room}"
    return WebSocketGrant(request, subscribe=[channel], publish=[channel], sender=True)


room = websocket(grant_room)


@websocket
async def async_room(request, room):
    return grant_room(request, room)


class Room(WebSocketMixin, View):
    def get(self, request, room):
        return grant_room(request, room)


class AsyncRoom(WebSocketMixin, View):
    async def get(self, request, room):
        return grant_room(request, room)


@websocket(anonymous=True)
def news(request):
    return WebSocketGrant(request, subscribe=["news"])


class News(WebSocketMixin, View):
    anonymous = True

    async def get(self, request):
        return WebSocketGrant(request, subscribe=["news"])


@websocket(anonymous=True)
def long_no(request):
    # Long enough for GZipMiddleware to think about it.
    return HttpResponse("no " * 500, status=403)


@websocket(anonymous=True)
def atomic(request):
    response = WebSocketGrant(request, subscribe=["news"])
    response["X-Atomic"] = str(connection.in_atomic_block)
    return response


def post(request, room):
    publish(f"room:{room}", {"text": request.GET["text"]})
    return HttpResponse(status=204)


async def async_post(request, room):
    await apublish(f"room:{room}", {"text": request.GET["text"]})
    return HttpResponse(status=204)


urlpatterns = [
    path("room/<room>/", room, name="room"),
    path("async-room/<room>/", async_room),
    path("class-room/<room>/", Room.as_view()),
    path("async-class-room/<room>/", AsyncRoom.as_view()),
    path("news/", news),
    path("class-news/", News.as_view()),
    path("long-no/", long_no),
    path("atomic/", atomic),
    path("login-first/<room>/", login_required(room)),
    path("login-below/<room>/", websocket(login_required(grant_room))),
    path("post/<room>/", post),
    path("async-post/<room>/", async_post),
]
