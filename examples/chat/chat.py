"""A small chat: an ordinary Django site in one file, with rooms that are websockets.

Served by uWSGI (uwsgi.ini beside it): `make run`. No database, no accounts and no second server:
the names somebody goes by are kept in a signed cookie, and messages are kept nowhere.
"""

import json
import os
import random
import re
from pathlib import Path
from urllib.parse import urlencode

from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.urls import path, re_path, reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_POST

HERE = Path(__file__).resolve().parent

settings.configure(
    # Sessions must outlive a restart, or the browsers would come back as strangers. What this key
    # protects is a list of names that anybody may pick: a site with users keeps its key secret.
    SECRET_KEY=os.environ.get("CHAT_SECRET_KEY", "the key of a demo with nothing to hide"),
    ALLOWED_HOSTS=["127.0.0.1", "localhost", *os.environ.get("CHAT_HOSTS", "").split()],
    ROOT_URLCONF=__name__,
    MIDDLEWARE=[
        "django.middleware.security.SecurityMiddleware",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.middleware.clickjacking.XFrameOptionsMiddleware",
    ],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [HERE / "templates"],
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
    USE_TZ=True,
)
application = get_wsgi_application()

# Imported once the settings are there, as in any Django module that is loaded after them.
from wsredis.django import WebSocketGrant, publish, websocket  # noqa: E402

ROOMS = ["lobby", "kitchen", "garden"]
ROOM = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
NAME = re.compile(r"[^\W_][\w .'’-]{0,23}")
# A cookie has 4 KB; who goes by more names than this loses the oldest.
MAX_NAMES = 8


@websocket(anonymous=True)
def socket(request, room):
    name = request.GET.get("as")
    if name not in request.session.get("names", []):
        return HttpResponse("Pick a name first.\n", status=401)
    channel = f"room:{room}"
    return WebSocketGrant(
        request, subscribe=[channel], publish=[channel], sender={"name": name}, echo=True
    )


def room_url(room, name):
    return f"{reverse('room', args=[room])}?{urlencode({'as': name})}"


@never_cache
def join(request):
    """Picks a name and a room. Each tab may go by another name: the URL says by which."""
    names = request.session.get("names", [])
    room = request.POST.get("room") or request.GET.get("room") or ROOMS[0]
    name, error = "", ""
    if request.method == "POST":
        name = " ".join(request.POST.get("name", "").split())
        room = "-".join(room.lower().split())
        if not NAME.fullmatch(name):
            error = "A name begins with a letter or digit and has up to 24 characters."
        elif not ROOM.fullmatch(room):
            error = "A room's name has up to 32 letters a–z, digits and hyphens."
        else:
            request.session["names"] = [*(n for n in names if n != name), name][-MAX_NAMES:]
            return redirect(room_url(room, name))
    context = {"names": names[::-1], "name": name, "room": room, "rooms": ROOMS, "error": error}
    return render(request, "join.html", context, status=400 if error else 200)


@never_cache
@require_GET
def show_room(request, room):
    name = request.GET.get("as")
    if name not in request.session.get("names", []):
        return redirect(f"{reverse('join')}?{urlencode({'room': room})}")
    rooms = [(other, room_url(other, name)) for other in dict.fromkeys([*ROOMS, room])]
    return render(request, "room.html", {"room": room, "name": name, "rooms": rooms})


@require_POST
def roll(request, room):
    """The server's own voice: any code that can publish reaches every browser."""
    name = request.POST.get("as")
    if name not in request.session.get("names", []):
        return HttpResponse("Pick a name first.\n", status=401)
    # No browser can send this: what browsers send always has the sender that their grant names.
    publish(f"room:{room}", {"roll": random.randint(1, 6), "name": name})
    return HttpResponse(status=204)


@never_cache
@require_GET
def stats(request):
    """The engine's numbers in this process, and what the process costs."""
    try:
        import uwsgi
    except ImportError:
        return JsonResponse({"error": "not under uWSGI: there is no engine here"}, status=501)
    numbers = json.loads(uwsgi.call(b"wsredis-stats") or b'{"error": "the plugin is not loaded"}')
    numbers["fds"] = len(os.listdir("/proc/self/fd"))
    numbers["worker"] = f"{uwsgi.worker_id()} of {uwsgi.numproc}"
    return JsonResponse(numbers)


urlpatterns = [
    path("", join, name="join"),
    path("stats/", stats, name="stats"),
    re_path(rf"^room/(?P<room>{ROOM.pattern})/$", show_room, name="room"),
    re_path(rf"^room/(?P<room>{ROOM.pattern})/roll/$", roll, name="roll"),
    re_path(rf"^ws/(?P<room>{ROOM.pattern})/$", socket, name="socket"),
]
