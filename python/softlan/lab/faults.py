"""What can go wrong on a party's evening, done on purpose: each fault strikes, is over, and the party must come back by itself.

Here are ends, cables, addresses and bad lines, and the list of them all; what concerns files and clocks is in `faults_of_state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from . import faults_of_state as state
from .emulator import Shape, UdpLink
from .host import Host, promiscuity
from .party import ADAPTER, RELAY_ADDRESS, RELAY_PORT, Party
from .programs import Program
from .scene import BEN_TO_ANN, BEN_TO_SERVER, Scene, watched
from .soak import Fault, Strike, Strikes

__all__ = ["FAULTS"]

_LOAD: Final = str(Path(__file__).with_name("load.py"))
_LOAD_PORT: Final = 5009
_LOAD_MBIT: Final = 40.0
_LOADED: Final = 1000.0
"""Frames a second each way from which there is load: a quarter of what is sent, five times what the pings make."""
_LOAD_WITHIN_S: Final = 30.0
"""How long the load's own programs may take to start on a machine with other things to do."""
BAD_PATH: Final = Shape(delay=0.05, jitter=0.05, loss=0.05)
"""Each way: a twentieth lost, and 0 to 100 ms under way, so that datagrams overtake each other."""


# Ends ------------------------------------------------------------------------------------------------------------------


def _left_on(scene: Scene, name: str) -> list[str]:
    """What a part that has ended left on its machine."""
    if name == "gateway" and promiscuity(scene.gateway.host, ADAPTER):
        return ["the gateway's interface is still promiscuous"]
    if name == "client" and not scene.ann.attached and ADAPTER in scene.ann.machine.interfaces():
        return ["the client's TAP is still there"]
    return []


def _killed(name: str) -> Strikes:
    async def strike(scene: Scene, dice: random.Random, cycle: int) -> Strike:
        program = scene.parts[name].program
        program.kill()
        await program.wait(5)
        wrong = _left_on(scene, name)
        # At once, within the silence a session notices, and beyond the idle timeout.
        await asyncio.sleep(dice.choice((0.0, dice.uniform(0, 1), dice.uniform(2, 4))))
        over = time.monotonic()
        return Strike(over, start_s=await scene.restart(name), wrong=wrong)

    return strike


def _told_to_end(name: str) -> Strikes:
    async def strike(scene: Scene, dice: random.Random, cycle: int) -> Strike:
        program = scene.parts[name].program
        async with _load(scene):
            wrong = await _without_load(scene)
            await asyncio.sleep(dice.uniform(0, 0.5))
            since, asked = program.mark(), time.monotonic()
            program.send_signal(signal.SIGTERM)
            status = await program.wait(10)
            ended = time.monotonic() - asked
            wrong += [*_ended_badly(program, status, since), *_left_on(scene, name)]
            over = time.monotonic()
            started = await scene.restart(name)
            back = await scene.back(over)
        return Strike(over, back, ended, started, wrong)

    return strike


def _ended_badly(program: Program, status: int, since: int) -> list[str]:
    """What is wrong with how a part ended that was told to after `since` in its log."""
    if status != 0:
        return [f"{program.name} ended with status {status}:\n{program.tail(8)}"]
    if program.found("service.hung", since):
        return [f"{program.name} did not end by itself and was cut off:\n{program.tail(8)}"]
    return []


async def _without_load(scene: Scene) -> list[str]:
    """Wait until the load passes through gateway, relay and client both ways; say so if it never does."""
    deadline = time.monotonic() + _LOAD_WITHIN_S
    before, then = await _arrived(scene), time.monotonic()
    while True:
        await asyncio.sleep(0.1)
        arrived, now = await _arrived(scene), time.monotonic()
        rates = [(more - less) / (now - then) for more, less in zip(arrived, before, strict=True)]
        if min(rates) >= _LOADED:
            return []
        if now > deadline:
            told = " and ".join(f"{rate:.0f}" for rate in rates)
            return [f"there was no load: {told} frames a second reached client and gateway"]
        before, then = arrived, now


async def _arrived(scene: Scene) -> list[int]:
    """Frames that client and gateway have received through the relay: what the other end sent has passed through all three then."""
    counters = await asyncio.gather(scene.ann.part.counters(), scene.gateway.counters())
    return [counted["frames_received"] for counted in counters]


@contextlib.asynccontextmanager
async def _load(scene: Scene) -> AsyncIterator[None]:
    """UDP both ways between ann and the server, 40 Mbit/s each."""
    programs = []
    with contextlib.ExitStack() as stack:
        for source, target in ((scene.ann, scene.server), (scene.server, scene.ann)):
            # Somebody must listen, or the target answers each datagram with an ICMP error. Nobody reads: the kernel drops.
            listener = stack.enter_context(target.host.socket())
            listener.bind(("", _LOAD_PORT))
            command = [
                sys.executable,
                "-I",
                "-S",
                _LOAD,
                target.address,
                str(_LOAD_PORT),
                str(_LOAD_MBIT),
                "1200",
            ]
            programs.append(Program(source.host, "load", command))
        try:
            await asyncio.gather(*(program.start() for program in programs))
            yield
        finally:
            await asyncio.gather(*(program.stop(signal.SIGKILL) for program in programs))


