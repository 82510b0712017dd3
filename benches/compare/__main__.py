"""Measures servers side by side, in turns, so that whatever the machine does is done to all.

    benches/run.sh SCENARIO… [--repeats 5] [--servers floor,loop,wsredis,NAME=LIBRARY]
    benches/run.sh SCENARIO… --peers [--repeats 5]
    benches/run.sh quick      all scenarios, the floors and wsredis, three repeats
    benches/run.sh all        all scenarios, and the peers, which are installed, where they take part
    benches/run.sh table      the table and the picture of what was measured so far

Each repeat measures every server once, in an order that changes. What is printed is the median of
each, how much that is of the floor's, and how far the repeats are apart.
"""

import argparse

import comparison
import peer
import process
import scenario


def main():
    parser = argparse.ArgumentParser(prog='benches/run.sh', usage=__doc__)
    parser.add_argument('what', nargs='+', choices=[*scenario.BY_NAME, 'quick', 'all', 'table'], metavar='SCENARIO')
    parser.add_argument('--repeats', type=int)
    parser.add_argument('--servers', help='names, separated by commas; NAME=LIBRARY for a wsredis')
    parser.add_argument('--peers', action='store_true', help='and the peers, for the table')
    parser.add_argument('--figures', action='store_true', help='show all that the generator says')
    arguments = parser.parse_args()
    process.raise_limit()
    if arguments.what == ['table']:
        comparison.tell()
    elif arguments.what == ['all']:
        comparison.compare(arguments.repeats or 5)
    elif arguments.what == ['quick']:
        comparison.quick(arguments.repeats or 3)
    else:
        for name in arguments.what:
            chosen = scenario.BY_NAME[name]
            if arguments.peers:
                comparison.run_with_peers(chosen, peer.installed(), arguments.repeats or 5)
                continue
            names = arguments.servers.split(',') if arguments.servers else chosen.servers
            servers = list(comparison.chosen_servers(chosen, names))
            comparison.run(chosen, servers, arguments.repeats or 5, arguments.figures)


main()
