"""Everything that may happen to a worker, each done once to a running site.

Each returns when the site serves again with other workers. What it meant for the browsers is the
bystanders' to say."""

import contextlib
import os
import re
import signal

from bystander import Bystander
from harness import eventually, grant_path, print_figures

MODES = {
    'sync': ('', ()),
    'threads': ('threads = 4\nenable-threads = true\n', ()),
    'gevent': ('gevent = 20\n', ('gevent_python3',)),
    'lazy-apps': ('lazy-apps = true\n', ()),
}

MAX_REQUESTS = 400


def start(site, binary, redis, mode='sync', workers=2):
    """A site to which every event can be done."""
    options, plugins = MODES[mode]
    return site(
        binary,
        options
        + (f'wsredis-redis-url = {redis.url}\n' if redis else '')
        + f'''disable-logging = true
min-worker-lifetime = 0
forkbomb-delay = 0
max-requests = {MAX_REQUESTS}
reload-on-rss = 150
cheaper = 1
cheaper-initial = {workers}
cheaper-algo = manual
master-fifo = %d/fifo
touch-reload = %d/reload.me
touch-chain-reload = %d/chain-reload.me
''',
        plugins=plugins,
        workers=workers,
    )


def serves(made, gone, count):
    """Waits until none of `gone` is a worker, `count` others are, and they answer."""

    def is_so():
        now = made.workers()
        return len(now) == count and not set(now) & set(gone) and made.answers()

    eventually(is_so, lambda: f'{count} workers other than {gone}:\n{made.log()[-3000:]}', 30)


def to_one_worker(do):
    def event(made):
        before = made.workers()
        do(made, before[0])
        serves(made, before[:1], len(before))

    return event


def to_all_workers(do):
    def event(made):
        before = made.workers()
        do(made)
        serves(made, before, len(before))

    return event


def some_worker_goes(do):
    """Whoever gets the request: `do` asks again and again until one has gone."""

    def event(made):
        before = made.workers()

        def one_has_gone():
            with contextlib.suppress(OSError):
                do(made)
            return set(before) - set(made.workers())

        gone = eventually(one_has_gone, lambda: f'a worker goes:\n{made.log()[-3000:]}', 60)
        serves(made, gone, len(before))

    return event


def touch(name):
    def do(made):
        path = made.ini.parent / name
        path.touch()
        # uWSGI compares whole seconds: each touch is a later one.
        then = os.stat(path).st_mtime + 1
        os.utime(path, (then, then))

    return do


def chain_reload(made):
    """One worker after the other; the next chain may begin when this one is complete."""
    complete = 'chain reloading complete'
    before, count = made.workers(), made.log().count(complete)
    touch('chain-reload.me')(made)
    eventually(lambda: made.log().count(complete) > count, lambda: made.log()[-3000:], 30)
    serves(made, before, len(before))


def fifo(made, letter):
    with open(made.ini.parent / 'fifo', 'w') as file:
        file.write(letter)


def cheaper(made):
    """A worker is put to sleep, and woken again."""
    before = made.workers()
    fifo(made, '-')
    eventually(lambda: len(made.workers()) < len(before), lambda: made.log()[-3000:])
    fifo(made, '+')
    serves(made, (), len(before))


def upgrade(made):
    """The keeper's settings differ after a reload: another keeper takes everything over."""
    before = made.keeper()
    text = made.ini.read_text()
    found = re.search(r'wsredis-ping-interval = (\d+)s\n', text)
    line = f'wsredis-ping-interval = {int(found[1]) + 1 if found else 31}s\n'
    made.ini.write_text(text.replace(found[0], line) if found else text + line)
    reload_master(made)
    eventually(lambda: made.keepers() and before not in made.keepers(), 'another keeper')
    made.keeper()


def hand_overs(made):
    """The times of all hand-overs so far, by the keepers' own clocks."""
    return [int(ms) for ms in re.findall(r'took over \d+ sockets in (\d+) ms', made.log())]


reload_master = to_all_workers(lambda made: os.kill(made.process.pid, signal.SIGHUP))

EVENTS = {
    'worker SIGHUP': to_one_worker(lambda made, pid: os.kill(pid, signal.SIGHUP)),
    'worker SIGKILL': to_one_worker(lambda made, pid: os.kill(pid, signal.SIGKILL)),
    'worker SIGSEGV': to_one_worker(lambda made, pid: os.kill(pid, signal.SIGSEGV)),
    'harakiri': some_worker_goes(lambda made: made.get('/hang', timeout=10)),
    'max-requests': some_worker_goes(lambda made: [made.get('/') for _ in range(20)]),
    'reload-on-rss': some_worker_goes(lambda made: made.get('/hoard?megabytes=150')),
    'cheaper': cheaper,
    'chain reload': chain_reload,
    'touch-reload': to_all_workers(touch('reload.me')),
    'master SIGHUP': reload_master,
}


def check(made, redis, events, tries, sockets, title, **options):
    """Does each event so many times beside bystanders, which must notice nothing. Returns the
    longest silence of each try, by event."""
    silences = {}
    with Bystander(made, redis, sockets=sockets, **options) as bystanders:
        for name in events:
            event = upgrade if name == 'upgrade' else EVENTS[name]
            tried = []
            bystanders.report()
            for _ in range(tries):
                event(made)
                tried.append(bystanders.assert_unharmed(seconds=20))
                with made.raw(grant_path({'subscribe': ['new']})) as browser:
                    assert browser.status == 101, f'{name}: {browser.status}'
            silences[name] = [figures['longest_silence_ms'] for figures in tried]
            more = {'hand_over_ms': max(hand_overs(made))} if name == 'upgrade' else {}
            print_figures(
                f'{title}, {name}',
                tries=tries,
                sockets=sockets,
                disconnects=sum(tried[-1]['disconnects'].values()),
                lost=tried[-1]['lost'],
                longest_silence_ms=max(silences[name]),
                own_stall_ms=max(figures['own_stall_ms'] for figures in tried),
                **more,
            )
    return silences
