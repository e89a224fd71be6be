"""`softlan status`, and what the commands that ask running parts say where they cannot."""

import pytest
from click.testing import CliRunner

from softlan.cli import main
from softlan.observe.local import PartStatus


def run(*words):
    return CliRunner().invoke(main, words)


@pytest.mark.parametrize("part", ["relay", "client"])
def test_a_part_that_cannot_tell_how_it_does_says_so(monkeypatch, part):
    told = PartStatus(part=part, pid=1, version="1", uptime_s=5, status={"error": "no\nnumbers"})
    monkeypatch.setattr("softlan.cli.read_all", lambda: [told])
    done = run("status")
    assert done.exit_code == 0
    assert done.output.splitlines() == [
        f"{part} (pid 1, softlan 1, up 5 s)",
        r"  it cannot tell how it does: no\nnumbers; its log says more",
    ]
