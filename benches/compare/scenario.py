"""What is measured: the load, what of it is counted, and what the servers are compared with."""

from dataclasses import dataclass, field


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
    # The share of the messages that is enough for those who send each by itself.
    slow_share: float = 0.1
    # More keys of wsredis.
    keys: dict = field(default_factory=dict)
    # A first, small load, so that what a server makes only once is not counted.
    is_warmed: bool = False


SIZE = 64

SPEAK = dict(sockets=100, channels=100, size=SIZE)


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
    Scenario('burst-9900', 'burst, 9,900 sockets', 'fanout', burst(9900)),
    Scenario('burst-19000', 'burst, 19,000 sockets', 'fanout', burst(19_000)),
    Scenario('long-1000', 'bursts of 100, 1,000 sockets', 'fanout', burst(1000, of=100)),
    Scenario('paced-9900', 'paced, 9,900 sockets', 'fanout', paced(9900)),
    Scenario(
        'channels-9900',
        '9,900 channels of one socket',
        'fanout',
        burst(9900, of=500, channels=9900, random='yes', messages=200_000),
        base='loop',
        slow_share=1,
    ),
    Scenario(
        'inbound-drop',
        'inbound, dropped, as fast as it is taken',
        'speak',
        SPEAK | dict(room='/news/', rate=0, burst=20, messages=3_000_000),
        servers=('floor', 'wsredis'),
    ),
    Scenario(
        'inbound-drop-paced',
        'inbound, dropped, one message in a read',
        'speak',
        SPEAK | dict(room='/news/', rate=50_000, messages=150_000),
        servers=('floor', 'wsredis'),
    ),
    Scenario(
        'inbound-redis',
        'inbound to Redis, as fast as it is taken',
        'speak',
        SPEAK | dict(room='/inbox/', rate=0, burst=20, messages=500_000),
        figure='cpu_per_publish',
        servers=('floor', 'wsredis'),
    ),
    Scenario(
        'inbound-redis-paced',
        'inbound to Redis, one message in a read',
        'speak',
        SPEAK | dict(room='/inbox/', rate=20_000, messages=60_000),
        figure='cpu_per_publish',
        servers=('floor', 'wsredis'),
    ),
    Scenario(
        'memory',
        'user memory of an idle socket that has spoken once',
        'speak',
        dict(room='/news/', sockets=9900, size=SIZE, messages=9900, rate=20_000),
        figure='memory_per_socket',
        unit='B',
        servers=('floor', 'wsredis'),
        is_warmed=True,
    ),
    Scenario(
        'handshake',
        'handshake',
        'speak',
        dict(room='/news/', sockets=5000, size=SIZE, messages=5000, rate=20_000),
        figure='cpu_per_handshake',
        servers=('floor', 'wsredis'),
        is_warmed=True,
    ),
    Scenario(
        'burst-1000-two-loops',
        'burst, 1,000 sockets, two loops',
        'fanout',
        burst(1000),
        servers=('floor', 'wsredis'),
        keys={'loops': '2'},
    ),
]

BY_NAME = {scenario.name: scenario for scenario in ALL}
