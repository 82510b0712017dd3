// node and `ws`: a map of rooms, and one subscription for each.   node ws.js PORT REDIS_PORT
const { WebSocketServer } = require('ws');
const { createClient } = require('redis');

const [port, redisPort] = process.argv.slice(2);
const rooms = new Map();

async function main() {
  const subscriber = createClient({ url: `redis://127.0.0.1:${redisPort}` });
  await subscriber.connect();

  const publish = (message, channel) => {
    for (const socket of rooms.get(channel)) {
      socket.send(message);
    }
  };

  const server = new WebSocketServer({ port, host: '127.0.0.1', perMessageDeflate: false });
  server.on('connection', (socket, request) => {
    const room = request.url.split('/').pop();
    if (!rooms.has(room)) {
      rooms.set(room, new Set());
      subscriber.subscribe(room, publish);
    }
    rooms.get(room).add(socket);
    socket.on('close', () => {
      rooms.get(room).delete(socket);
      if (rooms.get(room).size === 0) {
        rooms.delete(room);
        subscriber.unsubscribe(room, publish);
      }
    });
    socket.on('error', () => {});
  });
  server.on('listening', () => console.log(`listening on 127.0.0.1:${port}`));
}

main();
