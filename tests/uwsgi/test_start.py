"""What stops uWSGI at start, always with the cure; and what the plugin exports."""

import subprocess
from pathlib import Path

import pytest

from harness import NO_KEEPER, Site, need_tool


def test_each_binary_refuses_the_plugin_of_the_other(binaries, tmp_path):
    both = binaries('debian'), binaries('pip')
    for mine, other in (both, both[::-1]):
        for option in ('need-plugin', 'plugin'):
            done = subprocess.run(
                [mine.path, f'--{option}', other.plugin, '--http-socket', '127.0.0.1:0'],
                capture_output=True,
                timeout=15,
            )
            text = (done.stdout + done.stderr).decode()
            assert done.returncode == 1, text
            assert f'make plugin UWSGI={Path(mine.path).resolve()}' in text
            assert 'was built for uWSGI' in text


def test_the_plugin_exports_one_symbol(binary):
    table = subprocess.run(
        [need_tool('nm'), '-D', '--defined-only', binary.plugin], capture_output=True, check=True
    )
    assert [line.split()[-1] for line in table.stdout.decode().splitlines()] == ['wsredis_plugin']


def test_the_embedded_broker_in_two_workers_is_an_error_with_the_cure(debian, tmp_path):
    assert 'redis-url' in Site(tmp_path, debian, NO_KEEPER, workers=2).fails()


@pytest.mark.parametrize(
    'options, reason',
    [
        ('wsredis-ping-interval = soon\n', 'ping-interval'),
        ('wsredis-redis-url = http://nowhere\n', 'redis-url'),
        ('wsredis-loops = 0\n', 'loops'),
        ('wsredis-loops = 1\nwsredis-loops = 2\n', 'loops'),
        ('wsredis-loops = 1\nwsredis-ini = %p\n\n[wsredis]\nloops = 1\n', 'loops'),
        ('wsredis-ini = %p\n\n[wsredis]\nlops = 1\n', 'lops'),
        ('wsredis-ini = /nowhere/at/all.ini\n', '/nowhere/at/all.ini'),
    ],
)
def test_a_bad_configuration_stops_uwsgi_before_it_forks(debian, tmp_path, options, reason):
    log = Site(tmp_path, debian, options).fails()
    line = [line for line in log.splitlines() if line.startswith('wsredis: ')]
    assert line and reason in line[-1]
    assert 'spawned uWSGI' not in log


def test_a_password_is_not_in_the_log(debian, tmp_path):
    log = Site(
        tmp_path, debian, 'wsredis-redis-url = redis://:hunter2@127.0.0.1:notaport\n'
    ).fails()
    assert 'hunter2' not in log.replace(str(tmp_path), '')


def test_the_section_may_live_in_uwsgis_own_file(debian, site, redis):
    made = site(debian, f'wsredis-ini = %p\n\n[wsredis]\nredis-url = {redis.url}\n', workers=1)
    with made.connect('/grant?g={"subscribe":["a"]}') as browser:
        redis.wait_listeners('a')
        redis.client.publish('a', 'hi')
        assert browser.recv(15) == 'hi'


def test_help_shows_one_option_per_key(binary):
    done = subprocess.run(
        [binary.path, '--need-plugin', binary.plugin, '--help'], capture_output=True, timeout=15
    )
    text = done.stdout.decode() + done.stderr.decode()
    assert '--wsredis-redis-url' in text and '--wsredis-ini' in text


def test_a_build_for_a_binary_that_is_not_there_says_so():
    script = Path(__file__).parents[2] / 'uwsgi-plugin' / 'build.sh'
    done = subprocess.run([script, '/no/such/uwsgi'], capture_output=True)
    assert done.returncode == 1
    assert b'make plugin UWSGI=' in done.stderr
