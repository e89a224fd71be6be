"""The win_amd64 wheel: built by packaging/windows/build-wheel.sh, installed by Windows' pip, run by a Windows Python under Wine."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest
from wine_lab import Wine


def test_its_name_says_any_python_from_3_11_on_64_bit_windows(windows_wheel: Path) -> None:
    assert windows_wheel.name.endswith("-cp311-abi3-win_amd64.whl")
    assert "softlan/_core.pyd" in zipfile.ZipFile(windows_wheel).namelist()


def test_pip_knows_what_it_has_installed(wine: Wine) -> None:
    shown = wine.python("-m", "pip", "--disable-pip-version-check", "show", "--files", "softlan")
    assert shown.returncode == 0, shown.stdout
    assert "softlan\\_core.pyd" in shown.stdout


def test_the_core_loads_and_has_what_windows_needs(wine: Wine) -> None:
    program = (
        "import softlan, softlan._core as core; print(core.__version__ == softlan.__version__, core.WindowsTap.__name__);"
        "print(core.Mac('02-FF-5E-00-00-01'))"
    )
    done = wine.python("-c", program)
    assert done.stdout.split() == ["True", "WindowsTap", "02:ff:5e:00:00:01"], done.stdout


def test_what_only_linux_has_says_so(wine: Wine) -> None:
    program = (
        "from softlan._core import CoreError, PacketSocket\n"
        "try: PacketSocket.open('eth0')\n"
        "except CoreError as error: print(*error.args, sep='|')"
    )
    done = wine.python("-c", program)
    assert done.stdout.startswith("unsupported|"), done.stdout


@pytest.mark.parametrize("module", ["softlan", "softlan.client", "softlan.gateway", "softlan.relay"])
def test_every_command_has_its_help(wine: Wine, module: str) -> None:
    done = wine.python("-m", module, "--help")
    assert done.returncode == 0, done.stdout
    assert "Usage:" in done.stdout


def test_an_adapter_that_is_not_there_is_an_error_with_a_kind(wine: Wine) -> None:
    program = (
        "from softlan._core import CoreError, WindowsTap\n"
        r"try: WindowsTap.open(r'\\.\Global\{00000000-0000-0000-0000-000000000000}.tap')"
        "\n"
        "except CoreError as error: print(error.args[0])"
    )
    assert wine.python("-c", program).stdout.strip() == "adapter-missing"
