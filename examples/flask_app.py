"""Flask: pages that open ws://…/ws/NAME hear each other and what is posted to /say/NAME."""

import wsredis
from flask import Flask, request

app = Flask(__name__)


@app.get("/ws/<room>", websocket=True)  # a handshake, which to Flask is another thing than a GET
@app.get("/ws/<room>")  # a GET, by which wsredis.js asks whether it may connect
def socket(room):
    return wsredis.answer(subscribe=[room], publish=[room])


@app.post("/say/<room>")
def say(room):
    wsredis.publish(room, {"text": request.form["text"]})
    return "", 204
