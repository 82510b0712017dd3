"""A Redis of our own, beside the generator."""

import contextlib
import re
import socket
import subprocess

import process

OPTIONS = {
    'save': '',
    'appendonly': 'no',
    'maxclients': '19900',
    # Nobody is cut off for being slower than a burst.
    'client-output-buffer-limit': 'pubsub 0 0 0',
}


class Redis:
    def __init__(self, port):
        self.port = port
        self.url = f'redis://127.0.0.1:{port}'

    def publishes(self):
        """How many PUBLISH it has served."""
        with socket.create_connection(('127.0.0.1', self.port)) as link:
            link.sendall(b'INFO commandstats\r\n')
            with link.makefile('rb') as answer:
                size = int(answer.readline()[1:])
                text = answer.read(size).decode()
        found = re.search(r'cmdstat_publish:calls=(\d+)', text)
        return int(found[1]) if found else 0


@contextlib.contextmanager
def running():
    port = process.free_port()
    command = ['redis-server', '--port', port, '--bind', '127.0.0.1']
    for name, value in OPTIONS.items():
        command += [f'--{name}', value]
    child = process.start(command, process.LOAD_CORE, stdout=subprocess.DEVNULL)
    with process.ended(child):
        process.wait_port(port, child)
        yield Redis(port)
