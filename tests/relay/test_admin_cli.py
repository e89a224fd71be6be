"""What `softlan admin` makes of a relay's answers, whatever they are."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from softlan.errors import SoftlanError
from softlan.observe.local import LocalSocket
from softlan.relay import admin_cli
from softlan.relay.admin import AskBan, AskBans, AskKick, Request
from softlan.relay.admin_cli import _until, admin, ask, read_answer
from softlan.relay.bans import parse_target
from softlan.texts import MAX_SAID


@pytest.mark.parametrize("moment", [253402300800.0 + 86400, 1e17, 1e300])
def test_a_ban_that_ends_after_all_calendars_is_shown(moment: float) -> None:
    """`--for 999999999999d` is taken; the list of bans then ended with a traceback."""
    assert _until(moment) == "until after the year 9999"


def test_an_answer_is_what_was_done_or_the_relays_words() -> None:
    assert read_answer(b'{"done":{"lifted":1}}\n') == {"lifted": 1}
    with pytest.raises(SoftlanError) as caught:
        read_answer(b'{"error":"no \\u001b","hint":"so"}\n')
    assert (str(caught.value), caught.value.hint) == ("no \\x1b", "so")


@pytest.mark.parametrize(
    "answer", [b"", b"7\n", b"[]\n", b"{}\n", b'{"done":[]}\n', b"[" * 100_000, b'{"x":"' + b"x" * 9000]
)
async def test_what_answers_like_no_relay_is_told_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(answer)
        writer.close()

    path = tmp_path / "relay-1.admin"
    monkeypatch.setattr(admin_cli, "find_sockets", lambda _: [LocalSocket("relay", 1, path)])
    async with await asyncio.start_unix_server(babble, path):
        with pytest.raises(SoftlanError, match="does not answer") as caught:
            await asyncio.to_thread(ask, AskBans())
    assert len(str(caught.value)) <= len(str(path)) + MAX_SAID + 40


@pytest.mark.parametrize(("mac", "line"), [("02:00:5e:10:00:01", "192.0.2.7"), (None, "2001:db8:1:2::/64")])
def test_a_kick_tells_what_bans_the_address(
    monkeypatch: pytest.MonkeyPatch, mac: str | None, line: str
) -> None:
    asked: list[Request] = []

    def answer(request: Request, pid: int | None = None) -> dict[str, Any]:
        asked.append(request)
        kicked = {"role": "client", "peer_id": 1, "mac": mac, "address": "192.0.2.7:40000"}
        return {"kicked": kicked, "line": line}

    monkeypatch.setattr(admin_cli, "ask", answer)
    told = CliRunner().invoke(admin, ["kick", "party1", "1"])
    assert told.exit_code == 0
    _, command = told.stderr.rstrip().split("softlan admin ")
    CliRunner().invoke(admin, shlex.split(command), catch_exceptions=False)
    assert asked == [
        AskKick(room="PARTY1", peer="1"),
        AskBan(room="PARTY1", target=parse_target(line), for_s=3600),
    ]
    assert ("another MAC" in told.stderr) == (mac is not None)
    assert "hint" not in CliRunner().invoke(admin, ["--json", "kick", "party1", "1"]).output
