"""What test_keeper.py does a few times, done often enough to be believed: `make soak`, some hours."""

import os
import signal
import time

import events
import pytest

from bystander import Bystander
from frozen import check_a_frozen_keeper
from harness import eventually, many_descriptors, print_figures
from share import SHARE, tries

SOCKETS = 1000


@pytest.fixture(autouse=True)
def descriptors():
    many_descriptors(4 * SOCKETS)


@pytest.mark.parametrize('name', events.EVENTS)
@pytest.mark.parametrize('mode', events.MODES)
def test_every_event_50_times(debian, site, redis, mode, name):
    made = events.start(site, debian, redis, mode)
    events.check(made, redis, [name], tries(50), SOCKETS, mode)


def test_200_reloads(debian, site, redis):
    made = events.start(site, debian, redis)
    silences = events.check(made, redis, ['master SIGHUP'], tries(200), SOCKETS, 'reloads')
    assert max(silences['master SIGHUP']) < 1000


def test_50_upgrades(debian, site, redis):
    made = events.start(site, debian, redis)
    events.check(made, redis, ['upgrade'], tries(50), SOCKETS, 'upgrades', size=2000)
    assert len(events.hand_overs(made)) == tries(50)


def test_a_keeper_killed_20_times(debian, site, redis):
    made = events.start(site, debian, redis)
    slowest = 0
    with Bystander(made, redis, sockets=SOCKETS, reconnect=True) as bystanders:
        for closed in range(SOCKETS, (tries(20) + 1) * SOCKETS, SOCKETS):
            begun = time.monotonic()
            os.kill(made.keeper(), signal.SIGKILL)

            def all_are_back():
                figures = bystanders.report()
                return figures['disconnects'] == {'1006': closed} and (
                    figures['connected'] == SOCKETS
                )

            eventually(all_are_back, lambda: f'all are back: {bystanders.figures}', 30)
            slowest = max(slowest, time.monotonic() - begun)
            figures = bystanders.pause()
            assert [figures[kind] for kind in ('lost', 'duplicated', 'reordered')] == [0, 0, 0]
            bystanders.resume()
        print_figures('keeper killed', tries=tries(20), all_back_after_s=round(slowest, 1))


def test_a_keeper_frozen_for_20_s(debian, site, redis):
    check_a_frozen_keeper(events.start(site, debian, redis), redis, max(1, 20 * SHARE), SOCKETS)
