"""Medians, ratios and the noise, and how they are printed."""

import statistics


def spread(values):
    """How far the repeats are apart: the noise of the machine, where the server is the same."""
    return (max(values) - min(values)) / statistics.median(values)


def digits(value):
    """A number with three digits that mean something."""
    if value >= 100:
        return f'{value:,.0f}'
    return f'{value:.{1 if value >= 10 else 2}f}'


def of_scenario(scenario, measured):
    """A line for each server: the median, the ratio to the base, the spread, all values."""
    base = statistics.median(measured[scenario.base]) if scenario.base in measured else None
    lines = [f'{scenario.name}: {scenario.title} ({scenario.unit})']
    for name, values in measured.items():
        median = statistics.median(values)
        against = f'{median / base:5.2f} × {scenario.base}' if base else ''
        each = ' '.join(digits(value) for value in values)
        lines.append(f'  {name:12} {median:9.3f}  {against:15} ±{spread(values):4.0%}   {each}')
    return '\n'.join(lines)


def of_all(results, titles):
    """A row for each server, a column for each scenario, in Markdown; the last row is the noise of
    the floor, or of what else the others are divided by. `results` are pairs of scenario and values."""
    head = ['Server', *(f'{scenario.title}, {scenario.unit}' for scenario, _ in results)]
    rows = [head, ['---', *('---:' for _ in results)]]
    for name, title in titles.items():
        cells = [measured.get(name) for _, measured in results]
        if any(cells):
            medians = [digits(statistics.median(cell)) if cell else '–' for cell in cells]
            rows.append([title, *medians])
    noise = [spread(measured[scenario.base]) for scenario, measured in results]
    rows.append(['*noise: how far the repeats of the bare loop are apart*', *map('±{:.0%}'.format, noise)])
    return '\n'.join(f'| {" | ".join(row)} |' for row in rows)
