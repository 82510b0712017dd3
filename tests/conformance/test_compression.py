"""permessage-deflate with wsproto and `websockets`: every size of window both ways, the frames of RFC 7692's examples, and
what it forbids."""

import random
import zlib

import pytest
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory
from wsproto.events import Message, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate

from harness import eventually, resident
from peer import BINARY, CLOSE, CONTINUATION, FIN, PING, PONG, RSV1, RSV2, RSV3, TEXT, Peer, frame
from test_odd_frames import LIMIT, NOT_UTF8, PROTOCOL, TOO_BIG, UTF8

BITS = range(9, 16)


def repeated(distance, seed=4):
    """Bytes of which each comes again so many later, and not before."""
    return random.Random(seed).randbytes(distance) * 3


# Repetitions farther away than any small window reaches, and nothing to win, and nothing at all.
MESSAGES = [
    b'',
    'é' * 5000,
    *(repeated(1 << bits) for bits in range(7, 17, 2)),
    random.Random(4).randbytes(40_000),
    bytes(1_000_000),
    '',
]


def deflated(payload):
    compressor = zlib.compressobj(wbits=-15)
    whole = compressor.compress(payload) + compressor.flush(zlib.Z_SYNC_FLUSH)
    assert whole.endswith(b'\0\0\xff\xff')
    return whole[:-4]


def compressed(payload, first=FIN | RSV1 | TEXT):
    return frame(deflated(payload), first)


@pytest.fixture
def peer(echo):
    with Peer(echo, extensions=[PerMessageDeflate()]) as peer:
        assert peer.extensions
        yield peer


# ---- agreed on, and kept to ----


def check_messages(peer):
    for message in MESSAGES:
        peer.send(Message(data=message))
        assert peer.message() == message


@pytest.mark.parametrize('bits', BITS)
def test_nothing_sent_reaches_behind_the_window_that_was_asked_for(echo, bits):
    """wsproto reads with a window of just that size."""
    with Peer(echo, extensions=[PerMessageDeflate(server_max_window_bits=bits)]) as peer:
        (agreed,) = peer.extensions
        assert agreed.server_max_window_bits == bits
        assert agreed.server_no_context_takeover and agreed.client_no_context_takeover
        check_messages(peer)


@pytest.mark.parametrize('bits', BITS)
def test_what_was_written_with_any_window_is_read(echo, bits):
    with Peer(echo, extensions=[PerMessageDeflate(client_max_window_bits=bits)]) as peer:
        assert peer.extensions
        check_messages(peer)


@pytest.mark.parametrize(
    'offer',
    [
        {},
        {'server_no_context_takeover': True},
        {'client_no_context_takeover': True},
        {'client_max_window_bits': True},
        {'client_max_window_bits': 9},
        {'server_max_window_bits': 9, 'client_max_window_bits': 15},
    ],
    ids=str,
)
def test_what_websockets_may_offer_is_agreed_on(echo, offer):
    factory = ClientPerMessageDeflateFactory(**offer)
    with echo.connect('/echo', extensions=[factory], max_size=None) as browser:
        (agreed,) = browser.protocol.extensions
        assert agreed.remote_no_context_takeover and agreed.local_no_context_takeover
        for message in MESSAGES:
            browser.send(message)
            assert browser.recv(15) == message


def test_a_window_that_zlib_has_not_is_declined(echo):
    factory = ClientPerMessageDeflateFactory(server_max_window_bits=8)
    with echo.connect('/echo', extensions=[factory]) as browser:
        assert not browser.protocol.extensions
        browser.send('hello' * 1000)
        assert browser.recv(15) == 'hello' * 1000


def test_the_second_offer_is_taken_where_the_first_can_not_be_met(echo):
    factories = [ClientPerMessageDeflateFactory(server_max_window_bits=bits) for bits in (8, 11, 15)]
    with echo.connect('/echo', extensions=factories) as browser:
        (agreed,) = browser.protocol.extensions
        assert agreed.remote_max_window_bits == 11


def test_what_becomes_smaller_goes_compressed_and_what_does_not_goes_as_it_is(peer):
    peer.write(frame(bytes(100_000)))
    assert peer.received(4)[0] == FIN | RSV1 | BINARY
    with_noise = random.Random(4).randbytes(1000)
    assert peer.message() == bytes(100_000)
    peer.write(compressed(with_noise, FIN | RSV1 | BINARY))
    assert peer.received(2)[0] == FIN | BINARY
    assert peer.message() == with_noise


def test_who_did_not_offer_it_is_sent_nothing_compressed(echo):
    with Peer(echo) as peer:
        assert not peer.extensions
        peer.write(frame(bytes(100_000)))
        assert peer.received(2)[0] == FIN | BINARY
        assert peer.message() == bytes(100_000)


# ---- frames by hand ----


