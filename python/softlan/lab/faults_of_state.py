"""Faults of what parts keep and go by: the relay's certificate, the wall clock, a disk that is full.

The clock is a part's own: libfaketime (a preloaded library) moves CLOCK_REALTIME for one process, and its monotonic clock
stays, as when a person or NTP sets a machine's clock. The disk is a tmpfs of a few hundred KiB that only this program and what it
starts can see.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import datetime
import glob
import json
import os
import random
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)

from softlan.observe import capture
from softlan.relay.certificates import make_dev_certificate

from .namespaces import LabError
from .party import RELAY_ADDRESS, RELAY_PORT, ROOM, SERVER_NAME, Part, Party, Relay
from .programs import Event, Program
from .scene import Scene, watched
from .soak import Strike

_CLONE_NEWNS: Final = 0x0002_0000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x4_0000
_MNT_DETACH: Final = 2
_DISK: Final = "size=256k,mode=0755"
_FAKETIME: Final = "/usr/lib/*/faketime/libfaketime.so.1"
_FAKETIME_NOTICES_S: Final = 1.3
"""It reads its file once a second."""
_NEAR: Final = ("+1h", "-1h", "+12h", "-12h", "+30d", "+5y")
"""Clocks with which a dev certificate, backdated by a day and good for ten years, is valid."""
_INVITED_S: Final = 7200.0
"""How long invites are good: longer than any run, so that none that was used is forgotten."""
_VISIT: Final = """
import asyncio, sys
from softlan.client import Session

async def visit(relay, server_name, certificate, room, key):
    async with Session.join(relay=relay, server_name=server_name, certificate=certificate, room=room, key=key):
        pass

asyncio.run(visit(*sys.argv[1:]))
"""
_KEPT_BAN: Final = "192.0.2.66/32"
"""Somebody who must stay out through all of it."""
_FAR: Final = ("-30d", "+11y")
_SECONDS_IN: Final = {"h": 3600, "d": 86_400, "y": 365 * 86_400}
"""libfaketime's units."""
_READ_WITHIN_S: Final = 60.0
"""A clock that is as far from where it was put is where it was put: a line may lie about before it is read."""
_ASKED: Final = 6
"""How often a running part is asked for the time: libfaketime answers with the former one now and then while it reads its file."""
_OUT_WITHIN_S: Final = 15.0
"""How long a part may take to meet a relay that is back, and to be kept out."""
_OUT_S: Final = 2.0
"""How long it must stay out then: some attempts."""
_OUT_WORDS: Final = "not valid at this time"


# Certificate ------------------------------------------------------------------------------------------------------------


async def certificate_rotated(scene: Scene, dice: random.Random, cycle: int) -> Strike:
    """Another certificate at SIGHUP: whoever is there stays. Then the relay or the client starts anew and must meet the new one."""
    relay = scene.relay
    before = relay.certificate.read_bytes()
    start = time.monotonic()
    replace_certificate(relay)
    await _hang_up(relay, "certificate.loaded")
    await asyncio.sleep(0.5)
    lost = sum(pinger.between(start, time.monotonic() - 0.2).lost for pinger in scene.pingers.values())
    wrong = [f"{lost} pings were lost while the certificate was read"] if lost else []
    if relay.certificate.read_bytes() == before:
        wrong.append("the file for players still holds the former certificate")
    name = ("relay", "client")[cycle % 2]
    program = scene.parts[name].program
    program.kill()
    await program.wait(5)
    over = time.monotonic()
    return Strike(over, start_s=await scene.restart(name), wrong=wrong)


def replace_certificate(relay: Relay) -> None:
    """Put a new dev certificate and its key in place of the relay's kept one, as an operator would."""
    made = make_dev_certificate(SERVER_NAME)
    key = load_der_private_key(made.key, password=None)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    pem += x509.load_der_x509_certificate(made.leaf).public_bytes(Encoding.PEM)
    relay.certificate_state.write_bytes(pem)


# Clock ------------------------------------------------------------------------------------------------------------------


def faketime_library() -> str:
    """Give the path of libfaketime. Raises `LabError`: it is not installed."""
    found = glob.glob(_FAKETIME)
    if not found:
        raise LabError("libfaketime is not installed", hint="it is in the package faketime")
    return found[0]


