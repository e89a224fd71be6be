"""Every command in the documents is one: a shell can read it and softlan's own command line takes it, also where the lab cannot run it."""

import re
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from blocks import DOCS, PAGES, ROOT, Block, blocks, commands, parse

from softlan.cli import main
from softlan.relay.rules import load_rules

BLOCKS = [block for page in PAGES for block in blocks(page)]
DOCUMENTS = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]


def test_there_are_blocks_on_every_page():
    assert {block.page for block in BLOCKS} == set(PAGES)
    assert sum(block.on is not None for block in BLOCKS) > len(BLOCKS) / 2


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_the_shell_can_read_it(block):
    if block.language == "bat":
        assert all(line.count('"') % 2 == 0 for line in block.text.splitlines())
        return
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("block", [b for b in BLOCKS if "softlan" in b.text], ids=str)
def test_softlan_takes_the_options(block):
    for words in commands(block):
        try:
            parse(words, "windows" if block.language == "bat" else "posix")
        except click.exceptions.Exit:  # --help and --version
            pass
        except click.ClickException as error:
            pytest.fail(f"softlan {' '.join(words)}: {error.format_message()}", pytrace=False)


def test_commands_are_found_in_a_block():
    text = "sudo softlan relay --listen 4433/udp | tee x\npy -m softlan.client --self-test\nsudo pip install softlan\n# softlan no\n"
    block = Block(Path("x"), 1, "sh", text)
    assert list(commands(block)) == [["relay", "--listen", "4433/udp"], ["client", "--self-test"]]
    with pytest.raises(click.ClickException, match="--lissten"):
        parse(["relay", "--lissten", "x"], "posix")
    with pytest.raises(click.ClickException, match="relayy"):
        parse(["relayy"], "posix")


NO_COMMANDS = {"changes", "proof", "room"}
"""What follows `softlan` in code and is no command: a sentence of softlan's that is quoted, labels in the protocol's proofs."""


def spoken_of(text):
    """What stands behind `softlan ` in the code of a document, in a line of its own or among words, to the end of the command."""
    words = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    among_words = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", words)
    for code in [*among_words, *re.findall(r"^    (.+)$", text, re.MULTILINE)]:
        for part in re.split(r"\bsoftlan\s+(?=[a-z])", code)[1:]:
            yield re.split(r"[|;&]", part)[0]


def unknown_in(code):
    """The first word of these that is no command where one must be, or the options that the command does not take."""
    command, taken = main, {"--help", *options_of(main)}
    for word in code.split():
        if not isinstance(command, click.Group) or not re.match(r"[a-z-]", word):
            break
        if word.startswith("-"):
            continue
        if word not in command.commands:
            return {word} - NO_COMMANDS
        command = command.commands[word]
        taken |= options_of(command)
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", code)) - taken


def options_of(command):
    return {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_commands_and_options_that_are_spoken_of_exist(page):
    wrong = [(code, unknown) for code in spoken_of(page.read_text()) if (unknown := unknown_in(code))]
    assert not wrong


def test_a_command_that_is_none_and_another_commands_option_are_found():
    said = "`softlan\n kick ROOM`, `x | softlan status --drain 5 | y --z`, `softlan admin kick ROOM PEER`, `softlan relay --drain 5`"
    assert [unknown_in(code) for code in spoken_of(said)] == [{"kick"}, {"--drain"}, set(), set()]
    assert list(spoken_of("    sudo softlan join INVITE")) == ["join INVITE"]


@pytest.mark.parametrize("page", DOCUMENTS, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    text = page.read_text()
    targets = [*re.findall(r"\]\(([^)\s]+)\)", text), *re.findall(r'(?:src|srcset|href)="([^"]+)"', text)]
    for target in targets:
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        linked = (page.parent / file).resolve() if file else page
        assert linked.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", t).strip().lower().replace(" ", "-") for t in titles}, (
                target
            )


def test_no_registry_is_named():
    for page in DOCUMENTS:
        assert not re.search(r"pypi\.|crates\.io/|pythonhosted|npmjs", page.read_text()), page


def test_every_extra_is_named_in_the_readme():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    named = set(re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.MULTILINE))
    assert named == set(extras) - {"test", "lint", "bench"}


def test_the_rooms_file_that_is_shown_is_one(tmp_path):
    (shown,) = re.findall(
        r"^```toml\n(.*?)^```$", (DOCS / "operations.md").read_text(), re.MULTILINE | re.DOTALL
    )
    (tmp_path / "rooms.toml").write_text(shown)
    (tmp_path / "gateway.key").write_text("another four random words\n")
    rules = load_rules(tmp_path / "rooms.toml")
    assert not rules.open_rooms
    assert set(rules.rooms) == {"PARTY1", "LOBBY", "FRIENDS"}
