"""uWebSockets by socketify: topics of its own, and one subscription for each room.   python socketify_app.py PORT REDIS_PORT"""

import asyncio
import sys

import redis.asyncio
from socketify import App, AppListenOptions, CompressOptions, OpCode

port, redis_port = map(int, sys.argv[1:])
app = App()
pubsub = redis.asyncio.Redis(port=redis_port, decode_responses=True).pubsub()
listeners = {}
# Else each of the first who come would open a connection.
lock = asyncio.Lock()


async def read():
    async for message in pubsub.listen():
        if message['type'] == 'message':
            app.publish(message['channel'], message['data'], OpCode.TEXT)


def upgrade(response, request, context):
    response.upgrade(
        request.get_header('sec-websocket-key'),
        request.get_header('sec-websocket-protocol'),
        request.get_header('sec-websocket-extensions'),
        context,
        {'room': request.get_url().rsplit('/', 1)[1]},
    )


async def opened(socket):
    room = socket.get_user_data()['room']
    socket.subscribe(room)
    listeners[room] = listeners.get(room, 0) + 1
    if listeners[room] == 1:
        async with lock:
            is_first = not pubsub.subscribed
            await pubsub.subscribe(room)
        if is_first:
            app.loop.create_task(read())


app.ws(
    '/news/*',
    {
        'compression': CompressOptions.DISABLED,
        'max_backpressure': 16 << 20,
        'idle_timeout': 120,
        'upgrade': upgrade,
        'open': opened,
        'message': lambda socket, message, opcode: None,
    },
)
app.listen(AppListenOptions(port=port, host='127.0.0.1'))
app.run()