@contextlib.asynccontextmanager
async def clock_scene() -> AsyncIterator[Scene]:
    """Everybody's wall clock is in a file of their own, which the faults write."""
    library = faketime_library()
    async with Party() as party:
        lan = party.add_lan("home")
        parts = [party.make_relay(), party.make_gateway("gateway", lan)]
        parts += [party.make_client("ann").part, party.make_client("ben").part]
        for part in parts:
            part.environment |= {
                "LD_PRELOAD": library,
                "FAKETIME_TIMESTAMP_FILE": str(_clock(party, part.name)),
                "FAKETIME_CACHE_DURATION": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            }
            set_clock(party, part.name, "+0")
        assert party.relay is not None
        await party.relay.start()
        await party.gateways["gateway"].start()
        for number, name in enumerate(("ann", "ben"), start=51):
            await party.clients[name].start()
            party.clients[name].station.set_address(f"192.168.88.{number}/24")
        async with watched(party) as scene:
            yield scene


def set_clock(party: Party, name: str, offset: str) -> None:
    """Move the wall clock of a part of `clock_scene` to so much from now ("+12h", "-30d", "+0")."""
    clock = _clock(party, name)
    fresh = clock.with_suffix(".new")
    fresh.write_text(f"{offset}\n", encoding="ascii")
    fresh.replace(clock)


def _clock(party: Party, name: str) -> Path:
    return party.directory / f"clock-{name}"


async def clock_jumped(scene: Scene, dice: random.Random, cycle: int) -> Strike:
    """A part's clock jumps: nobody may notice. Then a part is killed under that clock.

    With a clock that is far off, a gateway or client must be kept out until it is set right; a relay must not mind.
    """
    name = ("relay", "gateway", "client")[cycle % 3]
    part, relay = scene.parts[name], scene.relay
    far = cycle % 4 == 3
    where = dice.choice(_FAR if far else _NEAR)
    start, certificate = time.monotonic(), relay.certificate.read_bytes()
    set_clock(scene.party, part.name, where)
    await asyncio.sleep(_FAKETIME_NOTICES_S + 2.7)  # beyond every timeout a session has
    lost = sum(pinger.between(start, time.monotonic() - 0.3).lost for pinger in scene.pingers.values())
    wrong = [f"{lost} pings were lost when the {name}'s clock jumped"] if lost else []
    wrong += await _not_moved(part, where)
    kept_out = far and name != "relay"
    victim = "relay" if kept_out else name
    program = scene.parts[victim].program
    program.kill()
    await program.wait(5)
    over, since = time.monotonic(), part.program.mark()
    started: float | None = await scene.restart(victim)
    if not kept_out:
        wrong += _not_at(where, part.program.events[since:], f"the {name} that was started under it")
    if relay.certificate.read_bytes() != certificate:
        wrong.append("the relay has made itself another certificate")
    back: float | None = None
    if kept_out:
        wrong += await _not_kept_out(part, since)
    else:
        back = await scene.back(over)
    if far:
        set_clock(scene.party, part.name, "+0")
        await asyncio.sleep(_FAKETIME_NOTICES_S)
    if kept_out:
        over, started = time.monotonic(), None
    return Strike(over, back, start_s=started, wrong=wrong)


async def _not_moved(part: Part, where: str) -> list[str]:
    """Have a running part log lines, by asking it for its frames, until one is of the clock that it was given; say so if none is."""
    wrong: list[str] = []
    for _ in range(_ASKED):
        since = part.program.mark()
        async for _ in capture.ask(await part.capture_socket(), capture.Request()):
            break
        told = await part.program.event("capture.started", since=since)
        if not (wrong := _not_at(where, [told], f"{part.name}, which ran,")):
            break
        await asyncio.sleep(0.5)
    return wrong


def _not_at(where: str, lines: Sequence[Event], whose: str) -> list[str]:
    """What is wrong with a clock that was put `where` when it wrote those lines."""
    off = [_clock_off(line) for line in lines]
    meant = float(where[:-1]) * _SECONDS_IN[where[-1]]
    if any(abs(seconds - meant) <= _READ_WITHIN_S for seconds in off):
        return []
    told = ", ".join(f"{seconds:.0f} s" for seconds in off) or "nothing it told"
    return [f"the clock of {whose} is off by {told}, and should be by {where}"]


def _clock_off(line: Event) -> float:
    """By how many seconds the wall clock was ahead by which a line was written that was just read."""
    stamp = datetime.datetime.fromisoformat(line.fields["ts"]).timestamp()
    return stamp - (time.time() - (time.monotonic() - line.at))