@pytest.mark.parametrize(
    'frames',
    [
        [frame(b'\xf2\x48\xcd\xc9\xc9\x07\x00', FIN | RSV1 | TEXT)],
        [frame(b'\xf2\x48\xcd', RSV1 | TEXT), frame(b'\xc9\xc9\x07\x00', FIN | CONTINUATION)],
        [frame(b'\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00', FIN | RSV1 | TEXT)],
        [frame(b'\xf3\x48\xcd\xc9\xc9\x07\x00\x00', FIN | RSV1 | TEXT)],
        [frame(b'\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00', FIN | RSV1 | TEXT)],
        [frame('Hello', FIN | TEXT)],
        [frame('Hel', TEXT), frame('lo', FIN | CONTINUATION)],
    ],
    ids=['one block', 'fragments', 'not compressed', 'last block', 'two blocks', 'plain', 'plain fragments'],
)
def test_hello_as_rfc_7692_writes_it(peer, frames):
    for _ in range(2):
        peer.write(*frames)
        assert peer.message() == 'Hello'


def test_one_byte_of_zero_is_an_empty_message(peer):
    peer.write(frame(b'\0', FIN | RSV1 | TEXT))
    assert peer.message() == ''


def test_a_compressed_message_is_cut_anywhere_with_a_ping_between(echo):
    text = 'Grüße € 中文 😀 ' * 3
    payload = deflated(text.encode())
    for cut in range(len(payload) + 1):
        # One for each: so many tiny fragments of one browser would be a flood.
        with Peer(echo, extensions=[PerMessageDeflate()]) as peer:
            peer.write(frame(payload[:cut], RSV1 | TEXT))
            peer.send(Ping(payload=b'between'))
            assert isinstance(peer.event(), Pong)
            peer.write(frame(payload[cut:], FIN | CONTINUATION))
            assert peer.message() == text, cut


def test_one_of_exactly_the_limit_is_taken(peer):
    peer.write(compressed(bytes(LIMIT), FIN | RSV1 | BINARY))
    assert peer.message() == bytes(LIMIT)


BOMB = deflated(bytes(1 << 28))

ODD = {
    'RSV1 in a continuation': (PROTOCOL, frame(b'\0', RSV1 | TEXT) + frame(b'', FIN | RSV1)),
    'RSV1 in a continuation of plain text': (PROTOCOL, frame('x', TEXT) + frame('y', FIN | RSV1)),
    **{
        f'RSV1 in a {name}': (PROTOCOL, frame(b'', FIN | RSV1 | opcode))
        for name, opcode in {'ping': PING, 'pong': PONG, 'close': CLOSE}.items()
    },
    'RSV1 and RSV2': (PROTOCOL, compressed(b'x', FIN | RSV1 | RSV2 | TEXT)),
    'RSV1 and RSV3': (PROTOCOL, compressed(b'x', FIN | RSV1 | RSV3 | TEXT)),
    'RSV1 and a reserved opcode': (PROTOCOL, compressed(b'x', FIN | RSV1 | 3)),
    'a block of the type that is none': (PROTOCOL, frame(b'\xff' * 20, FIN | RSV1 | BINARY)),
    'a stored block whose length is wrong': (
        PROTOCOL,
        frame(b'\x00\x05\x00\xff\xff\x48\x65\x6c\x6c\x6f\x00', FIN | RSV1 | TEXT),
    ),
    'bytes behind the last block': (
        PROTOCOL,
        frame(b'\xf3\x48\xcd\xc9\xc9\x07\x00more', FIN | RSV1 | TEXT),
    ),
    # RFC 7692 §7.2.3.2: "Hello" by the window of the message before, which is not taken over.
    'the window of the message before': (PROTOCOL, frame(b'\xf2\x00\x11\x00\x00', FIN | RSV1 | TEXT)),
    'one byte over the limit': (TOO_BIG, compressed(bytes(LIMIT + 1), FIN | RSV1 | BINARY)),
    'one byte over the limit, as text': (TOO_BIG, compressed(b'x' * (LIMIT + 1))),
    'a bomb': (TOO_BIG, frame(BOMB, FIN | RSV1 | BINARY)),
    'a bomb in fragments': (
        TOO_BIG,
        frame(BOMB[:1000], RSV1 | TEXT) + frame(BOMB[1000:], FIN | CONTINUATION),
    ),
    **{f'compressed: {name}': (UTF8, compressed(b'good ' + bad)) for name, bad in NOT_UTF8.items()},
}


@pytest.mark.parametrize('code, bytes_', ODD.values(), ids=ODD)
def test_it_is_closed_with_its_code(peer, code, bytes_):
    peer.write(compressed(b'Hello'))
    assert peer.message() == 'Hello'
    peer.write(bytes_ + frame('after'))
    assert peer.closed() == code


def test_many_bombs_cost_no_more_memory_than_the_largest_message(echo):
    keeper = echo.keeper()
    eventually(lambda: echo.stats()['sockets'] == 0, 'all have left')
    before = resident(keeper)
    for _ in range(20):
        with Peer(echo, extensions=[PerMessageDeflate()]) as peer:
            peer.write(frame(BOMB, FIN | RSV1 | BINARY))
            assert peer.closed() == TOO_BIG
    assert resident(keeper) - before < (LIMIT >> 10) + 8 * 1024


def test_a_text_in_many_compressed_fragments(peer):
    for part in 'abc':
        peer.send(TextMessage(data=part * 1000, message_finished=False))
    peer.send(TextMessage(data=''))
    assert peer.message() == 'a' * 1000 + 'b' * 1000 + 'c' * 1000
