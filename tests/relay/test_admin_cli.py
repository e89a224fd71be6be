"""What `softlan admin` makes of a relay's answers, whatever they are."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from softlan.errors import SoftlanError
from softlan.observe.local import LocalSocket
from softlan.relay import admin_cli
from softlan.relay.admin import AskBans
from softlan.relay.admin_cli import _until, ask, read_answer
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
