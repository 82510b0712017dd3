"""Measures servers side by side, in turns, so that whatever the machine does is done to all.

    benches/run.sh SCENARIO… [--repeats 5] [--servers floor,loop,wsredis,NAME=LIBRARY,peers]

Each repeat measures every server once, in an order that changes. What is printed is the median of
each, how much that is of the floor's, and how far the repeats are apart.
"""

import argparse
import json
import sys
from pathlib import Path

import measure
import peer
import process
import redis_server
import scenario
import server
import table


def chosen_servers(chosen, names):
    """The servers of these names, in this order."""
    known = [*server.FLOORS, server.wsredis(), *chosen.variants, *peer.ALL]
    by_name = {known.name: known for known in known}
    for name in names:
        if '=' in name:
            name, library = name.split('=', 1)
            yield server.wsredis(name, Path(library))
        elif name in by_name:
            yield by_name[name]
        else:
            raise SystemExit(f'there is no server {name}')


def measured(chosen, servers, repeats, show):
    values = {one.name: [] for one in servers}
    with redis_server.running() as redis:
        for repeat in range(repeats):
            for one in servers if repeat % 2 == 0 else reversed(servers):
                value, figures = measure.once(chosen, one, redis)
                values[one.name].append(value)
                if show:
                    print(one.name, json.dumps(figures), file=sys.stderr, flush=True)
    return values


def main():
    parser = argparse.ArgumentParser(prog='benches/run.sh')
    parser.add_argument('scenarios', nargs='+', choices=sorted(scenario.BY_NAME), metavar='SCENARIO')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--servers', help='names, separated by commas; NAME=LIBRARY for a wsredis')
    parser.add_argument('--figures', action='store_true', help='show all that the generator says')
    arguments = parser.parse_args()
    process.raise_limit()
    for name in arguments.scenarios:
        chosen = scenario.BY_NAME[name]
        names = arguments.servers.split(',') if arguments.servers else chosen.servers
        servers = list(chosen_servers(chosen, names))
        values = measured(chosen, servers, arguments.repeats, arguments.figures)
        print(table.text(chosen, values), flush=True)


main()
