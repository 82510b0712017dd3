"""What benches/compare makes of what it has measured."""

import re
import xml.etree.ElementTree as ElementTree

import comparison
import measure
import peer
import picture
import pytest
import results
import scenario
import server
import table

BURST = scenario.BY_NAME['burst-9900']
VALUES = {'floor': [1.0, 1.1, 0.9], 'wsredis': [1.5, 1.2, 1.4], 'ws': [10.0, 12.0, 11.0]}
TITLES = {'floor': 'bare loop', 'wsredis': 'wsredis', 'ws': 'node <ws>', 'nchan': 'nchan'}


def test_a_scenario_is_told_by_medians_and_their_ratio_to_the_floor():
    lines = table.of_scenario(BURST, VALUES).splitlines()
    assert re.match(r' +wsredis +1\.400 +1\.40 × floor +± 21%', lines[2])
    assert re.match(r' +floor +1\.000 +1\.00 × floor +± 20%', lines[1])


def test_the_table_has_a_row_for_each_server_and_one_for_the_noise():
    rows = table.of_all([(BURST, VALUES), (BURST, {'floor': [2.0], 'nchan': [1234.5]})], TITLES).splitlines()
    assert rows[2:6] == [
        '| bare loop | 1.00 | 2.00 |',
        '| wsredis | 1.40 | – |',
        '| node <ws> | 11.0 | – |',
        '| nchan | – | 1,234 |',
    ]
    assert rows[6].endswith('| ±20% | ±0% |')


def test_bars_are_as_long_as_what_they_stand_for():
    drawn = ElementTree.fromstring(picture.draw([(BURST, VALUES)], TITLES, 'a & b'))
    space = '{http://www.w3.org/2000/svg}'
    bars = {bar.get('class'): float(bar.get('width')) for bar in drawn.iter(f'{space}rect')}
    assert bars['peer'] / bars['ours'] == pytest.approx(11 / 1.4, rel=0.01)
    assert bars['peer'] / bars['floor'] == pytest.approx(11, rel=0.01)
    words = [text.text for text in drawn.iter(f'{space}text')]
    assert 'node <ws>' in words and 'a & b' in words


def test_a_scenario_names_servers_and_figures_that_there_are():
    for one in scenario.BY_NAME.values():
        names = [each.name for each in comparison.chosen_servers(one, one.servers)]
        assert names == list(one.servers) and one.base in names
        assert one.figure in measure.FIGURES


def test_what_is_lost_is_no_measurement():
    figures = {'in_time': True, 'lost': 0}
    measure.check(figures, ['lost'])
    for wrong in ({'lost': 1}, {'in_time': False}):
        with pytest.raises(RuntimeError):
            measure.check(figures | wrong, ['lost'])


@pytest.mark.parametrize('count', [2, 3])
def test_fewer_than_three_peers_are_no_comparison(monkeypatch, tmp_path, count):
    monkeypatch.setattr(results, 'FOLDER', tmp_path)
    monkeypatch.setattr(comparison, 'PICTURE', tmp_path / 'picture.svg')
    monkeypatch.setattr(peer, 'installed', lambda: peer.ALL[: count + 1])

    def once(_, measured, __):
        if measured is peer.ALL[0]:
            raise RuntimeError('it does not work')
        return 1.0, {}

    monkeypatch.setattr(measure, 'once', once)
    if count < 3:
        with pytest.raises(SystemExit, match='only 2 peers'):
            comparison.compare(1)
    else:
        comparison.compare(1)
        assert server.wsredis().title in (tmp_path / 'picture.svg').read_text()
