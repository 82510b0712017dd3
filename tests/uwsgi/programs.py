"""The programs of benches/. WSREDIS_BYSTANDER and WSREDIS_LOAD name them, else cargo builds them."""

import functools
import json
import os
import subprocess

from harness import ROOT


@functools.cache
def program(name):
    """The program's path; without the variable it is built, once."""
    if path := os.environ.get(f'WSREDIS_{name.upper()}'):
        return path
    done = subprocess.run(
        f'cargo build --release --locked --example {name} --message-format json'.split(),
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    )
    built = [json.loads(line) for line in done.stdout.splitlines()]
    return next(made['executable'] for made in built if made.get('executable'))
