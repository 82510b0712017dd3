"""The load generator itself: it finds what is planted, and blames nobody else."""

from concurrent.futures import ThreadPoolExecutor

import pytest

import hostile
import load


def with_planted(made, redis, scenario, message, **options):
    """The figures of a run in which somebody else publishes a message, too."""
    with ThreadPoolExecutor() as pool:
        running = pool.submit(load.run, made, scenario, redis, group='planted:', **options)
        redis.wait_listeners('planted:1')
        assert redis.client.publish('planted:1', message) == 1
        return running.result()


@pytest.mark.parametrize(
    'message, fault',
    [('1 0 0 0 ', 'doubled'), ('1 0 1000000 0 ', 'lost'), ('0 0 5 0 ', 'strangers'), ('?', 'strangers')],
    ids=['duplicate', 'loss', 'message of another channel', 'no message at all'],
)
def test_a_planted_message_is_found(debian, site, redis, message, fault):
    made = hostile.start(site, debian, redis)
    figures = with_planted(
        made, redis, 'fanout', message, sockets=10, channels=2, rate=100, seconds=2, drain=1
    )
    # Five of the ten hear it.
    assert figures[fault] >= 5, figures
    with pytest.raises(AssertionError):
        load.assert_unharmed(figures)


def test_a_byte_that_is_nobodys_is_found(debian, site, redis):
    made = hostile.start(site, debian, redis, load.NO_RATES)
    # The owner is right, and one byte is not.
    message = '0000000100000000' * 7
    figures = with_planted(
        made, redis, 'isolation', message[:-1] + '1', sockets=8, frames=200_000, cut_one_in=0
    )
    assert figures['foreign'] > 0, figures


def test_sockets_that_speak_themselves_are_judged_as_well(debian, site, redis):
    made = hostile.start(site, debian, redis)
    figures = load.run(made, 'fanout', sockets=50, channels=5, speakers=5, rate=200, seconds=2)
    load.assert_unharmed(figures)
    # Ten hear each channel, but for who speaks there.
    assert figures['delivered'] == 400 * 9, figures
