"""`docs/attack-surface.md` names files and tests: they must be there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "attack-surface.md").read_text(encoding="utf-8")

NAMED = sorted(
    set(re.findall(r"`((?:rust|python|tests|docs|packaging)/[\w./-]+|deny\.toml)(?:::(\w+))?`", TEXT))
)
TARGETS = re.findall(r"`(\w+)`", " ".join(re.findall(r"fuzz targets? ((?:`\w+`(?:, )?)+)", TEXT)))
LINKS = re.findall(r"\]\(([^)#]+)\)", TEXT)

AWAITED = {
    "python/softlan/relay/gate.py": (
        "python/softlan/relay/",
        "python/softlan/control/keys.py",
        "tests/interop/test_access.py",
        "tests/e2e/test_access.py",
        "tests/relay/test_",
    ),
    "rust/switch/src/loops.rs": ("rust/switch/", "tests/e2e/test_hostile_lans.py"),
    "rust/hostile/src/kinds.rs": ("rust/hostile/", "tests/e2e/test_hostile.py"),
}
"""What is built beside this, by the file that shows it has come: until then its files may be missing."""


def is_awaited(path):
    return any(not (ROOT / sign).exists() and path.startswith(files) for sign, files in AWAITED.items())


def test_it_names_something():
    assert len(NAMED) > 80
    assert {"tests/fuzz/test_any_input.py", "rust/wire/src/reassembly.rs"} <= {path for path, _ in NAMED}


@pytest.mark.parametrize(("path", "name"), NAMED, ids="::".join)
def test_what_it_names_is_there(path, name):
    file = ROOT / path
    if not file.exists():
        assert is_awaited(path), f"{path} is named in docs/attack-surface.md and is not there"
        return
    if name:
        assert re.search(rf"\b(def|fn) {name}\b", file.read_text(encoding="utf-8")), f"{path} has no {name}"


@pytest.mark.parametrize("target", sorted(set(TARGETS)))
def test_the_fuzz_targets_are_there(target):
    assert (ROOT / "rust" / "fuzz" / "fuzz_targets" / f"{target}.rs").exists()


def test_every_fuzz_target_is_named():
    assert {path.stem for path in (ROOT / "rust" / "fuzz" / "fuzz_targets").iterdir()} == set(TARGETS)


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link):
    assert (ROOT / "docs" / link).exists()


def test_every_drop_counter_is_one():
    """Counters it names exist, those of parts still awaited aside."""
    source = (ROOT / "rust" / "switch" / "src" / "counters.rs").read_text(encoding="utf-8")
    awaited = {"drop_arp_spoof", "drop_nd_spoof", "drop_storm", "drop_loop"}
    for counter in set(re.findall(r"`(drop_\w+)`", TEXT)):
        if counter in awaited and is_awaited("rust/switch/"):
            continue
        assert f'"{counter}"' in source, counter
