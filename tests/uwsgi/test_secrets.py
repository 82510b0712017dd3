"""What nobody may read in a log: a run that plants a secret wherever one can be, and makes everything go wrong that is
logged, at the most talkative level. No secret may be in the log, in the numbers or on a command line, which every user
of the machine can read."""

import contextlib
import json
import re

import pytest
from redis.exceptions import ConnectionError as NoRedis

from harness import Site, frame, grant_path

# uWSGI's own log of requests has whole URLs, as everywhere; what is asked here is what we log.
OPTIONS = (
    'wsredis-log-level = debug\ndisable-logging = true\nbuffer-size = 32768\n'
    'wsredis-max-message-size = 16k\nwsredis-close-timeout = 100ms\n'
)

PASSWORD = 'password-in-the-redis-url'
NEXT_PASSWORD = 'password-of-the-next-week'
SECRETS = {
    'query': 'token-in-the-query',
    'cookie': 'cookie-of-a-session',
    'set-cookie': 'cookie-of-the-view',
    'authorization': 'bearer-of-a-token',
    'offered': 'token-as-a-subprotocol',
    'key': 'no-key-at-all',
    'user': 'name-of-a-user',
    'session': 'key-of-a-session',
    'sender': 'name-of-a-sender',
    'heartbeat': 'text-of-a-heartbeat',
    'wrong': 'value-of-the-wrong-type',
    'from browser': 'said-by-a-browser',
    'to browser': 'said-by-the-app',
    'odd': 'said-in-an-odd-way',
    'close': 'reason-of-a-close',
    'password': PASSWORD,
    'next password': NEXT_PASSWORD,
}

HEADERS = [
    f'Cookie: session={SECRETS["cookie"]}',
    f'Authorization: Bearer {SECRETS["authorization"]}',
    'Origin: http://127.0.0.1',
]


@pytest.fixture
def redis_url(redis):
    """A user of Redis whose password is in the URL; it may do all that we ask for."""
    set_password(redis, PASSWORD)
    yield f'redis://site:{PASSWORD}@127.0.0.1:{redis.port}'
    redis.client.acl_deluser('site')


def set_password(redis, password):
    redis.client.acl_setuser(
        'site', enabled=True, reset=True, passwords=[f'+{password}'], keys=['*'], channels=['*'], categories=['+@all']
    )


def path(grant, **more):
    more.setdefault('cookie', f'view={SECRETS["set-cookie"]}')
    return grant_path(grant, token=SECRETS['query'], **more)


GRANT = {
    'subscribe': ['room'],
    'publish': ['room'],
    'sender': {'name': SECRETS['sender']},
    'user': SECRETS['user'],
    'session': SECRETS['session'],
    'heartbeat': SECRETS['heartbeat'],
}


def refusals(made):
    """Handshakes that are refused, each for another reason."""
    good = path(GRANT)
    evil = HEADERS[:2] + ['Origin: https://evil.example']
    token = f'Sec-WebSocket-Protocol: {SECRETS["offered"]}'
    wrong = SECRETS['wrong']
    return [
        (403, dict(path=good, headers=evil)),
        (403, dict(path=good, headers=HEADERS[:2])),
        (400, dict(path=good, headers=HEADERS, key=SECRETS['key'])),
        (400, dict(path=good, headers=[*HEADERS, f'{token}; {token} {token}'])),
        (400, dict(path=good, headers=[*HEADERS, f'Sec-WebSocket-Extensions: {SECRETS["offered"]}="'])),
        (500, dict(path=path({**GRANT, 'subprotocol': 'chat'}), headers=[*HEADERS, token])),
        (500, dict(path=path(json.dumps(GRANT)[:-2]), headers=HEADERS)),
        (500, dict(path=path(GRANT) + '&g={}', headers=HEADERS)),
        *(
            (500, dict(path=path({**GRANT, name: value}), headers=HEADERS))
            for name, value in (
                ('user', [wrong]),
                ('session', {'is': wrong}),
                ('session', wrong * 20),
                ('sender', wrong * 200),
                ('expires_in', wrong),
                ('echo', wrong),
                ('heartbeat', wrong * 10),
                ('format', wrong),
                ('unknown', wrong),
            )
        ),
    ]


