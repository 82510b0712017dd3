"""A plugin for pytest: a skipped test fails the run. What `make test` needs it installs, so a skip is a fault of its own.

Loaded by `-p no_skips` (tests/run.sh); by hand, without it, tests of what is not there are skipped and say so.
"""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session):
    reporter = session.config.pluginmanager.get_plugin('terminalreporter')
    skipped = reporter.stats.get('skipped', [])
    if skipped:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter.ensure_newline()
        reporter.write_line(f'{len(skipped)} skipped: here that counts as failed', red=True)
