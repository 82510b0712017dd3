"""Which pages may open a websocket, through the real plugin: 200 hostile origins, 0 accepted; 20 good ones, 0 refused.

The rule itself is in src/ws/origin.rs. Here it is what uWSGI and nginx make of the headers that a browser and a proxy
send."""

import json
import re
import time
from functools import partial

import pytest

from harness import ROOT, eventually, free_port, grant_path

PATH = grant_path({})
COOKIE = 'Cookie: session=1'
# The page's origin as a browser has it is https://app.example; a proxy at 127.0.0.1 ends TLS.
PROXIED = 'wsredis-trusted-proxies = 127.0.0.1\n'
HTTPS = 'X-Forwarded-Proto: https'


def hostile_origins():
    """Those of the list that a header can carry: no line breaks, and no white space around them, which is no part of a
    header's value."""
    lines = (ROOT / 'tests' / 'vectors' / 'origins.txt').read_text().splitlines()
    origins = [json.loads(line) for line in lines if line and not line.startswith('#')]
    return [o for o in origins if o == o.strip(' \t') and not set(o) & set('\r\n\0')]


def status(made, origin, *headers, host='app.example', port=None, cookie=COOKIE):
    """The answer to a handshake from a page of this origin."""
    lines = [f'Origin: {origin}'] if origin is not None else []
    made.port, before = port or made.port, made.port
    try:
        with made.raw(PATH, headers=[*lines, cookie, *headers], host=host) as browser:
            return browser.status
    finally:
        made.port = before


@pytest.mark.parametrize('allowed', ['same-host', 'https://app.example', 'same-host, https://a.example'])
def test_two_hundred_hostile_spellings_are_refused_and_counted(binary, site, allowed):
    made = site(binary, PROXIED + f'wsredis-allowed-origins = {allowed}\n')
    assert status(made, 'https://app.example', HTTPS) == 101
    hostile = hostile_origins()
    assert len(hostile) >= 200
    answers = {origin: status(made, origin, HTTPS) for origin in hostile}
    assert {origin: code for origin, code in answers.items() if code != 403} == {}
    refused = made.stats()['refused']
    assert refused['origin'] == len(hostile)
    assert sum(refused.values()) == len(hostile)
    assert status(made, 'https://app.example', HTTPS) == 101


# (Origin, Host, further headers)
GOOD = [
    ('http://app.example', 'app.example'),
    ('https://app.example', 'app.example'),
    ('https://app.example', 'app.example:443'),
    ('http://app.example', 'app.example:80'),
    ('https://app.example:443', 'app.example'),
    ('http://app.example:80', 'app.example'),
    ('http://app.example:8080', 'app.example:8080'),
    ('https://app.example:8443', 'app.example:8443'),
    ('https://APP.example', 'app.example'),
    ('HTTPS://app.example', 'APP.EXAMPLE'),
    ('http://localhost:8080', 'localhost:8080'),
    ('http://127.0.0.1:8080', '127.0.0.1:8080'),
    ('http://[::1]:8080', '[::1]:8080'),
    ('https://[2001:db8::1]', '[2001:DB8:0::1]'),
    ('https://xn--bcher-kva.example', 'xn--bcher-kva.example'),
    ('http://web_1:8000', 'web_1:8000'),
    ('https://app.example.', 'app.example.'),
    ('https://app.example', 'app.example', HTTPS),
    ('http://app.example', 'app.example', 'X-Forwarded-Proto: http'),
    ('https://app.example', 'backend:9000', 'X-Forwarded-Host: app.example', HTTPS),
    ('https://app.example', 'backend:9000', 'X-Forwarded-Host: evil.example, app.example', HTTPS),
    ('https://app.example:8443', 'backend', 'X-Forwarded-Host: app.example:8443', HTTPS),
    ('https://partner.example', 'app.example'),
    ('https://partner.example:8443', 'app.example'),
    ('capacitor://localhost', 'app.example'),
    ('https://partner.example', 'backend:9000', HTTPS),
]


def test_good_origins_are_not_refused(binary, site):
    listed = 'same-host, https://partner.example, https://partner.example:8443, capacitor://localhost'
    made = site(binary, PROXIED + f'wsredis-allowed-origins = {listed}\n')
    assert len(GOOD) >= 20
    for origin, host, *headers in GOOD:
        assert status(made, origin, *headers, host=host) == 101, (origin, host, headers)
    assert made.stats()['refused']['origin'] == 0


