"""What a keeper that is frozen for a while means for workers and browsers."""

import contextlib
import os
import selectors
import signal
import socket
import time

from bystander import Bystander
from harness import DEADLINE, eventually, grant_path, many_descriptors, print_figures, upgrade


class Burst:
    """Handshakes whose answers nobody waits for."""

    def __init__(self, made, count):
        self.sockets = []
        for _ in range(count):
            self.sockets.append(socket.create_connection(('127.0.0.1', made.port), DEADLINE))
            self.sockets[-1].sendall(upgrade(grant_path({'subscribe': ['a']})))
        self.answers = {}

    def gather(self):
        """What has come by now, by connection; an empty answer is a connection that ended."""
        with selectors.DefaultSelector() as selector:
            for each in self.sockets:
                if each not in self.answers:
                    selector.register(each, selectors.EVENT_READ)
            for key, _ in selector.select(0.05):
                with contextlib.suppress(ConnectionError):
                    self.answers[key.fileobj] = key.fileobj.recv(4096)
        return [answer.split(b'\r\n\r\n')[0] for answer in self.answers.values()]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for each in self.sockets:
            each.close()


def check_a_frozen_keeper(made, redis, seconds, sockets=200, burst=1000):
    """The keeper sleeps; the workers do not."""
    many_descriptors(3000)
    with contextlib.ExitStack() as stack:
        bystanders = stack.enter_context(Bystander(made, redis, sockets=sockets))
        keeper = made.keeper()
        os.kill(keeper, signal.SIGSTOP)
        stack.callback(os.kill, keeper, signal.SIGCONT)
        frozen = time.monotonic()
        handshakes = stack.enter_context(Burst(made, burst))
        begun = time.monotonic()
        made.get('/stats')
        assert time.monotonic() - begun < 2, 'nobody waits long for a keeper to answer'
        slowest, asked = 0, 0
        while time.monotonic() < frozen + seconds or asked < 20:
            begun = time.monotonic()
            assert made.get('/').text == 'hello'
            slowest, asked = max(slowest, time.monotonic() - begun), asked + 1
            handshakes.gather()
        refused = eventually(handshakes.gather, 'some handshakes are refused')
        for answer in refused:
            assert answer.startswith(b'HTTP/1.1 503 ') and b'\r\nRetry-After: ' in answer, answer
        os.kill(keeper, signal.SIGCONT)
        eventually(lambda: len(handshakes.gather()) == burst, 'every handshake has an answer')
        taken = [answer for answer in handshakes.gather() if answer.startswith(b'HTTP/1.1 101 ')]
        print_figures(
            f'keeper frozen for {seconds} s',
            handshakes=burst,
            served_after_it=len(taken),
            refused_with_503=len(refused),
            pages_meanwhile=asked,
            slowest_page_ms=round(slowest * 1000, 1),
        )
        assert slowest < 1
        assert len(taken) + len(refused) == burst
        # Each worker tells with its next message what it has refused.
        eventually(
            lambda: made.stats()['refused']['full'] == len(refused),
            lambda: f'{len(refused)} are counted: {made.stats()["refused"]}',
        )
        bystanders.assert_unharmed()
