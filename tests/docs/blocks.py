"""The commands in the documents: fenced blocks, with the HTML comment above each that says where it runs, or why it does not.

    <!-- on relay -->                       runs on the lab's machine of that name
    <!-- on ann until "in room" -->         runs on, until its output holds these words; the party goes on meanwhile
    <!-- on ann says "0% packet loss" -->   runs, and its output holds these words
    <!-- on ann graded says "udp" -->       the same, for a command whose exit status is a grade: a busy machine's line may be poor
    <!-- not run: why -->                   cannot run in the lab

A page's blocks run in the order in which they stand, on the machines as the pages before left them (tests/e2e/test_guides.py).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from softlan.cli import main
from softlan.client.cli import client, make_join
from softlan.gateway.cli import gateway
from softlan.relay.cli import relay

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GUIDES = [DOCS / "guides" / f"{name}.md" for name in ("relay", "gateway", "linux", "windows")]
PAGES = [
    ROOT / "README.md",
    *GUIDES,
    *(DOCS / f"{name}.md" for name in ("doctor", "operations", "service", "troubleshooting")),
]
"""Pages whose every block of commands is annotated, and run where it can be."""

SHELLS = {"sh": "posix", "bat": "windows"}
"""Languages of blocks that hold commands."""

A_PIN = "A" * 43
AN_INVITE = re.compile(r"softlan://[^\s\"']*=\.\.\.")
"""An invite as it stands in a document: with `pin=...`, and `key=...` if its relay lets in only who has a key."""

_AROUND = re.compile(r"sudo|env|timeout|--?[\w-]+|\d+|\w+=.*")
"""What may stand before a command's name."""

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NOTE = re.compile(
    r'<!-- (?:on (?P<on>\w+)(?P<graded> graded)?(?: (?P<how>until|says) "(?P<words>[^"]+)")?|not run: (?P<reason>[^>]+)) -->\n\Z'
)


@dataclass(frozen=True)
class Block:
    """One fenced block of commands."""

    page: Path
    line: int
    language: str
    text: str
    on: str | None = None
    """The machine it runs on; None: it does not."""
    how: str | None = None
    words: str = ""
    graded: bool = False
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Give the blocks of commands of a page. Raises `ValueError` for one without an annotation."""
    text = page.read_text(encoding="utf-8")
    found = []
    for fence in _FENCE.finditer(text):
        if fence[1] not in SHELLS:
            continue
        line = text.count("\n", 0, fence.start()) + 1
        note = _NOTE.search(text, 0, fence.start())
        if note is None:
            raise ValueError(
                f"{page.name}:{line}: the comment above the block does not say where it runs, or why it does not"
            )
        told = note.groupdict(default="")
        found.append(
            Block(
                page,
                line,
                fence[1],
                fence[2],
                told["on"] or None,
                told["how"] or None,
                told["words"],
                bool(told["graded"]),
                told["reason"],
            )
        )
    return found


def commands(block: Block) -> Iterator[list[str]]:
    """Give the words behind `softlan` of each command in a block, an invite in place of its dots."""
    text = re.sub(r"<<'(\w+)'.*?^\1$", "", block.text, flags=re.DOTALL | re.MULTILINE)
    for line in text.replace("\\\n", " ").splitlines():
        # A pipe or `>` ends a command, and so does a comment.
        lexer = shlex.shlex(whole_invite(line), posix=True, punctuation_chars="|>&;")
        lexer.whitespace_split = True
        words: list[str] = []
        for word in [*lexer, "|"]:
            if not set(word) <= set("|>&;"):
                words.append(word)
                continue
            yield from _of_softlan(words)
            words = []


def whole_invite(text: str, invite: str = "") -> str:
    """Put an invite that can be read in place of one that is abbreviated."""
    return AN_INVITE.sub(invite or f"softlan://party.example.org/ROOM1?pin={A_PIN}", text)


def _of_softlan(words: list[str]) -> Iterator[list[str]]:
    for place, word in enumerate(words):
        if word == "softlan" and all(_AROUND.fullmatch(before) for before in words[:place]):
            yield words[place + 1 :]
            return
        if word == "-m" and (module := re.match(r"softlan(?:\.(\w+))?$", words[place + 1])):
            yield [*([module[1]] if module[1] else []), *words[place + 2 :]]
            return


def parse(words: list[str], system: str) -> None:
    """Have the real command line read these words, without doing what they say. Raises `click.ClickException`."""
    command: click.Command = main
    if system == "windows" and words[:1] == ["join"]:
        command, words = make_join("win32"), words[1:]
    context = command.make_context(command.name, list(words))
    while isinstance(command, click.Group):
        name, found, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert found is not None
        # Not the settings of the machine this runs on.
        files = ["--config", "/dev/null"] if found in (relay, gateway, client) or name == "join" else []
        command, context = found, found.make_context(name, [*files, *rest], parent=context)
