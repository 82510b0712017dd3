"""Measures servers side by side, in turns, so that whatever the machine does is done to all.

    benches/run.sh SCENARIO… [--repeats 5] [--servers floor,loop,wsredis,NAME=LIBRARY]

Each repeat measures every server once, in an order that changes. What is printed is the median of
each, how much that is of the floor's, and how far the repeats are apart.
"""

import argparse
import json
import sys

import measure
import process
import redis_server
import scenario
import table


def measured(chosen, names, repeats, show):
    values = {name: [] for name in names}
    with redis_server.running() as redis:
        for repeat in range(repeats):
            for name in names if repeat % 2 == 0 else reversed(names):
                value, figures = measure.once(chosen, name, redis)
                values[name].append(value)
                if show:
                    print(name, json.dumps(figures), file=sys.stderr, flush=True)
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
        names = arguments.servers.split(',') if arguments.servers else list(chosen.servers)
        values = measured(chosen, names, arguments.repeats, arguments.figures)
        print(table.text(chosen, values), flush=True)


main()
