"""Starlette under uvicorn.   python starlette_app.py PORT REDIS_PORT"""

import sys

import uvicorn
from rooms import Rooms
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocketDisconnect

port, redis_port = map(int, sys.argv[1:])
rooms = Rooms(redis_port, lambda socket, text: socket.send_text(text))


async def listen(socket):
    room = socket.path_params['room']
    await socket.accept()
    await rooms.join(room, socket)
    try:
        while True:
            await socket.receive_text()
    except WebSocketDisconnect:
        pass
    finally:
        await rooms.leave(room, socket)


app = Starlette(routes=[WebSocketRoute('/news/{room}', listen)])
uvicorn.run(
    app, host='127.0.0.1', port=port, backlog=4096, log_level='warning', ws_per_message_deflate=False
)
