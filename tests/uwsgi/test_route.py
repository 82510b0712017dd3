"""Route actions: grants without an app, and what a URL cannot do with them."""

import pytest

from harness import Site, grant_path

ROUTES = r'''
route = ^/news/(\w+)$ wsredis:subscribe=news:$1
route = ^/talk/(.*)$ wsredis:subscribe=room:$1:end,publish=room:$1:end,echo=true,subscribe=all
route = ^/who wsredis:subscribe=who,publish=who,echo=true,sender=${HTTP_X_NAME}
route = ^/late/(\d*) wsredis:subscribe=late,expires_in=$1
route = ^/missing wsredis:subscribe=$1
route = ^/echo$ wsredis-echo:
route-if = regexp:${QUERY_STRING};^room=(\w+)$ wsredis:subscribe=q:$1,publish=q:$1,echo=true
'''


@pytest.fixture
def routed(binary, shared_site):
    return shared_site(binary, ROUTES)


def test_a_route_grants_what_the_pattern_found(binary, site, redis):
    made = site(binary, ROUTES + f'wsredis-redis-url = {redis.url}\n')
    with made.connect('/news/sport') as browser:
        redis.wait_listeners('news:sport')
        redis.client.publish('news:sport', 'goal')
        assert browser.recv(15) == 'goal'
    with made.connect('/talk/a%22b%5C%E2%82%AC') as browser:
        redis.wait_listeners('room:a"b\\\u20ac:end')
        redis.wait_listeners('all')
        browser.send('hi')
        assert browser.recv(15) == 'hi'


def test_a_condition_and_a_variable_are_put_in_too(routed):
    with routed.connect('/anywhere?room=blue') as browser:
        browser.send('hi')
        assert browser.recv(15) == 'hi'
    with routed.connect('/who', additional_headers={'X-Name': 'Zo\\"e'}) as browser:
        browser.send('1')
        assert browser.recv(15) == r'{"sender":"Zo\\\"e","data":1}'


@pytest.mark.parametrize(
    'text, reason',
    [
        ('a,publish=secret', 'comma'),
        ('a%2Cpublish=secret', 'comma'),
        ('a%00b', 'control character'),
        ('a%1Fb', 'control character'),
        ('a%C2%85b', 'control character'),
        ('a%FF', 'not UTF-8'),
        ('a%C0%AF', 'not UTF-8'),
        ('a%ED%A0%80', 'not UTF-8'),
        ('x' * 300, 'channel'),
    ],
)
def test_what_a_url_may_not_put_in_is_400_with_a_log_line(routed, text, reason):
    def again():
        with routed.raw('/talk/' + text) as browser:
            assert browser.status == 400

    routed.refused(400, reason, again)


def test_what_a_url_brings_is_text_and_is_not_expanded_again(binary, site, redis):
    """uWSGI's own translation would put the cookie into the channel's name."""
    made = site(binary, ROUTES + f'wsredis-redis-url = {redis.url}\n')
    with made.connect(
        '/talk/$%7BHTTP_COOKIE%7D',
        additional_headers={'Cookie': 'sid=1', 'Origin': made_origin(made)},
    ):
        redis.wait_listeners('room:${HTTP_COOKIE}:end')
    with made.connect('/talk/$1'):
        redis.wait_listeners('room:$1:end')


def made_origin(made):
    return f'http://127.0.0.1:{made.port}'


def test_a_number_from_a_url_is_a_number_or_400(routed):
    with routed.raw('/late/60') as browser:
        assert browser.status == 101
    with routed.raw('/late/') as browser:
        assert browser.status == 400


def test_a_group_that_the_pattern_has_not_is_refused(routed):
    def again():
        with routed.raw('/missing') as browser:
            assert browser.status == 400

    routed.refused(400, 'no such group', again)


def test_the_echo_route_returns_every_message_as_it_came(routed):
    with routed.connect('/echo') as browser:
        for message in ['text', b'\x00\xff', '', 'x' * 60_000]:
            browser.send(message)
            assert browser.recv(15) == message


def test_a_route_answers_426_to_a_plain_request_and_the_app_is_not_asked(routed):
    assert routed.get('/news/sport').status == 426
    assert routed.get('/').text == 'hello'


@pytest.mark.parametrize(
    'action, reason',
    [
        ('wsredis:', 'grants nothing'),
        ('wsredis:subscribe', 'KEY=VALUE'),
        ('wsredis:subscribed=a', 'unknown option'),
        ('wsredis:replay=1,subscribe=a', 'unknown option'),
        ('wsredis:user=a,user=b', 'repeated'),
        ('wsredis:subscribe=__a', 'channel'),
        ('wsredis:echo=maybe,subscribe=a', 'true or false'),
        ('wsredis:expires_in=1e3,subscribe=a', 'number'),
        ('wsredis-echo:subscribe=a', 'no options'),
    ],
)
def test_a_bad_action_stops_uwsgi_at_start(debian, tmp_path, action, reason):
    log = Site(tmp_path, debian, f'route = ^/x {action}\n').fails()
    assert reason in log


@pytest.mark.parametrize('kind', ['response-route', 'final-route'])
def test_an_action_among_the_routes_of_responses_says_where_it_belongs(debian, site, kind):
    made = site(debian, f'{kind} = ^/x wsredis:subscribe=a\n')
    assert made.get('/x').text == 'hello'
    made.wait_log('belongs into route = ')


def test_without_routing_uwsgi_stops_and_names_the_cure(binaries, tmp_path):
    plain = binaries('plain')
    log = Site(tmp_path, plain, 'route = ^/x wsredis:subscribe=a\n').fails()
    assert 'libpcre2-dev' in log


def test_without_routing_a_view_grants_all_the_same(binaries, site):
    made = site(binaries('plain'))
    with made.connect(grant_path({'subscribe': ['a'], 'publish': ['a'], 'echo': True})) as browser:
        browser.send('hi')
        assert browser.recv(15) == 'hi'
