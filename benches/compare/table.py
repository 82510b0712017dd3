"""Medians, ratios and the noise, and how they are printed."""

import statistics


def spread(values):
    """How far the repeats are apart: the noise of the machine, where the server is the same."""
    return (max(values) - min(values)) / statistics.median(values)


def rows(scenario, measured):
    """A line for each server: its name, the median, the ratio to the base, the spread."""
    medians = {name: statistics.median(values) for name, values in measured.items()}
    base = medians.get(scenario.base)
    for name, values in measured.items():
        ratio = medians[name] / base if base else None
        yield name, medians[name], ratio, spread(values)


def text(scenario, measured):
    lines = [f'{scenario.name}: {scenario.title} ({scenario.unit})']
    for name, median, ratio, noise in rows(scenario, measured):
        against = f'{ratio:5.2f} × {scenario.base}' if ratio else ''
        values = ' '.join(f'{value:.3g}' for value in measured[name])
        lines.append(f'  {name:12} {median:9.3f}  {against:15} ±{noise:4.0%}   {values}')
    return '\n'.join(lines)
