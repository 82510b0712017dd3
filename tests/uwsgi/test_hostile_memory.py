"""`max-memory`: the engine keeps within it, whatever those do who do not read and do not finish."""

import hostile


def test_the_slowest_are_shed_and_nobody_else_notices(debian, site, redis):
    made = hostile.start(
        site,
        debian,
        redis,
        # Without it they would be closed for being slow long before.
        'wsredis-max-memory = 32m\nwsredis-write-queue-limit = 16m\nsocket-sndbuf = 16384\n',
    )
    options = {'sockets': 100, 'slow': 200, 'half': 200, 'channels': 200, 'receive_buffer': 4096}
    hostile.check_memory(made, redis, 32, rate=6000, size=1024, seconds=8, **options)
    hostile.is_empty(made)