async def _not_kept_out(part: Part, since: int) -> list[str]:
    """Wait until a part says that the relay's certificate is of another time; say so if it does not, or joins all the same."""
    deadline = time.monotonic() + _OUT_WITHIN_S
    while not any(
        _OUT_WORDS in event.fields["message"] for event in part.program.found("session.retry", since)
    ):
        if time.monotonic() > deadline:
            return [
                f"{part.name} does not say that the certificate is of another time:\n{part.program.tail(8)}"
            ]
        await asyncio.sleep(0.1)
    await asyncio.sleep(_OUT_S)
    if part.program.found("session.joined", since):
        return [f"{part.name} was not kept out:\n{part.program.tail(8)}"]
    return []


# Disk -------------------------------------------------------------------------------------------------------------------


def private_mounts() -> None:
    """See to it that what this program mounts is seen by it and its children alone, and gone with them.

    Call it before any thread is started: threads that exist keep the machine's view. Raises `OSError`.
    """
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"a mount namespace: {os.strerror(code)}")


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """A file system of 256 KiB over the directory `path`; call `private_mounts` first. Raises `OSError`."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"softlan-lab", os.fsencode(path), b"tmpfs", 0, _DISK.encode()) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mounting a tmpfs: {os.strerror(code)}")
    try:
        yield
    finally:
        libc.umount2(os.fsencode(path), _MNT_DETACH)


def fill(directory: Path) -> None:
    """Fill the disk to the last byte, with one file."""
    with contextlib.suppress(OSError), open(directory / "filling", "ab", buffering=0) as file:
        while file.write(bytes(1024)):
            pass


def empty(directory: Path) -> None:
    """Take the filling away."""
    (directory / "filling").unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def disk_scene() -> AsyncIterator[Scene]:
    """All files of all parts are on one small disk."""
    async with Party() as party:
        with small_disk(party.directory):
            lan = party.add_lan("home")
            relay = await party.start_relay("--state", str(_state_of(party)))
            await party.start_gateway("gateway", lan)
            await party.start_client("ann", address="192.168.88.51")
            await party.start_client("ben", address="192.168.88.52")
            # The first ban makes the file, and the thread that writes it.
            await relay.ask("ban", room="*", target=_KEPT_BAN)
            async with watched(party) as scene:
                yield scene


async def disk_full(scene: Scene, dice: random.Random, cycle: int) -> Strike:
    """A part is killed and starts again while nothing can be written; newcomers are told, and leave no half files."""
    disk = scene.party.directory
    wrong = []
    fill(disk)
    try:
        wrong += await _newcomer(scene, dice)
        wrong += await _reload(scene)
        wrong += await _ban(scene, dice)
        key, unwritten = await _used_invite(scene)
        wrong += unwritten
        name = ("relay", "gateway", "client")[cycle % 3]
        program = scene.parts[name].program
        program.kill()
        await program.wait(5)
        over = time.monotonic()
        started = await scene.restart(name)
        if await scene.back(over) == float("inf"):
            wrong.append(f"{name} is not back while the disk is full")
        if (held := await _bans(scene.relay)) != [_KEPT_BAN]:
            wrong.append(f"the bans after that are {held}")
        if name == "relay":
            wrong += await _visit(scene, key, "hello.rejected", code="invite-used")
    finally:
        empty(disk)
    return Strike(over, start_s=started, wrong=wrong)


async def _newcomer(scene: Scene, dice: random.Random) -> list[str]:
    """A client without an identity cannot make one: it must say so, and leave nothing behind."""
    path = scene.party.directory / f"new-{dice.getrandbits(32):x}"
    path.mkdir()
    identity = path / "identity.json"
    former = scene.ann.program
    command = list(former.command)
    command[command.index("--identity") + 1] = str(identity)
    newcomer = Program(scene.ann.machine, "newcomer", command, former.environment)
    await newcomer.start()
    status = await newcomer.wait(90)
    said, wrong = "\n".join(newcomer.lines), []
    if status not in (1, 2) or "No space left" not in said or "hint:" not in said or "Traceback" in said:
        wrong.append(f"a newcomer ended with {status} and said:\n{said}")
    if left := sorted(file.name for file in path.iterdir() if file.name != "identity.json.lock"):
        wrong.append(f"a newcomer left {left}")
    for file in path.iterdir():
        file.unlink()
    path.rmdir()
    return wrong


async def _reload(scene: Scene) -> list[str]:
    """The certificate is rotated while the file for players cannot be written: it stays whole, and follows once there is room."""
    relay, disk, wrong = scene.relay, scene.party.directory, []
    before = relay.certificate.read_bytes()
    empty(disk)
    replace_certificate(relay)
    fill(disk)
    await _hang_up(relay, "certificate.loaded", "certificate.failed")
    if relay.certificate.read_bytes() != before:
        wrong.append("the file for players was damaged")
    empty(disk)
    await _hang_up(relay, "certificate.loaded")
    if relay.certificate.read_bytes() == before:
        wrong.append("the file for players did not follow")
    fill(disk)
    return wrong


async def _ban(scene: Scene, dice: random.Random) -> list[str]:
    """A ban that cannot be written holds and is told in the log, the file stays whole, and follows with the next change."""
    relay, disk, wrong = scene.relay, scene.party.directory, []
    state = _state_of(scene.party)
    files, file = sorted(state.iterdir()), state / "bans.json"
    before = file.read_bytes()
    target = f"198.51.100.{dice.randint(1, 254)}/32"
    since = relay.program.mark()
    await relay.ask("ban", room="*", target=target)
    await relay.program.event("state.failed", since=since)
    if target not in await _bans(relay):
        wrong.append("a ban that cannot be written does not hold")
    if file.read_bytes() != before or sorted(state.iterdir()) != files:
        wrong.append("the file of bans was damaged, or something left beside it")
    empty(disk)
    await relay.ask("ban", room="*", target="198.51.100.255/32")
    if any(banned.encode() not in file.read_bytes() for banned in (_KEPT_BAN, target, "198.51.100.255/32")):
        wrong.append("the file of bans did not follow")
    for banned in (target, "198.51.100.255/32"):
        await relay.ask("unban", room="*", target=banned)
    fill(disk)
    if file.read_bytes() != before:
        wrong.append("the file of bans still holds what was lifted")
    return wrong


async def _used_invite(scene: Scene) -> tuple[str, list[str]]:
    """An invite for one lets in one, also where that cannot be written down; it is, with the next that is used once there is room.

    Gives that next one, and what is wrong.
    """
    relay, disk = scene.relay, scene.party.directory
    file = _state_of(scene.party) / "used-invites.json"
    before = file.read_bytes() if file.exists() else b""
    first, second = [
        (await relay.ask("invite", room=ROOM, once=True, expires_s=_INVITED_S))["key"] for _ in range(2)
    ]
    since = relay.program.mark()
    wrong = await _visit(scene, first, "peer.joined")
    if not relay.program.found("state.failed", since):
        wrong.append("nobody was told that a used invite could not be written")
    wrong += await _visit(scene, first, "hello.rejected", code="invite-used")
    if (file.read_bytes() if file.exists() else b"") != before:
        wrong.append("the file of used invites was damaged")
    empty(disk)
    wrong += await _visit(scene, second, "peer.joined")
    used = len(json.loads(file.read_bytes())) if file.exists() else 0
    if used != (len(json.loads(before)) if before else 0) + 2:
        wrong.append(f"the file of used invites did not follow: it holds {used}")
    fill(disk)
    return second, wrong


async def _visit(scene: Scene, key: str, event: str, **fields: object) -> list[str]:
    """Have somebody new come with that key and go again; say so if the relay does not tell that event of it."""
    since = scene.relay.program.mark()
    where = f"{RELAY_ADDRESS}:{RELAY_PORT}", SERVER_NAME, str(scene.relay.certificate), ROOM, key
    visitor = Program(scene.ann.machine, "visitor", [sys.executable, "-c", _VISIT, *where])
    await visitor.start()
    await visitor.wait(90)
    if scene.relay.program.found(event, since, **fields):
        return []
    return [f"a visitor with an invite had no {event}:\n{visitor.tail(8)}\n{scene.relay.program.tail(8)}"]


async def _bans(relay: Relay) -> list[str]:
    return [ban["target"] for ban in (await relay.ask("bans"))["bans"]]


def _state_of(party: Party) -> Path:
    return party.directory / "relay-state"


async def _hang_up(relay: Relay, *events: str) -> None:
    since = relay.program.mark()
    relay.program.send_signal(signal.SIGHUP)
    for name in events:
        await relay.program.event(name, since=since)
