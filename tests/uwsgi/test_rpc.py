"""RPC: a publish is whole or it is an error, whatever uWSGI's 16-bit lengths did on the way."""

import json

import pytest


@pytest.fixture
def publishing(debian, shared_site, redis):
    return shared_site(debian, f'wsredis-redis-url = {redis.url}\n')


def publish(made, parts, total=None, channel='news'):
    path = f'/publish?channel={channel}&parts={",".join(map(str, parts))}'
    return made.get(path + (f'&total={total}' if total is not None else '')).text


@pytest.fixture
def received(redis):
    """Returns the payload of the next message of `news`."""
    with redis.client.pubsub(ignore_subscribe_messages=True) as listener:
        listener.subscribe('news')
        redis.wait_listeners('news')
        yield lambda: next(listener.listen())['data']
    redis.wait_listeners('news', 0)


def in_parts(size, part=60_000):
    return [part] * (size // part) + ([size % part] if size % part else [])


@pytest.mark.parametrize('size', [0, 1, 59_999, 60_000, 60_001, 65_535, 65_536, 70_000, 1 << 20])
def test_a_payload_in_parts_arrives_whole(publishing, received, size):
    assert publish(publishing, in_parts(size)) == 'ok'
    data = received()
    assert len(data) == size
    assert data == b''.join(bytes([97 + i % 26]) * part for i, part in enumerate(in_parts(size)))


def test_65535_bytes_fit_one_part(publishing, received):
    assert publish(publishing, [65_535]) == 'ok'
    assert len(received()) == 65_535


@pytest.mark.parametrize('parts', [[65_536], [70_000], [1 << 20], [60_000, 65_536], [131_072, 5]])
def test_a_part_that_wrapped_publishes_nothing(publishing, received, parts):
    assert publish(publishing, parts).startswith('error: ')
    assert publish(publishing, [4]) == 'ok'
    assert received() == b'aaaa', 'the first message must be the second publish'


@pytest.mark.parametrize(
    'parts, total',
    [
        ([5], 4),
        ([5], 6),
        ([], 1),
        ([5], ''),
        ([5], '5x'),
        ([5], '-5'),
        ([5], '%205'),
        ([5], '5e0'),
        ([5], '000000005'),
    ],
)
def test_a_total_that_is_not_the_sum_is_an_error(publishing, parts, total):
    assert publish(publishing, parts, total).startswith('error: ')


def test_255_arguments_pass_and_more_never_publish_short(publishing, received):
    assert publish(publishing, [1] * 253) == 'ok'
    assert len(received()) == 253


@pytest.mark.parametrize('channel', ['__reserved', '', 'x' * 256, 'a%00b', '%FF'])
def test_a_bad_channel_is_an_error(publishing, channel):
    assert publish(publishing, [1], channel=channel).startswith('error: ')


def test_a_child_that_the_app_forked_is_told_so(publishing):
    assert publish(publishing, [1]) == 'ok'
    assert publishing.get('/forked').text.startswith('error: ')
    assert publish(publishing, [1]) == 'ok'


def test_the_statistics_are_json(publishing):
    with publishing.connect('/grant?g={"subscribe":["a"]}'):
        assert publishing.stats()
        assert isinstance(json.loads(publishing.get('/stats').text), dict)


def test_on_the_embedded_broker_the_worker_publishes_to_its_sockets(binary, site):
    made = site(binary)
    with made.connect('/grant?g={"subscribe":["news"]}') as browser:
        assert publish(made, [60_000, 5_535]) == 'ok'
        assert len(browser.recv(15)) == 65_535
