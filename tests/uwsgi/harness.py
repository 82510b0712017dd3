"""What the tests stand on: real uWSGI with the plugin, real Redis, real nginx, each on free ports
of 127.0.0.1 in a temporary folder.

WSREDIS_UWSGI names Debian's binary (default /usr/bin/uwsgi), WSREDIS_PIP_UWSGI one that pip built
with PCRE's headers, WSREDIS_PLAIN_UWSGI one without routing. A test of a binary that is not there
is skipped, loudly. Every child is ended by its own pid; nothing waits for time to pass, only for a
condition with a deadline.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import resource
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

import pytest
import redis as redis_client
from websockets.sync.client import connect

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
DEADLINE = 15

# The engine in each worker, as without a master.
NO_KEEPER = 'wsredis-keeper = off\n'

VARIABLES = {
    'debian': 'WSREDIS_UWSGI',
    'pip': 'WSREDIS_PIP_UWSGI',
    'plain': 'WSREDIS_PLAIN_UWSGI',
}
BINARIES = {name: os.environ.get(variable, '') for name, variable in VARIABLES.items()}
BINARIES['debian'] = BINARIES['debian'] or '/usr/bin/uwsgi'


def eventually(condition, what, deadline=DEADLINE):
    """Waits until `condition()` is true and returns its value. `what` may be a function, which then
    says what there is in the end."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, (
            f'not within {deadline} s: {what() if callable(what) else what}'
        )
        time.sleep(0.02)


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def end(process):
    """Ends one child of ours."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def need_tool(name):
    path = shutil.which(name) or shutil.which(name, path='/usr/sbin:/sbin')
    if not path:
        pytest.skip(f'{name} is not installed')
    return path


def command_lines():
    """The pid and the arguments of every process."""
    for folder in Path('/proc').glob('[0-9]*'):
        with contextlib.suppress(OSError):
            yield int(folder.name), (folder / 'cmdline').read_bytes().rstrip(b'\0').split(b'\0')


def descriptors(pid):
    return len(list(Path(f'/proc/{pid}/fd').iterdir()))


def resident(pid):
    """Resident kilobytes."""
    status = Path(f'/proc/{pid}/status').read_text()
    return int(re.search(r'VmRSS:\s+(\d+) kB', status)[1])


# ---- a binary and the plugin built for it ----


class Binary:
    def __init__(self, name, path, plugin):
        self.name = name
        self.path = path
        self.plugin = plugin

    def plugins(self, *wanted):
        """The ini lines that load uWSGI's own plugins; pip's binary holds them."""
        if self.name != 'debian':
            return ''
        return ''.join(f'plugin = {name}\n' for name in ('python3', *wanted))


# ---- servers ----


class Site:
    """One uWSGI with the plugin."""

    # The path that says whether the app is there, and what it is answered with.
    ASKED = '/', (200,)

    def __init__(
        self,
        folder,
        binary,
        options='',
        plugins=(),
        front='http-socket',
        env=None,
        workers=1,
        app=HERE / 'app.py',
        wrapper=(),
    ):
        self.binary = binary
        self.port = free_port()
        self.log_path = folder / 'uwsgi.log'
        self.ini = folder / 'uwsgi.ini'
        self.ini.write_text(
            '[uwsgi]\n' + binary.plugins(*plugins) + f'need-plugin = {binary.plugin}\n'
            f'{front} = 127.0.0.1:{self.port}\n'
            f'wsgi-file = {app}\n'
            f'workers = {workers}\n'
            'master = true\ndie-on-term = true\nneed-app = true\nworker-reload-mercy = 5\n'
            'log-format = LOG %(status) %(method) %(uri) %(rsize) %(headers)\n' + options + '\n'
        )
        self.command = [*wrapper, binary.path, str(self.ini)]
        self.process = None
        # The keeper's folder is made in it: a place of its own, with a name that fits a unix socket.
        self.tmp = tempfile.mkdtemp(prefix='site')
        self.env = {**os.environ, 'TMPDIR': self.tmp, **(env or {})}
        self.env.pop('WSREDIS_VERSION', None)

    def start(self):
        self.process = subprocess.Popen(
            self.command,
            stdout=self.log_path.open('wb'),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.env,
        )
        eventually(self.answers, 'uWSGI answers:\n' + self.log())
        return self

    def answers(self):
        assert self.process.poll() is None, self.log()
        try:
            path, statuses = self.ASKED
            return self.get(path, timeout=1).status in statuses
        except OSError:
            return False

    def fails(self):
        """Starts it, expecting that it ends by itself with status 1; returns the log."""
        done = subprocess.run(
            self.command,
            stdout=self.log_path.open('wb'),
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=self.env,
            timeout=DEADLINE,
        )
        shutil.rmtree(self.tmp)
        assert done.returncode == 1, self.log()
        return self.log()

    def log(self):
        return self.log_path.read_text(errors='replace') if self.log_path.exists() else ''

    def wait_log(self, pattern):
        return eventually(
            lambda: re.search(pattern, self.log()), f'{pattern!r} in the log:\n{self.log()}'
        )

    def refused(self, http, pattern, again):
        """Waits for a refusal's log line; one a second is logged, so the request is repeated."""
        line = re.compile(f'wsredis: handshake refused: {http}: .*(?:{pattern})')

        def seen():
            again()
            return line.search(self.log())

        return eventually(seen, f'{line.pattern!r} in the log:\n{self.log()}')

    def get(self, path, method='GET', headers=None, timeout=DEADLINE, body=None):
        """An ordinary request."""
        connection = http.client.HTTPConnection('127.0.0.1', self.port, timeout=timeout)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            response.text = response.read().decode('latin-1')
            return response

    def facts(self):
        return json.loads(self.get('/facts').text)

    def stats(self):
        return json.loads(self.get('/stats').text)

    def url(self, path):
        return f'ws://127.0.0.1:{self.port}{path}'

    def connect(self, path, **options):
        options.setdefault('compression', None)
        options.setdefault('open_timeout', DEADLINE)
        return connect(self.url(path), **options)

    def raw(self, path, **options):
        return Raw(self.port, path, **options)

    def children(self):
        """The pids of all children of the master."""
        children = Path(f'/proc/{self.process.pid}/task/{self.process.pid}/children')
        return [int(pid) for pid in children.read_text().split()]

    def workers(self):
        """The pids of the workers; the master has other children too, such as gateways."""
        known = re.findall(r'uWSGI worker \d+ \((?:new )?pid: (\d+)', self.log())
        return [pid for pid in self.children() if str(pid) in known]

    def keepers(self):
        """The pids of the keepers that this site has started."""
        return [pid for pid, line in command_lines() if f'{self.tmp}/'.encode() in line[-1]]

    def keeper(self):
        """The pid of the only one."""
        (pid,) = eventually(lambda: len(found := self.keepers()) == 1 and found, 'one keeper')
        return pid

    def is_gone(self):
        """Has it left neither a keeper nor its folder?"""
        return not self.keepers() and not os.listdir(self.tmp)

    def stop(self):
        """Ends it; what ends in order leaves nothing."""
        try:
            if self.process and self.process.poll() is None:
                end(self.process)
                if self.process.returncode == 0:
                    eventually(self.is_gone, f'no keeper and no folder is left:\n{self.log()}')
        finally:
            for pid in self.keepers():
                os.kill(pid, signal.SIGKILL)
            shutil.rmtree(self.tmp, ignore_errors=True)


