"""A Django site of today under real uWSGI: views of every kind grant, and what they publish arrives
with the transaction, by Redis and without."""

import contextlib
import json
import sys

import pytest
from harness import DEADLINE, HERE, ROOT
from websockets.exceptions import InvalidStatus

KINDS = ['function', 'async', 'class']


@pytest.fixture(params=['redis', 'embedded'])
def django_site(request, debian, site, tmp_path):
    options = f'pythonpath = {ROOT}/python\nvirtualenv = {sys.prefix}\n'
    if request.param == 'redis':
        options += f'wsredis-redis-url = {request.getfixturevalue("redis").url}\n'
        options += 'wsredis-channel-prefix = site:\n'
    env = {'DATABASE': str(tmp_path / 'db.sqlite3')}
    return site(debian, options, workers=2, app=HERE / 'django_app.py', env=env)


def log_in(made):
    """The cookies of somebody who is logged in."""
    lines = made.get('/').headers.get_all('Set-Cookie')
    return '; '.join(line.split(';')[0] for line in lines)


@contextlib.contextmanager
def open_room(made, kind, cookie, room='lobby'):
    with made.connect(
        f'/ws/{kind}/{room}/',
        subprotocols=['wsredis.v1'],
        origin=f'http://127.0.0.1:{made.port}',
        additional_headers={'Cookie': cookie},
    ) as browser:
        assert json.loads(browser.recv(DEADLINE))['type'] == 'hello'
        yield browser


def test_views_of_every_kind_grant_and_refuse(django_site):
    cookie = log_in(django_site)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(open_room(django_site, kind, cookie)) for kind in KINDS]
        assert django_site.get('/async-say/lobby/', headers={'Cookie': cookie}).status == 200
        for browser in sockets:
            told = {'channel': 'room:lobby', 'data': {'text': 'async'}}
            assert json.loads(browser.recv(DEADLINE)) == told
    for kind in KINDS:
        with pytest.raises(InvalidStatus, match='401'):
            django_site.connect(f'/ws/{kind}/lobby/').close()
        assert django_site.get(f'/ws/{kind}/lobby/', headers={'Cookie': cookie}).status == 426
    with django_site.raw('/ws/login-first/lobby/') as browser:
        assert browser.status == 302


def test_what_is_published_on_commit_arrives_once_and_never_of_a_rollback(django_site):
    cookie = log_in(django_site)
    with open_room(django_site, 'function', cookie) as browser:
        assert django_site.get('/say/lobby/?fail', headers={'Cookie': cookie}).status == 500
        assert django_site.get('/say/lobby/', headers={'Cookie': cookie}).status == 200
        heard = [json.loads(browser.recv(DEADLINE)) for _ in range(2)]
        assert [message['channel'] for message in heard] == ['room:lobby', 'user:1']
        assert heard[0]['data'] == heard[1]['data'] == {'text': 'on commit'}
        # Nothing else came before this one.
        assert django_site.get('/async-say/lobby/', headers={'Cookie': cookie}).status == 200
        assert json.loads(browser.recv(DEADLINE))['data'] == {'text': 'async'}
