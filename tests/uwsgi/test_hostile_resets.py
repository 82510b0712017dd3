"""Connections that end when nobody expects it, one by one and all at once."""

import hostile


def test_connections_that_end_at_any_state_leave_nothing(debian, site, redis):
    made = hostile.start(site, debian, redis)
    hostile.check_resets(made, redis, sockets=64, channels=8, tries=5000, seconds=60)
    assert made.answers()


def test_a_herd_comes_back(debian, site, redis):
    made = hostile.start(site, debian, redis, sockets=1500)
    options = {'sockets': 1500, 'channels': 10, 'rate': 50, 'seconds': 8, 'jitter': 2}
    hostile.check_herd(made, redis, back_95=10, back_100=20, **options)
    hostile.is_empty(made)


def test_a_herd_that_comes_back_faster_than_it_may_is_told_to_wait(debian, site, redis):
    made = hostile.start(site, debian, redis, 'wsredis-max-adopt-rate = 300\n')
    options = {'sockets': 1000, 'channels': 10, 'rate': 50, 'seconds': 8, 'jitter': 1}
    figures = hostile.check_herd(made, redis, back_95=15, back_100=30, **options)
    assert set(figures['refused']) == {'503'} and figures['refused_back'] > 100, figures
    # No more came in than may: a thousand need three seconds at least, but for the burst.
    assert figures['back_100_s'] > 1.5, figures
    hostile.is_empty(made)
