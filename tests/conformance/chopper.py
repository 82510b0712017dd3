"""A proxy that hands a browser's bytes on one by one, each in a segment of its own; answers go back as they come."""

import contextlib
import os
import socket
import threading


class Chopper:
    """Listens on a port of its own before the site's, for as long as the `with` lasts."""

    def __init__(self, made):
        self._target = ('127.0.0.1', made.port)
        self._listener = socket.create_server(('127.0.0.1', 0))
        self._threads = []
        self._sockets = []
        # How many bytes were handed on.
        self.chopped = 0

    def url(self, path):
        return f'ws://127.0.0.1:{self._listener.getsockname()[1]}{path}'

    def __enter__(self):
        self._run(self._accept)
        return self

    def __exit__(self, *_):
        for each in [self._listener, *self._sockets]:
            # Whoever waits in it wakes up.
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)
            assert not thread.is_alive()

    def _run(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                browser, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [browser, server]
                for each in (browser, server):
                    each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._run(self._chop, browser, server)
                self._run(self._pass, server, browser)

    def _chop(self, source, target):
        def send(data):
            for at in range(len(data)):
                target.send(data[at : at + 1])
                # Its reader is to have seen this one before the next one comes.
                os.sched_yield()
            self.chopped += len(data)

        self._pump(source, target, send)

    def _pass(self, source, target):
        self._pump(source, target, target.sendall)

    def _pump(self, source, target, send):
        """An end is handed on as an end, anything worse too."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                send(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
