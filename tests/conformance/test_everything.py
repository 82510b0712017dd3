"""All of Autobahn|Testsuite, about ten minutes: `make conformance`."""

import pytest

from test_autobahn import LARGE, PLAIN, run

# Two at once, a wstest each: what takes the time is its own zlib. And not all in one: its report comes at its end.
DEFLATE = [(f'12.{n}.*', f'13.{n}.*') for n in range(1, 6)] + [('13.6.*', '13.7.*')]


def test_three_at_once_are_as_expected(echo, tmp_path):
    shares = [PLAIN + LARGE] * 3
    run(tmp_path, 'Autobahn, three at once', echo.url('/echo'), *shares, seconds=300)


@pytest.mark.parametrize('groups', DEFLATE, ids=' and '.join)
def test_all_of_compression_is_as_expected(echo, tmp_path, groups):
    shares = [[group] for group in groups]
    run(tmp_path, f'Autobahn, {" and ".join(groups)}', echo.url('/echo'), *shares, seconds=900)
