"""`softlan status`, and what the commands that ask running parts say where they cannot."""

import pytest
from click.testing import CliRunner

from softlan.cli import main
from softlan.observe import local
from softlan.observe.local import PartStatus


@pytest.fixture
def no_unix_sockets(monkeypatch):
    """As on Windows."""
    monkeypatch.setattr(local, "_AF_UNIX", None)


@pytest.mark.parametrize(
    "words",
    [["status"], ["status", "--json"], ["status", "--live"], ["capture", "x.pcapng"], ["invite", "ROOM"]],
)
def test_where_parts_cannot_be_asked_it_is_not_said_that_none_runs(
    no_unix_sockets, tmp_path, monkeypatch, words
):
    monkeypatch.chdir(tmp_path)
    done = run(*words)
    assert done.exit_code == 1
    assert "cannot be asked" in done.output
    assert "sudo" not in done.output
    assert list(tmp_path.iterdir()) == []


def test_an_invite_that_is_put_together_needs_no_relay_to_ask(no_unix_sockets):
    pin = "A" * 43
    done = run("invite", "ROOM", "--host", "relay.example.org", "--pin", pin)
    assert done.exit_code == 0, done.output


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


@pytest.mark.parametrize("part", ["relay", "client"])
@pytest.mark.parametrize(
    "status", [{}, {"rooms": [{"code": "A"}], "connected": True}, {"rooms": 7, "connected": 1}]
)
def test_a_part_of_another_version_is_not_the_end_of_the_list(monkeypatch, part, status):
    told = PartStatus(part=part, pid=1, version="9", uptime_s=5, status=status)
    monkeypatch.setattr("softlan.cli.read_all", lambda: [told, told])
    done = run("status")
    assert done.exit_code == 0
    assert done.output.splitlines() == 2 * [
        f"{part} (pid 1, softlan 9, up 5 s)",
        "  it tells what this version of softlan does not understand",
    ]
