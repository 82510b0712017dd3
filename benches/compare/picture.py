"""The picture for the README: bars, drawn by hand as SVG, that can be read on light and on dark."""

import statistics
from html import escape

import table

WIDTH, LABEL, VALUE, ROW, HEAD = 800, 280, 90, 24, 44

STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-weight: 600; }
.floor { fill: #8c959f; } .ours { fill: #1a7f37; } .peer { fill: #54aeff; }
.own { font-weight: 600; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; }
  .floor { fill: #6e7681; } .ours { fill: #3fb950; } .peer { fill: #388bfd; }
}
"""


def kind(name):
    return {'floor': 'floor', 'loop': 'floor', 'wsredis': 'ours'}.get(name, 'peer')


def panel(top, title, unit, medians, titles):
    """The bars of one figure; returns them and where they end."""
    parts = [f'<text class="title" x="0" y="{top + 18}">{escape(title)}, {escape(unit)}</text>']
    scale = (WIDTH - LABEL - VALUE) / max(medians.values())
    y = top + HEAD - 10
    for name in sorted(medians, key=medians.get):
        value, own = medians[name], ' class="own"' if name == 'wsredis' else ''
        length = max(1, value * scale)
        parts += [
            f'<text{own} x="{LABEL - 10}" y="{y + 13}" text-anchor="end">{escape(titles[name])}</text>',
            f'<rect class="{kind(name)}" x="{LABEL}" y="{y}" width="{length:.1f}" height="{ROW - 7}" rx="2"/>',
            f'<text{own} x="{LABEL + length + 8:.1f}" y="{y + 13}">{table.digits(value)}</text>',
        ]
        y += ROW
    return parts, y + 14


def draw(results, titles, machine):
    parts, y = [], 0
    for scenario, measured in results:
        medians = {name: statistics.median(values) for name, values in measured.items() if name in titles}
        more, y = panel(y, scenario.caption or scenario.title, scenario.unit, medians, titles)
        parts += more
    parts.append(f'<text x="0" y="{y + 8}">{escape(machine)}</text>')
    return '\n'.join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + 16}" width="{WIDTH}">',
            f'<style>{STYLE}</style>',
            *parts,
            '</svg>',
            '',
        ]
    )
