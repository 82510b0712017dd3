"""expected.txt itself, and that nothing passes which is not as it says."""

from collections import Counter

from wstest import expected, judge, matches

# What the RFC leaves open: data behind a close (7.1.6), close codes that nobody has registered (7.13).
INFORMATIONAL = ['7.1.6', '7.13.1', '7.13.2']


def test_nothing_but_perfection_is_expected():
    cases = expected()
    assert len(cases) == 517
    groups = Counter(case.split('.')[0] for case in cases)
    assert groups == {
        '1': 16, '2': 11, '3': 7, '4': 10, '5': 20, '6': 145, '7': 37, '9': 54, '10': 1, '12': 90, '13': 126,
    }  # fmt: skip
    open_cases = {case: how for case, how in cases.items() if how != ('OK', 'OK')}
    assert open_cases == dict.fromkeys(INFORMATIONAL, ('INFORMATIONAL', 'INFORMATIONAL'))


def test_worse_is_wrong_better_is_wrong_and_so_is_what_did_not_run():
    good = ('OK', 'OK')
    wanted = {'1.1': good, '1.2': ('NON-STRICT', 'OK'), '1.10': good, '1.11': good, '2.1': good}
    came = {'1.1': ('OK', 'UNCLEAN'), '1.2': good, '1.11': good, '1.12': good}
    assert dict(judge(wanted, came, ['1.*'])) == {
        '1.1': "expected ('OK', 'OK'), came ('OK', 'UNCLEAN')",
        '1.2': "expected ('NON-STRICT', 'OK'), came ('OK', 'OK')",
        '1.10': 'it did not run',
        '1.12': "expected None, came ('OK', 'OK')",
    }


def test_patterns_are_those_of_wstest():
    assert matches('12.1.3', ['12.1.*']) and matches('1.1', ['1.1'])
    assert not matches('12.10.3', ['12.1.*']) and not matches('12.1', ['1.*'])
