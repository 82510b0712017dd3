"""The bars of the worker: how soon it is free, and that it writes nothing to what it gave away."""

import re
import socket
import subprocess
import time

import pytest

from harness import (
    NO_KEEPER,
    eventually,
    grant_path,
    many_descriptors,
    need_tool,
    percentile,
    print_figures,
    upgrade,
)

PATH = grant_path({'subscribe': ['bar'], 'publish': ['bar']})
# The same view and the same answer, but no grant.
VIEW_ALONE = PATH + '&name=X-Grant&status=203 Alone'.replace(' ', '%20')
RATE = 200
SECONDS = 5


def busy_times(made, status, at_least):
    """How long the worker was busy with each request, in ms, by uWSGI's clock: from the accepted
    connection to the end of the request."""

    def found():
        times = [int(micros) / 1000 for micros in re.findall(rf'BUSY {status} (\d+)', made.log())]
        return times if len(times) >= at_least else None

    return eventually(found, 'a log line for each request')


@pytest.mark.parametrize('keeper', ['keeper', 'no keeper'])
def test_the_worker_is_idle_again_within_5_ms_at_200_handshakes_a_second(
    debian, site, redis, keeper
):
    many_descriptors(RATE * SECONDS + 1000)
    made = site(
        debian,
        (NO_KEEPER if keeper == 'no keeper' else '')
        + f'wsredis-redis-url = {redis.url}\nlog-format = BUSY %(status) %(micros)\n',
    )
    browsers = []
    try:
        made.raw(PATH).close()
        begun = time.monotonic()
        for i in range(RATE * SECONDS):
            # An open loop: a slow answer delays nobody's request, as with real browsers.
            while (wait := begun + i / RATE - time.monotonic()) > 0:
                time.sleep(wait)
            browser = socket.create_connection(('127.0.0.1', made.port))
            browser.sendall(upgrade(PATH))
            browsers.append(browser)
            # The same view without a handshake is what the view itself takes.
            if i % 5 == 0:
                assert made.get(VIEW_ALONE).status == 203
        rate = len(browsers) / (time.monotonic() - begun)
        for browser in browsers:
            assert browser.recv(4096).startswith(b'HTTP/1.1 101 ')
    finally:
        for browser in browsers:
            browser.close()

    times = busy_times(made, 101, RATE * SECONDS + 1)
    alone = busy_times(made, 203, RATE * SECONDS // 5)
    beyond = percentile(times, 50) - percentile(alone, 50)
    print_figures(
        f'worker busy per handshake, {keeper}',
        handshakes=len(times),
        per_second=round(rate),
        p50_ms=percentile(times, 50),
        p99_ms=percentile(times, 99),
        max_ms=max(times),
        p50_beyond_the_view_ms=round(beyond, 3),
        p99_beyond_the_view_ms=round(percentile(times, 99) - percentile(alone, 99), 3),
    )
    assert rate > RATE * 0.95
    assert percentile(times, 99) <= 5
    assert beyond <= 0.2


@pytest.mark.parametrize('keeper', ['keeper', 'no keeper'])
@pytest.mark.parametrize('front', ['http-socket', 'http11-socket'])
@pytest.mark.parametrize('how', ['list', 'file', 'pieces'])
def test_the_worker_writes_nothing_to_a_socket_that_it_gave_away(
    debian, site, tmp_path, front, how, keeper
):
    made = site(debian, NO_KEEPER if keeper == 'no keeper' else '', front=front)
    made.raw(PATH).close()
    worker = made.workers()[0]
    trace = tmp_path / 'trace'
    tracer = subprocess.Popen(
        [
            need_tool('strace'),
            '-f',
            '-yy',
            '-o',
            trace,
            '-p',
            str(worker),
            '-e',
            'trace=write,writev,pwritev,sendto,sendmsg,sendmmsg,sendfile,splice,shutdown,close',
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        said = tracer.stderr.readline()
        if 'attached' not in said:
            pytest.skip(f'strace may not attach here: {said}')
        with made.raw(grant_path({'subscribe': ['a']}, how=how, body=50_000)) as browser:
            assert browser.status == 101
            made.get('/')
            ours = browser.socket.getsockname()[1]
            eventually(lambda: f':{ours}]' in trace.read_text(), 'the answer in the trace')
            eventually(
                lambda: len(re.findall('hello', trace.read_text())) > 0,
                'the ordinary answer in the trace',
            )
            lines = trace.read_text().splitlines()
    finally:
        tracer.terminate()
        tracer.wait()
        tracer.stderr.close()
    # "PID call(FD<TCP:[…:PORT]>": what was done with that connection, and by which thread.
    done = [re.match(rf'(\d+) +(\w+)\(\d+<TCP:\[[^\]]*:{ours}]>', line) for line in lines]
    done = [(int(found[1]), found[2]) for found in done if found]
    if keeper == 'keeper':
        assert done == [(worker, 'close')], lines
    else:
        assert done and worker not in {thread for thread, _ in done}, lines
    # The trace does see the worker's own writes: the ordinary answer.
    assert [line for line in lines if line.startswith(str(worker)) and 'hello' in line]
