"""No byte of one socket ever reaches another: partial frames of a thousand sockets interleave, while
connections are cut anywhere and others take their places."""

import hostile
import load


def test_no_byte_of_one_socket_reaches_another(debian, site, redis):
    made = hostile.start(site, debian, redis, load.NO_RATES)
    hostile.check_isolation(made, redis, sockets=1000, frames=1_000_000, cut_one_in=30)
    hostile.is_empty(made)
