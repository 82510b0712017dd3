"""Flask: pages that open ws://…/ws/NAME hear each other. `uwsgi --ini examples/wsgi.ini:flask`"""
import wsredis
from flask import Flask, request

app = Flask(__name__)


@app.get("/ws/<room>", websocket=True)  # a handshake: to Flask another thing than a GET
@app.get("/ws/<room>")  # a GET, by which the page asks whether it may connect
def socket(room):
    grant = wsredis.grant(subscribe=[room], publish=[room], sender=request.args.get("name"))
    return "", {wsredis.GRANT_HEADER: grant}


@app.post("/say/<room>")
def say(room):
    wsredis.publish(room, {"text": request.form["text"]})
    return "", 204
