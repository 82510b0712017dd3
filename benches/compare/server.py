"""The servers that are compared: the two floors, and wsredis in the C host of examples/."""

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

import process

ROOT = Path(__file__).resolve().parent.parent.parent
TARGET = Path(os.environ.get('CARGO_TARGET_DIR', ROOT / 'target'))
BUILT = TARGET / 'bench'
LIBRARY = Path(os.environ.get('WSREDIS_LIBRARY', TARGET / 'release' / 'libwsredis.so'))

# What a generator breaks that speaks for thousands: rates, and what may wait for Redis.
KEYS = {
    'max-message-rate': '0',
    'max-control-rate': '0',
    'publish-queue-limit': '1g',
    'log-level': 'warn',
    'ping-interval': '0',
}


@dataclass
class Running:
    port: int
    pid: int


def is_fast(name):
    """Whether it gathers what comes at once: the others need not be measured for as long."""
    return name in ('floor', 'wsredis') or '=' in name


def command_of(name, redis, keys, folder):
    """The command of a server, with its environment."""
    floors = {'floor': 'read', 'loop': 'each'}
    if mode := floors.get(name):
        return [BUILT / 'floor', mode, 0, redis.port], {}
    library = LIBRARY
    if '=' in name:
        library = Path(name.split('=', 1)[1])
    elif name != 'wsredis':
        raise SystemExit(f'there is no server {name}')
    if not library.exists():
        raise SystemExit(f'{library} is missing: benches/run.sh build')
    # Whatever version the name of the library ends with, it is this one that is loaded.
    for version in ('', '.0', '.1', '.2'):
        (Path(folder) / f'libwsredis.so{version}').symlink_to(library.resolve())
    keys = KEYS | {'redis-url': redis.url} | keys
    command = [BUILT / 'host', 0, *(f'{key}={value}' for key, value in keys.items())]
    return command, {'LD_LIBRARY_PATH': folder}


@contextlib.contextmanager
def running(name, redis, keys, wrapper=()):
    """A server on a processor of its own. `name` may be NAME=LIBRARY for another wsredis; `wrapper`
    is put before its command, and must keep its pid."""
    with tempfile.TemporaryDirectory() as folder:
        command, more = command_of(name, redis, keys, folder)
        child = process.start(
            [*wrapper, *command], process.SERVER_CORE, stdout=subprocess.PIPE, env={**os.environ, **more}
        )
        with process.ended(child):
            line = child.stdout.readline().decode()
            if not line.startswith('listening on '):
                raise RuntimeError(f'{name} does not listen: {line!r}')
            yield Running(int(line.rsplit(':', 1)[1]), child.pid)
