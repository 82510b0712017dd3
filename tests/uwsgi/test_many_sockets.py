"""2,000 sockets on 20 channels, in a keeper and in one worker: what they cost, and that nothing of
them stays."""

import contextlib
import threading
import time

import pytest

from harness import (
    NO_KEEPER,
    descriptors,
    eventually,
    grant_path,
    many_descriptors,
    percentile,
    print_figures,
    resident,
)

SOCKETS = 2000
CHANNELS = [f'many:{i}' for i in range(20)]


def path_of(i):
    return grant_path({'subscribe': [CHANNELS[i % len(CHANNELS)]]})


class Visitor:
    """Asks an ordinary page over and over, as another browser would."""

    def __init__(self, made):
        self.made = made
        self.times = []
        self.error = None
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        try:
            while not self.stopped.wait(0.01):
                begun = time.monotonic()
                assert self.made.get('/').text == 'hello'
                self.times.append((time.monotonic() - begun) * 1000)
        except Exception as error:
            self.error = error

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        self.thread.join()
        assert self.error is None, self.error
        assert len(self.times) > 10


def close_all(browsers):
    for browser in browsers:
        browser.close()
    browsers.clear()


def subscriptions(redis):
    return [count for _, count in redis.client.pubsub_numsub(*CHANNELS)]


@pytest.mark.parametrize('keeper', ['keeper', 'no keeper'])
def test_2000_sockets_cost_a_descriptor_each_and_a_subscription_per_channel(
    debian, site, redis, keeper
):
    many_descriptors(SOCKETS + 1000)
    made = site(
        debian,
        f'wsredis-redis-url = {redis.url}\n' + (NO_KEEPER if keeper == 'no keeper' else ''),
    )
    worker, browsers = made.workers()[0], []
    held_by = made.keeper() if keeper == 'keeper' else worker
    with contextlib.ExitStack() as stack:
        stack.callback(close_all, browsers)
        # One of each channel first, so that the engine and its links are there.
        browsers += [made.raw(path_of(i)) for i in range(20)]
        eventually(lambda: subscriptions(redis) == [1] * 20, 'one subscription for each channel')
        connections = len(redis.client.client_list())
        made.stats()  # The worker opens a connection for it.
        in_worker = descriptors(worker)
        constant, memory = descriptors(held_by) - len(browsers), resident(held_by)

        with Visitor(made) as visitor:
            begun = time.monotonic()
            browsers += [made.raw(path_of(i)) for i in range(20, SOCKETS)]
            took = time.monotonic() - begun
            assert {browser.status for browser in browsers} == {101}
            # The visitor may just have a connection of its own.
            eventually(
                lambda: descriptors(held_by) - constant == SOCKETS, 'one descriptor for each socket'
            )
            assert subscriptions(redis) == [1] * 20
            assert len(redis.client.client_list()) == connections
            each = (resident(held_by) - memory) * 1024 / (SOCKETS - 20)
            assert made.stats()['sockets'] == SOCKETS
            if keeper == 'keeper':
                assert descriptors(worker) <= in_worker + 1, 'none stays in the worker'

            for channel in CHANNELS:
                assert redis.client.publish(channel, channel) == 1
            for i, browser in enumerate(browsers):
                assert browser.message() == (1, CHANNELS[i % 20].encode())
        print_figures(
            f'2,000 sockets on 20 channels, {keeper}',
            handshakes_per_s=round((SOCKETS - 20) / took),
            descriptors_besides=constant,
            resident_bytes_per_socket=round(each),
            visitor_p99_ms=round(percentile(visitor.times, 99), 1),
            visitor_max_ms=round(max(visitor.times), 1),
        )
    # The request for the statistics may still have been counted before.
    eventually(lambda: descriptors(held_by) <= constant, 'no descriptor stays')
    eventually(lambda: not redis.client.pubsub_channels(), 'no channel stays')


def test_loops_have_one_subscription_per_channel_each(debian, site, redis):
    many_descriptors(1000)
    made = site(debian, f'wsredis-redis-url = {redis.url}\nwsredis-loops = 3\n')
    browsers = []
    try:
        browsers += [made.raw(path_of(i)) for i in range(300)]
        eventually(lambda: subscriptions(redis) == [3] * 20, 'three subscriptions for each channel')
        for channel in CHANNELS:
            redis.client.publish(channel, channel)
        for i, browser in enumerate(browsers):
            assert browser.message() == (1, CHANNELS[i % 20].encode())
    finally:
        close_all(browsers)


def test_after_10000_joins_and_leaves_everything_is_back(debian, site, redis):
    many_descriptors(2000)
    made = site(debian, f'wsredis-redis-url = {redis.url}\n')
    held_by = made.keeper()
    made.stats()

    def join_and_leave(count):
        browsers = []
        try:
            browsers += [made.raw(path_of(i)) for i in range(count)]
            assert {browser.status for browser in browsers} == {101}
        finally:
            close_all(browsers)

    def is_back():
        return made.stats()['sockets'] == 0 and not redis.client.pubsub_channels()

    # The first thousand fill what allocators and Python keep.
    join_and_leave(500)
    join_and_leave(500)
    eventually(is_back, 'the first thousand have left')
    before, memory = descriptors(held_by), resident(held_by)
    with Visitor(made) as visitor:
        for _ in range(40):
            join_and_leave(250)
        eventually(is_back, 'ten thousand have left')
    eventually(lambda: descriptors(held_by) == before, 'no descriptor stays')
    grown = resident(held_by) - memory
    print_figures(
        '10,000 joins and leaves',
        resident_kB_before=memory,
        grown_kB=grown,
        visitor_p99_ms=round(percentile(visitor.times, 99), 1),
    )
    # A leak of 200 bytes a socket would be 2 MB.
    assert grown < 2000
