"""Beginnings and ends: signals, kills, restarts, moves, and that nothing is left behind or crosses from room to room."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from softlan._core import Mac
from softlan.client.linux import try_adapter
from softlan.lab import Party, Player, Program, usual_party
from softlan.lab.host import Host, promiscuity
from softlan.lab.packets import BROADCAST, ethernet
from softlan.lab.party import Client, Part
from softlan.lab.probes import first_reply, ping
from softlan.lab.testing import need_tun

ENDS_WITHIN = 5.0
"""Seconds; people are promised two, a busy test machine gets more."""

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest_asyncio.fixture(loop_scope="session")
async def full_party() -> AsyncIterator[Party]:
    """The usual party, made for one test."""
    async with usual_party() as made:
        yield made


async def end(part: Part, number: int) -> None:
    start = time.monotonic()
    part.program.send_signal(number)
    status = await part.program.wait(ENDS_WITHIN)
    print(f"{part.name} ended with {status} {time.monotonic() - start:.2f} s after signal {number}")
    assert status == 0


def other_interfaces(client: Client) -> set[str]:
    return set(client.host.interfaces()) - {"lo", "wan"}


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_client_told_to_end(full_party: Party, number: int) -> None:
    ann, ben = full_party.client("ann"), full_party.client("ben")
    gateway = full_party.gateways["gateway"]
    if not ann.attached:
        assert other_interfaces(ann) == {"lan0"}
    marks = ben.program.mark(), gateway.program.mark()
    await end(ann.part, number)
    for program, since in zip((ben.program, gateway.program), marks, strict=True):
        await program.event("peer.left", 3, since=since, peer_id=ann.peer_id, code="goodbye")
    if ann.attached:
        assert promiscuity(ann.machine, "cable0") == 0
    else:
        assert other_interfaces(ann) == set()


def tap_of(host: Host) -> tuple[str, int, bool]:
    """MAC, MTU and whether it is up of the interface `lan0`."""
    (told,) = json.loads(host.run("ip", "-j", "link", "show", "dev", "lan0"))
    return told["address"], told["mtu"], "UP" in told["flags"]


def persistent_tap(host: Host, state: str) -> tuple[str, int, bool]:
    """Make a TAP that stays when nobody uses it."""
    host.ip("tuntap add dev lan0 mode tap", f"link set lan0 address 02:00:5e:00:53:01 mtu 1450 {state}")
    return tap_of(host)


@pytest.mark.parametrize("state", ["up", "down"])
async def test_a_tap_that_was_there_before_is_given_back(empty_party: Party, state: str) -> None:
    need_tun(empty_party.attach)
    await empty_party.start_relay()
    ann = empty_party.make_client("ann")
    before = persistent_tap(ann.machine, state)
    await ann.start()
    assert tap_of(ann.machine) == (ann.station.mac.hex(":"), ann.tap_mtu, True)
    await end(ann.part, signal.SIGTERM)
    assert tap_of(ann.machine) == before


@pytest.mark.parametrize("state", ["up", "down"])
async def test_a_tap_that_was_only_tried_is_as_it_was(empty_party: Party, state: str) -> None:
    need_tun(empty_party.attach)
    host = empty_party.machine("ann")
    before = persistent_tap(host, state)
    assert host.call(lambda: try_adapter("lan0", None, Mac.random_local())) == "lan0"
    assert tap_of(host) == before


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_gateway_told_to_end(full_party: Party, number: int) -> None:
    gateway, ann = full_party.gateways["gateway"], full_party.client("ann")
    assert promiscuity(gateway.host, "lan0") == 1
    since = ann.program.mark()
    await end(gateway, number)
    assert promiscuity(gateway.host, "lan0") == 0
    await ann.program.event("peer.left", 3, since=since, code="goodbye")


@pytest.mark.parametrize("number", SIGNALS)
async def test_a_relay_told_to_end(full_party: Party, number: int) -> None:
    assert full_party.relay is not None
    ann = full_party.client("ann")
    since = ann.program.mark()
    await end(full_party.relay, number)
    lost = await ann.program.event("session.lost", 3, since=since)
    print(lost.fields)
    assert "stopping" in json.dumps(dict(lost.fields)) or "shutting" in json.dumps(dict(lost.fields))
    assert ann.program.running
    # And a client that waits for a relay ends as quickly.
    await end(ann.part, number)
    assert ann.attached or other_interfaces(ann) == set()


async def test_a_client_killed(full_party: Party) -> None:
    ann, ben = full_party.client("ann"), full_party.client("ben")
    since = ben.program.mark()
    start = time.monotonic()
    ann.program.kill()
    await ann.program.wait(5)
    left = await ben.program.event("peer.left", 10, since=since, peer_id=ann.peer_id)
    print(f"ben was told {left.at - start:.2f} s after the kill: {left.fields['code']}")
    assert left.fields["code"] == "connection-lost"
    assert ann.attached or other_interfaces(ann) == set()
    # Back under the same identity at once, long before anything could have timed out.
    await ann.start()
    ann.program.kill()
    await ann.program.wait(5)
    start = time.monotonic()
    await ann.start()
    print(f"joined again {time.monotonic() - start:.2f} s after a kill")


async def test_a_gateway_killed(full_party: Party) -> None:
    gateway = full_party.gateways["gateway"]
    gateway.program.kill()
    await gateway.program.wait(5)
    assert promiscuity(gateway.host, "lan0") == 0
    start = time.monotonic()
    await gateway.start()
    print(f"joined again {time.monotonic() - start:.2f} s after a kill")
    assert (await full_party.client("ann").ping(full_party.player("server"))).received


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("pause", [0.2, 4.0])
async def test_everybody_is_back_after_a_relay_restart(full_party: Party, number: int, pause: float) -> None:
    relay = full_party.relay
    assert relay is not None
    ann, ben, server = full_party.client("ann"), full_party.client("ben"), full_party.player("server")
    programs = {"gateway": full_party.gateways["gateway"].program, "ann": ann.program, "ben": ben.program}
    marks = {name: program.mark() for name, program in programs.items()}
    assert (await ann.ping(server)).good
    assert (await ben.ping(server)).good
    relay.program.send_signal(number)
    await relay.program.wait(5)
    await asyncio.sleep(pause)
    await relay.start()
    back = time.monotonic()
    replies = await asyncio.gather(
        first_reply(ann.station, server.address, 20),
        first_reply(ben.station, server.address, 20),
        first_reply(server.station, ann.address, 20),
    )
    joined = {name: await programs[name].event("session.joined", 20, since=marks[name]) for name in programs}
    told = ", ".join(f"{name} {event.at - back:.2f} s" for name, event in joined.items())
    print(f"signal {number}, away for {pause} s: joined again after {told}; pings answered after {replies}")
    assert None not in replies
    assert max(event.at for event in joined.values()) - back < 10
    assert (await ann.ping(ben, 10)).good
    assert ann.attached or other_interfaces(ann) == {"lan0"}, "the adapter stayed"
    assert ann.address == "192.168.88.51", "and so did its address"


async def test_a_clients_address_changes(full_party: Party) -> None:
    assert full_party.relay is not None
    ann, server = full_party.client("ann"), full_party.player("server")
    since = ann.program.mark()
    pinging = asyncio.create_task(ping(ann.station, server.address, 200, interval=0.02, within=3))
    await asyncio.sleep(1)
    moved = time.monotonic()
    ann.move("203.0.113.177")
    gap = await first_reply(ann.station, server.address, 20)
    result = await pinging
    missed = (result.sent - result.received) * 0.02
    print(
        f"first reply {gap} s after the change, {time.monotonic() - moved:.1f} s watched; {missed:.2f} s of pings lost"
    )
    assert gap is not None
    assert gap < 10
    assert not ann.program.found("session.joined", since), "the connection itself survived"
    [peer] = [peer for peer in await full_party.relay.peers() if peer["peer_id"] == ann.peer_id]
    assert "203.0.113.177" in peer["address"]


async def test_two_rooms_on_one_relay(empty_party: Party) -> None:
    """The same MACs, the same addresses, two LANs: nothing crosses."""
    party = empty_party
    seats: dict[str, list[Player]] = {}
    await party.start_relay()
    for number, room in enumerate(("NORTH", "SOUTH")):
        lan = party.add_lan(room, hosts=[f"{room}-router", f"{room}-server"])
        await party.start_gateway(f"{room}-gateway", lan, room=room)
        clients = [
            await party.start_client(
                f"{room}-{name}",
                room=room.lower(),
                mac=f"02:50:4c:00:00:0{seat}",
                address=f"192.168.88.5{seat}",
            )
            for seat, name in enumerate(("ann", "ben"), start=1)
        ]
        seats[room] = [*clients, lan.hosts[f"{room}-server"]]
        assert [client.peer_id for client in clients] == [2, 3], f"ids are a room's own ({number})"
    for room, other in (("NORTH", "SOUTH"), ("SOUTH", "NORTH")):
        for source in seats[room]:
            frame = ethernet(BROADCAST, source.mac, 0x88B5, f"of {source.name}".encode().ljust(46))
            unknown = ethernet(
                bytes.fromhex("02aabbccdd01"), source.mac, 0x88B5, f"{source.name}".encode().ljust(46)
            )
            same = [player for player in seats[room] if player is not source]
            ears = [player.frames() for player in [*same, *seats[other]]]
            with source.frames() as mouth:
                mouth.send(frame)
                mouth.send(unknown)
            for ear in ears[: len(same)]:
                assert frame in await ear.seen([frame], 5), f"{source.name} to {ear.station.name}"
            strangers = ears[len(same) :]
            for ear, heard in zip(
                strangers,
                await asyncio.gather(*(ear.seen([frame, unknown], 0.3) for ear in strangers)),
                strict=True,
            ):
                assert heard == [], f"{source.name} crossed to {ear.station.name}"
            for ear in ears:
                ear.close()
    for source, target in ((seats["NORTH"][0], seats["NORTH"][2]), (seats["SOUTH"][0], seats["SOUTH"][1])):
        assert (await source.ping(target)).good


async def test_cam_refresh_frames_keep_quiet_players_on_the_gateways_port(empty_party: Party) -> None:
    party = empty_party
    lan = party.add_lan("home")
    await party.start_relay()
    await party.start_gateway("gateway", lan, "--cam-refresh", "1")
    ann = await party.start_client("ann")
    router = lan.hosts["router"]

    def is_refresh(frame: bytes) -> bool:
        return frame[6:12] == ann.mac and frame[12:14] == b"\x80\x35"

    with router.frames() as ear:
        seen = [await ear.expect(is_refresh, 15) for _ in range(2)]
        assert None not in seen
        print(seen[0].hex() if seen[0] else "")
        assert all(frame is not None and len(frame) >= 60 for frame in seen)
        await ann.part.stop()
        ear.discard()
        assert await ear.expect(is_refresh, 3) is None, "nobody speaks for a player that has left"


async def test_no_cam_refresh_when_it_is_off(empty_party: Party) -> None:
    party = empty_party
    lan = party.add_lan("home")
    await party.start_relay()
    await party.start_gateway("gateway", lan, "--cam-refresh", "0")
    await party.start_client("ann")
    with lan.hosts["router"].frames() as ear:
        assert await ear.expect(lambda frame: frame[12:14] == b"\x80\x35", 4) is None


async def test_a_lan_cable_pulled_and_put_back(full_party: Party) -> None:
    gateway, ann, server = (
        full_party.gateways["gateway"],
        full_party.client("ann"),
        full_party.player("server"),
    )
    assert (await ann.ping(server)).good
    gateway.host.ip("link set lan0 down")
    assert not (await ann.ping(server, 2, within=0.3)).received
    gateway.host.ip("link set lan0 up")
    back = await first_reply(ann.station, server.address, 15)
    print(f"back after {back} s")
    assert back is not None
    assert gateway.program.running


async def test_a_gateway_tells_that_its_lan_cable_is_pulled(full_party: Party) -> None:
    gateway = full_party.gateways["gateway"]
    gateway.host.ip("link set lan0 down")
    down = await gateway.program.event("interface.down", 10)
    assert down.fields["interface"] == "lan0"
    gateway.host.ip("link set lan0 up")
    await gateway.program.event("interface.up", 10)


async def test_an_identity_is_made_once_and_kept(empty_party: Party) -> None:
    party = empty_party
    await party.start_relay()
    client = party.make_client("ann")
    at = list(client.program.command).index("--virtual-mac")
    client.program.command = [
        word for index, word in enumerate(client.program.command) if index not in (at, at + 1)
    ]
    macs = []
    for _ in range(2):
        since = client.program.mark()
        await client.program.start()
        macs.append((await client.program.event("adapter.ready", since=since)).fields["mac"])
        await client.part.stop()
    assert macs[0] == macs[1]
    assert int(macs[0][:2], 16) & 3 == 2, "locally administered, unicast"


async def test_softlan_status_shows_every_part(full_party: Party) -> None:
    for part in full_party.parts():
        for form in ([], ["--json"]):
            command = [part.program.command[0], "-m", "softlan", "status", *form]
            asking = Program(part.host, "status", command, part.environment)
            await asking.start()
            assert await asking.wait(20) == 0, asking.tail()
            said = "\n".join(asking.lines)

            assert part.program.command[2].removeprefix("softlan.") in said
            if form:
                [told] = json.loads(said)
                assert told["pid"] == part.program.pid


async def test_the_relay_over_ipv6(empty_party: Party) -> None:
    party = empty_party
    await party.start_relay(listen="[::]:443")
    ann = await party.start_client("ann", relay="[2001:db8:5050::1]:443", address="192.168.88.51")
    ben = await party.start_client("ben", relay="203.0.113.1:443", address="192.168.88.52")
    assert (await ann.ping(ben, 10)).good


async def test_the_port_shorthand(empty_party: Party) -> None:
    await empty_party.start_relay(listen="443/udp")
    await empty_party.start_client("ann")