def test_without_an_origin_a_cookie_decides(binary, site):
    made = site(binary)
    assert status(made, None) == 403
    assert status(made, None, cookie='X-No: cookie') == 101
    made.refused(403, 'a Cookie but no Origin', lambda: status(made, None))


def test_two_origin_headers_are_refused_whatever_they_say(binary, site):
    made = site(binary, PROXIED)
    good = 'https://app.example'
    for second in (good, 'https://evil.example', 'null'):
        assert status(made, good, f'Origin: {second}', HTTPS) == 403
        assert status(made, second, f'Origin: {good}', HTTPS) == 403


def test_what_an_untrusted_peer_says_was_forwarded_is_not_believed(binary, site):
    made = site(binary, 'wsredis-trusted-proxies = 127.0.0.2, 10.0.0.0/8, unix\n')
    evil = 'https://evil.example'
    for headers in (
        ['X-Forwarded-Host: evil.example'],
        ['X-Forwarded-Host: evil.example', HTTPS],
        ['X-Forwarded-Host: evil.example', 'X-Forwarded-For: 127.0.0.2'],
        ['X-Forwarded-Host: evil.example', 'X-Real-IP: 10.0.0.1', 'Forwarded: for=10.0.0.1;host=evil.example'],
        ['X_Forwarded_Host: evil.example'],
    ):
        assert status(made, evil, *headers) == 403, headers
    # Nor can it talk a good page out of it.
    assert status(made, 'https://app.example', 'X-Forwarded-Host: evil.example') == 101
    assert made.stats()['refused']['origin'] == 5




@pytest.mark.parametrize('way', ['proxy_pass', 'uwsgi_pass'])
def test_behind_nginx_the_browsers_side_counts(binary, site, nginx, way):
    port = free_port()
    # On the uwsgi protocol REMOTE_ADDR is the browser's address, which nginx passes on.
    made = site(binary, PROXIED + f'uwsgi-socket = 127.0.0.1:{port}\n')
    if way == 'proxy_pass':
        front = nginx(
            f'proxy_pass http://127.0.0.1:{made.port}; proxy_http_version 1.1; '
            'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; '
            'proxy_set_header X-Forwarded-Host $http_host; proxy_set_header X-Forwarded-Proto https; '
            'proxy_set_header Host backend;'
        )
    else:
        front = nginx(
            f'uwsgi_pass 127.0.0.1:{port}; include /etc/nginx/uwsgi_params; '
            'uwsgi_param HTTP_X_FORWARDED_HOST $http_host; uwsgi_param HTTP_X_FORWARDED_PROTO https;'
        )
    ask = partial(status, made, port=front.port)
    assert ask('https://app.example') == 101
    assert ask('https://app.example', host='app.example:443') == 101
    assert ask('https://app.example:8443', host='app.example:8443') == 101
    assert made.stats()['refused']['origin'] == 0
    hostile = hostile_origins()
    answers = {origin: ask(origin) for origin in hostile}
    # nginx itself refuses some bytes.
    assert {origin: code for origin, code in answers.items() if code not in (400, 403)} == {}
    counted = made.stats()['refused']['origin']
    assert counted == list(answers.values()).count(403) >= 200
    # What the browser itself says was forwarded does not get past a front that says it anew.
    for origin in ('https://evil.example', 'http://app.example'):
        assert ask(origin, 'X-Forwarded-Host: evil.example', 'X-Forwarded-Proto: http') == 403
    assert ask('https://app.example', 'Origin: https://app.example') in (400, 403)


def test_the_log_has_both_values_and_the_cure_at_most_once_a_second(debian, site):
    made = site(debian)
    line = re.compile(r'wsredis: handshake refused: 403: (.*)')
    began, sent = time.monotonic(), 0

    def told():
        nonlocal sent
        for _ in range(20):
            assert status(made, 'https://evil.example') == 403
            sent += 1
        return [text for text in line.findall(made.log()) if 'more before' in text]

    eventually(told, 'a line that says how many were left out')
    lines, seconds = line.findall(made.log()), time.monotonic() - began
    for part in ('"https://evil.example"', '"app.example"', 'allowed-origins', 'trusted-proxies'):
        assert all(part in text for text in lines), lines
    assert 2 <= len(lines) <= seconds + 2
    left_out = sum(int(n) for text in lines for n in re.findall(r'and (\d+) more before', text))
    # All but those of the second that has just begun are told, one way or the other.
    assert sent - 20 <= len(lines) + left_out <= sent
    assert made.stats()['refused']['origin'] == sent
