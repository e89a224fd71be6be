"""`softlan ping`: the way to another player, through the room."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any

import click

from softlan._core import Mac
from softlan.client.identity import SECRET_SIZE, Identity
from softlan.command import PartCommand
from softlan.config import SECONDS, HostPort
from softlan.control.messages import Role
from softlan.doctor.findings import Check, Finding, exit_status
from softlan.doctor.judge import judge_trips, milliseconds
from softlan.doctor.ping import Target, choose
from softlan.doctor.visit import enter, is_for_once
from softlan.doctor.ways import OwnAdapter, Visitor, Way
from softlan.errors import ConfigError
from softlan.observe.logs import LogFormat, configure_logging
from softlan.parts import ROOM_OPTIONS, reported, run_part, session_config, session_options, version_option

__all__ = ["ping"]

_WAIT_S = 2.0
"""For an answer, where the next frame waits for it, and for the last. A session is silent for little longer before it is given up."""

_MIN_INTERVAL_S = 0.05
"""Fast enough to measure, and below what a room takes for a storm."""


@click.command(
    cls=PartCommand,
    short_help="Measure the way to another player, through the room.",
    groups={"Which room": ROOM_OPTIONS, "What is sent": ("count", "interval", "size")},
)
@click.argument("peer")  # before [INVITE], which may be missing
@session_options
@click.option(
    "-c",
    "--count",
    type=click.IntRange(1, 100_000),
    default=10,
    show_default=True,
    metavar="N",
    help="How many frames.",
)
@click.option(
    "-i",
    "--interval",
    type=SECONDS,
    default="200ms",
    show_default=True,
    metavar="TIME",
    help="Between one and the next; 50ms at least. An IP address is asked again after its answer only, or 2 s.",
)
@click.option(
    "--size",
    type=click.IntRange(60, 1514),
    default=128,
    show_default=True,
    metavar="BYTES",
    help="The frames' length, header included; ARP's is always 60.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON: one object.")
@version_option
@reported
def ping(
    *,
    peer: str,
    relay: HostPort | None,
    room: str | None,
    count: int,
    interval: float,
    size: int,
    as_json: bool,
    identity: object,
    **session: Any,
) -> None:
    """Measure the way to PEER through the room: a peer id or MAC (`softlan status` lists them), or an IPv4 address.

    Without more it goes the way of the client that runs here (Linux; as root). With INVITE, softlan://... in double quotes, or the
    options, it joins the room as a visitor of its own, which takes neither an adapter nor rights. An id or MAC is answered by the
    player's softlan itself, an address by the machine that has it, be it a player's or one behind the gateway.

    Exit status: 0 all is good, 1 something is bad, 2 used wrongly, 3 something is poor, 4 the relay refuses the key or the invite.
    """
    configure_logging(LogFormat.TEXT, logging.ERROR)  # What a session would log is told by the lines below.
    del identity  # A visitor has one of its own, for this run.
    if not _MIN_INTERVAL_S <= interval <= 60:
        raise ConfigError("--interval is from 50ms to 60s")
    say: Callable[[str], None] = (lambda _: None) if as_json else click.echo
    run = _Run(count, interval, size, say)
    if relay is None:
        way: AbstractAsyncContextManager[Way] = OwnAdapter.find()
    else:
        way = _visit(relay, room, session)
    target: list[Target] = []
    told: dict[str, Any] = {}

    async def main(stopping: asyncio.Event) -> None:
        async with way as taken:
            target.append(choose(peer, taken.peers))
            told.update(peer=target[0].name, room=taken.room, relay=taken.relay)
            say(f"{target[0].name} in room {taken.room}, through {taken.relay}")
            await run.measure(taken, target[0], stopping)

    run_part(main)
    if not target or not run.trips:
        sys.exit(1)
    judged = judge_trips(Check.ECHO, run.trips, f"of {len(run.trips)}")
    if not any(trip is not None for trip in run.trips):
        says = f"{target[0].name} does not answer"
        judged = Finding(judged.check, judged.grade, says, target[0].silence, judged.facts)
    if as_json:
        told |= {"grade": judged.grade, "says": judged.says, "hint": judged.hint, **judged.facts}
        told["trips_ms"] = [None if trip is None else round(trip * 1000, 3) for trip in run.trips]
        click.echo(json.dumps(told, indent=2))
    else:
        click.echo(judged.says)
        if judged.hint:
            click.echo(f"hint: {judged.hint}", err=True)
    sys.exit(exit_status([judged]))


@contextlib.asynccontextmanager
async def _visit(relay: HostPort, room: str | None, session: dict[str, Any]) -> AsyncIterator[Way]:
    """Join the room as somebody new."""
    if room is None:
        raise ConfigError("--relay needs a room", hint="give --room CODE, or the invite")
    visitor = Identity(Mac.random_local(), secrets.token_bytes(SECRET_SIZE))
    config = session_config(relay=relay, room=room, role=Role.CLIENT, identity=visitor, **session)
    if is_for_once(config):
        raise ConfigError(
            "the invite is for one use, and a ping would use it up",
            hint="ping beside the client that runs with it, without the invite; or ask the host for another",
        )
    async with enter(config) as entered:
        assert entered.session is not None
        yield Visitor(entered.session, config)


@dataclass(frozen=True, slots=True)
class _Sent:
    """A frame without an answer yet, by `time.perf_counter`."""

    at_s: float
    answered: asyncio.Future[None]


class _Run:
    """One run of pings; `trips` are their round trips in the order sent, in seconds, None without an answer."""

    def __init__(self, count: int, interval_s: float, size: int, say: Callable[[str], None]) -> None:
        self.trips: list[float | None] = []
        self._count = count
        self._interval_s = interval_s
        self._size = size
        self._say = say
        self._under_way: dict[int, _Sent] = {}

    async def measure(self, way: Way, target: Target, stopping: asyncio.Event) -> None:
        """Send all of them and wait for the answers, or until `stopping`; raises what ends the session."""
        listening = asyncio.create_task(self._listen(way, target))
        ending = asyncio.ensure_future(stopping.wait())
        whole = False
        try:
            for number in range(self._count):
                sent = _Sent(time.perf_counter(), asyncio.get_running_loop().create_future())
                self.trips.append(None)
                self._under_way[number] = sent
                await way.send(target.frame(way.mac, number, self._size))
                last = number == self._count - 1
                if not target.numbered:
                    await _pause(_WAIT_S, ending, listening, sent.answered)
                elif last:
                    await _pause(_WAIT_S, ending, listening)
                left_s = sent.at_s + self._interval_s - time.perf_counter()
                if last or await _pause(max(left_s, 0.0), ending, listening):
                    break
            whole = not ending.done()
            if listening.done():
                listening.result()
        finally:
            if not whole:
                self._leave_out_what_is_under_way()
            for task in (listening, ending):
                task.cancel()
            await asyncio.gather(listening, ending, return_exceptions=True)

    async def _listen(self, way: Way, target: Target) -> None:
        """Take answers in until there are all."""
        async for frame in way.frames():
            number = target.number_of(frame, way.mac)
            sent = None if number is None else self._under_way.pop(number, None)
            if number is None or sent is None:
                continue
            self.trips[number] = took = time.perf_counter() - sent.at_s
            sent.answered.set_result(None)
            self._say(f"  {number + 1:>3}  {milliseconds(took)}")
            if len(self.trips) == self._count and not self._under_way:
                return

    def _leave_out_what_is_under_way(self) -> None:
        """Count no frame as lost whose answer may still be on its way; all count where none was ever answered."""
        now_s = time.perf_counter()
        if any(trip is not None for trip in self.trips):
            while self.trips[-1] is None and now_s - self._under_way[len(self.trips) - 1].at_s < _WAIT_S:
                self.trips.pop()


async def _pause(seconds: float, *until: asyncio.Future[Any]) -> bool:
    """Wait so long; True when one of `until` came first."""
    done, _ = await asyncio.wait(until, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
    return bool(done)


for _parameter in ping.params:
    # Beside a running client nothing need be said of the room.
    if _parameter.name in ("relay", "room"):
        _parameter.required = False
