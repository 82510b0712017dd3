"""The fixtures are those of tests/uwsgi: binaries with their plugin, sites, Redis."""

import importlib.util
import sys
from pathlib import Path

import pytest

UWSGI = Path(__file__).resolve().parent.parent / 'uwsgi'
sys.path.insert(0, str(UWSGI))

# By path: as a module it has this file's name.
_spec = importlib.util.spec_from_file_location('uwsgi_conftest', UWSGI / 'conftest.py')
_theirs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_theirs)

pytest_terminal_summary = _theirs.pytest_terminal_summary
binaries = _theirs.binaries
debian = _theirs.debian
shared_site = _theirs.shared_site
redis = _theirs.redis
redis_server = _theirs.redis_server

# Autobahn's longest messages have 16 MiB; the embedded broker's feed, unused here, must have room for one. It sends as
# many messages a second as it can. Every message goes compressed where that was agreed on.
ECHO = r'''
route = ^/echo$ wsredis-echo:
wsredis-max-message-size = 16m
wsredis-feed-limit = 64m
wsredis-max-message-rate = 0
wsredis-compression-threshold = 0
'''


@pytest.fixture
def echo(debian, shared_site):
    """A site that returns every message of /echo as it came; one for all tests of a module."""
    return shared_site(debian, ECHO)
