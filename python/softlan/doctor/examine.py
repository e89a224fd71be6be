"""Puts the checks into an order: what makes no sense after a failure is left out."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import os
import secrets
import statistics
import sys
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from softlan.client.identity import SECRET_SIZE, Identity, default_identity_path, hold_identity, is_held
from softlan.client.library import Session
from softlan.client.lookup import resolve
from softlan.client.session import SessionConfig
from softlan.config import HostPort, parse_host_port
from softlan.control.messages import SUPPORTED_PROTOCOLS, Role
from softlan.doctor import judge, knock, visit
from softlan.doctor.findings import Check, Finding, Grade, from_error
from softlan.doctor.machine import look_at_adapter, look_at_parts
from softlan.doctor.quic import Look, look
from softlan.errors import RelayUnreachableError, SoftlanError, TrustError
from softlan.knock import Outcome
from softlan.observe.local import read_all
from softlan.threads import in_thread
from softlan.trust import UNUSABLE, public_key_pin

__all__ = ["Wish", "examine"]

T = TypeVar("T")

_ECHO_FRAMES = 25
"""Of each of the two sizes."""

_HOPEFUL = frozenset({Outcome.ANSWERED, Outcome.SILENT, Outcome.NOT_QUIC})
"""After which a handshake is worth trying."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What is to be looked at. Without `session` it is this machine alone; its MAC and `resume` are filled in from the identity.

    `room` says that the session's room was named by the user. With `interface` this machine is to be a gateway.
    """

    session: SessionConfig | None
    room: bool
    identity: Path | None
    interface: str | None
    tap: str | None
    attach: str | None
    seconds: float
    join: bool


async def examine(wish: Wish) -> AsyncIterator[Finding]:
    """Look at everything, and tell each thing as soon as it is known."""
    parts = await in_thread(read_all)
    for finding in look_at_parts(parts):
        yield finding
    may_play = sys.platform != "linux" or os.geteuid() == 0
    if wish.interface is None:
        # On Windows parts tell nobody how they do, but hold their identity.
        playing = any(part.part == "client" for part in parts) or _plays(wish.identity)
        for finding in await in_thread(look_at_adapter, wish.tap, wish.attach, playing=playing):
            may_play |= finding.check is Check.ADAPTER and finding.grade is not Grade.BAD
            yield finding
    if wish.session is not None:
        async for finding in _Relay(wish, wish.session, may_play=may_play).examine():
            yield finding
    if wish.interface is not None:
        from softlan.doctor.lan import look_at_lan

        for finding in await in_thread(look_at_lan, wish.interface):
            yield finding


def _plays(identity: Path | None) -> bool:
    """Say whether a client runs here with this identity, the user's own if None."""
    with contextlib.suppress(SoftlanError):
        return is_held(identity or default_identity_path(Role.CLIENT))
    return False


