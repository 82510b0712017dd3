"""One measurement: a server, a load, a number."""

import json
import subprocess

import process
import server

LOAD = server.TARGET / 'release' / 'examples' / 'load'
LIMIT = 60


def load(scenario, running, redis, **more):
    """Runs the generator to its end; returns its figures, in which nothing may be wrong."""
    options = {'group': 'g', 'redis': redis.url, **scenario.options, 'pid': running.pid, **more}
    if scenario.load == 'speak':
        del options['redis']
    figures = generate(scenario.load, running.port, options)
    for fault in ('lost', 'doubled', 'reordered', 'strangers', 'redis_errors', 'ended'):
        if figures.get(fault) or not figures['in_time'] or figures['closes']:
            raise RuntimeError(f'something went wrong: {figures}')
    return figures


def generate(load, port, options):
    """Runs the generator; returns its figures. Keywords are its options, `_` for `-`."""
    command = [LOAD, load, '--url', f'http://127.0.0.1:{port}', '--limit', LIMIT]
    for name, value in options.items():
        command += [f'--{name.replace("_", "-")}', value]
    child = process.start(command, process.LOAD_CORE, stdout=subprocess.PIPE)
    with process.ended(child):
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


FIGURES = {
    of.__name__: of
    for of in (cpu_per_delivery, cpu_per_publish, cpu_per_handshake, memory_per_socket)
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
        figures = load(scenario, running, redis, **options)
        return FIGURES[scenario.figure](figures, redis.publishes() - before), figures
