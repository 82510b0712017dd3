"""Autobahn|Testsuite against a site: runs cases, compares what came with expected.txt.

expected.txt has a line for each of the 517 cases: its name, the behaviour, the behaviour at the close. Better is as
wrong as worse: then the file is to say so. WSREDIS_UPDATE=1 writes what came into it, for the cases that ran.

wstest's status says nothing of the cases; what counts is in its report, in which a case may also be missing.
"""

import contextlib
import json
import os
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from harness import ROOT, end

EXPECTED = Path(__file__).resolve().parent / 'expected.txt'
WSTEST = Path(os.environ.get('WSREDIS_WSTEST', ROOT / '.deps' / 'autobahn' / 'wstest'))
AGENT = 'wsredis'


def need_autobahn():
    if not WSTEST.exists():
        pytest.skip(f'Autobahn is NOT run: there is no {WSTEST}, see tests/conformance/install.sh')


def order(case):
    return [int(number) for number in case.split('.')]


def expected():
    """Each case's behaviour and behaviour at the close."""
    return {case: tuple(how) for case, *how in map(str.split, EXPECTED.read_text().splitlines())}


def matches(case, patterns):
    """Patterns are wstest's: `12.1.*` are all cases that begin with `12.1.`."""
    return any(
        case.startswith(pattern[:-1]) if pattern.endswith('*') else case == pattern
        for pattern in patterns
    )


class Run:
    """One wstest with the cases of some patterns; it ends with the `with`."""

    def __init__(self, folder, url, patterns):
        self.folder = folder
        self.patterns = patterns
        folder.mkdir(parents=True)
        spec = {
            'options': {'failByDrop': False},
            'outdir': str(folder / 'reports'),
            'servers': [{'agent': AGENT, 'url': url, 'options': {'version': 18}}],
            'cases': patterns,
            'exclude-cases': [],
            'exclude-agent-cases': {},
        }
        (folder / 'spec.json').write_text(json.dumps(spec))
        self.log = folder / 'wstest.log'
        self.process = subprocess.Popen(
            [WSTEST, '-m', 'fuzzingclient', '-s', 'spec.json'],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=self.log.open('wb'),
            stderr=subprocess.STDOUT,
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        end(self.process)

    def finish(self, seconds):
        """What each case did; wstest writes it at its end."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            tail = self.log.read_text(errors='replace')[-2000:]
            raise AssertionError(f'wstest is not done within {seconds} s: {tail}') from None
        index = self.folder / 'reports' / 'index.json'
        assert index.exists(), self.log.read_text(errors='replace')[-2000:]
        return json.loads(index.read_text())[AGENT]

    def essentials(self, report):
        """What one case's report says of what was wanted and what came."""
        report = json.loads((self.folder / 'reports' / report['reportfile']).read_text())
        names = ('description', 'expectation', 'result', 'resultClose', 'expected', 'received')
        names += ('remoteCloseCode', 'remoteCloseReason', 'wasNotCleanReason', 'duration')
        return ''.join(f'\n    {name}: {str(report.get(name))[:600]}' for name in names)


def judge(wanted, came, patterns):
    """What is wrong with what came: (case, what) for each. Better than wanted is wrong, too."""
    for case in sorted(wanted.keys() | came.keys(), key=order):
        if case in came:
            if came[case] != wanted.get(case):
                yield case, f'expected {wanted.get(case)}, came {came[case]}'
        elif matches(case, patterns):
            yield case, 'it did not run'


def update(came):
    told = expected() | came
    lines = (f'{case} {" ".join(told[case])}\n' for case in sorted(told, key=order))
    EXPECTED.write_text(''.join(lines))


def check(folder, url, *shares, seconds):
    """Runs the cases of each share (a list of patterns) in a wstest of its own, all at once, and compares. Returns how
    many cases behaved how."""
    need_autobahn()
    count, wrong = Counter(), []
    with contextlib.ExitStack() as stack:
        runs = [
            stack.enter_context(Run(folder / f'share{n}', url, patterns))
            for n, patterns in enumerate(shares)
        ]
        for run in runs:
            reports = run.finish(seconds)
            came = {case: (r['behavior'], r['behaviorClose']) for case, r in reports.items()}
            count.update(how for how, _ in came.values())
            if os.environ.get('WSREDIS_UPDATE'):
                update(came)
            for case, what in judge(expected(), came, run.patterns):
                more = run.essentials(reports[case]) if case in reports else ''
                wrong.append(f'{case}: {what}{more}')
    assert not wrong, f'{len(wrong)} cases are not as expected.txt says\n' + '\n'.join(wrong)
    assert count, 'no case has run'
    return count
