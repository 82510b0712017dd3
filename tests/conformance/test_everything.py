"""All of Autobahn|Testsuite, about ten minutes: `make conformance`."""

from test_autobahn import LARGE, PLAIN, run


def test_every_case_is_as_expected(echo, tmp_path):
    # A wstest each: what takes the time is its own zlib.
    shares = PLAIN + LARGE + ['12.*'], ['13.*']
    run(tmp_path, 'Autobahn, all', echo.url('/echo'), *shares, seconds=3000)


def test_three_at_once_are_as_expected(echo, tmp_path):
    shares = [PLAIN + LARGE] * 3
    run(tmp_path, 'Autobahn, three at once', echo.url('/echo'), *shares, seconds=300)
