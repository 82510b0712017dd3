"""A browser by wsproto: strict about all that comes, and able to send what no browser would.

Frames are wsproto's own; what is wrong with one is put in afterwards, by its bits."""

import socket
import time

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Message, Request
from wsproto.frame_protocol import FrameProtocol

from harness import DEADLINE

FIN = 0x80
RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10
CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10


def frame(payload, first=None):
    """A text or binary frame; `first` is what its first byte is to be."""
    made = FrameProtocol(client=True, extensions=[]).send_data(payload)
    if first is not None:
        made[0] = first
    return bytes(made)


def long_frame(first, length, width, payload=b''):
    """A frame that says its length in `width` bytes, 2 or 8, whatever it has of a payload. The mask is zeros."""
    second = 0x80 | {2: 126, 8: 127}[width]
    return bytes([first, second]) + length.to_bytes(width, 'big') + bytes(4) + payload


def unmasked(payload):
    return bytes(FrameProtocol(client=False, extensions=[]).send_data(payload))


class Peer:
    """One connection; it ends with the `with`."""

    def __init__(self, made, path='/echo', extensions=()):
        self.socket = socket.create_connection(('127.0.0.1', made.port), DEADLINE)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = WSConnection(ConnectionType.CLIENT)
        self._events = iter(())
        self._unread = b''
        self.send(Request(host=f'127.0.0.1:{made.port}', target=path, extensions=list(extensions)))
        accepted = self.event()
        assert isinstance(accepted, AcceptConnection), accepted
        self.extensions = accepted.extensions

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, event):
        self.write(self._connection.send(event))

    def write(self, *pieces):
        for piece in pieces:
            self.socket.sendall(piece)

    def received(self, count):
        """At least so many bytes of what comes next, as they are; they are read once more as an event."""
        while len(self._unread) < count:
            data = self.socket.recv(65536)
            assert data, 'the connection has ended without a close frame'
            self._unread += data
        return self._unread

    def event(self):
        """What comes next."""
        while (event := next(self._events, None)) is None:
            self._connection.receive_data(self.received(1))
            self._unread = b''
            self._events = self._connection.events()
        return event

    def message(self):
        """The next message, whole."""
        parts = []
        while True:
            event = self.event()
            assert isinstance(event, Message), event
            parts.append(event.data)
            if event.message_finished:
                return type(event.data)().join(parts)

    def closed(self):
        """Nothing comes any more but a close frame, then, within a second and without an answer of ours, the end of
        the connection. Returns the code."""
        event = self.event()
        assert isinstance(event, CloseConnection), event
        began = time.monotonic()
        assert next(self._events, None) is None, 'something follows the close frame'
        assert self.socket.recv(65536) == b'', 'something follows the close frame'
        assert time.monotonic() - began < 1, 'the connection lasts'
        return event.code
