"""Scenarios from their servers to the table and the picture."""

import json
import sys
from pathlib import Path

import machine
import measure
import peer
import picture
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
    """Measures and prints a scenario. A peer that fails is left out, and that is said."""
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
    return values


def run_with_peers(chosen, peers, repeats):
    """The same, with the peers, for the table."""
    servers = [*chosen_servers(chosen, chosen.servers), *peers]
    values = run(chosen, servers, repeats)
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
    for chosen in [*scenario.ALL, *scenario.BAD]:
        if chosen.name in scenario.COMPARED:
            values = run_with_peers(chosen, peers, repeats)
            least.add(sum(one.name in values for one in peers))
        else:
            run(chosen, list(chosen_servers(chosen, chosen.servers)), repeats)
    tell()
    if min(least) < LEAST_PEERS:
        raise SystemExit(f'only {min(least)} peers could be measured; {LEAST_PEERS} have to')


def quick(repeats):
    for chosen in [*scenario.ALL, *scenario.BAD]:
        run(chosen, list(chosen_servers(chosen, chosen.servers)), repeats)
