"""Sockets that do not read are closed for that cause; nobody else notices, and memory stays."""

import hostile
import pytest

# The kernel holds little for a browser, so that it soon refuses more. As it is otherwise, it would
# take some 2.5 MB: soak/test_hostile.py waits for that.
SMALL_BUFFERS = 'socket-sndbuf = 16384\n'

OPTIONS = {'sockets': 200, 'slow': 200, 'size': 1024, 'rate': 100, 'receive_buffer': 4096}


def test_who_never_reads_is_closed_and_the_others_hear_everything(debian, site, redis):
    made = hostile.start(site, debian, redis, SMALL_BUFFERS)
    hostile.check_slow(made, redis, 'never read', seconds=6, **OPTIONS)
    hostile.is_empty(made)


def test_who_reads_a_byte_a_second_is_as_slow_as_who_never_reads(debian, site, redis):
    """Progress does not save it: what waits for it is too much, or too old."""
    made = hostile.start(site, debian, redis, SMALL_BUFFERS + 'wsredis-write-queue-age = 2s\n')
    few = {**OPTIONS, 'rate': 20, 'seconds': 8}
    hostile.check_slow(made, redis, 'a byte a second', reads='trickle', **few)
    hostile.is_empty(made)


def test_who_is_closed_for_being_slow_is_sent_nothing_more(debian, site, redis):
    """One after the other wakes. Who is late gets what the kernel had, then the close frame, and
    nothing of what waited; who is early gets everything."""
    made = hostile.start(site, debian, redis, SMALL_BUFFERS)
    figures = hostile.check_slow(made, redis, 'woken', reads='staggered', seconds=6, **OPTIONS)
    closes, slow = figures['closes'], figures['slow']
    assert set(closes) <= {'4008', '1006'} and closes['4008'] > 0, figures
    assert slow['ended'] < slow['sockets'], figures
    # A queue's limit is 256 of these messages.
    assert slow['missed_at_the_close'] > 200, figures
