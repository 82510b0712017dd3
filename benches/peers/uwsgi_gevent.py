"""uWSGI's own websockets with gevent: a greenlet and a Redis connection for each, as django-websocket-redis does it."""

import os

import redis
import uwsgi
from gevent.select import POLLIN, poll

REDIS_PORT = int(os.environ['REDIS_PORT'])


def application(environ, start_response):
    uwsgi.websocket_handshake(environ['HTTP_SEC_WEBSOCKET_KEY'], environ.get('HTTP_ORIGIN', ''))
    room = environ['PATH_INFO'].rsplit('/', 1)[1]
    pubsub = redis.Redis(port=REDIS_PORT).pubsub(ignore_subscribe_messages=True)
    pubsub.subscribe(room)
    browser, link = uwsgi.connection_fd(), pubsub.connection._sock.fileno()
    either = poll()  # Not select, which knows no descriptor above 1023.
    either.register(browser, POLLIN)
    either.register(link, POLLIN)
    try:
        while True:
            ready = dict(either.poll(4000))
            if browser in ready or not ready:
                uwsgi.websocket_recv_nb()  # Ends with an exception; pings and pongs are its own.
            while pubsub.connection.can_read(0):
                message = pubsub.get_message()
                if message:
                    uwsgi.websocket_send(message['data'])
    except OSError:
        return []
    finally:
        pubsub.close()
