"""Lets the tests of this directory share helpers."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
