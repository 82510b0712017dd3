"""Several workers, restarts and the processes beside the workers."""

import contextlib
import os
import signal

import pytest
from websockets.exceptions import ConnectionClosed

from harness import HERE, NO_KEEPER, eventually, grant_path


def test_one_publisher_reaches_the_browsers_of_every_worker(binary, site, redis):
    made = site(binary, NO_KEEPER + f'wsredis-redis-url = {redis.url}\nthreads = 2\n', workers=3)
    path = grant_path({'subscribe': ['all']}, sleep=0.05)
    with contextlib.ExitStack() as stack:
        browsers = []

        def every_worker_has_one():
            browsers.append(stack.enter_context(made.connect(path)))
            return redis.listeners('all') == 3

        eventually(every_worker_has_one, 'a browser on each of three workers')
        for i in range(20):
            redis.client.publish('all', f'message {i}')
        for browser in browsers:
            assert [browser.recv(15) for _ in range(20)] == [f'message {i}' for i in range(20)]


@pytest.mark.parametrize('how', ['reload', 'kill', 'max-requests'])
def test_a_worker_that_goes_tells_its_browsers_and_the_next_one_serves(debian, site, redis, how):
    options = f'{NO_KEEPER}wsredis-redis-url = {redis.url}\n' + (
        'max-requests = 5\nmin-worker-lifetime = 0\n' if how == 'max-requests' else ''
    )
    made = site(debian, options)
    before = made.workers()
    with made.connect(grant_path({'subscribe': ['a']})) as browser:
        redis.wait_listeners('a')
        if how == 'reload':
            os.kill(before[0], signal.SIGHUP)
        elif how == 'kill':
            os.kill(before[0], signal.SIGKILL)
        else:
            while made.workers() == before:
                made.get('/')
        with pytest.raises(ConnectionClosed) as closed:
            browser.recv(15)
        if how != 'kill':
            assert closed.value.rcvd.code == 1012
    eventually(lambda: made.workers() and made.workers() != before, 'a new worker')
    with made.connect(grant_path({'subscribe': ['a']})) as browser:
        redis.wait_listeners('a')
        redis.client.publish('a', 'after')
        assert browser.recv(15) == 'after'


def test_a_reload_of_the_master_serves_again_with_the_same_plugin(binary, site, redis):
    made = site(binary, NO_KEEPER + f'wsredis-redis-url = {redis.url}\n')
    with made.connect(grant_path({'subscribe': ['a']})) as browser:
        redis.wait_listeners('a')
        before = made.facts()['pid']
        os.kill(made.process.pid, signal.SIGHUP)
        with pytest.raises(ConnectionClosed) as closed:
            browser.recv(15)
        assert closed.value.rcvd.code == 1012
    made.wait_log('gracefully \\(RE\\)spawned')
    eventually(made.answers, 'it answers again')
    assert made.facts()['pid'] != before
    assert made.facts()['version']
    with made.connect(grant_path({'subscribe': ['b']})):
        redis.wait_listeners('b')


def test_after_a_reload_with_another_redis_the_app_is_told_the_new_one(debian, site, redis):
    """uWSGI executes itself with its environment, in which the plugin has put the old address."""
    made = site(debian, f'wsredis-redis-url = {redis.url}\nwsredis-channel-prefix = a:\n')
    before = made.facts()
    assert before['redis_url'] == redis.url
    made.ini.write_text(made.ini.read_text().replace(redis.url, redis.url + '/0'))
    os.kill(made.process.pid, signal.SIGHUP)

    def another_answers():
        with contextlib.suppress(OSError):
            return made.facts()['pid'] != before['pid']

    eventually(another_answers, 'a new worker')
    assert made.facts()['redis_url'] == redis.url + '/0'


def test_an_address_that_the_operator_has_set_stays(debian, site, redis):
    made = site(
        debian, f'wsredis-redis-url = {redis.url}\n', env={'WSREDIS_REDIS_URL': 'redis://elsewhere'}
    )
    assert made.facts()['redis_url'] == 'redis://elsewhere'
    made.wait_log('WSREDIS_REDIS_URL in the environment is not what')


def test_sigterm_ends_everything_at_once_with_browsers_connected(debian, site):
    made = site(debian)
    with contextlib.ExitStack() as stack:
        browsers = [
            stack.enter_context(made.connect(grant_path({'subscribe': ['a']}))) for _ in range(20)
        ]
        made.process.terminate()
        assert made.process.wait(10) == 0
        for browser in browsers:
            with pytest.raises(ConnectionClosed) as closed:
                browser.recv(15)
            assert closed.value.rcvd.code == 1012


def test_a_mule_publishes_through_redis(debian, site, redis, tmp_path):
    listener = redis.client.pubsub(ignore_subscribe_messages=True)
    listener.subscribe('from-mule')
    redis.wait_listeners('from-mule')
    answer = tmp_path / 'answer'
    site(
        debian,
        f'wsredis-redis-url = {redis.url}\nmule = {HERE}/mule.py\n',
        env={'MULE_ANSWER': str(answer)},
    )
    eventually(answer.exists, 'the mule has published')
    assert answer.read_text() == 'ok'
    for message in listener.listen():
        assert message['data'] == b'hello'
        break


def test_a_mule_without_a_keeper_on_the_embedded_broker_is_told_the_cure(debian, site, tmp_path):
    answer = tmp_path / 'answer'
    site(debian, NO_KEEPER + f'mule = {HERE}/mule.py\n', env={'MULE_ANSWER': str(answer)})
    eventually(answer.exists, 'the mule has tried')
    assert 'wsredis-redis-url' in answer.read_text()
