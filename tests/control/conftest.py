"""Lets the tests find `kinds.py` and `ends.py`, as those of tests/fuzz do."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
