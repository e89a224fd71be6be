"""`./dev` and `.ci/run`: that no test falls between their stages, and what is built beside other things."""

import itertools
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
DEV = (ROOT / "dev").read_text()
CI = (ROOT / ".ci" / "run").read_text()
AHEAD = (ROOT / ".ci" / "ahead").read_text()


def test_a_test_with_whatever_marks_is_run_in_ci():
    """`./dev test` runs by two choices, and CI leaves out of `./dev windows` what those have; all of these lie in tests/."""
    markers = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["pytest"]["ini_options"]["markers"]
    names = [marker.partition(":")[0] for marker in markers]
    stage = DEV.partition("\ntest)")[2].partition(";;")[0]
    choices = re.findall(r"pytest (?:-q )?-m '?([\w ]+?)'?(?: \"|\n)", stage)
    choices += re.findall(r"^\./dev windows -m '([\w ]+)'$", CI, re.MULTILINE)
    assert len(choices) == 3
    for marks in itertools.product((False, True), repeat=len(names)):
        has = dict(zip(names, marks, strict=True))
        # Only what lies in tests/windows has these, and `./dev windows` runs what lies there.
        assert any(eval(choice, {}, has) for choice in choices), has


def test_the_marks_of_the_windows_stage_lie_in_its_directory():
    for path in (ROOT / "tests").rglob("*.py"):
        if "windows" not in path.parts and path != Path(__file__):
            assert not re.search(r"mark\.(windows|party)\b", path.read_text()), path


def test_what_is_built_ahead_is_what_later_stages_build():
    ahead = {" ".join(found.split()) for found in re.findall(r"cargo .+", AHEAD)}
    assert len(ahead) == 4
    later = set()
    for path in ("python/softlan/lab/hostile.py", "benches/relay_alone.py", "benches/peers/yardsticks.py"):
        (words,) = re.findall(r'\["cargo", "build", (.+?)\]', (ROOT / path).read_text())
        later.add("cargo build " + " ".join(re.findall(r'"([^"]+)"', words)))
    source = (ROOT / "tests" / "windows" / "test_tap_io.py").read_text()
    (target,) = re.findall(r'^TARGET = "(.+)"$', source, re.MULTILINE)
    (words,) = re.findall(r'\["cargo", "test", (.+?)\]', source)
    later.add("cargo test " + " ".join(re.findall(r'"([^"]+)"', words.replace("TARGET", f'"{target}"'))))
    assert ahead == later
    assert "packaging/windows/build-wheel.sh" in AHEAD
    assert "packaging/windows/build-wheel.sh" in DEV
    assert "\nrust/fuzz/run build\n" in AHEAD
    assert 'rust/fuzz/run "$target"' in DEV


PACKAGES = {
    "dhclient": "isc-dhcp-client",
    "dnsmasq": "dnsmasq-base",
    "nft": "nftables",
    "nstat": "iproute2",
    "ping": "iputils-ping",
    "setpriv": "util-linux",
    "systemctl": "systemd",
    "systemd-analyze": "systemd",
    "systemd-escape": "systemd",
}
"""The Debian package of each tool that is named otherwise than its own."""


def test_ci_installs_what_tests_need():
    """Where a test asks for a tool by its name; some work out which shell, client or compiler they need, and are not seen here."""
    (installed,) = re.findall(r"apt-get install -y [^>]+", CI)
    needed = set()
    for path in (ROOT / "tests").rglob("*.py"):
        needed |= set(re.findall(r'\bneeds?\("([\w.+-]+)"\)', path.read_text()))
    assert {"fping", "tshark"} <= needed
    needed -= {"sh", "no-such-program"}  # what the tests of `need` itself ask for
    assert {PACKAGES.get(tool, tool) for tool in needed} - set(installed.split()) == set()


PYTHON = """#!/bin/bash
echo "python $*" >>log
case "$*" in
*'not e2e'*)
    # Ends only when what is built ahead has begun: the two run beside each other.
    for _ in $(seq 1000); do [ ! -e begun ] || break; sleep 0.01; done
    [ -e begun ] || exit 9
    touch tested
    exit "$TESTS_END_WITH" ;;
esac
"""
BUILDS = """#!/bin/bash
echo $$ >pid
touch begun
[ "$AHEAD" != forever ] || sleep 1000
for _ in $(seq 1000); do [ ! -e tested ] || break; sleep 0.01; done
echo ahead >>log
[ "$AHEAD" = well ] || { echo 'cannot find crate'; exit 101; }
"""


def script(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture
def dev(tmp_path):
    """`./dev test` in a place where everything it starts is a stand-in."""
    shutil.copy(ROOT / "dev", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    script(tmp_path / ".venv" / "bin" / "python", PYTHON)
    script(tmp_path / ".venv" / "bin" / "maturin", "#!/bin/sh\n")
    for name in ("cargo", "cargo-nextest"):
        script(tmp_path / "bin" / name, "#!/bin/sh\n")
    script(tmp_path / ".ci" / "ahead", BUILDS)

    def run(ahead, tests_end_with=0):
        done = subprocess.run(
            [tmp_path / "dev", "test"],
            env={
                **os.environ,
                "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "SOFTLAN_AHEAD": "1",
                "AHEAD": ahead,
                "TESTS_END_WITH": str(tests_end_with),
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        log = (tmp_path / "log").read_text().splitlines()
        stages = [line for line in log if line == "ahead" or "pytest" in line]
        return done.returncode, stages, done.stderr

    return run


def test_what_is_built_ahead_is_there_before_the_party_begins(dev):
    status, stages, _ = dev("well")
    assert status == 0
    assert ["not e2e" in stages[0], stages[1], stages[2]] == [True, "ahead", "python -m pytest -m e2e"]


def test_what_cannot_be_built_ahead_is_an_error_with_its_words(dev):
    status, stages, said = dev("badly")
    assert status == 1
    assert stages[1:] == ["ahead"], "the party has not begun"
    assert "cannot find crate" in said
    assert "error: what later stages need cannot be built" in said


def test_nothing_is_built_on_when_a_test_has_failed(dev, tmp_path):
    status, _, _ = dev("forever", tests_end_with=1)
    assert status == 1
    pid = int((tmp_path / "pid").read_text())
    for _ in range(500):
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return
        if state == "Z":
            return
        subprocess.run(["sleep", "0.02"], check=True)
    pytest.fail("the build goes on")


@pytest.mark.parametrize("stale", ["Cargo.toml", "rust/fuzz/Cargo.toml"])
def test_a_stale_lock_is_found_before_a_build_writes_it_anew(tmp_path, stale):
    shutil.copy(ROOT / "dev", tmp_path)
    log = f'echo "$(basename "$0") $*" >>{tmp_path}/log\n'
    script(tmp_path / ".venv" / "bin" / "maturin", f"#!/bin/sh\n{log}")
    script(tmp_path / ".venv" / "bin" / "python", "#!/bin/sh\n")
    script(tmp_path / "bin" / "cargo", f'#!/bin/sh\n{log}[ "$*" != "${{*% {stale}}}" ] && exit 101 || true\n')
    done = subprocess.run(
        [tmp_path / "dev", "lint"],
        env={**os.environ, "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert f"error: {stale}" in done.stderr
    asked = (tmp_path / "log").read_text().splitlines()
    assert all(line.startswith("cargo metadata --locked ") for line in asked), asked
