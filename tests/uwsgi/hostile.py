"""What hostile browsers do to a site, at any size, beside healthy ones: test_hostile_*.py does it small,
soak/test_hostile.py at full size."""

import collections
import contextlib
import os
import threading

import load
from bystander import Bystander
from harness import descriptors, eventually, grant_path, many_descriptors, print_figures

# What of a hundred messages to bystanders the slowest may take. 100 ms is what they should, and do on a
# machine of their own; here they share two cores with who floods them, and with whatever else runs.
P99_MS = int(os.environ.get('WSREDIS_P99_MS', '2000'))


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
        healthy.assert_unharmed(seconds=20)


def conclude(title, figures, healthy, **more):
    """Prints what a run has measured, of the site and of the bystanders, who must have waited for nothing."""
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
    assert healthy.figures['p99_ms'] < P99_MS, healthy.figures


def is_empty(made):
    """Waits until nobody is there any more."""
    eventually(lambda: made.stats()['sockets'] == 0, lambda: made.stats())


def check_fanout(made, redis, title, **options):
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'fanout', redis, pid=made.keeper(), **options)
    conclude(
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
    conclude(
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
    conclude(
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
    assert figures['p99_ms'] < P99_MS, figures
    assert closed == slow['ended'] > 0, (closed, figures)
    assert closed == slow['sockets'] or options['reads'] == 'staggered', (closed, figures)
    # What they have got of their streams has no hole, and there is nothing behind a close frame.
    faults = ('lost', 'doubled', 'reordered', 'bytes_behind_the_close')
    assert [slow[kind] for kind in faults] == [0, 0, 0, 0], figures
    assert memory[1] - memory[0] < growth_mb * 1024, figures
    return figures


def check_attack(made, redis, attack, title=None, **options):
    """Flooders beside healthy browsers. Returns the figures; `endings` says how each kind ended."""
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'attack', attack=attack, pid=made.keeper(), **options)
    conclude(
        title or attack,
        figures,
        healthy,
        connections=figures['tries'],
        frames=figures['attack_frames'],
        endings=figures['endings'],
    )
    return figures


def costs_little(figures):
    """Each flood cost the loop some 100 us, with its handshake. How much of a core that is depends on how fast
    they come back, which max-adopt-rate bounds: 50 % at 5,500 a second."""
    seconds = figures['server']['busiest_thread_percent'] / 100 * figures['seconds']
    assert seconds / figures['closes']['4029'] < 250e-6, figures


def closed_for_their_rate(made, figures):
    """Were all flooders closed with 4029? Where its own flood is still under way, a reset may overtake
    the close frame."""
    is_empty(made)
    endings = figures['endings']['all']
    assert set(endings) <= {'4029', '1006'} and endings['4029'] > 0, figures
    assert made.stats()['closed']['rate'] >= sum(endings.values()), (made.stats(), figures)


def grown(figures):
    """Kilobytes of the process's own memory at the peak, beyond those at the beginning."""
    before, peak, _ = figures['server']['anonymous_kb']
    return peak - before


def check_fragments(made, redis, sockets):
    """Messages of 131,000 fragments of a byte, where no rate ends them."""
    figures = check_attack(
        made,
        redis,
        'fragments',
        'fragments, no rate',
        sockets=sockets,
        tries=sockets,
        seconds=60,
    )
    endings = figures['endings']['all']
    assert set(endings) <= {'1009', '1006'} and endings['1009'] > 0, figures
    assert made.stats()['closed']['too_big'] == sockets
    # 64 KiB of message and 4 KiB of everything else for each.
    assert grown(figures) < sockets * (64 + 4) + 2048, figures


def check_held_fragments(made, redis, sockets):
    """Messages of 60,000 fragments of a byte without an end, all at once: as large as they may be."""
    figures = check_attack(
        made,
        redis,
        'fragments',
        'fragments without an end',
        sockets=sockets,
        tries=sockets,
        fragments=60_000,
        seconds=60,
        drain=60,
    )
    assert figures['endings'] == {'all': {'1008': sockets}}, figures
    assert made.stats()['closed']['unfinished'] == sockets
    # Not less either, or they were not there at once.
    assert sockets * 50 < grown(figures) < sockets * (64 + 4) + 2048, figures


def check_garbage(made, redis, connections):
    """Random bytes instead of frames."""
    figures = check_attack(
        made, redis, 'garbage', sockets=50, tries=connections, seconds=connections / 50
    )
    endings = figures['endings']['all']
    assert sum(endings.values()) >= connections, figures
    # Random bytes may also be a close frame, and their codes are random, too.
    known = ('1002', '1006', '1007', '1008', '1009', '4029')
    others = sum(count for code, count in endings.items() if code not in known)
    assert others <= connections // 500, figures
    assert endings['1002'] > connections * 0.9, figures


def check_resets(made, redis, **options):
    """Connections that end at any state of the protocol leave nothing."""
    keeper = made.keeper()
    # The first one makes the engine begin, with its links.
    with made.raw(grant_path({'subscribe': ['first']})) as browser:
        assert browser.status == 101
    is_empty(made)
    before = descriptors(keeper)
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'resets', redis, pid=keeper, **options)
    conclude(
        'resets', figures, healthy, connections=figures['tries'], states=figures['states']
    )
    assert figures['tries'] >= options['tries'], figures
    assert all(count > 0 for count in figures['states'].values()), figures
    # What a reset has overtaken was not heard, nothing else.
    assert figures['impatient'] == 0, figures
    is_empty(made)
    eventually(lambda: descriptors(keeper) <= before, lambda: f'{descriptors(keeper)}, {before}')
    eventually(
        lambda: not redis.client.pubsub_channels(), lambda: redis.client.pubsub_channels()
    )
    return figures


def check_herd(made, redis, back_95, back_100, **options):
    """All connections of some are cut in a moment; they come back, and hear again."""
    with bystanders(made, redis) as healthy:
        figures = load.run(made, 'herd', redis, pid=made.keeper(), **options)
    conclude(
        'herd',
        figures,
        healthy,
        cut_in_ms=figures['cut_in_ms'],
        back_95_s=figures['back_95_s'],
        back_100_s=figures['back_100_s'],
        refused=figures['refused'],
    )
    assert figures['open_at_the_end'] == options['sockets'], figures
    for kind in ('lost', 'doubled', 'reordered', 'strangers'):
        assert figures[kind] == 0, figures
    assert figures['back_95_s'] <= back_95 and figures['back_100_s'] <= back_100, figures
    return figures


def check_storm(made, redis, title, may_be_cut_off=False, **options):
    """More messages than anybody would send: Redis never cuts us off, and nothing is lost. Where the
    machine may be too slow for that, everybody is told: it is never silence."""
    with Bystander(made, redis, sockets=100, group='bystander:') as healthy:
        healthy.report()
        figures = load.run(made, 'fanout', redis, pid=made.keeper(), **options)
        is_cut_off = made.stats()['redis_lost'] > 0
        if is_cut_off:
            healthy.pause(20)
        else:
            healthy.assert_unharmed(seconds=20)
    conclude(
        title,
        figures,
        healthy,
        cut_off=is_cut_off,
        deliveries=figures['delivered'],
        deliveries_per_s=figures['deliveries_per_s'],
        late_ms=figures['late_ms'],
    )
    if is_cut_off:
        assert may_be_cut_off, figures
        assert figures['closes'] == {'1012': options['sockets']}, figures
        assert healthy.figures['disconnects'] == {'1012': 100}, healthy.figures
        faults = [figures[kind] for kind in ('doubled', 'reordered', 'strangers')]
        faults += [healthy.figures[kind] for kind in ('lost', 'duplicated', 'reordered')]
        assert not any(faults), (figures, healthy.figures)
    else:
        load.assert_unharmed(figures)


class Newcomer:
    """Asks for handshakes, one after the other; `statuses` counts the answers."""

    def __init__(self, made):
        self.made = made
        self.statuses = collections.Counter()
        self.retry_after = set()
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.stopped.wait(0.02):
            with self.made.raw(grant_path({'subscribe': ['newcomer']})) as browser:
                self.statuses[browser.status] += 1
                self.retry_after.update(browser.head.get('retry-after', []))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()


def check_memory(made, redis, megabytes, **options):
    """The engine's memory is filled by sockets that do not read, and by messages without an end: the
    slowest are closed, newcomers are refused, and nobody else notices."""
    with bystanders(made, redis) as healthy, Newcomer(made) as newcomer:
        figures = load.run(made, 'slow', redis, pid=made.keeper(), drain=2, **options)
    stats = made.stats()
    conclude(
        'max-memory',
        figures,
        healthy,
        shed=stats['closed']['shed'],
        newcomers=dict(newcomer.statuses),
        grown_kB=grown(figures),
    )
    assert figures['healthy_open'] == options['sockets'], figures
    assert figures['delivered'] == figures['expected'] > 0, figures
    assert [figures[kind] for kind in ('lost', 'doubled', 'reordered')] == [0, 0, 0], figures
    assert stats['closed']['shed'] > 0 and stats['closed']['slow'] == 0, stats
    assert newcomer.statuses[101] > 0 and newcomer.statuses[503] > 0, newcomer.statuses
    assert newcomer.retry_after, newcomer.statuses
    # What the allocator keeps of what it was given back is not the engine's to count.
    assert grown(figures) < megabytes * 1024 * 1.25 + 4096, figures
    return figures