class Redis:
    def __init__(self, folder):
        self.port = free_port()
        self.url = f'redis://127.0.0.1:{self.port}'
        self.process = subprocess.Popen(
            [
                need_tool('redis-server'),
                '--port',
                str(self.port),
                '--bind',
                '127.0.0.1',
                '--save',
                '',
                '--dir',
                str(folder),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self.client = redis_client.Redis(port=self.port)
        eventually(self._answers, 'Redis answers')

    def _answers(self):
        try:
            return self.client.ping()
        except redis_client.ConnectionError:
            return False

    def listeners(self, channel):
        return self.client.pubsub_numsub(channel)[0][1]

    def wait_listeners(self, channel, count=1):
        eventually(lambda: self.listeners(channel) == count, f'{count} subscriptions of {channel}')


class Nginx:
    """nginx before a uwsgi socket (`uwsgi_pass`) or an HTTP socket (`proxy_pass`)."""

    def __init__(self, folder, directives):
        self.port = free_port()
        conf = folder / 'nginx.conf'
        conf.write_text(
            f'daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log;\n'
            + ('user root;\n' if os.getuid() == 0 else '')
            + 'events { worker_connections 1024; }\nhttp { access_log off;\n'
            + ''.join(
                f'{kind}_temp_path {folder}/{kind};\n'
                for kind in ('client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi')
            )
            + f'server {{ listen 127.0.0.1:{self.port}; location / {{ {directives} }} }} }}\n'
        )
        self.process = subprocess.Popen(
            [need_tool('nginx'), '-p', str(folder), '-c', str(conf)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        eventually(self._listens, 'nginx listens')

    def _listens(self):
        assert self.process.poll() is None
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', self.port), 1):
            return True
        return False


# ---- a browser by hand ----


def grant_path(grant, **query):
    """The path of a view that answers with this grant."""
    text = grant if isinstance(grant, str) else json.dumps(grant)
    more = ''.join(f'&{key}={quote(str(value))}' for key, value in query.items())
    return f'/grant?g={quote(text)}{more}'


def frame(payload, opcode=1):
    """A masked frame, as a browser sends it."""
    data = payload.encode() if isinstance(payload, str) else payload
    mask = b'\x11\x22\x33\x44'
    length = (
        bytes([0x80 | len(data)]) if len(data) < 126 else b'\xfe' + struct.pack('>H', len(data))
    )
    return (
        bytes([0x80 | opcode]) + length + mask + bytes(b ^ mask[i % 4] for i, b in enumerate(data))
    )


def upgrade(path, headers=(), key=None, method='GET', host='127.0.0.1'):
    """The bytes of a handshake."""
    lines = [
        f'{method} {path} HTTP/1.1',
        f'Host: {host}',
        'Connection: Upgrade',
        'Upgrade: websocket',
        'Sec-WebSocket-Version: 13',
        f'Sec-WebSocket-Key: {key or base64.b64encode(b"0123456789abcdef").decode()}',
        *headers,
    ]
    return ('\r\n'.join(lines) + '\r\n\r\n').encode()


class Raw:
    """A handshake by hand: `status`, `head` (lower case names, a list each) and what follows."""

    def __init__(self, port, path, behind=b'', request=None, pieces=None, **options):
        self.socket = socket.create_connection(('127.0.0.1', port), DEADLINE)
        request = (request or upgrade(path, **options)) + behind
        for piece in pieces(request) if pieces else [request]:
            self.socket.sendall(piece)
        self.buffer = b''
        while b'\r\n\r\n' not in self.buffer:
            self._receive()
        block, self.buffer = self.buffer.split(b'\r\n\r\n', 1)
        first, *lines = block.decode('latin-1').split('\r\n')
        self.status = int(first.split()[1])
        self.head = {}
        for line in lines:
            name, value = line.split(':', 1)
            self.head.setdefault(name.lower(), []).append(value.strip())

    def _receive(self):
        data = self.socket.recv(65536)
        assert data, f'closed after {self.buffer!r}'
        self.buffer += data

    def take(self, count):
        while len(self.buffer) < count:
            self._receive()
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def message(self):
        """The next frame: (opcode, payload)."""
        first, second = self.take(2)
        length = second & 127
        if length == 126:
            length = struct.unpack('>H', self.take(2))[0]
        elif length == 127:
            length = struct.unpack('>Q', self.take(8))[0]
        return first & 15, self.take(length)

    def body(self):
        """Everything up to the end of the connection."""
        while data := self.socket.recv(65536):
            self.buffer += data
        return self.buffer

    def send(self, payload, opcode=1):
        self.socket.sendall(frame(payload, opcode))

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def percentile(values, percent):
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


def many_descriptors(count):
    """Lets this process and its children have so many; skips where the system forbids it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count:
        pytest.skip(f'{count} descriptors are wanted, the system allows {hard}')
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))


FIGURES = []


def print_figures(title, **figures):
    """What a test has measured; conftest.py prints it at the end of every run."""
    FIGURES.append(
        f'{title}: '
        + ', '.join(f'{name.replace("_", " ")} {value}' for name, value in figures.items())
    )
