"""The same view behind every front and in every mode of uWSGI: the worker is free afterwards."""

import contextlib
import socket
import ssl
import subprocess

import pytest

from harness import free_port, grant_path, need_tool, upgrade

SOCKETS = 50
PATH = grant_path({'subscribe': ['all'], 'publish': ['all']}, body=3000)
UPGRADE = (
    'proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; '
    'proxy_set_header Host $http_host;'
)


def check(made, port=None):
    """Fifty sockets hear one of them; the worker answers and has no socket of its own left."""
    made.port = port or made.port
    with contextlib.ExitStack() as stack:
        browsers = [stack.enter_context(made.connect(PATH)) for _ in range(SOCKETS)]
        assert made.get('/').text == 'hello'
        browsers[0].send('hello all')
        for browser in browsers[1:]:
            assert browser.recv(15) == 'hello all'
        assert made.get('/').text == 'hello'
    for text in ('Traceback', 'write error', 'Broken pipe', 'SIGPIPE', 'Segmentation'):
        assert text not in made.log()


MODES = {
    'sync': ('', ()),
    'threads': ('threads = 4\nenable-threads = true\n', ()),
    'lazy-apps': ('lazy-apps = true\n', ()),
    'offload': ('offload-threads = 1\n', ()),
    'gevent': ('gevent = 20\n', ('gevent_python3',)),
    'greenlet': ('async = 20\ngreenlet = true\n', ('greenlet_python3',)),
    'no-master': ('master = false\n', ()),
    'post-buffering': ('post-buffering = 4096\n', ()),
}


@pytest.mark.parametrize('mode', MODES)
def test_every_mode_takes_sockets(debian, site, mode):
    options, plugins = MODES[mode]
    check(site(debian, options, plugins=plugins))


@pytest.mark.parametrize('front', ['http-socket', 'http11-socket'])
def test_every_socket_of_uwsgi_gives_its_websockets_away(binary, site, front):
    check(site(binary, front=front))


def test_behind_uwsgis_http_router(binary, site):
    check(site(binary, 'http-websockets = true\n', front='http', plugins=('http',)))


def test_behind_nginx_with_uwsgi_pass(binary, site, nginx):
    port = free_port()
    made = site(binary, f'uwsgi-socket = 127.0.0.1:{port}\n')
    front = nginx(f'uwsgi_pass 127.0.0.1:{port}; include /etc/nginx/uwsgi_params;')
    check(made, front.port)


def test_behind_nginx_over_a_unix_socket(debian, site, nginx, tmp_path):
    made = site(debian, f'uwsgi-socket = {tmp_path}/uwsgi.sock\n')
    front = nginx(f'uwsgi_pass unix:{tmp_path}/uwsgi.sock; include /etc/nginx/uwsgi_params;')
    check(made, front.port)


def test_behind_nginx_with_proxy_pass(binary, site, nginx):
    made = site(binary)
    front = nginx(f'proxy_pass http://127.0.0.1:{made.port}; proxy_http_version 1.1; {UPGRADE}')
    check(made, front.port)


def test_the_views_no_passes_nginx_untouched(debian, site, nginx):
    port = free_port()
    made = site(debian, f'uwsgi-socket = 127.0.0.1:{port}\n')
    made.port = nginx(f'uwsgi_pass 127.0.0.1:{port}; include /etc/nginx/uwsgi_params;').port
    answer = made.get(grant_path({}, status='403 Forbidden', body=7))
    assert (answer.status, answer.text, answer.headers['X-After']) == (403, 'xxxxxxx', 'kept')
    assert answer.headers['WSRedis-Grant'] is None
    assert made.get(grant_path({})).status == 426


def test_a_protocol_that_cannot_carry_a_websocket_is_501(debian, site, nginx):
    port = free_port()
    made = site(debian, f'fastcgi-socket = 127.0.0.1:{port}\n')
    made.port = nginx(
        f'fastcgi_pass 127.0.0.1:{port}; include /etc/nginx/fastcgi_params; '
        'fastcgi_param PATH_INFO $uri;'
    ).port
    assert made.get('/').text == 'hello'
    assert made.get(grant_path({})).status == 426
    with made.raw(PATH) as browser:
        assert browser.status == 501
    made.wait_log('501: this socket')


def test_tls_that_ends_in_the_worker_is_501(debian, site, tmp_path):

    subprocess.run(
        [
            need_tool('openssl'),
            'req',
            '-x509',
            '-newkey',
            'rsa:2048',
            '-nodes',
            '-subj',
            '/CN=localhost',
            '-keyout',
            tmp_path / 'key.pem',
            '-out',
            tmp_path / 'cert.pem',
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    made = site(debian, f'https-socket = 127.0.0.1:{port},{tmp_path}/cert.pem,{tmp_path}/key.pem\n')
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with context.wrap_socket(socket.create_connection(('127.0.0.1', port), 15)) as connection:
        connection.sendall(upgrade(PATH))
        got = b''
        while more := connection.recv(4096):
            got += more
        assert got.startswith(b'HTTP/1.1 501 ')
    made.wait_log('501: TLS ends in this process')
    assert made.get('/').text == 'hello'
