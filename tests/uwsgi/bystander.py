"""Healthy browsers beside whatever a test does to a site: they must notice nothing.

The program is benches/bystander, which says what it judges; here it is started and asked.
WSREDIS_BYSTANDER names it, else it is built by cargo."""

import contextlib
import json
import selectors
import subprocess
import time

from programs import program


class Bystander:
    """Browsers of a site; keywords are the program's options, as `sockets=1000, reconnect=True`."""

    def __init__(self, made, redis=None, **options):
        self.command = [program('bystander'), '--url', f'http://127.0.0.1:{made.port}']
        if redis:
            options['redis'] = redis.url
        for name, value in options.items():
            if value is not False:
                self.command += [f'--{name}'] + ([] if value is True else [str(value)])
        self.process = None
        self.figures = {}
        self._buffer = b''

    def __enter__(self):
        self.process = subprocess.Popen(
            self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        try:
            assert self._answer(60)['ready']
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        """Every browser closes in order, unless the program hangs."""
        with contextlib.suppress(OSError):
            self.process.stdin.write(b'quit\n')
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def _answer(self, seconds):
        end = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b'\n' not in self._buffer:
                assert selector.select(end - time.monotonic()), f'no answer within {seconds} s'
                data = self.process.stdout.read(65536)
                assert data, f'the bystander has ended with {self.process.wait()}'
                self._buffer += data
        line, self._buffer = self._buffer.split(b'\n', 1)
        return json.loads(line)

    def _ask(self, command, seconds=10):
        self.process.stdin.write(command.encode() + b'\n')
        return self._answer(seconds)

    def report(self):
        """What was counted so far. Silence and latencies are those since the last report."""
        self.figures = self._ask('report')
        return self.figures

    def pause(self, seconds=5):
        """Stops what is said and waits for what was said; the report is final."""
        self.figures = self._ask(f'pause {seconds}', seconds + 10)
        return self.figures

    def resume(self):
        self._ask('resume')

    def closed_by(self, *codes):
        """Have all sockets been closed, each once, with one of these codes?"""
        closed = self.report()['disconnects']
        wrong = {code: n for code, n in closed.items() if int(code) not in codes}
        assert not wrong, f'closed with other codes than {codes}: {wrong}'
        return sum(closed.values()) == self.figures['sockets']

    def assert_unharmed(self, seconds=5):
        """Everything that was said has arrived once and in order, and nobody was closed."""
        figures = self.pause(seconds)
        self.resume()
        told = json.dumps(figures)
        assert figures['connected'] == figures['sockets'], told
        assert not figures['disconnects'], told
        for kind in ('lost', 'duplicated', 'reordered'):
            assert figures[kind] == 0, told
            assert figures.get('inbound', {}).get(kind, 0) == 0, told
        assert figures['delivered'] == figures['expected'] > 0, told
        return figures
