"""A grant in a view's response: who gets a socket, who gets which refusal, what nobody sees."""

import json
import socket

import pytest

from harness import frame, grant_path, upgrade

OPTIONS = 'wsredis-allowed-origins = same-host\n'


@pytest.fixture
def asked(binary, shared_site):
    return shared_site(binary, OPTIONS)


def test_a_view_grants_and_two_browsers_hear_each_other(binary, site, redis):
    made = site(binary, f'wsredis-redis-url = {redis.url}\n')
    path = grant_path({'subscribe': ['talk'], 'publish': ['talk']})
    with made.connect(path) as one, made.connect(path) as two:
        redis.wait_listeners('talk')
        one.send('hello from one')
        assert two.recv(15) == 'hello from one'
        redis.client.publish('talk', 'from redis')
        assert one.recv(15) == 'from redis'
        assert two.recv(15) == 'from redis'
    assert made.get('/').text == 'hello'


def test_the_embedded_broker_does_the_same_with_one_worker(asked):
    with asked.connect(grant_path({'subscribe': ['a'], 'publish': ['b']})) as one, asked.connect(
        grant_path({'subscribe': ['b'], 'publish': ['a']})
    ) as two:
        one.send('ping')
        assert two.recv(15) == 'ping'
        two.send('pong')
        assert one.recv(15) == 'pong'


@pytest.mark.parametrize('how', ['list', 'file', 'write', 'pieces', 'nothing', 'late-read'])
def test_whatever_body_the_view_writes_it_ends_well_and_reaches_nobody(asked, how):
    with asked.raw(grant_path({'subscribe': ['silent']}, how=how, body=100_000)) as browser:
        assert browser.status == 101
        browser.send('ping', opcode=9)
        assert browser.message() == (10, b'ping')
    assert asked.get('/').text == 'hello'
    assert 'Traceback' not in asked.log()
    assert 'write error' not in asked.log().lower()


def test_the_access_log_says_101_and_no_bytes(asked):
    path = grant_path({'user': 'logged'}, body=5000)
    with asked.raw(path) as browser:
        assert browser.status == 101
    asked.wait_log(r'LOG 101 GET /grant\S*logged\S* 0 0')


def test_cookies_of_the_view_are_in_the_101_and_its_other_headers_are_not(asked):
    path = grant_path({}) + '&cookie=a%3D1%3B%20Path%3D/&cookie=b%3D2'
    with asked.raw(path) as browser:
        assert browser.status == 101
        assert browser.head['set-cookie'] == ['a=1; Path=/', 'b=2']
        assert 'x-after' not in browser.head
        assert 'content-type' not in browser.head
        assert 'wsredis-grant' not in browser.head


@pytest.mark.parametrize('name', ['WSRedis-Grant', 'wsredis-grant', 'WSREDIS-GRANT'])
def test_the_header_is_found_in_any_case(asked, name):
    with asked.raw(grant_path({}, name=name)) as browser:
        assert browser.status == 101


@pytest.mark.parametrize('status', ['200 OK', '204 No Content', '206 Partial'])
def test_every_2xx_is_a_yes(asked, status):
    with asked.raw(grant_path({}, status=status)) as browser:
        assert browser.status == 101


@pytest.mark.parametrize(
    'status', ['302 Found', '401 Unauthorized', '403 Forbidden', '404 Not Found', '500 Oops']
)
def test_the_views_own_no_is_untouched_but_for_the_header(asked, status):
    path = grant_path({'user': 'secret'}, status=status, body=7, cookie='a=1')
    with asked.raw(path) as browser:
        assert browser.status == int(status[:3])
        assert browser.head['x-after'] == ['kept']
        assert browser.head['set-cookie'] == ['a=1']
        assert browser.head['content-type'] == ['text/plain']
        assert 'wsredis-grant' not in browser.head
        assert browser.body() == b'xxxxxxx'


def test_the_header_leaves_a_no_however_often_it_is_there(asked):
    path = grant_path({'user': 'secret'}, status='403 Forbidden') + '&g={}&g=not%20json'
    answer = asked.get(path)
    assert answer.status == 403
    assert not [name for name in answer.headers if name.lower() == 'wsredis-grant']
    assert answer.headers['X-After'] == 'kept'


def test_a_request_that_is_no_upgrade_is_told_that_it_may_connect(asked):
    answer = asked.get(grant_path({'user': 'secret'}))
    assert answer.status == 426
    assert answer.headers['Sec-WebSocket-Version'] == '13'
    assert 'secret' not in answer.text + str(answer.headers)
    assert 'x' * 11 not in answer.text
    asked.wait_log(r'LOG 426 GET /grant')


def test_the_426_to_head_has_no_body(asked):
    answer = asked.get(grant_path({}), method='HEAD')
    assert answer.status == 426
    assert answer.text == ''


def test_a_wrong_version_is_told_the_right_one(asked):
    request = upgrade(grant_path({})).replace(b'Version: 13', b'Version: 8')
    with asked.raw('/', request=request) as browser:
        assert browser.status == 426
        assert browser.head['sec-websocket-version'] == ['13']