class _Relay:
    """Everything about one relay. `may_play`: this user has the rights that a client or gateway takes."""

    def __init__(self, wish: Wish, session: SessionConfig, *, may_play: bool) -> None:
        self._wish = wish
        self._session = session
        self._may_play = may_play
        self._seen: Look | SoftlanError = SoftlanError("not looked at")
        self._trusted: visit.Trusted | SoftlanError = SoftlanError("not tried")

    async def examine(self) -> AsyncIterator[Finding]:
        relay = self._session.relay
        try:
            addresses = await resolve(relay)
        except SoftlanError as error:
            yield from_error(Check.NAME, error)
            return
        places = [_place(address) for address in addresses]
        yield judge.judge_name(relay.host, [host for host, _ in places])
        looking = asyncio.create_task(self._look(places[0]))
        reaches = await asyncio.gather(*(in_thread(knock.reach, place) for place in places))
        answering = next((n for n, r in enumerate(reaches) if r.outcome is Outcome.ANSWERED), 0)
        place, reach = places[answering], reaches[answering]
        if answering or reach.outcome not in _HOPEFUL:
            looking.cancel()
        if answering:
            looking = asyncio.create_task(self._look(places[answering]))
        # Waited for, not awaited: only its own end may be passed over, not the end of who asks.
        await asyncio.wait((looking,))
        if not looking.cancelled():
            self._seen = looking.result()
        if reach.outcome in _HOPEFUL:
            self._trusted = await _try(visit.try_trust(self._session, addresses[answering]))
        shaken = isinstance(self._seen, Look) and self._seen.alpn is not None
        connected = shaken or isinstance(self._trusted, visit.Trusted | TrustError)
        yield judge.judge_udp(reaches, connected=connected)
        if reach.outcome is not Outcome.ANSWERED and not connected:
            return
        passable = True
        async for finding in self._way(place, reach):
            yield finding
            passable &= (finding.check, finding.grade) != (Check.MTU, Grade.BAD)
        if not passable:
            return  # A handshake that fails there would be told as if it were another fault.
        for finding in self._who():
            yield finding
        async for finding in self._room():
            yield finding

    async def _look(self, place: tuple[str, int]) -> Look | SoftlanError:
        return await _try(look(place, self._session.server_name))

    async def _way(self, place: tuple[str, int], reach: knock.Reach) -> AsyncIterator[Finding]:
        budget = self._trusted.budget if isinstance(self._trusted, visit.Trusted) else None
        if reach.rtt_s is None:
            if budget is not None:
                headers = 48 if ":" in place[0] else 28
                yield judge.judge_mtu(knock.PathMtu(budget + judge.QUIC_OVERHEAD, headers), budget)
            yield Finding(Check.LINE, Grade.SKIPPED, "not measured: knocks are not answered")
            return
        try:
            found = await in_thread(knock.measure_mtu, place, rtt_s=reach.rtt_s)
            yield judge.judge_mtu(found, budget)
            if self._wish.seconds:
                yield judge.judge_line(await in_thread(knock.measure_line, place, self._wish.seconds))
        except OSError as error:
            says = f"the way was cut while it was measured: {error.strerror or error}"
            yield Finding(Check.LINE, Grade.BAD, says, "try again")

    def _who(self) -> list[Finding]:
        """Judge handshake, certificate, clock and protocol."""
        relay, seen = str(self._session.relay), self._seen
        found = []
        certificate = None
        if isinstance(seen, Look):
            found.append(judge.judge_handshake(relay, seen))
            if seen.certificate is not None:
                certificate = _read_certificate(seen.certificate)
        else:
            found.append(from_error(Check.HANDSHAKE, seen, Grade.SKIPPED))
        found += self._trust(certificate)
        if certificate is not None:
            now = datetime.datetime.now(datetime.UTC)
            found.append(judge.judge_clock(certificate, now, pinned_key=bool(self._session.pins)))
        if isinstance(seen, Look) and seen.alpn is not None:
            found.append(judge.judge_protocol(seen.protocols))
        return found

    def _trust(self, certificate: judge.Certificate | None) -> list[Finding]:
        trusted, session = self._trusted, self._session
        facts = {} if certificate is None else {"pin": certificate.pin, "names": list(certificate.names)}
        if isinstance(trusted, visit.Trusted):
            by = f"the certificate you were given, for {session.server_name}"
            if session.pins:
                by = "the pin you were given"
            elif not session.pinned:
                by = f"an authority this machine trusts, for {session.server_name}"
            return [
                Finding(Check.CERTIFICATE, Grade.GOOD, f"the relay is the one meant, by {by}", facts=facts)
            ]
        if (
            isinstance(trusted, RelayUnreachableError)
            and isinstance(self._seen, Look)
            and not self._seen.alpn
        ):
            return []  # The handshake's line has said it.
        hint = trusted.hint
        if certificate is not None and isinstance(trusted, TrustError) and not session.pinned:
            hint = f"{hint}; or ask whether its pin is {certificate.pin}, and give it with --pin"
        return [Finding(Check.CERTIFICATE, Grade.BAD, str(trusted), hint, facts)]

    async def _room(self) -> AsyncIterator[Finding]:
        """Enter the room, and send frames through it."""
        if not isinstance(self._trusted, visit.Trusted):
            return
        if isinstance(self._seen, Look) and set(self._seen.protocols or SUPPORTED_PROTOCOLS).isdisjoint(
            SUPPORTED_PROTOCOLS
        ):
            return
        if not self._wish.room:
            says = "not tried: no room was named"
            yield Finding(Check.ROOM, Grade.SKIPPED, says, "give the invite, or --room and what it asks for")
            return
        if not self._wish.join:
            yield Finding(Check.ROOM, Grade.SKIPPED, "not tried, as asked")
            return
        once = visit.is_for_once(self._session)
        if once and self._wish.identity is None and (why := _why_another_plays(may_play=self._may_play)):
            # The invite would be the doctor's for good, and who plays would be refused.
            yield Finding(Check.ROOM, Grade.SKIPPED, *why)
            return
        try:
            with contextlib.ExitStack() as stack:
                path = self._wish.identity or default_identity_path(self._session.role)
                held = stack.enter_context(hold_identity(path, self._session.role))
                if held.shared:
                    says = (
                        "not tried: softlan runs here with this identity (see `running`, or `softlan status`)"
                    )
                    yield Finding(Check.ROOM, Grade.SKIPPED, says)
                    return
                config = _as_player(self._session, held.identity, once=once)
                async with visit.enter(config) as entered:
                    yield _welcomed(config, entered)
                    if entered.session is not None:
                        yield await self._echo(config, entered.session, once=once)
        except SoftlanError as error:
            yield from_error(Check.ROOM, error)

    async def _echo(self, config: SessionConfig, first: Session, *, once: bool) -> Finding:
        if once:
            says = "not tried: it takes two visitors, and the invite is for one"
            return Finding(Check.ECHO, Grade.SKIPPED, says)
        try:
            async with visit.enter(visit.second_visitor(config)) as other:
                assert other.session is not None
                echo = await visit.echo(first, other.session, count=_ECHO_FRAMES)
        except SoftlanError as error:
            says = f"not tried: a second visitor was not let in ({error})"
            return Finding(Check.ECHO, Grade.SKIPPED, says)
        trips = [*echo.small, *echo.full]
        return judge.judge_echo(
            echo.size,
            (echo.small_sent, len(echo.small)),
            (echo.full_sent, len(echo.full)),
            statistics.median(trips) if trips else None,
        )


