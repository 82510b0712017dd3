"""A browser's end of a websocket, for tests: it blocks, each wait has a deadline, and it is on the
other side of a real engine. No compression, no fragments; pings are answered while it waits."""

from __future__ import annotations

import base64
import json
import os
import socket
import struct
import time
from typing import Any

SUBPROTOCOL = "wsredis.v1"

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10


class Closed(Exception):
    """The other side has closed the socket: `code` and `reason`. 1006: without a word."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"closed with {code} {reason}".rstrip())
        self.code, self.reason = code, reason


class Browser:
    """One websocket. `socket_id` is the id that the engine gave it, with ``wsredis.v1``."""

    def __init__(self, connection: socket.socket, grant: dict[str, Any], timeout: float) -> None:
        self.grant = grant
        self.head = b""
        self.socket_id = ""
        self._connection = connection
        self._timeout = timeout
        self._buffer = b""
        while b"\r\n\r\n" not in self._buffer:
            self._read(time.monotonic() + timeout)
        self.head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        self.enveloped = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}".encode() in self.head
        if self.enveloped:
            self.socket_id = self.receive()["socket"]

    def send(self, data: Any, channel: str | None = None) -> None:
        """Sends one message. With ``wsredis.v1`` it is any JSON value, to one of the channels that
        the grant lets it speak on, or to the only one. Else it is text or bytes."""
        if self.enveloped:
            if channel is None:
                (channel,) = self.grant["publish"]
            self._send(TEXT, json.dumps({"channel": channel, "data": data}).encode())
        elif isinstance(data, str):
            self._send(TEXT, data.encode())
        else:
            self._send(BINARY, data)

    def receive(self, timeout: float | None = None) -> Any:
        """The next message: with ``wsredis.v1`` what its JSON says, such as
        ``{"channel": …, "data": …}``, else text or bytes.

        Raises TimeoutError if none comes, and Closed.
        """
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        opcode, payload = self._next(deadline)
        if not self.enveloped:
            return payload.decode() if opcode == TEXT else payload
        message = json.loads(payload)
        if message.pop("encoding", None) == "base64":
            message["data"] = base64.b64decode(message["data"])
        return message

    def receive_nothing(self, seconds: float = 0.2) -> None:
        """Fails if a message comes in this time."""
        try:
            message = self.receive(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"nothing should have come, and there is {message!r}")

    def wait_closed(self, timeout: float | None = None) -> Closed:
        """What the other side closes it with; messages before that are thrown away."""
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        try:
            while True:
                self._next(deadline)
        except Closed as closed:
            return closed

    def close(self) -> None:
        """Closes it in order. A second time does nothing."""
        if self._connection.fileno() < 0:
            return
        try:
            self._send(CLOSE, struct.pack(">H", 1000))
            self.wait_closed()
        except (OSError, TimeoutError):
            # It is gone already, one way or the other.
            pass
        finally:
            self._connection.close()

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, opcode: int, payload: bytes) -> None:
        mask = os.urandom(4)
        length = len(payload)
        if length < 126:
            head = bytes([0x80 | opcode, 0x80 | length])
        elif length < 1 << 16:
            head = struct.pack(">BBH", 0x80 | opcode, 0x80 | 126, length)
        else:
            head = struct.pack(">BBQ", 0x80 | opcode, 0x80 | 127, length)
        masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
        self._connection.settimeout(self._timeout)
        self._connection.sendall(head + mask + masked)

    def _next(self, deadline: float) -> tuple[int, bytes]:
        """The next text or binary message."""
        while True:
            opcode, payload = self._frame(deadline)
            if opcode == PING:
                self._send(PONG, payload)
            elif opcode == CLOSE:
                code = struct.unpack(">H", payload[:2])[0] if payload else 1005
                self._connection.close()
                raise Closed(code, payload[2:].decode())
            elif opcode != PONG:
                return opcode, payload

    def _frame(self, deadline: float) -> tuple[int, bytes]:
        first, length = self._peek(2, deadline)
        at = 2
        if length > 125:
            at = 4 if length == 126 else 10
            length = int.from_bytes(self._peek(at, deadline)[2:], "big")
        # Taken only once it is whole: what a timeout leaves behind must still be a frame.
        payload = self._peek(at + length, deadline)[at:]
        self._buffer = self._buffer[at + length :]
        return first & 15, payload

    def _peek(self, count: int, deadline: float) -> bytes:
        while len(self._buffer) < count:
            self._read(deadline)
        return self._buffer[:count]

    def _read(self, deadline: float) -> None:
        if self._connection.fileno() < 0:
            raise Closed(1006, "closed before")
        # Not 0, which would mean not to wait at all, and be another exception.
        self._connection.settimeout(max(deadline - time.monotonic(), 0.001))
        try:
            data = self._connection.recv(65536)
        except socket.timeout:
            raise TimeoutError("nothing came in time") from None
        except ConnectionError:
            data = b""
        if not data:
            self._connection.close()
            raise Closed(1006, "")
        self._buffer += data
