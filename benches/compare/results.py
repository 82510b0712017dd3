"""What was measured so far, in files beside what was built: scenarios may be measured one by one."""

import json

import machine
from server import BUILT

FOLDER = BUILT / 'results'


def keep(scenario, values):
    FOLDER.mkdir(parents=True, exist_ok=True)
    kept = {'machine': machine.description(), 'values': values}
    (FOLDER / f'{scenario.name}.json').write_text(json.dumps(kept, indent=1))


def kept(scenario):
    """The values of a scenario by server, if it was measured on this machine."""
    path = FOLDER / f'{scenario.name}.json'
    found = json.loads(path.read_text()) if path.exists() else {}
    return found['values'] if found.get('machine') == machine.description() else None
