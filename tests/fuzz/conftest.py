"""Lets the tests find `targets.py`, as `run.py` finds it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
