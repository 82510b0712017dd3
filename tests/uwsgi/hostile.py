"""What hostile browsers do to a site, at any size, beside healthy ones: test_hostile_*.py does it small,
soak/test_hostile.py at full size."""

import contextlib
import os

import load
from bystander import Bystander
from harness import eventually, many_descriptors, print_figures

# What of a hundred messages to bystanders the slowest may take. 100 ms is what they should, and do on a
# machine of their own; here they share two cores with who floods them, and with whatever else runs.
P99_MS = int(os.environ.get('WSREDIS_P99_MS', '1000'))


def start(site, binary, redis, options='', sockets=1000, **more):
    many_descriptors(min(20_000, 2 * sockets + 2000))
    return site(
        binary,
        f'wsredis-redis-url = {redis.url}\ndisable-logging = true\n'
        + f'route = ^/echo$ wsredis-echo:\n{options}',
        **more,
    )


@contextlib.contextmanager
def bystanders(made, redis, **options):
    """Healthy browsers that must not notice what is done meanwhile."""
    options = {'sockets': 100, 'group': 'bystander:', **options}
    with Bystander(made, redis, **options) as healthy:
        healthy.report()
        yield healthy
        figures = healthy.assert_unharmed(seconds=20)
        assert figures['p99_ms'] < P99_MS, figures


def told(title, figures, healthy, **more):
    """Prints what a run has measured, of the site and of the bystanders."""
    server = figures.get('server', {})
    memory = server.get('anonymous_kb', [0, 0, 0])
    print_figures(
        title,
        seconds=figures['seconds'],
        p99_ms=figures['p99_ms'],
        max_ms=figures['max_ms'],
        cpu_percent=server.get('cpu_percent'),
        busiest_thread_percent=server.get('busiest_thread_percent'),
        anonymous_kB=f'{memory[0]}/{memory[1]}/{memory[2]}',
        closes=figures['closes'],
        bystander_p99_ms=healthy.figures['p99_ms'],
        own_stall_ms=healthy.figures['own_stall_ms'],
        **more,
    )


def is_empty(made):
    """Waits until nobody is there any more."""
    eventually(lambda: made.stats()['sockets'] == 0, lambda: made.stats())


def check_fanout(made, redis, title, **options):
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'fanout', redis, pid=made.keeper(), **options)
    told(
        title,
        figures,
        healthy,
        deliveries=figures['delivered'],
        deliveries_per_s=figures['deliveries_per_s'],
        handshakes_per_s=figures['handshakes_per_s'],
    )
    load.assert_unharmed(figures)
    return figures


def check_isolation(made, redis, **options):
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'isolation', redis, pid=made.keeper(), **options)
    told(
        'isolation',
        figures,
        healthy,
        frames=figures['frames'],
        heard=figures['messages_heard'],
        cuts=figures['cuts'],
        belated=figures['belated'],
    )
    assert figures['frames'] >= options['frames'] and figures['cuts'] > 0, figures
    assert figures['messages_heard'] > 0 and figures['pongs'] > 0, figures
    assert [figures[kind] for kind in ('foreign', 'lost', 'doubled')] == [0, 0, 0], figures
    assert not figures['closes'] and not figures['refused'], figures
    return figures


def check_slow(made, redis, title, growth_mb=32, **options):
    """Healthy sockets beside slow ones: all of these are closed for that cause, unless they wake."""
    before = made.stats()['closed']['slow']
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'slow', redis, pid=made.keeper(), **options)
    slow, closed = figures['slow'], made.stats()['closed']['slow'] - before
    memory = figures['server']['anonymous_kb']
    told(
        title,
        figures,
        healthy,
        delivered=figures['delivered'],
        slow_closed=closed,
        grown_kB=memory[1] - memory[0],
        over_time=figures['server']['anonymous_kb_over_time'],
    )
    assert figures['healthy_open'] == options['sockets'], figures
    assert figures['delivered'] == figures['expected'] > 0, figures
    assert [figures[kind] for kind in ('lost', 'doubled', 'reordered')] == [0, 0, 0], figures
    assert figures['p99_ms'] < 1000, figures
    assert closed == slow['ended'] > 0, (closed, figures)
    assert closed == slow['sockets'] or options['reads'] == 'staggered', (closed, figures)
    # What they have got of their streams has no hole, and there is nothing behind a close frame.
    faults = ('lost', 'doubled', 'reordered', 'bytes_behind_the_close')
    assert [slow[kind] for kind in faults] == [0, 0, 0, 0], figures
    assert memory[1] - memory[0] < growth_mb * 1024, figures
    return figures
