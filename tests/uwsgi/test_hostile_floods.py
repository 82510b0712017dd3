"""Floods: whoever sends more than an honest browser would is closed for that cause, costs little, and is
noticed by nobody else."""

import hostile
import load

FLOOD = {'seconds': 5, 'sockets': 20}


def test_a_flood_of_pings_is_closed_and_costs_little(debian, site, redis):
    made = hostile.start(site, debian, redis)
    figures = hostile.check_attack(made, redis, 'pings', **FLOOD)
    hostile.closed_for_their_rate(made, figures)
    hostile.costs_little(figures)


def test_a_flood_of_pings_whose_pongs_nobody_reads_makes_no_heap_of_pongs(debian, site, redis):
    """Without a rate; one pong waits for each, at most."""
    made = hostile.start(site, debian, redis, load.NO_RATES + 'socket-sndbuf = 16384\n')
    figures = hostile.check_attack(
        made, redis, 'pings', 'pings, deaf', slow=20, **{**FLOOD, 'seconds': 3}
    )
    assert figures['attack_frames'] > 100_000, figures
    assert hostile.grown(figures) < 4096, figures
    hostile.is_empty(made)


def test_a_flood_of_messages_is_closed(debian, site, redis):
    made = hostile.start(site, debian, redis)
    figures = hostile.check_attack(made, redis, 'messages', **{**FLOOD, 'sockets': 200})
    hostile.closed_for_their_rate(made, figures)
    assert made.stats()['publish_failed'] == 0


def test_a_flood_of_fragments_is_closed(debian, site, redis):
    made = hostile.start(site, debian, redis)
    figures = hostile.check_attack(made, redis, 'fragments', **{**FLOOD, 'sockets': 200})
    hostile.closed_for_their_rate(made, figures)


def test_a_message_of_131000_fragments_costs_no_more_than_its_bytes(debian, site, redis):
    """CVE-2026-48779 of ws: one byte of payload pinned fifteen of memory. Without a rate the message's
    size is the limit."""
    made = hostile.start(site, debian, redis, load.NO_RATES)
    hostile.check_fragments(made, redis, 200)
    hostile.is_empty(made)


def test_a_message_of_fragments_that_is_never_finished_costs_no_more_either(debian, site, redis):
    made = hostile.start(site, debian, redis, load.NO_RATES + 'wsredis-message-timeout = 8s\n')
    hostile.check_held_fragments(made, redis, 100)
    hostile.is_empty(made)


def test_what_is_never_finished_is_closed_in_time_and_what_is_too_long_at_once(debian, site, redis):
    made = hostile.start(site, debian, redis, 'wsredis-message-timeout = 2s\n')
    figures = hostile.check_attack(
        made, redis, 'unfinished', sockets=140, tries=140, seconds=1
    )
    assert figures['endings'] == {
        '2^63': {'1002': 20},
        '2^63-1': {'1009': 20},
        'max+1': {'1009': 20},
        'header': {'1008': 20},
        'no payload': {'1008': 20},
        'half a payload': {'1008': 20},
        'half a message': {'1008': 20},
    }, figures
    assert hostile.grown(figures) < 4096, figures
    hostile.is_empty(made)


def test_garbage_is_closed_as_what_it_is_taken_for(debian, site, redis):
    made = hostile.start(site, debian, redis)
    hostile.check_garbage(made, redis, 3000)
    hostile.is_empty(made)
