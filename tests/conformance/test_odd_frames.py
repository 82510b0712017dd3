"""What RFC 6455 forbids, frame by frame: the code that each must get, and the end of the connection within a second.

The table is written from the RFC, not from what the engine does."""

import struct

import pytest
from wsproto.events import CloseConnection, Ping, Pong, TextMessage

from harness import eventually
from peer import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FIN,
    PING,
    PONG,
    RSV1,
    RSV2,
    RSV3,
    TEXT,
    Peer,
    frame,
    long_frame,
    unmasked,
)

# conftest.py's max-message-size.
LIMIT = 16 << 20

PROTOCOL, UTF8, TOO_BIG = 1002, 1007, 1009

DATA = {'text': TEXT, 'binary': BINARY}
CONTROL = {'close': CLOSE, 'ping': PING, 'pong': PONG}

ODD = {
    # §5.2: no extension was negotiated that gives these a meaning.
    **{
        f'RSV{3 - bit} in a {name} frame': (PROTOCOL, frame(b'', FIN | 0x10 << bit | opcode))
        for bit in range(3)
        for name, opcode in {**DATA, **CONTROL}.items()
    },
    'all RSV bits': (PROTOCOL, frame('x', FIN | RSV1 | RSV2 | RSV3 | TEXT)),
    'RSV1 in a continuation': (PROTOCOL, frame('x', TEXT) + frame('y', FIN | RSV1)),
    **{
        f'reserved opcode {opcode:#x}, FIN {fin >> 7}': (PROTOCOL, frame(b'', fin | opcode))
        for opcode in (*range(3, 8), *range(11, 16))
        for fin in (0, FIN)
    },
    # §5.1: a browser's frames are masked.
    'an unmasked text frame': (PROTOCOL, unmasked('hello')),
    'an unmasked empty frame': (PROTOCOL, unmasked('')),
    'an unmasked ping': (PROTOCOL, bytes([FIN | PING, 0])),
    'an unmasked close': (PROTOCOL, bytes([FIN | CLOSE, 2]) + struct.pack('>H', 1000)),
    # §5.2: the length takes as few bytes as it can, and its top bit is 0.
    **{
        f'{length} in {width} bytes': (PROTOCOL, long_frame(FIN | BINARY, length, width, bytes(length)))
        for width, lengths in ((2, (0, 1, 125)), (8, (0, 125, 126, 65535)))
        for length in lengths
    },
    '2^63 as a length': (PROTOCOL, long_frame(FIN | BINARY, 1 << 63, 8)),
    '2^64 - 1 as a length': (PROTOCOL, long_frame(FIN | BINARY, (1 << 64) - 1, 8)),
    # §7.4.1, 1009: judged on the header, nothing of the payload has come.
    '2^63 - 1 as a length': (TOO_BIG, long_frame(FIN | BINARY, (1 << 63) - 1, 8)),
    'one byte over the limit': (TOO_BIG, long_frame(FIN | TEXT, LIMIT + 1, 8)),
    'one byte over the limit, in a second fragment': (
        TOO_BIG,
        frame(b'x', BINARY) + long_frame(FIN | CONTINUATION, LIMIT, 8),
    ),
    # §5.5: control frames are short and whole.
    **{f'a fragmented {name}': (PROTOCOL, frame(b'', opcode)) for name, opcode in CONTROL.items()},
    **{
        f'a {name} of 126 bytes': (PROTOCOL, long_frame(FIN | opcode, 126, 2, bytes(126)))
        for name, opcode in CONTROL.items()
    },
    **{
        f'a {name} of 5 bytes whose length is 64 bit': (PROTOCOL, long_frame(FIN | opcode, 5, 8, bytes(5)))
        for name, opcode in CONTROL.items()
    },
    # §5.4: fragments.
    'a continuation of nothing': (PROTOCOL, frame('x', FIN | CONTINUATION)),
    'a continuation of nothing that goes on': (PROTOCOL, frame('x', CONTINUATION)),
    'a text message inside another': (PROTOCOL, frame('x', TEXT) + frame('y', FIN | TEXT)),
    'a binary message inside a text': (PROTOCOL, frame('x', TEXT) + frame(b'y', BINARY)),
    # §5.5.1 and §7.4: the body of a close frame.
    'a close of one byte': (PROTOCOL, frame(b'\x03', FIN | CLOSE)),
    **{
        f'the close code {code}': (PROTOCOL, frame(struct.pack('>H', code), FIN | CLOSE))
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    'a close reason that is not UTF-8': (UTF8, frame(struct.pack('>H', 1000) + b'\xc0\xaf', FIN | CLOSE)),
    'a close reason that ends in a character': (
        UTF8,
        frame(struct.pack('>H', 1000) + '€'.encode()[:2], FIN | CLOSE),
    ),
}

# RFC 3629: none of these is UTF-8.
NOT_UTF8 = {
    'a lone continuation byte': b'\x80',
    'no byte of UTF-8': b'\xff',
    'overlong, 2 bytes': b'\xc0\xaf',
    'overlong, 3 bytes': b'\xe0\x80\xaf',
    'overlong, 4 bytes': b'\xf0\x80\x80\xaf',
    'the first surrogate': b'\xed\xa0\x80',
    'the last surrogate': b'\xed\xbf\xbf',
    'above U+10FFFF': b'\xf4\x90\x80\x80',
    'a begin of five bytes': b'\xf8\x88\x80\x80\x80',
    'a character that does not end': b'\xe2\x82',
}


@pytest.mark.parametrize('code, bytes_', ODD.values(), ids=ODD)
def test_it_is_closed_with_its_code(echo, code, bytes_):
    with Peer(echo) as peer:
        peer.write(bytes_)
        assert peer.closed() == code


@pytest.mark.parametrize('code, bytes_', ODD.values(), ids=ODD)
def test_what_came_before_it_is_answered_and_what_follows_is_not(echo, code, bytes_):
    with Peer(echo) as peer:
        peer.write(frame('before') + bytes_ + frame('after') + frame(b'after', FIN | PING))
        assert peer.message() == 'before'
        assert peer.closed() == code


def test_each_is_counted_under_its_cause(echo):
    causes = {PROTOCOL: 'protocol', UTF8: 'utf8', TOO_BIG: 'too_big'}
    for code, bytes_ in ODD.values():
        cause = causes[code]
        before = echo.stats()['closed'][cause]
        with Peer(echo) as peer:
            peer.write(bytes_)
            assert peer.closed() == code
        eventually(lambda: echo.stats()['closed'][cause] == before + 1, f'{cause} is counted once')


@pytest.mark.parametrize('bad', NOT_UTF8.values(), ids=NOT_UTF8)
def test_text_that_is_not_utf8_is_1007_wherever_it_is_cut(echo, bad):
    text = 'Grüße '.encode() + bad + ' ἐν ἀρχῇ'.encode()
    whole = frame(text, FIN | TEXT)
    for cut in range(len(whole) + 1):
        with Peer(echo) as peer:
            peer.write(whole[:cut], whole[cut:])
            assert peer.closed() == UTF8, cut
    for cut in range(len(text) + 1):
        with Peer(echo) as peer:
            peer.write(frame(text[:cut], TEXT), frame(b'', FIN | PING))
            peer.write(frame(text[cut:], FIN | CONTINUATION))
            event = peer.event()
            if isinstance(event, Pong):
                assert peer.closed() == UTF8, cut
            else:
                # The first fragment shows it already: the ping was not looked at any more.
                assert event.code == UTF8, cut


def test_bad_text_is_refused_before_its_frame_ends(echo):
    with Peer(echo) as peer:
        peer.write(long_frame(FIN | TEXT, 60_000, 2, b'good \xed\xa0'))
        assert peer.closed() == UTF8


def test_bad_text_is_refused_before_its_message_ends(echo):
    with Peer(echo) as peer:
        peer.write(frame(b'good \xf4\x90', TEXT))
        assert peer.closed() == UTF8


def test_good_text_comes_back_wherever_it_is_cut(echo):
    text = 'aü€😀z'
    bytes_ = text.encode()
    with Peer(echo) as peer:
        whole = frame(text)
        for cut in range(len(whole) + 1):
            peer.write(whole[:cut], whole[cut:])
            assert peer.message() == text
        for cut in range(len(bytes_) + 1):
            peer.write(frame(bytes_[:cut], TEXT), frame(b'between', FIN | PING))
            pong = peer.event()
            assert isinstance(pong, Pong) and pong.payload == b'between'
            peer.write(frame(bytes_[cut:], FIN | CONTINUATION))
            assert peer.message() == text


def test_any_bytes_are_a_binary_message_and_a_ping(echo):
    with Peer(echo) as peer:
        for bad in NOT_UTF8.values():
            peer.write(frame(bad))
            assert peer.message() == bad
            peer.send(Ping(payload=bad))
            pong = peer.event()
            assert isinstance(pong, Pong) and pong.payload == bad


# 1014 is younger than the RFC: wsproto does not take it, test_websockets.py has it.
@pytest.mark.parametrize('code', [1000, 1001, 1002, 1003, *range(1007, 1014), 3000, 3999, 4000, 4999])
def test_a_good_close_code_comes_back(echo, code):
    with Peer(echo) as peer:
        peer.send(CloseConnection(code=code, reason='ä' * 61))
        assert peer.closed() == code


def test_an_empty_close_is_answered_by_an_empty_one(echo):
    with Peer(echo) as peer:
        peer.write(frame(b'', FIN | CLOSE))
        # wsproto's way to say that there was no code.
        assert peer.closed() == 1005


def test_nothing_that_follows_a_close_is_looked_at(echo):
    with Peer(echo) as peer:
        behind = frame('after') + frame(b'\xff', FIN | TEXT) + frame(b'', FIN | RSV2 | PING) + unmasked('x')
        peer.write(frame(struct.pack('>H', 4001), FIN | CLOSE) + behind)
        assert peer.closed() == 4001


def test_a_pong_that_nobody_asked_for_is_no_fault(echo):
    with Peer(echo) as peer:
        peer.send(Pong(payload=b'why'))
        peer.send(TextMessage(data='still here'))
        assert peer.message() == 'still here'
