"""What a delivery costs, counted and not timed, so that it is the same on every machine: system calls (strace) beside the
floor's, the C loop of benches/floor, and instructions of our own (valgrind), which have a limit.

Each is the difference between two loads, of which one has twice as many messages: what a process costs to start, and what a
handshake costs, is in both."""

import re
from collections import Counter

import pytest

import measure
import process
import redis_server
import server
from harness import eventually, need_tool

SOCKETS = 300
SERVERS = {'wsredis': server.wsredis(), 'floor': server.FLOORS[0]}
# What comes in one read of Redis: eight messages of one channel, one alone, and a hundred of any channels.
SHAPES = {
    'burst': dict(burst=8, messages=160),
    'single': dict(burst=1, messages=40),
    'channels': dict(burst=100, messages=12_000, channels=SOCKETS, random='yes'),
}
SEND = ('sendto', 'sendmsg', 'write', 'writev')

# Instructions of ours for each delivery; a change that needs more has to say why.
MOST = {'burst': 52, 'single': 367, 'channels': 3650}


@pytest.fixture(scope='module')
def redis():
    process.raise_limit()
    with redis_server.running() as running:
        yield running


def load(running, redis, shape, times):
    """Says the messages of a shape, so many times; returns how many deliveries that were."""
    options = {**SHAPES[shape], 'messages': SHAPES[shape]['messages'] * times}
    options |= dict(redis=redis.url, room='/news/', group='g', size=64, sockets=SOCKETS, waits='yes', rate=0)
    with measure.generating('fanout', running.port, options) as child:
        figures = measure.of(child)
    assert figures['in_time'] and figures['delivered'] == figures['expected'] > 0, figures
    assert not figures['closes'] and not figures['doubled'], figures
    return figures['delivered']


def counted(wrapper, read, name, redis, shape):
    """What a delivery costs a server, as a tool counts it that writes it down when the server ends."""
    deliveries, counts = [], []
    for times in (1, 2):
        with server.running(SERVERS[name], redis, wrapper) as running:
            deliveries.append(load(running, redis, shape, times))
        counts.append(read())
    more = Counter(counts[1])
    more.subtract(counts[0])
    return {kind: count / (deliveries[1] - deliveries[0]) for kind, count in more.items()}


def system_calls(name, redis, shape, folder):
    """Each system call with how often it is made for a delivery."""
    path = folder / 'calls'

    def read():
        # strace ends a moment later than what it watches.
        text = eventually(lambda: ' total\n' in path.read_text() and path.read_text(), 'the table of strace')
        path.unlink()
        # % time, seconds, usecs/call, calls, errors if there are any, syscall
        rows = re.findall(r'^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(\w+)$', text, re.MULTILINE)
        return {call: int(count) for count, call in rows if call != 'total'}

    wrapper = [need_tool('strace'), '-D', '-f', '-c', '-o', path]
    return counted(wrapper, read, name, redis, shape)


def instructions(name, redis, shape, folder):
    """Instructions that are not the kernel's, for a delivery."""
    path = folder / 'instructions'

    def read():
        text = path.read_text()
        path.unlink()
        return {'all': int(re.search(r'Collected : (\d+)', text)[1])}

    tool = ['--tool=callgrind', '--callgrind-out-file=/dev/null', f'--log-file={path}']
    return counted([need_tool('valgrind'), *tool], read, name, redis, shape)['all']


@pytest.mark.parametrize('shape', SHAPES)
def test_a_delivery_takes_as_many_system_calls_as_the_floor(redis, tmp_path, shape):
    ours, floor = (system_calls(name, redis, shape, tmp_path) for name in ('wsredis', 'floor'))
    print(shape, {call: round(count, 4) for call, count in ours.items() if count}, floor)
    sends = [sum(calls.get(call, 0) for call in SEND) for calls in (ours, floor)]
    # Now and then one read of Redis brings what came in two to the other.
    assert sends[0] == pytest.approx(sends[1], rel=0.05)
    assert sum(ours.values()) <= 1.05 * sum(floor.values())


@pytest.mark.parametrize('shape', SHAPES)
def test_a_delivery_takes_no_more_instructions_than_allowed(redis, tmp_path, shape):
    ours, floor = (instructions(name, redis, shape, tmp_path) for name in ('wsredis', 'floor'))
    print(f'{shape}: {ours:.1f} instructions for a delivery, the floor {floor:.1f}')
    assert ours <= MOST[shape]
