"""Autobahn|Testsuite through the real plugin, what fits into `make test`; test_everything.py does all of it.

What the cases are to come to is in expected.txt."""

import time

from bystander import Bystander
from chopper import Chopper
from harness import print_figures
from wstest import check

# Framing, pings, reserved bits, opcodes, fragments, UTF-8, closing, (9) sizes up to 16 MiB, (10) auto-fragments.
PLAIN = ['1.*', '2.*', '3.*', '4.*', '5.*', '6.*', '7.*', '10.*']
LARGE = ['9.*']

# Compression: each case is a thousand messages. 12 has five kinds of data, 13 seven offers of windows and contexts; the
# last number is the size, from 16 bytes (1) to 128 KiB (10), and from 11 on in fragments.
SOME_DEFLATE = [f'12.{kind}.4' for kind in range(1, 6)] + [f'13.{offer}.4' for offer in range(1, 8)]
SOME_DEFLATE += ['12.1.1', '12.1.11', '13.3.1', '13.4.11']


def run(folder, title, *arguments, **more):
    begun = time.monotonic()
    came = check(folder, *arguments, **more)
    print_figures(title, **came, seconds=round(time.monotonic() - begun))


def test_every_case_is_as_expected_and_nobody_else_notices(echo, tmp_path):
    with Bystander(echo, sockets=50, speakers=5) as bystanders:
        run(tmp_path, 'Autobahn', echo.url('/echo'), PLAIN + LARGE, SOME_DEFLATE, seconds=200)
        bystanders.assert_unharmed()


def test_byte_by_byte_it_is_the_same(echo, tmp_path):
    with Chopper(echo) as chopper:
        url = chopper.url('/echo')
        run(tmp_path, 'Autobahn, byte by byte', url, PLAIN, ['12.1.1', '13.3.2'], seconds=200)
        assert chopper.chopped > 500_000