def test_a_bad_key_is_400(asked):
    with asked.raw(grant_path({}), key='short') as browser:
        assert browser.status == 400


def test_a_handshake_with_a_body_is_400(asked):
    with asked.raw(grant_path({}), headers=['Content-Length: 4'], behind=b'body') as browser:
        assert browser.status == 400


BAD_GRANTS = {
    'no-json': 'subscribe=a',
    'array': '["a"]',
    'empty': '',
    'cut': '{"subscribe":["a"]',
    'unknown-field': '{"subscribed":["a"]}',
    'wrong-type': '{"subscribe":"a"}',
    'channel-control': '{"subscribe":["a\\u0007"]}',
    'channel-reserved': '{"subscribe":["__wsredis"]}',
    'channel-empty': '{"publish":[""]}',
    'channel-long': json.dumps({'subscribe': ['x' * 256]}),
    'later-field': '{"replay":1}',
    'twice-a-field': '{"echo":true,"echo":false}',
    'latin-1': '{"user":"\u00e9"}',
    'number': '{"expires_in":"soon"}',
}


@pytest.mark.parametrize('name', BAD_GRANTS)
def test_a_bad_grant_is_500_with_the_reason_in_the_log_only(debian, shared_site, name):
    asked = shared_site(debian, OPTIONS)
    path = grant_path(BAD_GRANTS[name], cookie='sid=1')

    def again():
        with asked.raw(path) as browser:
            assert browser.status == 500
            assert browser.head['connection'] == ['close']
            assert not {'set-cookie', 'wsredis-grant', 'x-after', 'upgrade'} & set(browser.head)
            text = browser.body().decode()
            assert 'grant' not in text.lower() and 'x' * 11 not in text

    asked.refused(500, '.', again)

    assert 'Traceback' not in asked.log()


def test_the_reason_of_a_bad_grant_names_the_field(asked):
    def again():
        with asked.raw(grant_path({'subscribed': ['a']})) as browser:
            assert browser.status == 500

    asked.refused(500, 'subscribed', again)


def test_two_headers_are_500_and_the_log_names_the_cure(asked):
    def again():
        with asked.raw(grant_path({}) + '&g={}') as browser:
            assert browser.status == 500

    asked.refused(500, 'more than one WSRedis-Grant', again)


def test_a_foreign_origin_is_403_and_the_log_says_both(asked):
    def again():
        with asked.raw(grant_path({}), headers=['Origin: http://evil.example']) as browser:
            assert browser.status == 403

    asked.refused(403, 'evil.example', again)
    with asked.raw(grant_path({}), headers=['Origin: http://127.0.0.1']) as browser:
        assert browser.status == 101


@pytest.mark.parametrize('cookie, channels', [(2000, 15), (20_000, 100)])
def test_a_large_grant_beside_a_large_cookie_passes(asked, cookie, channels):
    """uWSGI's own way to read a header (pull-header) ends in an error at 3,000 + 2,000 bytes."""
    with asked.raw(f'/grant?large={cookie},{channels}') as browser:
        assert browser.status == 101
        assert len(browser.head['set-cookie'][0]) == cookie


FIRST = frame('first') + frame('second')


@pytest.mark.parametrize('front', ['http-socket', 'http11-socket'])
def test_frames_sent_behind_the_request_arrive_wherever_they_are_cut(binary, shared_site, front):
    """The worker reads some with the request, the engine gets the rest: at each offset."""
    made = shared_site(binary, OPTIONS, front=front)
    path = grant_path({'subscribe': ['self'], 'publish': ['self'], 'echo': True})
    request = upgrade(path)
    for offset in range(len(FIRST) + 1):
        with made.raw(
            '/',
            request=request,
            pieces=lambda data: [data[: len(request) + offset], data[len(request) + offset :]],
            behind=FIRST,
        ) as browser:
            assert browser.status == 101
            assert browser.message() == (1, b'first'), offset
            assert browser.message() == (1, b'second'), offset


def test_a_kept_connection_may_become_a_websocket_and_the_next_one_is_served(binary, shared_site):
    """http11-socket keeps the connection for its core, which must let it go then."""
    made = shared_site(binary, OPTIONS, front='http11-socket')
    for _ in range(3):
        with socket.create_connection(('127.0.0.1', made.port), 15) as connection:
            connection.sendall(b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
            got = b''
            while not got.endswith(b'hello'):
                got += connection.recv(4096)
            connection.sendall(upgrade(grant_path({})) + frame('x', opcode=9))
            got = b''
            while not got.endswith(b'\x8a\x01x'):
                more = connection.recv(4096)
                assert more, got
                got += more
            assert got.startswith(b'HTTP/1.1 101')
    assert made.get('/').text == 'hello'
    assert made.get(grant_path({})).status == 426
    assert made.get('/').text == 'hello'


def test_every_app_is_told_before_it_is_imported(asked):
    assert asked.facts()['version']
