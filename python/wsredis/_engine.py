"""The engine in this process: libwsredis by ctypes, the C ABI of ``include/wsredis.h``.

For `runserver` and for tests; uWSGI has the plugin. An `Engine` belongs to the process that made
it. Its threads are the library's own and run while Python waits, in a debugger for example.
"""

from __future__ import annotations

import ctypes
import functools
import json
import logging
import os
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from ctypes import POINTER, byref, c_char_p, c_int32, c_size_t, c_uint8, c_uint16, c_uint64
from typing import Any, NamedTuple

# The number of the ABI that this file is written for, and the library's name with it.
ABI = 0
LIBRARY = f"libwsredis.so.{ABI}"

# The header's constants of the same names.
ANSWER_SIZE = 1024
GRANT, STOPPED, WRONG_PROCESS = 3, 8, 9

STOP_MS = 2000

logger = logging.getLogger("wsredis")
LEVELS = {1: logging.ERROR, 2: logging.WARNING, 3: logging.INFO, 4: logging.DEBUG}


class LibraryMissing(Exception):
    """libwsredis can not be loaded; the text has the cure."""


class EngineError(Exception):
    """The library said no; the text is its reason."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request(NamedTuple):
    """A parsed HTTP request, every header line by itself."""

    method: str
    protocol: str
    headers: Iterable[tuple[str, str]]
    remote_address: str = ""


class Answer(NamedTuple):
    """What a handshake is answered: the whole of it, and for the log why it is no 101."""

    http: int
    text: bytes
    why: str


class _Header(ctypes.Structure):
    _fields_ = [
        ("name", c_char_p),
        ("name_len", c_size_t),
        ("value", c_char_p),
        ("value_len", c_size_t),
    ]


class _Request(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("method", c_char_p),
        ("method_len", c_size_t),
        ("protocol", c_char_p),
        ("protocol_len", c_size_t),
        ("headers", POINTER(_Header)),
        ("headers_len", c_size_t),
        ("remote_address", c_char_p),
        ("remote_address_len", c_size_t),
        ("https", c_uint8),
    ]


class _Adoption(ctypes.Structure):
    _fields_ = [
        ("struct_size", c_size_t),
        ("fd", c_int32),
        ("mirror", c_uint8),
        ("grant", c_char_p),
        ("grant_len", c_size_t),
        ("answer", c_char_p),
        ("answer_len", c_size_t),
        ("leftover", c_char_p),
        ("leftover_len", c_size_t),
        ("remote_address", c_char_p),
        ("remote_address_len", c_size_t),
        ("host", c_char_p),
        ("host_len", c_size_t),
        ("path_digest", c_uint64),
    ]


_Sink = ctypes.CFUNCTYPE(None, ctypes.c_void_p, c_uint8, ctypes.c_void_p, c_size_t)

# An opaque handle, a text with its length, a buffer with its length and how much was written.
_HANDLE = ctypes.c_void_p
_TEXT = [c_char_p, c_size_t]
_BUFFER = [ctypes.c_char_p, c_size_t, POINTER(c_size_t)]

# Of each function that returns a status, what it takes.
_FUNCTIONS: dict[str, list[Any]] = {
    "config_new": [POINTER(_HANDLE)],
    "config_set": [_HANDLE, *_TEXT, *_TEXT],
    "config_check": [_HANDLE, ctypes.c_uint32],
    "engine_start": [_HANDLE, _Sink, ctypes.c_void_p, POINTER(_HANDLE)],
    "engine_adopt": [_HANDLE, POINTER(_Adoption)],
    "engine_publish": [_HANDLE, *_TEXT, *_TEXT],
    "engine_stats": [_HANDLE, *_BUFFER],
    "engine_stop": [_HANDLE, ctypes.c_uint32],
    "handshake_answer": [
        _HANDLE,
        POINTER(_Request),
        *_TEXT,
        *_TEXT,
        *_BUFFER,
        POINTER(c_uint16),
    ],
    "handshake_refusal": [_HANDLE, c_uint16, *_BUFFER],
}


@functools.cache
def library() -> Any:
    """The library, loaded. Raises LibraryMissing with the cure."""
    path = os.environ.get("WSREDIS_LIBRARY") or LIBRARY
    try:
        loaded = ctypes.CDLL(path)
    except OSError as error:
        raise LibraryMissing(
            f"{path} can not be loaded: {error}. Cure: in a clone of wsredis, `make lib` and "
            "`make install`; or let WSREDIS_LIBRARY say where libwsredis.so is"
        ) from None
    loaded.wsredis_abi_version.restype = ctypes.c_uint32
    if (abi := loaded.wsredis_abi_version()) != ABI:
        raise LibraryMissing(
            f"{path} has version {abi} of the C ABI, and this package is written for {ABI}. "
            "Cure: take both from the same release"
        )
    loaded.wsredis_version.restype = c_char_p
    loaded.wsredis_last_error.argtypes = [c_char_p, c_size_t]
    loaded.wsredis_last_error.restype = c_size_t
    for name, arguments in _FUNCTIONS.items():
        function = getattr(loaded, f"wsredis_{name}")
        function.argtypes, function.restype = arguments, c_int32
    for name in ("config_free", "engine_free"):
        function = getattr(loaded, f"wsredis_{name}")
        function.argtypes, function.restype = [_HANDLE], None
    return loaded


def _log(_userdata: int | None, level: int, line: int, length: int) -> None:
    logger.log(LEVELS.get(level, logging.INFO), ctypes.string_at(line, length).decode())


# The library's threads call it until the last engine is freed: it must never be collected.
_sink = _Sink(_log)


class Engine:
    """Holds sockets. `settings` are the keys of the README's table.

    Any thread may use it, until `stop`. The engine's log lines go to the logger ``wsredis``.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        self._library = library()
        self._config, self._engine = _HANDLE(), _HANDLE()
        # None of the functions waits, so one lock for all keeps `stop` from freeing under a call.
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._check(self._library.wsredis_config_new(byref(self._config)))
        try:
            for key, value in (settings or {}).items():
                self._check(
                    self._library.wsredis_config_set(self._config, *_text(key), *_text(value))
                )
            self._check(self._library.wsredis_config_check(self._config, 1))
            self._check(
                self._library.wsredis_engine_start(self._config, _sink, None, byref(self._engine))
            )
        except EngineError:
            self._free()
            raise

    @property
    def version(self) -> str:
        version: bytes = self._library.wsredis_version()
        return version.decode()

    def handshake(
        self, request: Request, grant: str, extra_headers: Iterable[tuple[str, str]] = ()
    ) -> Answer:
        """Judges an upgrade and writes its answer. `extra_headers` are for the 101 (Set-Cookie).

        Raises EngineError, whose status is GRANT for a bad grant.
        """
        lines = [(name.encode(), value.encode("latin-1")) for name, value in request.headers]
        headers = (_Header * len(lines))(
            *(_Header(name, len(name), value, len(value)) for name, value in lines)
        )
        parsed = _Request(
            ctypes.sizeof(_Request),
            *_text(request.method),
            *_text(request.protocol),
            headers,
            len(lines),
            *_text(request.remote_address),
        )
        # Django writes a space before the value of a cookie, which here would be a second one.
        extra = "".join(f"{name}: {value.strip()}\r\n" for name, value in extra_headers)
        raw = extra.encode("latin-1")
        http = c_uint16()
        text = self._write(
            ANSWER_SIZE + len(raw),
            lambda *buffer: self._library.wsredis_handshake_answer(
                self._config, byref(parsed), *_text(grant), raw, len(raw), *buffer, byref(http)
            ),
        )
        return Answer(http.value, text, "" if http.value == 101 else self._last_error())

    def refusal(self, http: int) -> bytes:
        """The answer of a refusal."""
        return self._write(
            ANSWER_SIZE,
            lambda *buffer: self._library.wsredis_handshake_refusal(self._config, http, *buffer),
        )

    def adopt(
        self,
        connection: socket.socket,
        grant: str,
        answer: bytes,
        leftover: bytes = b"",
        remote_address: str = "",
        host: str = "",
    ) -> None:
        """Hands a connection over, with what was read from it behind the request. It is closed for
        Python then. On an EngineError it is still the caller's, and unanswered."""
        adoption = _Adoption(
            ctypes.sizeof(_Adoption),
            connection.fileno(),
            0,
            *_text(grant),
            answer,
            len(answer),
            leftover,
            len(leftover),
            *_text(remote_address),
            *_text(host),
        )
        with self._live():
            self._check(self._library.wsredis_engine_adopt(self._engine, byref(adoption)))
            connection.detach()

    def publish(self, channel: str, payload: bytes) -> None:
        """Publishes to everyone who hears `channel`. It is queued when this returns."""
        with self._live():
            self._check(
                self._library.wsredis_engine_publish(
                    self._engine, *_text(channel), payload, len(payload)
                )
            )

    def stats(self) -> dict[str, Any]:
        """The engine's counters."""
        stats: dict[str, Any] = json.loads(
            self._write(8192, lambda *b: self._library.wsredis_engine_stats(self._engine, *b))
        )
        return stats

    def stop(self) -> None:
        """Closes every socket with 1012 and ends the engine. A second time does nothing."""
        if os.getpid() != self._pid:
            return
        with self._lock:
            if self._engine:
                # It says BUSY after the time, and can be freed all the same.
                self._library.wsredis_engine_stop(self._engine, STOP_MS)
                self._free()

    @contextmanager
    def _live(self) -> Iterator[None]:
        # Before the lock: another thread may have held it when this process was forked.
        if os.getpid() != self._pid:
            raise EngineError(WRONG_PROCESS, "the engine is another process's, which forked this")
        with self._lock:
            if not self._engine:
                raise EngineError(STOPPED, "the engine was stopped")
            yield

    def _write(self, size: int, call: Any) -> bytes:
        """What `call` writes into a buffer."""
        buffer, written = ctypes.create_string_buffer(size), c_size_t()
        with self._live():
            self._check(call(buffer, size, byref(written)))
        return buffer.raw[: written.value]

    def _check(self, status: int) -> None:
        if status:
            raise EngineError(status, self._last_error())

    def _last_error(self) -> str:
        buffer = ctypes.create_string_buffer(1024)
        self._library.wsredis_last_error(buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    def _free(self) -> None:
        self._library.wsredis_engine_free(self._engine)
        self._library.wsredis_config_free(self._config)
        self._engine, self._config = _HANDLE(), _HANDLE()


def _text(text: str) -> tuple[bytes, int]:
    data = text.encode()
    return data, len(data)
