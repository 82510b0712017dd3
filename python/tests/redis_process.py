"""A redis-server of one test: a child process on a free port with nothing on disk.

Where there is no redis-server the test is skipped, and the summary says so.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time

import pytest

redis = pytest.importorskip("redis", reason="redis-py is not installed: publishing is NOT tested")


class Redis:
    """A redis-server of one test; `url` is where it listens."""

    def __init__(self, *options: str) -> None:
        binary = shutil.which("redis-server")
        if binary is None:
            pytest.skip("redis-server is not installed: publishing to Redis is NOT tested")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}"
        command = [binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL)
        wait_until(self._listens)
        self.client = redis.Redis(port=self.port)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        self.client.close()
        self.thaw()
        self.process.terminate()
        self.process.wait()


def wait_until(condition, seconds: float = 10.0) -> None:
    """Returns once `condition()` is true; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        time.sleep(0.01)
