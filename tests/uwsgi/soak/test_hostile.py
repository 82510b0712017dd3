"""What test_hostile_*.py do small, at the size of the issue."""

import hostile
import load
import pytest
from share import tries

BUFFERS = {'small buffers': 4096, 'the buffers of the system': 0}


def test_10_million_frames_and_no_byte_of_another(debian, site, redis):
    made = hostile.start(site, debian, redis, load.NO_RATES)
    frames = tries(10_000_000)
    hostile.check_isolation(made, redis, sockets=1000, frames=frames, cut_one_in=100, limit=3600)


@pytest.mark.parametrize('buffers', BUFFERS)
def test_1000_that_never_read_beside_1000_healthy(debian, site, redis, buffers):
    made = hostile.start(site, debian, redis, sockets=2000)
    options = {'sockets': 1000, 'slow': 1000, 'rate': 100, 'size': 1024}
    hostile.check_slow(
        made,
        redis,
        f'1,000 never read, {buffers}',
        receive_buffer=BUFFERS[buffers],
        # The kernel takes some 30 s of it by itself.
        seconds=max(60, tries(120)),
        limit=400,
        **options,
    )
    hostile.is_empty(made)


def test_500_that_read_a_byte_a_second(debian, site, redis):
    made = hostile.start(site, debian, redis, sockets=1000)
    options = {'sockets': 500, 'slow': 500, 'rate': 100, 'size': 1024, 'receive_buffer': 2048}
    hostile.check_slow(
        made, redis, '500 read a byte a second', reads='trickle', seconds=60, **options
    )


def test_20_flooders_of_pings_for_a_minute(debian, site, redis):
    made = hostile.start(site, debian, redis)
    figures = hostile.check_attack(made, redis, 'pings', sockets=20, seconds=tries(60))
    hostile.closed_for_their_rate(made, figures)
    hostile.costs_little(figures)


def test_500_flooders_of_messages(debian, site, redis):
    made = hostile.start(site, debian, redis)
    figures = hostile.check_attack(made, redis, 'messages', sockets=500, seconds=tries(60))
    hostile.closed_for_their_rate(made, figures)


def test_1000_messages_of_131000_fragments(debian, site, redis):
    made = hostile.start(site, debian, redis, load.NO_RATES)
    hostile.check_fragments(made, redis, 1000)


def test_1000_messages_of_60000_fragments_at_once(debian, site, redis):
    made = hostile.start(site, debian, redis, load.NO_RATES)
    hostile.check_held_fragments(made, redis, 1000)


def test_10000_connections_full_of_garbage(debian, site, redis):
    made = hostile.start(site, debian, redis)
    hostile.check_garbage(made, redis, tries(10_000))


def test_100000_connections_that_end_at_any_state(debian, site, redis):
    made = hostile.start(site, debian, redis)
    hostile.check_resets(
        made, redis, sockets=64, channels=8, tries=tries(100_000), seconds=900, limit=1800
    )


def test_a_herd_of_9000_comes_back(debian, site, redis):
    """As many as 20,000 descriptors allow, with the bystanders and the test itself."""
    made = hostile.start(site, debian, redis, sockets=9000)
    options = {'sockets': 9000, 'channels': 10, 'rate': 20, 'seconds': 30, 'jitter': 10}
    hostile.check_herd(made, redis, back_95=20, back_100=60, **options)


def test_a_storm_of_50000_messages_a_second_for_a_minute(debian, site, redis):
    made = hostile.start(site, debian, redis, sockets=2000)
    options = {'sockets': 2000, 'channels': 2000, 'rate': 50_000, 'size': 200}
    seconds = max(5, tries(60))
    hostile.check_storm(
        made, redis, 'storm', may_be_cut_off=True, seconds=seconds, limit=300, **options
    )
