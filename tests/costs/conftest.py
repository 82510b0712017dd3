"""The modules are those of benches/compare, which measures the same servers."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / 'benches' / 'compare'), str(ROOT / 'tests' / 'uwsgi')]
