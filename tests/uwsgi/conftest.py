"""The fixtures: binaries with their plugin, sites, Redis and nginx.

Everything they start ends with its scope."""

import contextlib
import os
import subprocess
from pathlib import Path

import pytest

from harness import BINARIES, FIGURES, ROOT, VARIABLES, Binary, Nginx, Redis, Site, end


def pytest_terminal_summary(terminalreporter):
    if FIGURES:
        terminalreporter.section('figures')
        for line in FIGURES:
            terminalreporter.line(line)


@pytest.fixture(scope='session')
def binaries(tmp_path_factory):
    """Builds the plugin for a binary once, at its first use."""
    built = {}

    def get(name):
        path = BINARIES[name]
        if not path or not Path(path).exists():
            pytest.skip(f'no {name} uWSGI: set {VARIABLES[name]}')
        if name not in built:
            plugin = tmp_path_factory.mktemp(name) / 'wsredis_plugin.so'
            subprocess.run(
                [ROOT / 'uwsgi-plugin' / 'build.sh', path],
                check=True,
                env={**os.environ, 'OUT': str(plugin)},
                stdout=subprocess.DEVNULL,
            )
            built[name] = Binary(name, path, plugin)
        return built[name]

    return get


@pytest.fixture(params=['debian', 'pip'])
def binary(request, binaries):
    return binaries(request.param)


@pytest.fixture
def debian(binaries):
    return binaries('debian')


@pytest.fixture
def site(tmp_path):
    """Starts sites; they end with the test."""
    with contextlib.ExitStack() as stack:
        count = 0

        def start(binary, options='', **more):
            nonlocal count
            count += 1
            folder = tmp_path / f'site{count}'
            folder.mkdir()
            made = Site(folder, binary, options, **more)
            stack.callback(made.stop)
            return made.start()

        yield start


@pytest.fixture(scope='module')
def shared_site(binaries, tmp_path_factory):
    """One site for all tests of a module that only ask it things."""
    with contextlib.ExitStack() as stack:
        sites = {}

        def get(binary, options='', **more):
            key = (binary.name, options, repr(sorted(more.items())))
            if key not in sites:
                made = Site(tmp_path_factory.mktemp('site'), binary, options, **more)
                stack.callback(made.stop)
                sites[key] = made.start()
            return sites[key]

        yield get


@pytest.fixture(scope='session')
def redis_server(tmp_path_factory):
    server = Redis(tmp_path_factory.mktemp('redis'))
    yield server
    end(server.process)


@pytest.fixture
def redis(redis_server):
    redis_server.client.flushall()
    return redis_server


@pytest.fixture
def nginx(tmp_path):
    with contextlib.ExitStack() as stack:

        def start(directives):
            folder = tmp_path / 'nginx'
            folder.mkdir()
            server = Nginx(folder, directives)
            stack.callback(end, server.process)
            return server

        yield start
