"""`softlan doctor` and `softlan ping` where nothing is wrong; for what is, see test_broken_setups.py."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from softlan.lab import Party, Program
from softlan.lab.dhcp import DhcpServer
from softlan.lab.host import Host
from softlan.lab.testing import need_tun

JSON_STATUS = {"good": 0, "skipped": 0, "poor": 3, "bad": 1}


@pytest.fixture
def visitor(party: Party) -> Host:
    return party.machine("visitor")


async def softlan(host: Host, home: Path, *words: str) -> tuple[int, str]:
    environment = {"SOFTLAN_RUNTIME_DIR": str(home), "XDG_CONFIG_HOME": str(home)}
    program = Program(host, "softlan", [sys.executable, "-m", "softlan", *words], environment)
    await program.start()
    try:
        status = await program.wait(60)
    finally:
        await program.stop()
    said = "\n".join(program.lines)
    print(said)
    assert "Traceback" not in said
    return status, said


async def doctor(host: Host, home: Path, *words: str) -> dict[str, dict[str, Any]]:
    status, said = await softlan(host, home, "doctor", "--json", *words)
    report = json.loads(said)
    assert status == JSON_STATUS[report["worst"]]
    return {finding["check"]: finding for finding in report["findings"]}


async def test_all_is_good(party: Party, visitor: Host, tmp_path: Path) -> None:
    assert party.relay is not None
    adapter = ["--attach", "wan"] if party.attach else []
    options = [*party.entrance("PARTY1"), *adapter, "--seconds", "1"]
    _, said = await softlan(visitor, tmp_path, "doctor", *options)
    assert said.startswith("this machine\n  good  adapter ")
    assert (
        "\n\nthe room\n  good  room         PARTY1 lets this machine in: 2 other players, with a gateway"
        in said
    )
    found = await doctor(visitor, tmp_path, *options)
    assert list(found) == [
        "adapter",
        *("name", "udp", "mtu", "line"),
        *("handshake", "certificate", "clock", "protocol"),
        *("room", "echo"),
    ]
    blamed = {name for name, finding in found.items() if finding["grade"] != "good"}
    assert blamed <= {"line", "echo"}, "a busy machine's line may be called poor, nothing else"
    assert found["mtu"]["facts"]["path_mtu"] == 1500
    assert found["mtu"]["facts"]["tap_mtu"] == party.client("ann").tap_mtu
    assert found["room"]["facts"] == {"room": "PARTY1", "players": 2, "gateway": True, "tap_mtu": 1416}
    assert found["protocol"]["facts"]["relay"] == [1]
    # Nothing of it stays: no adapter, nobody in the room.
    assert set(visitor.interfaces()) == {"lo", "wan"}
    await gone(party)


async def gone(party: Party) -> None:
    assert party.relay is not None
    async with asyncio.timeout(10):
        while True:
            if len(await party.relay.peers()) <= 3:
                return
            await asyncio.sleep(0.05)


async def test_a_player_is_not_disturbed(party: Party) -> None:
    ann = party.client("ann")
    identity = str(party.directory / "ann" / "identity.json")
    found = await doctor(
        ann.machine,
        party.directory / "ann",
        *party.entrance("PARTY1"),
        *("--identity", identity, "--seconds", "0", "--attach", "wan"),
    )
    assert found["running"]["says"].startswith("client (pid ")
    assert "is in room PARTY1" in found["running"]["says"]
    assert (found["room"]["grade"], found["room"]["hint"]) == ("skipped", None)
    assert not ann.program.found("session.lost")


async def test_without_joining(party: Party, visitor: Host, tmp_path: Path) -> None:
    found = await doctor(
        visitor, tmp_path, *party.entrance("PARTY1"), "--no-join", "--seconds", "0", "--attach", "wan"
    )
    assert found["room"]["grade"] == "skipped"
    assert "echo" not in found
    assert not (tmp_path / "softlan").exists(), "nobody asked for an identity"


async def test_this_machine_alone(visitor: Host, tmp_path: Path) -> None:
    assert list(await doctor(visitor, tmp_path, "--attach", "wan")) == ["adapter"]


async def test_a_gateways_lan(party: Party, tmp_path: Path) -> None:
    host = party.machine("another-gateway")
    lan = party.lans["home"]
    lan.switch.plug(host, "eth0")
    async with DhcpServer(lan.hosts["router"].station):
        found = await doctor(host, tmp_path, "--interface", "eth0")
    assert {name: finding["grade"] for name, finding in found.items()} == {
        "interface": "good",
        "bridging": "good",
        "dhcp": "good",
    }
    assert found["dhcp"]["facts"] == {"servers": ["192.168.88.1"]}


@pytest.mark.parametrize("who", ["peer id", "MAC", "player's address", "LAN host's address"])
async def test_ping(party: Party, visitor: Host, tmp_path: Path, who: str) -> None:
    ben = party.client("ben")
    peer = {
        "peer id": str(ben.peer_id),
        "MAC": ben.mac.hex("-"),
        "player's address": "192.168.88.52",
        "LAN host's address": party.player("server").address,
    }[who]
    options = [*party.entrance("PARTY1"), "-c", "5", "-i", "50ms"]
    status, said = await softlan(visitor, tmp_path, "ping", peer, "--json", *options)
    told = json.loads(said)
    assert (told["sent"], told["lost"]) == (5, 0)
    assert all(0 < trip < 5000 for trip in told["trips_ms"])
    assert status == JSON_STATUS[told["grade"]]
    await gone(party)


async def test_ping_with_full_frames_in_lines(party: Party, visitor: Host, tmp_path: Path) -> None:
    ann = party.client("ann")
    options = [*party.entrance("PARTY1"), "-c", "2", "-i", "50ms", "--size", "1514"]
    status, said = await softlan(visitor, tmp_path, "ping", str(ann.peer_id), *options)
    lines = said.split("\n")
    assert lines[0] == f"peer {ann.peer_id} ({ann.mac.hex(':')}) in room PARTY1, through 203.0.113.1:443"
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert "there and back" in lines[3]
    assert status in (0, 1, 3), "how good it is depends on the machine"


@pytest.mark.parametrize(("peer", "words"), [("1", "gateway"), ("99", "no peer 99"), ("ann", "neither")])
async def test_ping_whom(party: Party, visitor: Host, tmp_path: Path, peer: str, words: str) -> None:
    status, said = await softlan(visitor, tmp_path, "ping", peer, *party.entrance("PARTY1"))
    assert status == 2
    assert words in said
    assert "hint: " in said


async def test_an_answered_message_does_not_reach_the_player(
    party: Party, visitor: Host, tmp_path: Path
) -> None:
    ann = party.client("ann")
    with ann.frames() as port:
        port.discard()
        await softlan(
            visitor, tmp_path, "ping", str(ann.peer_id), *party.entrance("PARTY1"), "-c", "3", "-i", "50ms"
        )
        seen = []
        while (frame := port.receive_now()) is not None:
            seen.append(frame)
    assert not [frame for frame in seen if frame[12:14] == b"\x89\x02"]


@pytest.mark.parametrize("peer", ["ben", "192.168.88.2"])
async def test_ping_the_players_own_way(party: Party, peer: str) -> None:
    """Beside a running client nothing need be said of the room; nobody joins."""
    need_tun(party.attach)
    assert party.relay is not None
    ann, ben = party.client("ann"), party.client("ben")
    wanted = str(ben.peer_id) if peer == "ben" else peer
    here = party.directory / "ann"
    before = ann.program.mark()
    status, said = await softlan(ann.machine, here, "ping", wanted, "--json", "-c", "3", "-i", "50ms")
    told = json.loads(said)
    assert (told["lost"], told["room"], told["relay"]) == (0, "PARTY1", "203.0.113.1:443")
    assert status == JSON_STATUS[told["grade"]]
    assert not ann.program.found("peer.joined", before)
    _, shown = await softlan(ann.machine, here, "status")
    assert f"{ben.peer_id} ({ben.mac.hex(':')})" in shown


async def test_ping_beside_nobody(visitor: Host, tmp_path: Path) -> None:
    status, said = await softlan(visitor, tmp_path, "ping", "3")
    assert status == 2
    assert "no client runs here" in said
    assert "paste the invite" in said
