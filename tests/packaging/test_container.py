"""The container file, as far as it can be judged without an engine: instructions, paths and options."""

import fnmatch
import json
import re
from pathlib import Path

import pytest

from softlan.cli import main

ROOT = Path(__file__).parents[2]
FILE = ROOT / "packaging" / "container" / "Containerfile"
INSTRUCTIONS = {
    "FROM",
    "RUN",
    "WORKDIR",
    "COPY",
    "ENV",
    "USER",
    "VOLUME",
    "EXPOSE",
    "STOPSIGNAL",
    "ENTRYPOINT",
    "CMD",
}


def instructions() -> list[tuple[str, str]]:
    lines = [line for line in FILE.read_text().splitlines() if line and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in joined.splitlines()]


def test_instructions_are_known_and_the_last_stage_is_not_root():
    told = instructions()
    assert {name for name, _ in told} <= INSTRUCTIONS
    last_stage = told[max(i for i, (name, _) in enumerate(told) if name == "FROM") :]
    assert ("USER", "softlan") in last_stage


def ignored(path: str, patterns: list[str]) -> bool:
    """Whether the engine leaves a path out of what it builds from: the last pattern counts that fits it or a directory above it."""
    verdict = False
    above = [path, *map(str, Path(path).parents)]
    for pattern in patterns:
        words = pattern.removeprefix("!")
        named = [Path(each).name for each in above] if words.startswith("**/") else above
        if any(fnmatch.fnmatch(each, words.removeprefix("**/")) for each in named):
            verdict = not pattern.startswith("!")
    return verdict


@pytest.mark.parametrize("engine", ["docker", "container"])
def test_what_is_copied_is_there_and_not_ignored_and_what_was_built_here_is(engine):
    """BuildKit looks for the one name, podman for the other first."""
    patterns = FILE.with_name(f"Containerfile.{engine}ignore").read_text().split()
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert not ignored(source, patterns), source
    assert not ignored("rust/wire/src/lib.rs", patterns)
    for built in (
        "target",
        "rust/fuzz/target/debug/frames",
        "python/softlan/_core.abi3.so",
        ".venv/bin/python",
    ):
        assert ignored(built, patterns), built


def test_podman_is_run_as_root():
    """Rootless it cannot publish port 443, and may show the relay all players under one address."""
    commands = re.findall(r"^#.*\bpodman (?:build|run|exec)\b.*$", FILE.read_text(), re.MULTILINE)
    assert len(commands) == 3
    assert all("sudo podman " in command for command in commands)


def test_the_commands_in_it_have_options_that_exist():
    told = dict(instructions())
    assert json.loads(told["ENTRYPOINT"]) == ["softlan"]
    known = {option for parameter in main.commands["relay"].params for option in parameter.opts}
    comment = re.search(r"#\s+(relay --listen.*)", FILE.read_text())
    assert comment is not None
    for command in (json.loads(told["CMD"]), comment[1].split()):
        assert command[0] == "relay"
        assert {word for word in command if word.startswith("--")} <= known
