"""Plain WSGI: pages that open ws://…/ws/NAME hear each other and what is posted to /say/NAME."""

import wsredis


def application(environ, start_response):
    place, _, room = environ["PATH_INFO"].strip("/").partition("/")
    if place == "ws":
        return wsredis.wsgi_grant(environ, start_response, subscribe=[room], publish=[room])
    if place == "say" and environ["REQUEST_METHOD"] == "POST":
        wsredis.publish(room, environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", "0")])
    return []
