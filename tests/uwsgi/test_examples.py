"""The examples for plain WSGI and for Flask, under real uWSGI."""

import json
import sys

import pytest
from harness import DEADLINE, ROOT, Site

FOLDER = ROOT / 'examples'


class Example(Site):
    ASKED = '/nothing/here', (200, 404)


# What the tests run in has Flask; Debian's Python plugin is of the same Python.
OPTIONS = f'pythonpath = {ROOT}/python\nvirtualenv = {sys.prefix}\nstrict = true\n'
APPS = {'wsgi': 'wsgi_app.py', 'flask': 'flask_app.py'}


@pytest.fixture(params=APPS)
def example(request, debian, tmp_path, monkeypatch):
    options = OPTIONS + ('callable = app\n' if request.param == 'flask' else '')
    made = Example(tmp_path, debian, options, workers=2, app=FOLDER / APPS[request.param])
    made.body = 'text=hello' if request.param == 'flask' else '{"text": "hello"}'
    made.is_flask = request.param == 'flask'
    try:
        yield made.start()
    finally:
        made.stop()


def test_pages_of_one_room_hear_each_other_and_the_app(example):
    with (
        example.connect('/ws/lobby', subprotocols=['wsredis.v1']) as one,
        example.connect('/ws/lobby', subprotocols=['wsredis.v1']) as other,
        example.connect('/ws/kitchen', subprotocols=['wsredis.v1']) as stranger,
    ):
        for browser in (one, other, stranger):
            assert json.loads(browser.recv(DEADLINE))['type'] == 'hello'
        one.send(json.dumps({'channel': 'lobby', 'data': 'hi'}))
        assert json.loads(other.recv(DEADLINE)) == {'channel': 'lobby', 'data': 'hi'}
        headers = {'Content-Type': 'application/x-www-form-urlencoded'}
        assert example.get('/say/lobby', 'POST', headers, body=example.body).status in (200, 204)
        for browser in (one, other):
            told = {'channel': 'lobby', 'data': {'text': 'hello'}}
            assert json.loads(browser.recv(DEADLINE)) == told
        assert example.get('/say/kitchen', 'POST', headers, body=example.body).status in (200, 204)
        assert json.loads(stranger.recv(DEADLINE))['channel'] == 'kitchen'


def test_a_plain_get_is_told_that_it_may_connect(example):
    assert example.get('/ws/lobby').status == 426


def test_it_fits_into_about_ten_lines():
    for name in APPS.values():
        lines = (FOLDER / name).read_text().split('"""', 2)[2].splitlines()
        assert sum(1 for line in lines if line.strip()) <= 11, name
