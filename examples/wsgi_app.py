"""Plain WSGI: pages that open ws://…/ws/NAME hear each other. `uwsgi --ini examples/wsgi.ini`"""
import wsredis


def application(environ, start_response):
    _, place, room = environ["PATH_INFO"].split("/", 2)
    if place == "ws":
        return wsredis.wsgi_grant(environ, start_response, subscribe=[room], publish=[room])
    if place == "say" and environ["REQUEST_METHOD"] == "POST":
        wsredis.publish(room, environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", "0")])
    return []
