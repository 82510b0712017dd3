"""The rooms of an asyncio server: one subscription for each, and whoever is in it."""

import asyncio

import redis.asyncio


class Rooms:
    def __init__(self, redis_port, send):
        """`send(socket, text)` may be a coroutine function."""
        self.pubsub = redis.asyncio.Redis(port=redis_port, decode_responses=True).pubsub()
        self.send = send
        self.rooms = {}
        self.reader = None
        # Else each of the first who come would open a connection.
        self.lock = asyncio.Lock()

    async def join(self, name, socket):
        room = self.rooms.setdefault(name, set())
        room.add(socket)
        if len(room) == 1:
            async with self.lock:
                await self.pubsub.subscribe(name)
            # Not before: it would end at once.
            if self.reader is None:
                self.reader = asyncio.create_task(self.read())

    async def leave(self, name, socket):
        room = self.rooms.get(name, set())
        room.discard(socket)
        if not room and self.rooms.pop(name, None) is not None:
            async with self.lock:
                await self.pubsub.unsubscribe(name)

    async def read(self):
        async for message in self.pubsub.listen():
            if message['type'] != 'message':
                continue
            for socket in list(self.rooms.get(message['channel'], ())):
                try:
                    done = self.send(socket, message['data'])
                    if done is not None:
                        await done
                except Exception:
                    pass  # It is gone; its own task takes it out of the room.
