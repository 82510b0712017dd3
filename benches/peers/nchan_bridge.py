"""Posts to nchan what is published to Redis.   python nchan_bridge.py PORT REDIS_PORT"""

import re
import socket
import sys

import redis

port, redis_port = map(int, sys.argv[1:])
pubsub = redis.Redis(port=redis_port).pubsub(ignore_subscribe_messages=True)
pubsub.psubscribe('g*')
http = socket.create_connection(('127.0.0.1', port))
answers = http.makefile('rb')
print('listening', flush=True)

for message in pubsub.listen():
    path, body = message['channel'].decode(), message['data']
    head = f'POST /publish/{path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n'
    http.sendall(head.encode() + b'Content-Type: text/plain\r\n\r\n' + body)
    head = b''
    while not head.endswith(b'\r\n\r\n'):
        head += answers.readline()
    answers.read(int(re.search(rb'(?i)content-length: *(\d+)', head)[1]))
