"""How much of a soak is done: WSREDIS_SOAK=0.1 does a tenth of it."""

import os

SHARE = float(os.environ.get('WSREDIS_SOAK', '1'))


def tries(count):
    return max(1, round(count * SHARE))