def hostile_frames():
    """What closes a socket, each for another cause."""
    said, odd = SECRETS['from browser'].encode(), SECRETS['odd'].encode()
    yield frame(odd + b'\xff\xfe')
    yield frame(odd, opcode=3)
    yield frame(odd, opcode=2)
    yield bytes([0xF1]) + frame(odd)[1:]
    yield frame(odd * 10, opcode=9)
    yield frame(odd * 1000)
    yield frame(b'\x03\xe8' + SECRETS['close'].encode(), opcode=8)
    yield frame(b'\x03\xed' + SECRETS['close'].encode(), opcode=8)
    yield frame(said) + frame(odd, opcode=0)


def hostile_envelopes():
    odd = SECRETS['odd']
    yield odd
    yield json.dumps({'channel': 'not-granted', 'data': odd})
    yield json.dumps({'channel': 'room', 'data': odd, 'more': odd})
    yield json.dumps({'channel': ['room'], 'data': odd})
    yield '{"channel":"room","data":"' + odd


def read_to_the_end(browser):
    with contextlib.suppress(AssertionError, OSError):
        while True:
            browser.take(1)


def test_no_secret_is_in_a_log_the_numbers_or_a_command_line(debian, site, redis, redis_url):
    made = site(debian, OPTIONS + f'wsredis-redis-url = {redis_url}\n')

    for http, request in refusals(made):
        with made.raw(**request) as browser:
            assert browser.status == http, request
            body = browser.body().decode()
        for secret in SECRETS.values():
            assert secret not in body

    def opened(*more):
        return made.raw(path(GRANT), headers=[*HEADERS, *more])

    for bytes_ in hostile_frames():
        with opened() as browser:
            assert browser.status == 101
            browser.socket.sendall(bytes_)
            read_to_the_end(browser)
    for text in hostile_envelopes():
        with opened('Sec-WebSocket-Protocol: wsredis.v1') as browser:
            assert browser.message()[0] == 1
            browser.send(text)
            read_to_the_end(browser)

    with opened() as browser, opened('Sec-WebSocket-Protocol: wsredis.v1') as other:
        redis.wait_listeners('room')
        redis.client.publish('room', SECRETS['to browser'])
        assert SECRETS['to browser'].encode() in browser.message()[1]
        browser.send(SECRETS['from browser'])
        assert other.message()[0] == 1
        # What the browser says fails at Redis, and then Redis takes the password no longer.
        redis.client.acl_setuser('site', commands=['-publish'])
        browser.send(SECRETS['from browser'])
        made.wait_log('NOPERM')
        set_password(redis, NEXT_PASSWORD)
        with contextlib.suppress(NoRedis):
            redis.client.execute_command('CLIENT', 'KILL', 'USER', 'site')
        made.wait_log('WRONGPASS')
        read_to_the_end(browser)

    stats = made.stats()
    lines = [cmdline(pid) for pid in (made.process.pid, *made.children(), *made.keepers())]
    made.stop()
    log = made.log()
    # It was a run in which much went wrong.
    for cause in ('protocol', 'utf8', 'too_big', 'unacceptable', 'not_granted', 'publish_failed'):
        assert stats['closed'][cause], stats
    for refusal in ('malformed', 'origin', 'grant'):
        assert stats['refused'][refusal], stats
    assert len(re.findall('^wsredis: .*(?:closed|refused|lost|NOPERM)', log, re.M)) >= 5, log
    for what, secret in SECRETS.items():
        assert secret not in log, f'{what}: {[line for line in log.splitlines() if secret in line]}'
        assert secret not in json.dumps(stats), what
        assert secret.encode() not in b' '.join(lines), what


def cmdline(pid):
    with open(f'/proc/{pid}/cmdline', 'rb') as file:
        return file.read()


@pytest.mark.parametrize(
    'url',
    [
        f'redis://site:{PASSWORD}@127.0.0.1:99999',
        f'redis://:{PASSWORD}@',
        f'http://site:{PASSWORD}@127.0.0.1',
        f'redis://site:{PASSWORD}@127.0.0.1/not-a-number',
        f'redis://site:{PASSWORD}@127.0.0.1?unknown={PASSWORD}',
    ],
)
def test_a_redis_url_that_is_wrong_is_refused_without_its_password(debian, tmp_path, url):
    log = Site(tmp_path, debian, f'wsredis-redis-url = {url}\n').fails()
    assert 'redis-url' in log
    assert PASSWORD not in log