def _welcomed(config: SessionConfig, entered: visit.Visit) -> Finding:
    room = entered.welcome.room
    players = sum(peer.role is Role.CLIENT for peer in room.peers)
    others = {0: "nobody else", 1: "1 other player"}.get(players, f"{players} other players")
    gateway = "with a gateway" if room.gateway else "no gateway"
    if config.role is Role.GATEWAY:
        gateway = "and takes this gateway"
    says = f"{room.code} lets this machine in: {others}, {gateway}, MTU {entered.welcome.tap_mtu}"
    facts = {
        "room": room.code,
        "players": players,
        "gateway": room.gateway,
        "tap_mtu": entered.welcome.tap_mtu,
    }
    return Finding(Check.ROOM, Grade.GOOD, says, facts=facts)


def _as_player(session: SessionConfig, identity: Identity, *, once: bool) -> SessionConfig:
    """Come with the identity's MAC, but with a secret of one's own: whoever plays with it is not thrown out.

    An invite for one use is bound to the secret too, so there it must be the player's.
    """
    if not once:
        identity = Identity(identity.mac, secrets.token_bytes(SECRET_SIZE))
    resume = identity.resume_key(session.server_name, session.room)
    return dataclasses.replace(session, mac=identity.mac, resume=resume)


def _why_another_plays(*, may_play: bool) -> tuple[str, str] | None:
    """Say, with what to do, why who plays here is somebody else to a relay than the doctor; None: it is the same."""
    if sys.platform == "win32":
        says = "not tried: the invite is for one use, and softlan join plays with the adapter's MAC, not with the identity's"
        return says, "join: what is wrong with the room is said there"
    if not may_play:
        says = "not tried: the invite is for one use, and this user is not the one who can play with it"
        return says, "run this as you join: sudo softlan doctor"
    return None


def _place(address: str) -> tuple[str, int]:
    read: HostPort = parse_host_port(address)
    return read.host, read.port


def _read_certificate(der: bytes) -> judge.Certificate | None:
    try:
        read = x509.load_der_x509_certificate(der)
        pin = public_key_pin(read)
        begins, ends = read.not_valid_before_utc, read.not_valid_after_utc
    except UNUSABLE:
        return None
    names: list[str] = []
    with contextlib.suppress(x509.ExtensionNotFound, *UNUSABLE):
        told = read.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [str(name.value) for name in told]
    return judge.Certificate(pin, tuple(names), begins, ends)


async def _try(work: Awaitable[T]) -> T | SoftlanError:
    try:
        return await work
    except SoftlanError as error:
        return error
