"""Sockets outlive workers, reloads and upgrades; what ends them tells them so."""

import events
import pytest


def test_nothing_that_happens_to_workers_touches_a_socket(debian, site, redis):
    made = events.start(site, debian, redis)
    for _ in events.check(made, redis, events.EVENTS, 2, 200, 'sync'):
        pass
