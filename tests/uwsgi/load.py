"""The load generator: thousands of sockets, healthy and hostile.

The program is benches/load, which says what its scenarios do and judges each socket; here it is run
and its figures are read. WSREDIS_LOAD names it, else it is built by cargo."""

import json
import subprocess

from programs import program

# Rates that a flood of honest messages would break.
NO_RATES = 'wsredis-max-message-rate = 0\nwsredis-max-control-rate = 0\n'


def run(made, scenario, redis=None, limit=120, **options):
    """Runs a scenario against a site to its end; returns the figures. Keywords are the program's
    options, as `sockets=1000, receive_buffer=4096`."""
    command = [program('load'), scenario, '--url', f'http://127.0.0.1:{made.port}']
    if redis:
        options['redis'] = redis.url
    for name, value in {**options, 'limit': limit}.items():
        command += [f'--{name.replace("_", "-")}', str(value)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=limit + 30)
    figures = json.loads(done.stdout)
    assert figures['in_time'], figures
    return figures


def assert_unharmed(figures):
    """Every socket has heard everything once, in order, and nothing else; nobody was closed."""
    for kind in ('lost', 'doubled', 'reordered', 'strangers', 'redis_errors'):
        assert figures.get(kind, 0) == 0, figures
    assert not figures['closes'], figures
    assert figures['delivered'] == figures['expected'] > 0, figures
