"""A Django site of today under real uWSGI: views of every kind grant, and what they publish arrives
with the transaction, by Redis and without."""

import contextlib
import json
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from harness import DEADLINE, HERE, ROOT, Redis, end
from websockets.exceptions import InvalidStatus

KINDS = ['function', 'async', 'class']


@pytest.fixture
def start(debian, site, tmp_path):
    def start(options, **more):
        options += f'pythonpath = {ROOT}/python\nvirtualenv = {sys.prefix}\n'
        env = {'DATABASE': str(tmp_path / 'db.sqlite3')}
        return site(debian, options, app=HERE / 'django_app.py', env=env, **more)

    return start


@pytest.fixture(params=['redis', 'embedded'])
def django_site(request, start):
    options = ''
    if request.param == 'redis':
        options += f'wsredis-redis-url = {request.getfixturevalue("redis").url}\n'
        options += 'wsredis-channel-prefix = site:\n'
    return start(options, workers=2)


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


@pytest.fixture
def own_redis(tmp_path):
    server = Redis(tmp_path)
    yield server
    server.process.send_signal(signal.SIGCONT)
    end(server.process)


MODES = {
    'threads': ('threads = 4\n', ()),
    'gevent': ('gevent = 20\ngevent-early-monkey-patch = true\n', ('gevent_python3',)),
}


@pytest.mark.parametrize('mode', MODES)
def test_a_frozen_redis_holds_up_neither_a_view_for_long_nor_others_at_all(start, own_redis, mode):
    options, plugins = MODES[mode]
    made = start(f'wsredis-redis-url = {own_redis.url}\n{options}', plugins=plugins, workers=1)
    headers = {'Cookie': log_in(made)}
    assert made.get('/say/lobby/', headers=headers).status == 200
    own_redis.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    with ThreadPoolExecutor(3) as pool:
        saying = [pool.submit(made.get, '/say/lobby/', headers=headers) for _ in range(3)]
        others = 0
        while not all(done.done() for done in saying):
            asked = time.monotonic()
            assert made.get('/', headers=headers).status == 200
            assert time.monotonic() - asked < 2
            others += 1
        assert [done.result().status for done in saying] == [500] * 3
    # Three seconds are what a message is given at most; the rest is for a busy machine.
    assert time.monotonic() - began < 6 and others > 3
    assert 'NotReachable' in made.log()
    own_redis.process.send_signal(signal.SIGCONT)
    assert made.get('/say/lobby/', headers=headers).status == 200
