"""Children: each on the processor that is meant for it, each ended by its own pid."""

import contextlib
import os
import resource
import socket
import subprocess
import time
from pathlib import Path

CORES = sorted(os.sched_getaffinity(0))
# The server has one of its own; Redis and the generator share another.
SERVER_CORE, LOAD_CORE = CORES[0], CORES[1 % len(CORES)]
# Descriptors that a server may open for itself while it is busy.
FEW = 20


def raise_limit():
    """Thousands of sockets need as many descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start(command, core, **options):
    return subprocess.Popen(
        [str(part) for part in command],
        stdin=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        **options,
    )


@contextlib.contextmanager
def ended(process):
    """Ends a child when it is no longer needed."""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()


def free_port():
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def wait_port(port, process, deadline=20):
    """Waits until somebody listens there."""
    end = time.monotonic() + deadline
    while True:
        if process.poll() is not None:
            raise RuntimeError(f'{process.args} ended with status {process.returncode}')
        try:
            socket.create_connection(('127.0.0.1', port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > end:
                raise RuntimeError(f'{process.args} does not listen on {port}') from None
        time.sleep(0.02)


def files(pid):
    return len(list(Path(f'/proc/{pid}/fd').iterdir()))


def wait_files(pid, before, deadline=10):
    """Waits until a server has closed what it had opened; a few may stay, as links that it opened late."""
    end = time.monotonic() + deadline
    while files(pid) > before + FEW:
        if time.monotonic() > end:
            raise RuntimeError(f'{files(pid)} descriptors are open, {before} were before')
        time.sleep(0.05)
