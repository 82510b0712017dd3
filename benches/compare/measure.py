"""One measurement: a server, a load, a number."""

import contextlib
import json
import subprocess

import process
import server

LOAD = server.TARGET / 'release' / 'examples' / 'load'
LIMIT = 60


def load(scenario, running, redis, **more):
    """Runs the generator to its end, and beside it what the scenario has; returns its figures, in
    which nothing may be wrong."""
    with contextlib.ExitStack() as stack:
        if scenario.beside:
            options = {'redis': redis.url, **scenario.beside}
            beside = stack.enter_context(generating(options.pop('load'), running.port, options))
        options = {'group': 'g', 'redis': redis.url, **scenario.options, 'pid': running.pid, **more}
        if scenario.load == 'speak':
            del options['redis']
        main = stack.enter_context(generating(scenario.load, running.port, options))
        figures = of(main)
        if scenario.beside:
            figures['beside'] = of(beside)
            check(figures['beside'], ('lost', 'doubled', 'reordered', 'redis_errors'))
    check(figures, ('lost', 'doubled', 'reordered', 'strangers', 'redis_errors', 'ended'))
    # Those who do not read are closed, and nobody else.
    if figures['closes'] and figures.get('healthy_open') != figures['sockets']:
        raise RuntimeError(f'somebody was closed: {figures}')
    return figures


def check(figures, faults):
    if not figures['in_time'] or any(map(figures.get, faults)):
        raise RuntimeError(f'something went wrong: {figures}')


def generating(load, port, options):
    """Starts the generator. Keywords are its options, `_` for `-`."""
    command = [LOAD, load, '--url', f'http://127.0.0.1:{port}', '--limit', LIMIT]
    for name, value in options.items():
        command += [f'--{name.replace("_", "-")}', value]
    return process.ended(process.start(command, process.LOAD_CORE, stdout=subprocess.PIPE))


def of(child):
    """The figures of a generator, when it has ended."""
    text, _ = child.communicate(timeout=LIMIT + 20)
    if child.returncode:
        raise RuntimeError(f'the generator failed: {child.args}')
    return json.loads(text)


def cpu_per_delivery(figures, _):
    return figures['server']['cpu_ns'] / 1000 / figures.get('delivered', figures['sent'])


def cpu_per_publish(figures, published):
    if published < figures['sent']:
        raise RuntimeError(f'{figures["sent"]} were sent, {published} published')
    return cpu_per_delivery(figures, published)


def cpu_per_handshake(figures, _):
    return figures['server']['cpu_ns_earlier'] / 1000 / figures['opened']


def memory_per_socket(figures, _):
    before, after = figures['server']['anonymous_kb_exactly']
    return (after - before) * 1024 / figures['opened']


def copies_of_a_message(figures, _):
    """How many times a message is in memory at worst, beside what there was before."""
    before, peak = figures['server']['resident_kb_exact_peak']
    return (peak - before) / 1024


def p99(figures, _):
    return figures['p99_ms']


FIGURES = {
    figure.__name__: figure
    for figure in (
        cpu_per_delivery,
        cpu_per_publish,
        cpu_per_handshake,
        memory_per_socket,
        copies_of_a_message,
        p99,
    )
}


def messages(scenario, measured):
    """How many messages are sent; fewer to those who take long."""
    if scenario.load == 'speak' and not measured.hears:
        return {'messages': 0}
    if 'messages' not in scenario.options:
        return {}
    burst = scenario.options.get('burst', 1)
    wanted = scenario.options['messages'] * max(measured.share, scenario.least_share)
    return {'messages': max(1, round(wanted / burst)) * burst}


def once(scenario, measured, redis):
    """Measures a server, started for this."""
    with server.running(measured, redis) as running:
        options = measured.options | messages(scenario, measured)
        if scenario.is_warmed:
            few = {'sockets': 50, 'messages': min(50, options['messages'])}
            load(scenario, running, redis, **options | few)
        before = redis.publishes()
        files = process.files(running.pid)
        figures = load(scenario, running, redis, **options)
        process.wait_files(running.pid, files)
        return FIGURES[scenario.figure](figures, redis.publishes() - before), figures
