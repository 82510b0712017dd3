"""The bystanders themselves: they see nothing where nothing is wrong, and what is planted."""

import os
import signal

import pytest

from bystander import Bystander
from harness import eventually


def test_nothing_is_wrong_with_a_site_that_is_left_alone(debian, site, redis):
    made = site(debian, f'wsredis-redis-url = {redis.url}\n')
    with Bystander(made, redis, sockets=200, rate=20) as bystanders:
        figures = bystanders.assert_unharmed()
        assert figures['inbound']['arrived'] == figures['inbound']['sent'] > 0
    eventually(lambda: made.stats()['sockets'] == 0, 'they have left')


def test_nothing_is_wrong_without_redis_either(debian, site):
    with Bystander(site(debian), sockets=20, speakers=4, size=3000) as bystanders:
        bystanders.assert_unharmed()


@pytest.mark.parametrize(
    'number, fault', [(0, 'duplicated'), (1_000_000, 'lost')], ids=['duplicate', 'loss']
)
def test_what_is_planted_from_outside_is_found(debian, site, redis, number, fault):
    made = site(debian, f'wsredis-redis-url = {redis.url}\n')
    with Bystander(made, redis, sockets=20, group='planted:') as bystanders:
        # Twenty browsers on five channels, two each: eight of them hear each channel.
        assert redis.client.publish('planted:c1', f'1 0 {number} 0 ') == 1
        eventually(lambda: bystanders.report()[fault] >= 8, f'eight are told {fault}')
        with pytest.raises(AssertionError):
            bystanders.assert_unharmed(seconds=1)


def test_closed_connections_are_counted_and_come_back_where_they_may(debian, site, redis):
    made = site(debian, f'wsredis-redis-url = {redis.url}\nwsredis-keeper = off\n')
    with Bystander(made, redis, sockets=20, reconnect=True) as bystanders:
        os.kill(made.workers()[0], signal.SIGKILL)
        eventually(lambda: bystanders.closed_by(1006), 'all are closed')
        eventually(lambda: bystanders.report()['connected'] == 20, 'all are back')
        figures = bystanders.pause()
        assert [figures[kind] for kind in ('lost', 'duplicated', 'reordered')] == [0, 0, 0]
        assert sum(figures['disconnects'].values()) == 20
