"""Tornado.   python tornado_app.py PORT REDIS_PORT"""

import asyncio
import logging
import sys

from rooms import Rooms
from tornado.web import Application
from tornado.websocket import WebSocketHandler

logging.getLogger('tornado').setLevel(logging.ERROR)
port, redis_port = map(int, sys.argv[1:])


class News(WebSocketHandler):
    async def open(self, room):
        self.room = room
        await rooms.join(room, self)

    def on_message(self, message):
        pass

    def on_close(self):
        asyncio.ensure_future(rooms.leave(self.room, self))


def send(socket, text):
    socket.write_message(text)


async def main():
    Application([(r'/news/(\w+)', News)]).listen(port, '127.0.0.1', backlog=4096)
    await asyncio.Event().wait()


rooms = Rooms(redis_port, send)
asyncio.run(main())
