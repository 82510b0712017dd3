"""What is measured: the load, what of it is counted, and what the servers are compared with."""

from dataclasses import dataclass, field, replace

import server


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    # The generator's scenario and its options.
    load: str
    options: dict
    # What is counted, in which unit (measure.py).
    figure: str = 'cpu_per_delivery'
    unit: str = 'µs'
    # The server that the others are divided by.
    base: str = 'floor'
    servers: tuple = ('floor', 'loop', 'wsredis')
    # Over its bars in the picture, if it has any.
    caption: str = ''
    # Servers of this scenario only.
    variants: tuple = ()
    # Another load at the same time: the generator's options, with its scenario.
    beside: dict = field(default_factory=dict)
    # A first, small load, so that what a server makes only once is not counted.
    is_warmed: bool = False
    # Slow servers are measured with no smaller share of the messages than this.
    least_share: float = 0


SIZE = 64
SPEAK = dict(sockets=100, channels=100, size=SIZE)
OURS = ('floor', 'wsredis')


def burst(sockets, of=8, deliveries=4_000_000, **options):
    """Bursts that fit one read of Redis; the next one is sent when all have heard the last."""
    messages = max(of, deliveries // sockets // of * of)
    return dict(
        room='/news/', sockets=sockets, burst=of, waits='yes', rate=0, size=SIZE, messages=messages
    ) | options


def paced(sockets, deliveries=20_000, seconds=5):
    return dict(
        room='/news/', sockets=sockets, rate=deliveries / sockets, size=SIZE, seconds=seconds
    )


ALL = [
    Scenario('burst-1000', 'burst, 1,000 sockets', 'fanout', burst(1000)),
    Scenario(
        'burst-9900',
        'burst, 9,900 sockets',
        'fanout',
        burst(9900),
        caption='Processor time for each delivery, bursts to 9,900 sockets',
    ),
    Scenario('burst-19000', 'burst, 19,000 sockets', 'fanout', burst(19_000), servers=OURS),
    Scenario('long-1000', 'bursts of 100, 1,000 sockets', 'fanout', burst(1000, of=100)),
    Scenario('paced-9900', 'paced, 9,900 sockets', 'fanout', paced(9900)),
    Scenario(
        'channels-9900',
        '9,900 channels of one socket',
        'fanout',
        burst(9900, of=500, channels=9900, random='yes', messages=100_000),
        base='loop',
        least_share=0.3,
    ),
    Scenario(
        'inbound-drop',
        'inbound, dropped, as fast as it is taken',
        'speak',
        SPEAK | dict(room='/news/', rate=0, burst=20, messages=6_000_000),
        servers=OURS,
    ),
    Scenario(
        'inbound-drop-paced',
        'inbound, dropped, one message in a read',
        'speak',
        SPEAK | dict(room='/news/', rate=50_000, messages=150_000),
        servers=OURS,
    ),
    Scenario(
        'inbound-redis',
        'inbound to Redis, as fast as it is taken',
        'speak',
        SPEAK | dict(room='/inbox/', rate=0, burst=20, messages=500_000),
        figure='cpu_per_publish',
        servers=OURS,
    ),
    Scenario(
        'inbound-redis-paced',
        'inbound to Redis, one message in a read',
        'speak',
        SPEAK | dict(room='/inbox/', rate=20_000, messages=60_000),
        figure='cpu_per_publish',
        servers=OURS,
    ),
    Scenario(
        'memory',
        'user memory of an idle socket',
        'speak',
        dict(room='/news/', sockets=9900, size=SIZE, messages=9900, rate=20_000),
        figure='memory_per_socket',
        unit='B',
        caption='User memory of each idle socket',
        servers=OURS,
        is_warmed=True,
        least_share=1,
    ),
    Scenario(
        'handshake',
        'handshake',
        'speak',
        dict(room='/news/', sockets=5000, size=SIZE, messages=5000, rate=20_000),
        figure='cpu_per_handshake',
        servers=OURS,
        is_warmed=True,
        least_share=1,
    ),
    Scenario(
        'two-loops',
        'burst, 1,000 sockets, one loop and two',
        'fanout',
        burst(1000),
        base='wsredis',
        servers=(*OURS, 'two-loops'),
        variants=(server.wsredis('two-loops', loops='2'),),
    ),
    Scenario(
        'deflate-1000',
        'messages of 1 KiB, 1,000 sockets, plain and deflated',
        'fanout',
        burst(1000, size=1024, words='yes', deliveries=1_000_000),
        base='wsredis',
        servers=(*OURS, 'deflated'),
        variants=(replace(server.wsredis('deflated'), options={'deflate': 'yes'}),),
    ),
]

# What goes wrong in the world; wsredis alone is measured, or with the floor.
BAD = [
    Scenario(
        'slow-1000',
        'burst, 1,000 sockets, beside 1,000 that do not read',
        'slow',
        dict(
            room='/news/',
            sockets=1000,
            burst=20,
            rate=200,
            size=1024,
            seconds=4,
            receive_buffer=4096,
            drain=1,
        ),
        servers=('floor', 'wsredis', 'floor-slow', 'wsredis-slow'),
        variants=(
            replace(server.FLOORS[0], name='floor-slow', options={'slow': 1000}),
            replace(server.wsredis('wsredis-slow'), options={'slow': 1000}),
        ),
    ),
    Scenario(
        'beside-a-burst',
        'p99 of a channel, beside a burst of 100,000 messages to 100 sockets',
        'fanout',
        dict(room='/news/', sockets=10, rate=200, size=SIZE, seconds=3, group='calm'),
        figure='p99',
        unit='ms',
        base='wsredis',
        servers=('wsredis',),
        variants=(server.wsredis('patient', write_queue_limit='16m'),),
        beside=dict(
            load='fanout', room='/news/', sockets=100, rate=0, messages=100_000, size=SIZE, group='storm'
        ),
    ),
    Scenario(
        'mebibyte-1000',
        'copies of a message of 1 MiB to 1,000 sockets',
        'fanout',
        dict(room='/news/', sockets=1000, burst=1, rate=0, waits='yes', size=1 << 20, messages=3),
        figure='copies_of_a_message',
        unit='MiB',
        base='wsredis',
        servers=('wsredis',),
    ),
    Scenario(
        'churn-1000',
        'burst, 1,000 sockets, beside 64 that come and go',
        'fanout',
        burst(1000, deliveries=2_000_000),
        servers=('floor', 'wsredis'),
        beside=dict(
            load='resets', room='/news/', sockets=64, rate=0, tries=4000, group='g'
        ),
    ),
]

BY_NAME = {scenario.name: scenario for scenario in [*ALL, *BAD]}
# What the peers are measured with, too.
COMPARED = ('burst-1000', 'burst-9900', 'paced-9900', 'channels-9900', 'memory')
