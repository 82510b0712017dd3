"""`websockets`, a client that others wrote and that is strict about what it is sent: whole and fragmented messages, pings
between them, closing, with and without its offer of permessage-deflate."""

import random

import pytest
from websockets.exceptions import ConnectionClosed

SEED = 4

TEXTS = {
    'empty': '',
    'ASCII': 'hello',
    'two, three and four bytes a character': 'Grüße € 中文 😀' * 3,
    'NUL and controls': '\0\x01\x1f\x7f\x85\u2028',
    'ends of planes': '\ud7ff\ue000\uffff\U00010000\U0010ffff',
}
# Around each change of the header's length, and beyond what one read of the engine takes.
SIZES = [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1 << 20]


@pytest.fixture(params=[None, 'deflate'], ids=['plain', 'deflate offered'])
def connect(request, echo):
    def connect(**options):
        return echo.connect('/echo', compression=request.param, max_size=None, **options)

    return connect


@pytest.mark.parametrize('text', TEXTS.values(), ids=TEXTS)
def test_texts_come_back(connect, text):
    with connect() as browser:
        browser.send(text)
        assert browser.recv(15) == text


@pytest.mark.parametrize('size', SIZES)
def test_sizes_come_back(connect, size):
    noise = random.Random(SEED).randbytes(size)
    with connect() as browser:
        for message in (noise, bytes(size), 'é' * (size // 2) + 'e' * (size % 2)):
            browser.send(message)
            assert browser.recv(15) == message


@pytest.mark.parametrize('parts', [['a', '', 'ü', '€' * 50_000, ''], ['', '', ''], [b'\xff', b'', b'\0' * 70_000]])
def test_fragments_come_back_as_one_message(connect, parts):
    with connect() as browser:
        browser.send(parts)
        assert browser.recv(15) == type(parts[0])().join(parts)


@pytest.mark.parametrize('count, compression', [(1000, None), (40, 'deflate')])
def test_many_fragments_come_back_as_one_message(echo, count, compression):
    """Fewer with compression: zlib keeps what is short to itself, `websockets` then sends empty fragments, and a flood of
    those is closed with 4029."""
    parts = [f'fragment {n}, and some more of it; ' for n in range(count)]
    with echo.connect('/echo', compression=compression) as browser:
        browser.send(parts)
        assert browser.recv(15) == ''.join(parts)


def test_random_messages_in_random_fragments_come_back_in_order(connect):
    dice = random.Random(SEED)
    with connect() as browser:
        # Some of the fragments are tiny: more of them would be a flood.
        for _ in range(12):
            message = dice.randbytes(dice.choice([0, 10, 200, 3_000, 70_000]))
            cuts = sorted(dice.randrange(len(message) + 1) for _ in range(dice.randrange(4)))
            edges = [0, *cuts, len(message)]
            browser.send([message[a:b] for a, b in zip(edges, edges[1:])])
            assert browser.recv(15) == message


def test_messages_that_nobody_waited_for_come_in_order(connect):
    with connect() as browser:
        for n in range(100):
            browser.send(f'{n}: {"x" * n * 7}')
        for n in range(100):
            assert browser.recv(15) == f'{n}: {"x" * n * 7}'


def test_pings_are_answered_also_inside_a_message(connect):
    with connect() as browser:
        assert browser.ping(b'\0\xff' * 60).wait(15)

        def parts():
            for part in 'abc':
                yield part
                assert browser.ping().wait(15)

        browser.send(parts())
        assert browser.recv(15) == 'abc'


@pytest.mark.parametrize('code', [1000, 1001, 1003, 1011, 1012, 1013, 1014, 3000, 4999])
def test_a_close_is_answered_with_its_code(connect, code):
    with connect() as browser:
        browser.close(code, 'ä' * 61)
        received = browser.protocol.close_rcvd
        assert received.code == code and not browser.protocol.close_rcvd_then_sent


def test_what_was_said_before_a_close_is_answered(connect):
    with connect() as browser:
        browser.send('first')
        browser.close()
        assert browser.recv(15) == 'first'
        with pytest.raises(ConnectionClosed):
            browser.recv(15)


def test_it_hears_why_it_is_closed(connect):
    with connect() as browser:
        browser.send(b'\xc0\xaf', text=True)
        with pytest.raises(ConnectionClosed) as closed:
            browser.recv(15)
        assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1007, 'invalid UTF-8')
