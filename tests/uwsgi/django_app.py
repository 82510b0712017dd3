"""A Django site in one file: users in a database, and rooms whose views are of every kind."""

import os

from django.conf import settings
from django.core.wsgi import get_wsgi_application

settings.configure(
    SECRET_KEY='for tests only',
    ALLOWED_HOSTS=['127.0.0.1'],
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=[
        'wsredis',
        'django.contrib.auth',
        'django.contrib.contenttypes',
        'django.contrib.sessions',
    ],
    MIDDLEWARE=[
        'django.middleware.security.SecurityMiddleware',
        'django.middleware.gzip.GZipMiddleware',
        'django.middleware.http.ConditionalGetMiddleware',
        'django.contrib.sessions.middleware.SessionMiddleware',
        'django.middleware.locale.LocaleMiddleware',
        'django.middleware.common.CommonMiddleware',
        'django.middleware.csrf.CsrfViewMiddleware',
        'django.contrib.auth.middleware.AuthenticationMiddleware',
        'django.contrib.auth.middleware.LoginRequiredMiddleware',
        'django.middleware.clickjacking.XFrameOptionsMiddleware',
    ],
    DATABASES={
        'default': {
            'ENGINE': 'django.db.backends.sqlite3',
            'NAME': os.environ['DATABASE'],
            'ATOMIC_REQUESTS': True,
        }
    },
    LOGGING={
        'version': 1,
        'handlers': {'stderr': {'class': 'logging.StreamHandler'}},
        'loggers': {'django.request': {'handlers': ['stderr'], 'level': 'ERROR'}},
    },
    USE_TZ=True,
)
application = get_wsgi_application()

from django.contrib.auth import login  # noqa: E402
from django.contrib.auth.decorators import login_not_required, login_required  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connections, transaction  # noqa: E402
from django.http import HttpResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.generic import View  # noqa: E402

from wsredis.django import (  # noqa: E402
    WebSocketGrant,
    WebSocketMixin,
    apublish,
    publish_on_commit,
    user_channel,
    websocket,
)

call_command('migrate', run_syncdb=True, verbosity=0)
User.objects.get_or_create(username='ann')
# What is opened while the app is imported belongs to no request.
connections.close_all()


def grant_room(request, room):
    channels = [f'room:{room}', user_channel(request.user)]
    return WebSocketGrant(request, subscribe=channels, publish=channels[:1], sender=True)


room = websocket(grant_room)


# In a transaction an async view can not be.
@transaction.non_atomic_requests
@websocket
async def async_room(request, room):
    return grant_room(request, room)


class Room(WebSocketMixin, View):
    def get(self, request, room):
        return grant_room(request, room)


@login_not_required
def log_in(request):
    login(request, User.objects.get(username='ann'))
    return HttpResponse('hello')


def say(request, room):
    publish_on_commit([f'room:{room}', user_channel(request.user)], {'text': 'on commit'})
    if 'fail' in request.GET:
        raise ValueError('the transaction is rolled back')
    return HttpResponse('said')


@transaction.non_atomic_requests
async def async_say(request, room):
    await apublish(f'room:{room}', {'text': 'async'})
    return HttpResponse('said')


urlpatterns = [
    path('', log_in),
    path('ws/function/<room>/', room),
    path('ws/async/<room>/', async_room),
    path('ws/class/<room>/', Room.as_view()),
    path('ws/login-first/<room>/', login_required(room)),
    path('say/<room>/', say),
    path('async-say/<room>/', async_say),
]
