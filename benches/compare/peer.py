"""The peers: other servers that bring what is published to Redis to websockets, as their users would write them
(benches/peers). Each is installed by its package's name (tests/setup.sh)."""

import subprocess
import sys

from server import ROOT, Server

PEERS = ROOT / 'benches' / 'peers'
VENV = ROOT / '.deps' / 'venv'
PYTHON = ROOT / '.deps' / 'peers' / 'bin' / 'python'
# They answer a handshake before they have subscribed.
SETTLE = {'settle': 2}


def python(file):
    return lambda at: [PYTHON, PEERS / file, at.port, at.redis.port]


def node(file):
    return lambda at: ['node', PEERS / file, at.port, at.redis.port]


def nchan(at):
    text = (PEERS / 'nchan.conf').read_text()
    config = at.folder / 'nginx.conf'
    config.write_text(text.replace('FOLDER', str(at.folder)).replace('PORT', str(at.port)))
    return ['/usr/sbin/nginx', '-c', config]


def uwsgi_gevent(at):
    return [
        '/usr/bin/uwsgi',
        # Not as a virtualenv: gevent is Debian's.
        *('--plugin', 'python3,gevent_python3', '--pythonpath', next(VENV.glob('lib/python3*/site-packages'))),
        *('--http-socket', f'127.0.0.1:{at.port}', '--gevent', '9950', '--listen', '4096'),
        *('--wsgi-file', PEERS / 'uwsgi_gevent.py', '--disable-logging', '--die-on-term', '--need-app'),
        *('--gevent-monkey-patch', '--buffer-size', '4096'),
    ]


def redis_port(at):
    return {'REDIS_PORT': str(at.redis.port)}


NODE = {'environment': lambda at: {'NODE_PATH': str(ROOT / '.deps' / 'node' / 'node_modules')}}
SOCKET_IO = {
    'room': '/socket.io/?EIO=4&transport=websocket&room=',
    'hello': '40',
    'prefix': '42["m","',
    'text': '42["m","a message of as many bytes as the others send, to be dropped"]',
}

ALL = [
    Server('socketify', 'uWebSockets (socketify)', python('socketify_app.py'), 0.5, SETTLE),
    Server('nchan', 'nchan', nchan, 0.1, SETTLE, hears=False, beside=python('nchan_bridge.py')),
    Server('ws', 'node ws', node('ws.js'), 0.05, SETTLE, **NODE),
    Server('socket.io', 'Socket.IO', node('socket_io.js'), 0.05, SETTLE | SOCKET_IO, **NODE),
    Server('starlette', 'Starlette, uvicorn', python('starlette_app.py'), 0.03, SETTLE),
    Server('tornado', 'Tornado', python('tornado_app.py'), 0.03, SETTLE),
    Server('uwsgi-gevent', 'uWSGI and gevent', uwsgi_gevent, 0.02, SETTLE, redis_port),
]


def installed():
    """Installs the peers; those that can not be had are named, and left out."""
    found = []
    for peer in ALL:
        done = subprocess.run([ROOT / 'tests' / 'setup.sh', 'peer', peer.name], stdout=sys.stderr)
        if done.returncode:
            print(f'{peer.name} is left out: it could not be installed', file=sys.stderr)
        else:
            found.append(peer)
    return found
