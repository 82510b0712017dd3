"""A log that takes nothing, or is not there: everybody is served all the same."""

import contextlib

import pytest
from websockets.exceptions import ConnectionClosed

from harness import NO_KEEPER, grant_path

PATH = grant_path({'subscribe': ['all'], 'publish': ['all']})


@pytest.mark.parametrize('options', ['', NO_KEEPER], ids=['keeper', 'no-keeper'])
@pytest.mark.parametrize('redirection', ['2>/dev/full', '>/dev/full 2>&1', '2>&-', '>&- 2>&-'])
def test_sockets_are_served_with_a_log_that_takes_nothing(debian, site, redirection, options):
    made = site(debian, options, wrapper=('sh', '-c', f'exec "$0" "$@" {redirection}'))
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(made.connect(PATH)) for _ in range(5)]
        for number in range(20):
            # Lines of the engine, of the plugin and of uWSGI itself.
            with made.connect(PATH) as wrong, pytest.raises(ConnectionClosed) as closed:
                wrong.socket.sendall(b'\x83\x80\0\0\0\0')
                wrong.recv(15)
            assert closed.value.rcvd.code == 1002
            assert made.get(grant_path({'subscribe': 1})).status in (426, 500)
            browsers[0].send(str(number))
            for browser in browsers[1:]:
                assert browser.recv(15) == str(number)
        # Nothing but that has come to anybody: the last one hears the first one next.
        browsers[1].send('over')
        assert browsers[0].recv(15) == 'over'
    assert made.process.poll() is None