# Cables and addresses ---------------------------------------------------------------------------------------------------


def _unplugged(name: str, interface: str) -> Strikes:
    async def strike(scene: Scene, dice: random.Random, cycle: int) -> Strike:
        await _down_and_up(scene.machines[name], interface, dice)
        return Strike(time.monotonic())

    return strike


async def _adapter_down(scene: Scene, dice: random.Random, cycle: int) -> Strike:
    """Ann's own interface, the TAP, is taken down and up by somebody, while the client runs."""
    await _down_and_up(scene.ann.host, ADAPTER, dice)
    if scene.ann.attached:
        # The kernel puts back its own route to the network, and not the lab's, which has an MTU.
        scene.ann.station.set_address(f"{scene.ann.address}/24")
    return Strike(time.monotonic())


async def _down_and_up(host: Host, interface: str, dice: random.Random) -> None:
    if interface == "wan":
        host.setting("ipv6/conf/wan/keep_addr_on_down", "1")
    host.ip(f"link set {interface} down")
    await asyncio.sleep(dice.choice((dice.uniform(0.1, 1), dice.uniform(1, 2.5), dice.uniform(3, 5))))
    host.ip(f"link set {interface} up")


async def _moved(scene: Scene, dice: random.Random, cycle: int) -> Strike:
    """Ann's address changes, and back again, so that what is there afterwards can be compared. The slower of the two counts."""
    over = time.monotonic()
    scene.ann.move(f"203.0.113.{dice.randint(100, 250)}")
    away = Strike(over, await scene.back(over))
    await asyncio.sleep(dice.uniform(0, 1))
    over = time.monotonic()
    scene.ann.move(scene.home)
    if scene.home_v6:
        scene.ann.machine.ip(f"addr add {scene.home_v6} dev wan nodad")
    home = Strike(over, await scene.back(over))
    return max(away, home, key=lambda strike: strike.back_s or 0.0)


# A bad line -----------------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def bad_path_scene() -> AsyncIterator[Scene]:
    """Ann behind a line that loses and reorders."""
    async with Party() as party:
        lan = party.add_lan("home")
        await party.start_relay()
        await party.start_gateway("gateway", lan)
        cafe = party.machine("cafe")
        address = cafe.address_of("wan")
        target = (RELAY_ADDRESS, RELAY_PORT)
        with UdpLink(
            near=cafe, listen=(address, RELAY_PORT), far=cafe, target=target, up=BAD_PATH, seed=7
        ) as link:
            relay = f"{address}:{RELAY_PORT}"
            await party.start_client("ann", relay=relay, address="192.168.88.51")
            await party.start_client("ben", address="192.168.88.52")
            async with watched(party, share=0.5) as scene:
                scene.line = link
                yield scene


async def _on_a_bad_path(scene: Scene, dice: random.Random, cycle: int) -> Strike:
    """The line cut, the client killed, the relay killed, in turn."""
    if cycle % 3:
        return await _killed(("", "client", "relay")[cycle % 3])(scene, dice, cycle)
    assert scene.line is not None
    scene.line.reshape(up=Shape(loss=1.0), down=Shape(loss=1.0))
    await asyncio.sleep(dice.uniform(0.5, 5))
    scene.line.reshape(up=BAD_PATH, down=BAD_PATH)
    return Strike(time.monotonic())


FAULTS: Final = (
    Fault("kill-relay", "relay: kill -9", _killed("relay"), full=34),
    Fault("kill-gateway", "gateway: kill -9", _killed("gateway"), (BEN_TO_ANN,), full=33),
    Fault("kill-client", "client: kill -9", _killed("client"), (BEN_TO_SERVER,), full=33),
    Fault("term-relay", "relay: SIGTERM under load", _told_to_end("relay"), full=67),
    Fault("term-gateway", "gateway: SIGTERM under load", _told_to_end("gateway"), full=67),
    Fault("term-client", "client: SIGTERM under load", _told_to_end("client"), full=66),
    Fault("lan-cable", "gateway's LAN cable out and in", _unplugged("gateway", ADAPTER), (BEN_TO_ANN,)),
    Fault("tap", "client's TAP down and up", _adapter_down, (BEN_TO_SERVER,)),
    Fault("wan-client", "client's internet down and up", _unplugged("client", "wan"), (BEN_TO_SERVER,)),
    Fault(
        "wan-gateway", "gateway's internet down and up", _unplugged("gateway", "wan"), (BEN_TO_ANN,), quick=0
    ),
    Fault("wan-relay", "relay's internet down and up", _unplugged("relay", "wan")),
    Fault("address", "client's address changes", _moved, (BEN_TO_SERVER,)),
    Fault("certificate", "relay's certificate rotated", state.certificate_rotated),
    Fault("clock", "wall clock of a part jumps", state.clock_jumped, scene=state.clock_scene, full=24),
    Fault("disk-full", "state files' disk full", state.disk_full, scene=state.disk_scene, full=24),
    Fault(
        "bad-path", "5 % loss each way, 50 ± 50 ms", _on_a_bad_path, scene=bad_path_scene, full=60, quick=2
    ),
)
