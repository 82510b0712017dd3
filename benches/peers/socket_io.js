// node and Socket.IO, with rooms of its own and one subscription for each.   node socket_io.js PORT REDIS_PORT
const { createServer } = require('http');
const { createClient } = require('redis');
const { Server } = require('socket.io');

const [port, redisPort] = process.argv.slice(2);

async function main() {
  const subscriber = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  await subscriber.connect();

  const http = createServer();
  const io = new Server(http, { transports: ['websocket'] });
  const publish = (message, channel) => io.to(channel).emit('m', message);
  const rooms = io.sockets.adapter;
  rooms.on('create-room', (room) => room.startsWith('g') && subscriber.subscribe(room, publish));
  rooms.on('delete-room', (room) => room.startsWith('g') && subscriber.unsubscribe(room, publish));
  io.on('connection', (socket) => socket.join(socket.handshake.query.room));
  http.listen(port, '127.0.0.1', 4096, () => console.log(`listening on 127.0.0.1:${port}`));
}

main();
