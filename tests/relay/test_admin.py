"""What a relay does on its operator's word, whatever else is the case: full lists of bans, and clocks that are set."""

from __future__ import annotations

import asyncio
import time

import pytest
from serving import NAME, SHOWN, serving, until

from softlan.client import Session
from softlan.control.codes import Code
from softlan.errors import RejectedError
from softlan.relay import bans
from softlan.relay.admin import AskBans, AskKick, AskUnban, Desk, Pins
from softlan.relay.bans import Ban
from softlan.relay.rules import RoomRule, Rules
from softlan.relay.server import Relay, RelayConfig

ANN = "02:00:5e:10:00:01"
CONFIG = RelayConfig(listen="127.0.0.1:0")
OPEN = Rules(rooms={"R": RoomRule(code="R", open=True)})


def join(relay: Relay) -> Session:
    return Session.join(
        relay=relay.local_address, room="R", certificate=SHOWN.leaf, server_name=NAME, mac=ANN
    )


def desk_of(relay: Relay) -> Desk:
    return Desk(relay, Pins("", lambda: ()))


async def test_a_kick_needs_no_place_among_the_bans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "MAX_BANS", 1)
    async with serving(CONFIG, OPEN) as relay:
        relay.gate.state.bans.add(Ban(room="*", target="192.0.2.7/32"), time.time())
        desk = desk_of(relay)
        async with join(relay):
            kicked = desk.handle(AskKick(room="r", peer=ANN))
            assert kicked["kicked"]["came_from"].startswith("127.0.0.1:")
            assert kicked["line"] == "127.0.0.1"
            await until(lambda: relay.peer_count == 0)
        with pytest.raises(RejectedError) as caught:
            async with join(relay):
                pass
        assert caught.value.code is Code.KICKED
        told = desk.handle(AskBans())["bans"]
        assert [(entry["target"], entry.get("kick", False)) for entry in told] == [
            ("192.0.2.7/32", False),
            (ANN, True),
        ]
        assert 0 < told[1]["until"] - time.time() <= bans.KICK_S
        assert desk.handle(AskUnban(room="R", target=ANN)) == {"lifted": 1}
        async with join(relay):
            pass


async def test_a_kick_lasts_as_long_whatever_the_wall_clock_is_set_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bans, "KICK_S", 0.5)
    async with serving(CONFIG, OPEN) as relay:
        async with join(relay):
            desk_of(relay).handle(AskKick(room="R", peer=ANN))
            await until(lambda: relay.peer_count == 0)
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() - 86400)
        refused: set[Code | None] = set()
        for _ in range(100):
            try:
                async with join(relay):
                    break
            except RejectedError as error:
                refused.add(error.code)
                await asyncio.sleep(0.1)
        else:
            pytest.fail("the kick went by the wall clock")
        assert refused <= {Code.KICKED}
