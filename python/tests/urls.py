"""The views that test_django.py asks."""

from __future__ import annotations

from django.core.exceptions import PermissionDenied
from django.http import HttpResponse
from django.urls import path
from wsredis.django import WebSocketGrant, websocket


@websocket
def room(request, room):
    if room == "closed":
        raise PermissionDenied
    channel = f"room:{room}"
    return WebSocketGrant(request, subscribe=[channel], publish=[channel], sender=True)


@websocket(anonymous=True)
def news(request):
    return WebSocketGrant(request, subscribe=["news"])


@websocket(anonymous=True)
def long_no(request):
    # Long enough for GZipMiddleware to think about it.
    return HttpResponse("no " * 500, status=403)


urlpatterns = [path("room/<room>/", room), path("news/", news), path("long-no/", long_no)]
