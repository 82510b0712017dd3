"""Sockets outlive workers, reloads and upgrades; and what ends them tells them so."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import events
import pytest
from websockets.exceptions import ConnectionClosed

from bystander import Bystander
from frozen import check_a_frozen_keeper
from harness import (
    DEADLINE,
    descriptors,
    end,
    eventually,
    grant_path,
    many_descriptors,
    print_figures,
    resident,
)

SOCKETS = 200
QUIET = 'disable-logging = true\n'


def with_redis(redis):
    return QUIET + f'wsredis-redis-url = {redis.url}\n'


def test_nothing_that_happens_to_workers_touches_a_socket(debian, site, redis):
    made = events.start(site, debian, redis)
    events.check(made, redis, events.EVENTS, 2, SOCKETS, 'sync')


@pytest.mark.parametrize('mode', [mode for mode in events.MODES if mode != 'sync'])
def test_nor_does_it_in_other_modes(debian, site, redis, mode):
    made = events.start(site, debian, redis, mode)
    events.check(made, redis, ['worker SIGKILL', 'master SIGHUP'], 1, SOCKETS, mode)


def test_pips_uwsgi_does_not_touch_them_either(binaries, site, redis):
    made = events.start(site, binaries('pip'), redis)
    events.check(made, redis, ['worker SIGKILL', 'master SIGHUP', 'upgrade'], 1, SOCKETS, 'pip')


def test_1000_sockets_hear_nothing_of_10_reloads_and_3_upgrades(debian, site, redis):
    many_descriptors(3000)
    made = events.start(site, debian, redis)
    figures = events.check(made, redis, ['master SIGHUP'], 10, 1000, 'reloads')
    assert max(figures['master SIGHUP']) < 1000
    events.check(made, redis, ['upgrade'], 3, 1000, 'upgrades')
    assert len(events.hand_overs(made)) == 3


def test_a_worker_holds_no_descriptor_of_a_socket(debian, site, redis):
    made = site(debian, with_redis(redis))
    with made.raw(grant_path({})):
        # The worker has opened all three connections that it needs.
        assert made.stats()['sockets'] == 1
        assert made.get('/publish?channel=a&parts=1').text == 'ok'
        (worker,), keeper = made.workers(), made.keeper()
        before, kept, memory = descriptors(worker), descriptors(keeper), resident(keeper)
    with Bystander(made, redis, sockets=SOCKETS):
        eventually(lambda: made.stats()['sockets'] == SOCKETS, 'all are adopted')
        eventually(lambda: descriptors(worker) <= before, 'the worker holds none of them')
        eventually(lambda: descriptors(keeper) == kept + SOCKETS - 1, 'the keeper holds one for each')
        print_figures(
            'the keeper',
            descriptors_besides_sockets=kept - 1,
            threads=len(list(Path(f'/proc/{keeper}/task').iterdir())),
            resident_kB_with_one_socket=memory,
            resident_kB_with_200_sockets=resident(keeper),
        )
    eventually(lambda: descriptors(keeper) == kept - 1, 'the keeper holds none either')


def test_browsers_of_a_killed_keeper_come_back_to_the_next(debian, site, redis):
    made = site(debian, with_redis(redis), workers=2)
    with Bystander(made, redis, sockets=SOCKETS, reconnect=True) as bystanders:
        killed = made.keeper()
        begun = time.monotonic()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: bystanders.closed_by(1006), 'all are closed')
        eventually(lambda: bystanders.report()['connected'] == SOCKETS, 'all are back')
        print_figures(
            'keeper killed',
            sockets=SOCKETS,
            all_back_after_s=round(time.monotonic() - begun, 1),
            handshakes_refused=bystanders.figures['handshake_refused'],
        )
        assert made.keeper() != killed
        figures = bystanders.pause()
        assert [figures[kind] for kind in ('lost', 'duplicated', 'reordered')] == [0, 0, 0]
        assert sum(figures['disconnects'].values()) == SOCKETS


def test_a_reload_that_waits_long_keeps_the_sockets_of_a_second_keeper(binary, site, redis):
    # A reload ends the gateway at once, so that the master's lease alone counts meanwhile.
    made = site(binary, with_redis(redis) + 'wsredis-keeper-grace = 1s\n', workers=2)
    with Bystander(made, redis, sockets=SOCKETS, reconnect=True) as bystanders:
        killed = made.keeper()
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: bystanders.closed_by(1006), 'all are closed')
        eventually(lambda: bystanders.report()['connected'] == SOCKETS, 'all are back')
        before, keeper, workers = bystanders.pause(), made.keeper(), made.workers()
        bystanders.resume()
        with made.raw('/grant?how=late-sleep&late=4') as busy:
            assert busy.take(5) == b'first'
            os.kill(made.process.pid, signal.SIGHUP)
            assert busy.body() == b'last'
        events.serves(made, workers, len(workers))
        after = bystanders.pause(20)
        assert after['disconnects'] == before['disconnects']
        assert [after[kind] for kind in ('lost', 'duplicated', 'reordered')] == [0, 0, 0]
        assert made.keeper() == keeper != killed


def test_a_frozen_keeper_blocks_no_worker(debian, site, redis):
    check_a_frozen_keeper(site(debian, with_redis(redis), workers=2), redis, seconds=3)


@pytest.mark.parametrize('name', ['SIGTERM', 'SIGINT', 'SIGQUIT'])
def test_a_stop_tells_every_browser_and_leaves_nothing(binary, site, redis, name):
    # With die-on-term SIGQUIT means what SIGTERM means without: a reload.
    options = 'die-on-term = false\n' if name == 'SIGQUIT' else ''
    made = site(binary, with_redis(redis) + options, workers=2)
    with Bystander(made, redis, sockets=SOCKETS) as bystanders:
        made.process.send_signal(signal.Signals[name])
        made.process.wait(DEADLINE)
        eventually(lambda: bystanders.closed_by(1012), '1012 for every socket', 2)
        eventually(made.is_gone, 'no keeper and no folder is left', 2)


def test_without_its_master_the_keeper_ends_after_its_grace(debian, site, redis):
    made = site(
        debian, with_redis(redis) + 'wsredis-keeper-grace = 500ms\nno-orphans = true\n', workers=2
    )
    children = made.children()
    with Bystander(made, redis, sockets=SOCKETS) as bystanders:
        made.process.kill()
        made.process.wait()
        eventually(lambda: bystanders.closed_by(1001), '1001 for every socket')
        eventually(lambda: not made.keepers(), 'the keeper ends')
    eventually(lambda: not any(Path(f'/proc/{pid}/exe').exists() for pid in children), 'all end')


def test_the_embedded_broker_serves_any_number_of_workers(binary, site):
    made = site(binary, QUIET, workers=4)
    path = grant_path({'subscribe': ['news']}, worker=1, sleep=0.05)
    with contextlib.ExitStack() as stack, ThreadPoolExecutor(8) as pool:
        browsers = []

        def every_worker_has_one():
            browsers.extend(map(stack.enter_context, pool.map(made.raw, [path] * 16)))
            return len({browser.head['set-cookie'][0] for browser in browsers}) == 4

        eventually(every_worker_has_one, 'a browser of each of four workers')
        for i in range(20):
            assert made.get('/publish?channel=news&parts=1000').text == 'ok'
        for browser in browsers:
            assert [browser.message() for _ in range(20)] == [(1, b'a' * 1000)] * 20
        with Bystander(made, sockets=SOCKETS) as bystanders:
            bystanders.assert_unharmed()


@pytest.fixture
def keeper_by_hand(debian):
    """Starts a keeper as systemd or a hand would; its path and its process."""
    folder = Path(tempfile.mkdtemp(prefix='keeper'))
    path = folder / 'keeper'
    (folder / 'keeper.ini').write_text(f'[wsredis]\nkeeper = {path}\n')
    process = subprocess.Popen(
        [debian.path, f'--need-plugin={debian.plugin}'],
        env={**os.environ, 'WSREDIS_KEEPER': str(folder / 'keeper.ini')},
        stdin=subprocess.DEVNULL,
    )
    try:
        eventually(path.exists, 'the keeper listens')
        yield path, process
    finally:
        end(process)
        shutil.rmtree(folder)


def test_two_sites_share_a_keeper_that_was_started_by_hand(debian, site, keeper_by_hand):
    path, process = keeper_by_hand
    sites = [site(debian, QUIET + f'wsredis-keeper = {path}\n', workers=2) for _ in range(2)]
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(sites[0].connect(grant_path({'subscribe': ['news']})))
        crowd = stack.enter_context(Bystander(sites[1], sockets=50))
        assert sites[1].get('/publish?channel=news&parts=5').text == 'ok'
        assert listener.recv(DEADLINE) == 'aaaaa'
        for made in sites:
            made.stop()
        crowd.assert_unharmed()
        process.terminate()
        assert process.wait(DEADLINE) == 0
        eventually(lambda: crowd.closed_by(1012), '1012 for every socket')
        with pytest.raises(ConnectionClosed) as closed:
            listener.recv(DEADLINE)
        assert closed.value.rcvd.code == 1012
    assert not path.exists()
