"""The servers that are compared: the two floors, wsredis in the C host of examples/, and the peers."""

import contextlib
import os
import subprocess
import tempfile
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Place:
    """Where a server is to be: what its command is made of."""

    port: int
    redis: object
    folder: Path


@dataclass(frozen=True)
class Server:
    name: str
    title: str
    # From a place.
    command: object
    # The share of a scenario's messages that is enough, so that nobody takes much longer than the others.
    share: float = 1
    # What the generator has to know.
    options: dict = field(default_factory=dict)
    # From a place, too.
    environment: object = lambda at: {}
    # Whether a browser may say something, which is then dropped.
    hears: bool = True
    # The command of what has to run beside it, with the load.
    beside: object = None


def floor(name, title, mode, share=1):
    return Server(name, title, lambda at: [BUILT / 'floor', mode, at.port, at.redis.port], share)


def wsredis(name='wsredis', library=LIBRARY, **more):
    """The C host with this library. Keys may have _ for -."""
    more = {key.replace('_', '-'): value for key, value in more.items()}

    def command(at):
        if not library.exists():
            raise SystemExit(f'{library} is missing: benches/run.sh build')
        # Whatever version the name of the library ends with, it is this one that is loaded.
        for version in ('', '.0', '.1', '.2'):
            (at.folder / f'libwsredis.so{version}').symlink_to(library.resolve())
        keys = KEYS | {'redis-url': at.redis.url} | more
        return [BUILT / 'host', at.port, *map('='.join, keys.items())]

    return Server(
        name, 'wsredis', command, environment=lambda at: {'LD_LIBRARY_PATH': str(at.folder)}
    )


FLOORS = [
    floor('floor', 'bare C loop, one send per Redis read', 'read'),
    floor('loop', 'bare C loop, one send per message', 'each', share=0.1),
]


@dataclass(frozen=True)
class Running:
    port: int
    pid: int


@contextlib.contextmanager
def running(server, redis, wrapper=()):
    """A server on a processor of its own. `wrapper` is put before its command; it must keep its pid."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        at = Place(process.free_port(), redis, folder)
        errors = stack.enter_context((folder / 'errors').open('w+'))
        options = {
            'stdout': subprocess.DEVNULL,
            'stderr': errors,
            'env': {**os.environ, **server.environment(at)},
        }
        child = process.start([*wrapper, *server.command(at)], process.SERVER_CORE, **options)
        stack.enter_context(process.ended(child))
        try:
            process.wait_port(at.port, child)
            if server.beside:
                options['stdout'] = subprocess.PIPE
                beside = process.start(server.beside(at), process.LOAD_CORE, **options)
                stack.enter_context(process.ended(beside))
                if not beside.stdout.readline():
                    raise RuntimeError(f'{beside.args} has ended')
            yield Running(at.port, child.pid)
        except RuntimeError as error:
            errors.seek(0)
            raise RuntimeError(f'{server.name}: {error}\n{errors.read()[-2000:]}') from None
