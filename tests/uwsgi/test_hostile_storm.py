"""More messages than anybody wants: bursts, and a storm on thousands of channels."""

import hostile


def test_every_socket_hears_a_burst_once_and_in_order(debian, site, redis):
    made = hostile.start(site, debian, redis)
    options = {'sockets': 500, 'channels': 5, 'hears': 2, 'rate': 2000, 'burst': 1000}
    hostile.check_fanout(made, redis, 'bursts', seconds=3, **options)
    hostile.is_empty(made)


def test_redis_never_cuts_us_off_in_a_storm(debian, site, redis):
    made = hostile.start(site, debian, redis, sockets=2000)
    options = {'sockets': 2000, 'channels': 2000, 'rate': 10_000, 'size': 200, 'seconds': 4}
    hostile.check_storm(made, redis, 'storm', **options)
    hostile.is_empty(made)
