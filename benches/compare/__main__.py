"""Measures servers side by side, in turns, so that whatever the machine does is done to all.

    benches/run.sh SCENARIO… [--repeats 5] [--servers floor,loop,wsredis,NAME=LIBRARY]
    benches/run.sh quick      all scenarios, the floors and wsredis, three repeats
    benches/run.sh all        all scenarios, and the peers, which are installed, where they take part
    benches/run.sh table      the table and the picture of what was measured so far

Each repeat measures every server once, in an order that changes. What is printed is the median of
each, how much that is of the floor's, and how far the repeats are apart.
"""

import argparse
import json
import sys
from pathlib import Path

import machine
import measure
import peer
import picture
import process
import redis_server
import results
import scenario
import server
import table

# So many peers have to take part, or it is no comparison.
LEAST_PEERS = 3
PICTURE = server.ROOT / 'benches' / 'picture.svg'


def chosen_servers(chosen, names):
    """The servers of these names, in this order."""
    known = [*server.FLOORS, server.wsredis(), *chosen.variants, *peer.ALL]
    by_name = {one.name: one for one in known}
    for name in names:
        if '=' in name:
            name, library = name.split('=', 1)
            yield server.wsredis(name, Path(library))
        elif name in by_name:
            yield by_name[name]
        else:
            raise SystemExit(f'there is no server {name}')


def run(chosen, servers, repeats, show=False):
    """Measures, prints and keeps a scenario. A peer that fails is left out, and that is said."""
    values = {one.name: [] for one in servers}
    with redis_server.running() as redis:
        for repeat in range(repeats):
            for one in servers if repeat % 2 == 0 else reversed(servers):
                if one.name not in values:
                    continue
                try:
                    value, figures = measure.once(chosen, one, redis)
                except RuntimeError as error:
                    if one not in peer.ALL:
                        raise
                    print(f'{one.name} is left out of {chosen.name}: {error}', file=sys.stderr)
                    del values[one.name]
                    continue
                values[one.name].append(value)
                if show:
                    print(one.name, json.dumps(figures), file=sys.stderr, flush=True)
    print(table.of_scenario(chosen, values), flush=True)
    results.keep(chosen, values)
    return values


def tell():
    """Prints the table of the scenarios that are compared, and draws the picture."""
    titles = {one.name: one.title for one in [*server.FLOORS, server.wsredis(), *peer.ALL]}
    compared = [scenario.BY_NAME[name] for name in scenario.COMPARED]
    found = [(one, values) for one in compared if (values := results.kept(one))]
    if not found:
        raise SystemExit('nothing was measured yet')
    print(f'{table.of_all(found, titles)}\n\n{machine.description()}')
    drawn = [(one, values) for one, values in found if one.caption]
    if drawn:
        PICTURE.write_text(picture.draw(drawn, titles, machine.description()))
        print(f'the picture is {PICTURE}')
    return found


def compare(repeats):
    peers = peer.installed()
    least = set()
    for chosen in scenario.ALL:
        servers = list(chosen_servers(chosen, chosen.servers))
        if chosen.name in scenario.COMPARED:
            servers += peers
        values = run(chosen, servers, repeats)
        if chosen.name in scenario.COMPARED:
            least.add(sum(one.name in values for one in peers))
    tell()
    if min(least) < LEAST_PEERS:
        raise SystemExit(f'only {min(least)} peers could be measured; {LEAST_PEERS} have to')


def main():
    parser = argparse.ArgumentParser(prog='benches/run.sh')
    parser.add_argument('what', nargs='+', choices=[*scenario.BY_NAME, 'quick', 'all', 'table'], metavar='SCENARIO')
    parser.add_argument('--repeats', type=int)
    parser.add_argument('--servers', help='names, separated by commas; NAME=LIBRARY for a wsredis')
    parser.add_argument('--figures', action='store_true', help='show all that the generator says')
    arguments = parser.parse_args()
    process.raise_limit()
    if arguments.what == ['table']:
        tell()
    elif arguments.what == ['all']:
        compare(arguments.repeats or 5)
    elif arguments.what == ['quick']:
        for chosen in scenario.ALL:
            run(chosen, list(chosen_servers(chosen, chosen.servers)), arguments.repeats or 3)
    else:
        for name in arguments.what:
            chosen = scenario.BY_NAME[name]
            names = arguments.servers.split(',') if arguments.servers else chosen.servers
            servers = list(chosen_servers(chosen, names))
            run(chosen, servers, arguments.repeats or 5, arguments.figures)


main()
