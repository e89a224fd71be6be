from pathlib import Path

import pytest

from softlan.lab.docs import replace_between
from softlan.lab.namespaces import LabError


def test_only_what_is_between_the_markers_changes(tmp_path: Path) -> None:
    path = tmp_path / "doc.md"
    path.write_text("a\n<!-- x: begin -->\nold\n<!-- x: end -->\nz\n")
    for content in ("new \\1", "newer"):
        replace_between(path, "x", content)
        assert path.read_text() == f"a\n<!-- x: begin -->\n{content}\n<!-- x: end -->\nz\n"
    with pytest.raises(LabError, match="markers of `y`"):
        replace_between(path, "y", "")
