"""A mule that publishes once and writes the answer of the RPC where the test looks for it."""

import os
import time

import uwsgi

answer = uwsgi.call(b'wsredis-publish', b'from-mule', b'5', b'hello')
with open(os.environ['MULE_ANSWER'] + '.new', 'wb') as file:
    file.write(answer or b'None')
os.rename(os.environ['MULE_ANSWER'] + '.new', os.environ['MULE_ANSWER'])
while True:
    time.sleep(60)
