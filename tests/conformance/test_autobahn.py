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


def run(folder, title, *arguments, **more):
    begun = time.monotonic()
    came = check(folder, *arguments, **more)
    print_figures(title, **came, seconds=round(time.monotonic() - begun))


def test_every_case_is_as_expected_and_nobody_else_notices(echo, tmp_path):
    with Bystander(echo, sockets=50, speakers=5) as bystanders:
        run(tmp_path, 'Autobahn', echo.url('/echo'), PLAIN + LARGE, seconds=100)
        bystanders.assert_unharmed()


def test_byte_by_byte_it_is_the_same(echo, tmp_path):
    with Chopper(echo) as chopper:
        run(tmp_path, 'Autobahn, byte by byte', chopper.url('/echo'), PLAIN, seconds=100)
        assert chopper.chopped > 500_000
