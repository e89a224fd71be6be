"""What peers that mean harm do beside forbidden datagrams: all of it at once on a real relay, and good frames without end.

The measured form of this, each attack by itself as well, with goals, is `benches/hostile.py`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import pytest

from softlan.lab import Party
from softlan.lab.emulator import Shape, UdpLink
from softlan.lab.hostile import UNICAST, Attacker, build_tool, keeping_books, watching
from softlan.lab.party import RELAY_ADDRESS, RELAY_PORT

sys.path.append(str(Path(__file__).parents[2] / "benches"))

from beside import Bystander, Scene, measure

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> Path:
    return build_tool(ROOT)


async def test_all_at_once_arrives_is_bounded_and_felt_by_nobody_else(empty_party: Party, tool: Path) -> None:
    party = empty_party
    lan = party.add_lan("home")
    relay = await party.start_relay("--malformed-limit", "1000000")
    await party.start_gateway("gateway", lan)
    ann = await party.start_client("ann", address="192.168.88.51")
    ben = await party.start_client("ben", address="192.168.88.52")
    cat = await Bystander.join(party)
    marks = {client: client.program.mark() for client in (ann, ben, cat.client)}
    async with watching(relay, (ann, party.player("server")), interval=0.05) as watch:
        dan = party.make_client("dan")
        scene = Scene(party, tool, relay, watch, ben, cat, dan, seconds=2, rate=4000)
        attacks = [
            scene.floods(),
            scene.permitted(4),
            scene.drips(500),
            scene.readers(1000, 0),
            scene.silent(20),
            scene.handshakes(50),
        ]
        cost = await measure(scene, "all at once", attacks)
    print(cost)
    missing = {
        attack.what: arrived.words
        for attack, arrived in zip(attacks, cost.arrived, strict=True)
        if not arrived.enough
    }
    assert missing == {}
    assert cost.joined, cost.newcomer
    assert cost.memory_mib <= 32
    assert await cat.reached() == 0
    assert await cat.hears(), "it would have been reached"
    cat.close()
    for client, mark in marks.items():
        assert not client.program.found("session.lost", mark)
    assert (await ann.ping(party.player("server"), 10)).good
    assert (await ben.ping(ann, 10)).good


async def test_good_unicast_without_a_limit_costs_nobody_a_ping(empty_party: Party, tool: Path) -> None:
    """By default nothing limits a peer's unicast: the fair queue of whom it is for holds it, on a line that is far less."""
    party = empty_party
    lan = party.add_lan("home")
    relay = await party.start_relay()
    await party.start_gateway("gateway", lan)
    ann, server = await party.start_client("ann", address="192.168.88.51"), party.player("server")
    cafe, shape = party.machine("cafe"), Shape(rate=5e6, delay=0.002, buffer=1_000_000)
    near = (cafe.address_of("wan"), RELAY_PORT)
    with UdpLink(near=cafe, listen=near, far=cafe, target=(RELAY_ADDRESS, RELAY_PORT), up=shape, seed=7):
        ben = await party.start_client("ben", relay=f"{near[0]}:{near[1]}", address="192.168.88.52")
        assert (await ann.ping(ben, 2)).good
        mallory = Attacker(party, tool)
        async with (
            keeping_books(relay, mallory) as [books],
            watching(relay, (ann, server), (ann, ben), interval=0.02) as watch,
        ):
            start = time.monotonic()
            told = await mallory.datagrams(UNICAST, 15_000, 5_000, victim=ben)
            end = time.monotonic()
            bens = await relay.peer_counters(ben.peer_id)
            await asyncio.sleep(0.5)
    [counters] = books.counters().values()
    dropped = bens["drop_queue_full"] + bens["drop_queue_delay"]
    stretch = watch.pings(start, end)
    print(
        f"{told}; the relay: {counters}; for ben {bens['frames_sent']} sent on, {dropped} dropped; {stretch.sent} pings"
    )
    assert told["connections"] == 1, "nobody ended it"
    assert counters["frames_received"] > 7_500, "the attack arrived"
    assert not any(counters[name] for name in counters if name.startswith("drop_limit")), "no limit held it"
    assert dropped > counters["frames_received"] / 4, "the queue did"
    assert stretch.sent > 0
    assert stretch.lost == 0
