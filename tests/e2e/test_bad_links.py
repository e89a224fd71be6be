"""A player behind a bad line: loss, delay, a slow rate, a small or shrinking path MTU, a NAT that forgets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from softlan.lab import Party
from softlan.lab.emulator import Shape, UdpLink
from softlan.lab.party import RELAY_ADDRESS, Client
from softlan.lab.players import Player
from softlan.lab.probes import ping


@contextlib.contextmanager
def line(party: Party, shape: Shape, seed: int = 7) -> Iterator[tuple[UdpLink, str]]:
    """A bad line to the relay, and the address at which a client finds it."""
    cafe = party.machine("cafe")
    address = cafe.address_of("wan")
    with UdpLink(
        near=cafe, listen=(address, 443), far=cafe, target=(RELAY_ADDRESS, 443), up=shape, seed=seed
    ) as link:
        yield link, f"{address}:443"


async def lan_and_relay(party: Party) -> None:
    lan = party.add_lan("home")
    await party.start_relay()
    await party.start_gateway("gateway", lan)


async def join_over(party: Party, relay: str) -> Client:
    return await party.start_client("ann", relay=relay, address="192.168.88.51")


async def test_loss_delay_and_a_slow_rate(empty_party: Party) -> None:
    await lan_and_relay(empty_party)
    with line(empty_party, Shape(rate=20e6, delay=0.01, buffer=100_000, loss=0.01)) as (link, relay):
        ann, server = await join_over(empty_party, relay), empty_party.player("server")
        idle = await ann.ping(server, 100, interval=0.01)
        up = await ann.send_to(server, seconds=3)
        down = await server.send_to(ann, seconds=3)
        print(
            f"1 % loss, 20 Mbit/s, 20 ms: ping {idle}; up {up}; down {down}; {link.up.tally}, {link.down.tally}"
        )
        assert idle.received >= 90
        assert link.up.tally.lost > 0
        assert ann.program.running


def tcp_told(player: Player) -> Counter[str]:
    """What the kernel of a player's machine counts: segments sent again, and those whose marks the other end reported."""
    said = player.host.run("nstat", "-asz", "TcpRetransSegs", "TcpExtTCPDeliveredCE")
    rows = (row.split() for row in said.splitlines() if not row.startswith("#"))
    return Counter({name: int(value) for name, value, *_ in rows})


async def test_tcp_with_ecn_is_marked_and_sends_less_again(
    empty_party: Party, needs: Callable[[str], None]
) -> None:
    needs("nstat")
    lan = empty_party.add_lan("home")
    relay = await empty_party.start_relay()
    await empty_party.start_gateway("gateway", lan)
    with line(empty_party, Shape(rate=10e6, delay=0.01, buffer=250_000)) as (_, address):
        ann, server = await join_over(empty_party, address), empty_party.player("server")
        for source, sink in ((server, ann), (ann, server)):

            async def told_so_far(source: Player = source) -> Counter[str]:
                # The queue is the sending side's: the relay's for a download.
                queue = ann.part.counters() if source is ann else relay.peer_counters(ann.peer_id)
                return Counter(await queue) + tcp_told(source)

            # BBR, some machines' default, does not heed marks; a namespace may choose Reno on every kernel.
            source.host.setting("ipv4/tcp_congestion_control", "reno")
            told: list[Counter[str]] = []
            for ecn in ("0", "1"):
                for player in (ann, server):
                    player.host.setting("ipv4/tcp_ecn", ecn)
                moving = asyncio.create_task(source.send_to(sink, seconds=6))
                # A slow start fills the queue to the bound of its age, which drops whatever it is, before anybody can heed a mark.
                await asyncio.sleep(1.5)
                before = await told_so_far()
                result = await moving
                told.append(await told_so_far() - before)
                seen = {
                    name: told[-1][name]
                    for name in (
                        "TcpRetransSegs",
                        "TcpExtTCPDeliveredCE",
                        "frames_marked_ce",
                        "drop_queue_delay",
                    )
                }
                print(f"{source.name} to {sink.name}, tcp_ecn={ecn}: {result}, {seen}")
            without, marked = told
            assert without["frames_marked_ce"] == 0
            assert without["TcpExtTCPDeliveredCE"] == 0
            assert without["drop_queue_delay"] > 0
            assert marked["frames_marked_ce"] > 0
            assert marked["TcpExtTCPDeliveredCE"] > 0
            assert marked["TcpRetransSegs"] < without["TcpRetransSegs"]


async def test_a_path_with_a_small_mtu(empty_party: Party) -> None:
    """The room's MTU was chosen by another; this player's line carries less, so that frames travel in fragments."""
    await lan_and_relay(empty_party)
    with line(empty_party, Shape(mtu=1300)) as (link, relay):
        ann, server = await join_over(empty_party, relay), empty_party.player("server")
        assert ann.tap_mtu > 1300
        for source, target in ((server, ann), (ann, server)):
            result = await source.ping(target, 10, size=ann.tap_mtu - 28, whole=True)
            assert result.good, (
                f"{source.name} to {target.name}: {result}; {link.up.tally}, {link.down.tally}"
            )
        assert (await server.ping(ann, 10, size=1472, whole=True)).good
        assert (await server.send_to(ann, seconds=1)).bytes > 100_000


async def test_a_path_whose_mtu_shrinks(empty_party: Party) -> None:
    await lan_and_relay(empty_party)
    with line(empty_party, Shape(mtu=1500)) as (link, relay):
        ann, server = await join_over(empty_party, relay), empty_party.player("server")
        assert (await server.ping(ann, 5, size=1472, whole=True)).good
        link.reshape(up=Shape(mtu=1280), down=Shape(mtu=1280))
        start = time.monotonic()
        while not (await ping(server.station, ann.address, 5, size=1350, interval=0.02, within=0.3)).good:
            assert time.monotonic() - start < 60, (
                f"large packets never came back; {link.up.tally}, {link.down.tally}"
            )
        print(
            f"large packets pass again {time.monotonic() - start:.1f} s after the path's MTU fell from 1500 to 1280"
        )
        assert (await ann.ping(server, 10)).good


async def test_a_nat_that_forgets(empty_party: Party) -> None:
    await lan_and_relay(empty_party)
    with line(empty_party, Shape()) as (link, relay):
        ann, server = await join_over(empty_party, relay), empty_party.player("server")
        since = ann.program.mark()
        link.forget()
        await asyncio.sleep(0.2)
        result = await ann.ping(server, 50, interval=0.02)
        print(f"after the NAT forgot: {result}")
        assert result.received >= 45
        assert not ann.program.found("session.joined", since)


async def test_a_line_cut_for_a_while(empty_party: Party) -> None:
    """Longer than the idle timeout: a new session, the same player."""
    await lan_and_relay(empty_party)
    with line(empty_party, Shape()) as (link, relay):
        ann, server = await join_over(empty_party, relay), empty_party.player("server")
        since = ann.program.mark()
        link.reshape(up=Shape(loss=1.0), down=Shape(loss=1.0))
        await ann.program.event("session.lost", 15, since=since)
        link.reshape(up=Shape(), down=Shape())
        start = time.monotonic()
        await ann.joined(since, 20)
        print(f"joined again {time.monotonic() - start:.2f} s after the line was back")
        assert (await ann.ping(server, 10, within=3)).received
