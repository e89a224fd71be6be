"""The systemd units, judged by systemd itself; and the options in them, by softlan."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from softlan.cli import main
from softlan.errors import ConfigError, RejectedError
from softlan.lab.testing import need

_SPEC = importlib.util.spec_from_file_location(
    "manager", Path(__file__).parents[1] / "e2e" / "newcomer" / "manager.py"
)
manager = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(manager)

UNITS = Path(__file__).parents[2] / "packaging" / "systemd"
NAMES = ["softlan-relay.service", "softlan-gateway@.service", "softlan-client.service"]
INSTALLED = "/opt/softlan/bin/softlan"
THRESHOLD = 20
"""Exposure in tenths, as systemd-analyze security counts it; 10.0 is a service without any protection."""


@pytest.fixture
def analyze(tmp_path: Path):
    need("systemd-analyze")
    # systemd looks whether the program is there: the one of this test run stands for the installed one.
    here = str(Path(sys.executable).with_name("softlan"))
    for name in NAMES:
        (tmp_path / name).write_text((UNITS / name).read_text().replace(INSTALLED, here))

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["systemd-analyze", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return run


@pytest.mark.parametrize("name", NAMES)
def test_systemd_understands_the_unit(analyze, name):
    ended = analyze("verify", "--man=no", f"./{name.replace('@', '@eth0')}")
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.parametrize("name", NAMES)
def test_the_unit_is_hardened(analyze, name):
    ended = analyze("security", "--no-pager", "--offline=true", f"--threshold={THRESHOLD}", f"./{name}")
    assert ended.returncode == 0, ended.stdout


def test_the_relay_sees_what_its_metrics_tell_of_its_process():
    """They need /proc/stat, for the time the machine was started; ProcSubset=pid hides it, and then there are none of them."""
    assert "\nProcSubset=" not in (UNITS / "softlan-relay.service").read_text()


@pytest.mark.parametrize("name", NAMES)
def test_softlan_knows_the_options_in_the_unit(name):
    (line,) = re.findall(r"^ExecStart=(.*)$", (UNITS / name).read_text(), re.MULTILINE)
    program, part, *arguments = shlex.split(line)
    assert program == INSTALLED
    known = {option for parameter in main.commands[part].params for option in parameter.opts}
    assert {word for word in arguments if word.startswith("--")} <= known


@pytest.mark.parametrize("name", NAMES)
def test_an_installed_softlan_prints_the_unit_for_itself(name):
    done = CliRunner().invoke(main, ["config", "unit", re.split(r"[-@.]", name)[1]])
    assert done.exit_code == 0
    here = str(Path(sys.executable).with_name("softlan"))
    assert done.stdout == (UNITS / name).read_text().replace(INSTALLED, here)
    assert here in done.stdout


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("/home/ann/.local/pipx/venvs/softlan/bin/python", True),
        ("/root/softlan/bin/python", True),
        ("/opt/softlan/bin/python", False),
        ("/homes/softlan/bin/python", False),
    ],
)
def test_a_unit_that_could_not_start_its_program_is_not_printed_without_a_word(monkeypatch, program, said):
    """All units have ProtectHome=yes."""
    monkeypatch.setattr("softlan.config_cli.sys.executable", program)
    monkeypatch.setattr(Path, "exists", lambda _: True)
    monkeypatch.setattr(Path, "resolve", lambda path: path)
    done = CliRunner().invoke(main, ["config", "unit", "relay"])
    assert f"\nExecStart={Path(program).with_name('softlan')} relay " in done.stdout
    assert ("hint: this unit cannot start" in done.stderr) is said
    assert all("\nProtectHome=yes\n" in (UNITS / name).read_text() for name in NAMES)


@pytest.mark.parametrize("instance", ["eth0", "br\\x2dlan"])
def test_a_gateway_starts_whenever_its_interface_appears(tmp_path, instance):
    """A device that goes away stops the unit, which no Restart= undoes; the device's coming back is what starts it."""
    need("systemctl")
    units = tmp_path / "etc/systemd/system"
    units.mkdir(parents=True)
    (units / "softlan-gateway@.service").write_text((UNITS / "softlan-gateway@.service").read_text())
    unit = f"softlan-gateway@{instance}.service"
    subprocess.run(["systemctl", f"--root={tmp_path}", "enable", unit], check=True, timeout=60)
    for wants in ("multi-user.target", f"sys-subsystem-net-devices-{instance}.device"):
        assert (units / f"{wants}.wants" / unit).is_symlink()


@pytest.mark.parametrize("interface", ["eth0", "br-lan", "enp3s0.7", "a_b"])
def test_the_guides_stand_in_for_systemd_reads_an_instance_as_systemd_does(interface):
    need("systemd-escape")

    def said(*words: str) -> str:
        return subprocess.run(
            ["systemd-escape", *words], check=True, stdout=subprocess.PIPE, text=True
        ).stdout[:-1]

    escaped = said(interface)
    assert manager.unescape(escaped) == said("--unescape", escaped) == interface
    assert manager.unescape(interface) == said("--unescape", interface) == interface.replace("-", "/")


SESSIONS = {"client": "softlan-client.service", "gateway": "softlan-gateway@.service"}
LOADED = re.compile(r"^#   LoadCredential=(.+):/etc/softlan/\1$", re.MULTILINE)


@pytest.mark.parametrize(("part", "name"), SESSIONS.items())
def test_every_file_that_the_example_settings_name_has_a_line_in_the_unit(part, name):
    """By a relative path, which leads to the copies that systemd makes."""
    example = (UNITS.parent / "config" / f"{part}.toml").read_text()
    named = set(re.findall(r'^#(?:key-file|relay-ca-cert) = "([^/"\n]+)"$', example, re.MULTILINE))
    assert len(named) == 2
    assert set(LOADED.findall((UNITS / name).read_text())) == named


def test_the_clients_unit_says_what_attaching_takes():
    """What the gateway has, whose interface is used in the same way."""
    adds = re.findall(r"^#   (\w+)=(CAP_\w+|AF_\w+)$", (UNITS / SESSIONS["client"]).read_text(), re.MULTILINE)
    assert [name for name, _ in adds] == [
        "CapabilityBoundingSet",
        "AmbientCapabilities",
        "RestrictAddressFamilies",
    ]
    gateway = (UNITS / SESSIONS["gateway"]).read_text()
    for name, value in adds:
        assert re.search(rf"^{name}=.*\b{value}\b", gateway, re.MULTILINE)
        assert not re.search(
            rf"^{name}=.*\b{value}\b", (UNITS / SESSIONS["client"]).read_text(), re.MULTILINE
        )


def test_the_relay_has_a_line_for_rooms_and_for_a_key_file():
    assert LOADED.findall((UNITS / "softlan-relay.service").read_text()) == ["rooms.toml", "party1.key"]


@pytest.mark.parametrize("name", NAMES)
def test_what_only_a_person_can_change_is_not_tried_again(name):
    """Settings that cannot be used; and what a relay refuses a client or gateway for good."""
    (told,) = re.findall(r"^RestartPreventExitStatus=(.+)$", (UNITS / name).read_text(), re.MULTILINE)
    statuses = [ConfigError.exit_code, *([RejectedError.FINAL] if name in SESSIONS.values() else [])]
    assert [int(status) for status in told.split()] == statuses
