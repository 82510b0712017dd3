"""Views of Django REST framework grant, too: their own classes say who may."""

from __future__ import annotations

import pytest

pytest.importorskip("rest_framework", reason="REST framework is not installed: it is NOT tested")

from django.test import Client, override_settings  # noqa: E402
from django.urls import path  # noqa: E402
from rest_framework.authentication import BaseAuthentication  # noqa: E402
from rest_framework.decorators import (  # noqa: E402
    api_view,
    authentication_classes,
    permission_classes,
)
from rest_framework.permissions import IsAuthenticated  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402
from wsredis import GRANT_HEADER, grant  # noqa: E402
from wsredis.django import WebSocketGrant, WebSocketMixin, publish, websocket  # noqa: E402
from wsredis.testing import Refused, assertGranted, assertNotGranted  # noqa: E402


class Token(BaseAuthentication):
    def authenticate(self, request):
        from django.contrib.auth.models import User

        if request.headers.get("Authorization") != "Token ann":
            return None
        return User.objects.get(username="ann"), None

    def authenticate_header(self, request):
        return "Token"


class Room(WebSocketMixin, APIView):
    anonymous = True
    authentication_classes = [Token]
    permission_classes = [IsAuthenticated]

    def get(self, request, room):
        return WebSocketGrant(request, subscribe=[f"room:{room}"], sender=True)


class Wrapped(APIView):
    authentication_classes = [Token]
    permission_classes = [IsAuthenticated]

    def get(self, request, room):
        return WebSocketGrant(request, subscribe=[f"room:{room}"], sender=True)


@websocket(anonymous=True)
@api_view(["GET"])
@authentication_classes([Token])
@permission_classes([IsAuthenticated])
def function(request, room):
    return WebSocketGrant(request, subscribe=[f"room:{room}"], sender=True)


class Plain(APIView):
    """With a Response of the framework's own, and the header by hand."""

    def get(self, request, room):
        return Response(headers={GRANT_HEADER: grant(subscribe=[f"room:{room}"])})


class Urls:
    urlpatterns = [
        path("mixin/<room>/", Room.as_view()),
        path("wrapped/<room>/", websocket(Wrapped.as_view(), anonymous=True)),
        path("function/<room>/", function),
        path("plain/<room>/", websocket(Plain.as_view(), anonymous=True)),
    ]


@pytest.fixture(autouse=True)
def urls():
    with override_settings(ROOT_URLCONF=Urls):
        yield


KINDS = ["mixin", "wrapped", "function"]


@pytest.mark.parametrize("kind", KINDS)
def test_who_the_frameworks_classes_let_in_is_granted(wsredis_outbox, ann, kind):
    client = Client(headers={"Authorization": "Token ann"})
    response = client.get(f"/{kind}/a/")
    grant = assertGranted(response, subscribe=["room:a"], sender={"user": "ann"})
    assert grant["user"] == str(ann.user.pk)
    assert "no-store" in response["Cache-Control"] and "ETag" not in response


@pytest.mark.parametrize("kind", KINDS)
def test_who_they_do_not_gets_their_answer(wsredis_outbox, ann, kind):
    assertNotGranted(Client().get(f"/{kind}/a/"), 401)
    assertNotGranted(Client(headers={"Authorization": "Token ann"}).post(f"/{kind}/a/"), 405)


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_of_it_hears(wsredis_server, ann, kind):
    client = Client(headers={"Authorization": "Token ann"})
    browser = wsredis_server.connect(f"/{kind}/a/", client)
    publish("room:a", [1])
    assert browser.receive() == {"channel": "room:a", "data": [1]}
    with pytest.raises(Refused, match="401"):
        wsredis_server.connect(f"/{kind}/a/", Client())


def test_a_response_of_its_own_may_carry_the_grant(wsredis_server):
    browser = wsredis_server.connect("/plain/a/", Client())
    publish("room:a", "x")
    assert browser.receive()["data"] == "x"
