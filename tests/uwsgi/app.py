"""The plain WSGI app under test: the query of a request says how the view answers.

Standard library only, because it runs in whatever Python uWSGI was built for."""

import json
import os
import time
from urllib.parse import parse_qs

import uwsgi

# What an app sees while it is imported, which is when Django reads its settings.
VERSION_AT_IMPORT = os.environ.get('WSREDIS_VERSION')


def rpc(*arguments):
    answer = uwsgi.call(
        *[a.encode(errors='surrogateescape') if isinstance(a, str) else a for a in arguments]
    )
    return b'None' if answer is None else answer


def grant(environ, start_response, query):
    """Answers with the grant(s) `g`, verbatim."""
    name = query.get('name', ['WSRedis-Grant'])[0]
    headers = [('Content-Type', 'text/plain')]
    headers += [('Set-Cookie', cookie) for cookie in query.get('cookie', [])]
    headers += [(name, value) for value in query.get('g', [])]
    if 'large' in query:
        # Larger than a request's URL may be: a cookie of so many bytes, and a grant of so many
        # channels of 200 bytes.
        cookie, channels = map(int, query['large'][0].split(','))
        names = [f'{i:0200}' for i in range(channels)]
        headers += [('Set-Cookie', 'c' * cookie), (name, json.dumps({'subscribe': names}))]
    headers += [('X-After', 'kept')]
    if 'worker' in query:
        headers += [('Set-Cookie', f'worker={uwsgi.worker_id()}')]
    if 'body' in query:
        headers += [('Content-Length', query['body'][0])]
    if 'sleep' in query:
        time.sleep(float(query['sleep'][0]))
    body = b'x' * int(query.get('body', ['11'])[0])
    how = query.get('how', ['list'])[0]
    write = start_response(query.get('status', ['200 OK'])[0], headers)
    if how == 'file':
        return environ['wsgi.file_wrapper'](open(__file__, 'rb'))
    if how == 'write':
        write(body)
        return [body]
    if how == 'pieces':
        return (body[i : i + 1] for i in range(len(body)))
    if how == 'nothing':
        return []
    if how == 'late-read':

        def late():
            yield b'first'
            yield environ['wsgi.input'].read()

        return late()
    if how == 'late-sleep':

        def slow():
            yield b'first'
            time.sleep(float(query['late'][0]))
            yield b'last'

        return slow()
    return [body]


def publish(query):
    """Publishes parts of these sizes by RPC; the answer is what RPC answered."""
    sizes = [int(size) for size in query['parts'][0].split(',') if size]
    total = query.get('total', [str(sum(sizes))])[0]
    parts = [bytes([97 + i % 26]) * size for i, size in enumerate(sizes)]
    return rpc('wsredis-publish', query['channel'][0], total, *parts)


def publish_in_a_child():
    """The same in a child that the app itself forks: the engine's threads are not in it."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, rpc('wsredis-publish', 'a', '1', b'x'))
        os._exit(0)
    os.waitpid(child, 0)
    answer = os.read(read, 4096)
    os.close(read)
    os.close(write)
    return answer


HOARD = []


def hoard(query):
    """Takes so many megabytes and never gives them back."""
    HOARD.append(b'x' * (int(query['megabytes'][0]) << 20))
    return b'taken'


def hang():
    """Is killed by uWSGI's harakiri."""
    uwsgi.set_user_harakiri(1)
    time.sleep(60)


def facts():
    return json.dumps(
        {
            'version': VERSION_AT_IMPORT,
            'worker': uwsgi.worker_id(),
            'pid': os.getpid(),
            'redis_url': os.environ.get('WSREDIS_REDIS_URL'),
        }
    ).encode()


PAGES = {
    '/stats': lambda query: rpc('wsredis-stats'),
    '/facts': lambda query: facts(),
    '/publish': publish,
    '/hoard': hoard,
    '/hang': lambda query: hang(),
    '/forked': lambda query: publish_in_a_child(),
}


def application(environ, start_response):
    query = parse_qs(environ['QUERY_STRING'], keep_blank_values=True, errors='surrogateescape')
    path = environ['PATH_INFO']
    if path == '/grant':
        return grant(environ, start_response, query)
    body = PAGES.get(path, lambda query: b'hello')(query)
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))])
    return [body]
