"""The container file, as far as it can be judged without an engine: instructions, paths and options."""

import fnmatch
import json
import re
from pathlib import Path

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


def test_what_is_copied_is_there_and_not_ignored():
    kept = [
        line[1:]
        for line in FILE.with_name("Containerfile.containerignore").read_text().split()
        if line[0] == "!"
    ]
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert any(fnmatch.fnmatch(source, pattern) for pattern in kept), source


def test_the_commands_in_it_have_options_that_exist():
    told = dict(instructions())
    assert json.loads(told["ENTRYPOINT"]) == ["softlan"]
    known = {option for parameter in main.commands["relay"].params for option in parameter.opts}
    comment = re.search(r"#\s+(relay --listen.*)", FILE.read_text())
    assert comment is not None
    for command in (json.loads(told["CMD"]), comment[1].split()):
        assert command[0] == "relay"
        assert {word for word in command if word.startswith("--")} <= known
