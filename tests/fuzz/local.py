"""The sockets of a part on its own machine, both ends: captures, the operator's orders, snapshots. Any program of the user may speak there.

The servers and the asking side run as they are, on a network in memory and on a clock that nobody waits for: where nothing can happen but
that time passes, it has passed. A request is answered or refused in words; no exception is left to asyncio, nothing waits for ever.
"""

from __future__ import annotations

import asyncio
import json
import selectors
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from inputs import ODD_JSON, Picks, built, json_object, refused_well, spoil

from softlan._core import MAX_FRAME_LEN, FrameLog, Mac
from softlan.control.fields import Role
from softlan.errors import SoftlanError
from softlan.observe import capture
from softlan.observe.local import StatusServer, fault_in, read_snapshot
from softlan.observe.pcapng import Pcapng
from softlan.relay.admin import MAX_REQUEST, AdminServer, Desk
from softlan.relay.admin_cli import _until, read_answer
from softlan.relay.bans import Kicks
from softlan.relay.rules import OPEN_RULES
from softlan.relay.state import RelayState

__all__ = ["CASES", "check"]


@dataclass(frozen=True)
class Case:
    """What one end says: a request or an answer, then `records`, in pieces as long as `cuts`; whether it hangs up then."""

    kind: str
    said: bytes
    records: bytes = b""
    cuts: tuple[int, ...] = ()
    hangs_up: bool = False


# Inputs ---------------------------------------------------------------------------------------------------------------

_CAPTURE = {
    "room": ["null", '"HERE"', '"ELSEWHERE"', '"\\u001b"'],
    "drops_only": ["false", "true"],
    "snaplen": ["64", "1", str(MAX_FRAME_LEN), str(MAX_FRAME_LEN + 1)],
}
_ROOMS, _TARGETS = (
    ['"HERE"', '"*"', '"here"', '"E E"'],
    ['"02:00:5e:10:00:01"', '"192.0.2.7"', '"2001:db8::/32"', '"ann"'],
)
_ORDERS = {
    "kick": {"room": _ROOMS, "peer": ['"7"', '"02-00-5E-10-00-01"', '"8"']},
    "ban": {"room": _ROOMS, "target": _TARGETS, "for_s": ["null", "3600", "0.5", "1e17", "1e308", "0"]},
    "unban": {"room": _ROOMS, "target": _TARGETS},
    "bans": {},
    "peers": {"room": ["null", *_ROOMS]},
    "invite": {
        "room": _ROOMS,
        "gateway": ["true", "false"],
        "expires_s": ["86400", "1", "1e9"],
        "once": ["true", "false"],
    },
}
_SNAPSHOT = {
    "part": ['"relay"', '"client"'],
    "pid": ["7", "-1", "9" * 30],
    "version": ['"0.1"'],
    "uptime_s": ["1.5", "1e308"],
    "status": [
        '{"rooms":[]}',
        '{"error":"no \\u001b"}',
        f'{{"error":"{"x" * 3000}"}}',
        '{"error":null}',
        '{"error":[7]}',
        "{}",
    ],
    "tasks": ["1", "-1"],
}
_TOLD = {
    "done": ['{"bans":[]}', "{}", '{"key":"x"}', "[]"],
    "error": ["null", '"no \\u001b"', f'"{"x" * 3000}"', "7"],
    "hint": ["null", '"\\u009b"', f'"{"y" * 3000}"'],
}
_ANSWER = {"error": ["null", '"4 captures run already"', '"\\u001b"', f'"{"x" * 3000}"']}


def _finished(picks: Picks, text: str, most: int) -> bytes:
    """A line, as it is or spoilt; mostly with its end, and now and then too long."""
    data = text.encode("utf-8", "replace")
    if picks.number(4) == 3:
        data = spoil(data, bytes(picks.number(256) for _ in range(1 + picks.number(12))))
    if picks.number(32) == 31:
        data = (
            data[:-1]
            + b" " * picks.of([most - len(data), most + 1 - len(data), 1 << 16, 1 << 17])
            + data[-1:]
        )
    return data + picks.mostly([b"\n"], [b"", b"\r\n", b"\n\n", b"\nx"])


def _record(picks: Picks) -> bytes:
    room = picks.mostly([b"HERE", b""], [b"\xff", b"x" * 255, "é".encode()])
    word = picks.mostly([b"unicast", b"malformed"], [b"\xff", b"w" * 255])
    data = bytes(picks.of([60, 0, 14, 255, MAX_FRAME_LEN]))
    size = 24 + len(room) + len(word) + len(data) + picks.mostly([0], [1, -1, 1 << 20])
    numbers = (
        picks.of([len(data), 0, 2**32 - 1]),
        picks.of([5, 0, 2**64 - 1]),
        picks.of([3, 0, 65535]),
        picks.number(256),
    )
    return (
        struct.pack("<IIQHHBBBx", size, *numbers, picks.number(4), len(room), len(word)) + room + word + data
    )


def _cuts(picks: Picks) -> tuple[int, ...]:
    return tuple(picks.of([1, 7, 23, 24, 25, 200, 4096]) for _ in range(picks.number(8)))


def _capture(picks: Picks) -> Case:
    said = _finished(picks, json_object(picks, _CAPTURE), 4096)
    records = b"".join(_record(picks) for _ in range(picks.number(4)))
    return Case("capture", said, records, _cuts(picks), picks.number(4) == 3)


def _captured(picks: Picks) -> Case:
    said = _finished(
        picks, picks.mostly(["{}", '{"error":null}', json_object(picks, _ANSWER)], ODD_JSON), 4096
    )
    records = b"".join(_record(picks) for _ in range(picks.number(4)))
    if picks.number(4) == 3:
        records = spoil(records, bytes(picks.number(256) for _ in range(1 + picks.number(12))))
    return Case("captured", said, records, _cuts(picks))


def _order(picks: Picks) -> Case:
    name = picks.of(list(_ORDERS))
    fields = {"ask": [f'"{name}"'], **_ORDERS[name]}
    # All that has no default, so that most of it can be done.
    always = [
        field
        for field in ("ask", "room", "peer", "target")
        if field in fields and (name, field) != ("peers", "room")
    ]
    return Case(
        "order",
        _finished(picks, json_object(picks, fields, always), MAX_REQUEST),
        hangs_up=picks.number(4) == 3,
    )


def _told(picks: Picks) -> Case:
    return Case("told", _finished(picks, picks.mostly([json_object(picks, _TOLD)], ODD_JSON), 4096))


def _snapshot(picks: Picks) -> Case:
    return Case("snapshot", _finished(picks, json_object(picks, _SNAPSHOT, list(_SNAPSHOT)), 4096))


def _status(picks: Picks) -> Case:
    return Case(
        "status",
        picks.mostly([json_object(picks, _SNAPSHOT), json_object(picks, _TOLD)], ODD_JSON).encode(
            "utf-8", "replace"
        ),
    )


CASES = built(lambda picks: picks.of([_capture, _captured, _order, _told, _snapshot, _status])(picks))


# A network and a clock in memory --------------------------------------------------------------------------------------


class _Selector(selectors.SelectSelector):
    """Never waits: time passes instead."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        found = super().select(0)
        if not found:
            assert timeout is not None, "everybody waits, for nothing that will come"
            self.now += max(timeout, 0)
        return found


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._passing = _Selector()
        super().__init__(self._passing)

    def time(self) -> float:
        return self._passing.now


class _Wire(asyncio.Transport):
    """What a writer writes to: keeps it, and hangs up as a socket does."""

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.StreamReaderProtocol) -> None:
        super().__init__()
        self.written = bytearray()
        self._loop, self._protocol, self._closed = loop, protocol, False

    def write(self, data: Any) -> None:
        assert not self._closed, "written after the end"
        self.written += data

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.call_soon(self._protocol.connection_lost, None)

    abort = close


_LOOP = _Loop()
_FAULTS: list[str] = []
_LOOP.set_exception_handler(lambda _, context: _FAULTS.append(repr(context)))


def _played(work: Awaitable[Any]) -> Any:
    """Run it to its end; nothing stays, and nothing goes wrong behind its back."""
    _FAULTS.clear()
    asyncio.set_event_loop(_LOOP)

    async def play() -> Any:
        done = await work
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"still at work: {left}"
        return done

    try:
        done = _LOOP.run_until_complete(play())
    finally:
        asyncio.set_event_loop(None)
    assert not _FAULTS, _FAULTS
    return done


def _ends(limit: int = 1 << 16) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, _Wire]:
    reader = asyncio.StreamReader(limit=limit, loop=_LOOP)
    protocol = asyncio.StreamReaderProtocol(reader, loop=_LOOP)
    wire = _Wire(_LOOP, protocol)
    protocol.connection_made(wire)
    return reader, asyncio.StreamWriter(wire, protocol, reader, _LOOP), wire


async def _served(answer: Callable[..., Awaitable[None]], case: Case, limit: int = 1 << 16) -> bytes:
    """Have a server answer what somebody says; gives what it answers."""
    reader, writer, wire = _ends(limit)
    reader.feed_data(case.said)
    if case.hangs_up:
        reader.feed_eof()
    await answer(reader, writer)
    assert wire.is_closing(), "neither end has hung up"
    return bytes(wire.written)


def _pieces(data: bytes, cuts: tuple[int, ...]) -> list[bytes]:
    found, at = [], 0
    for cut in cuts:
        found.append(data[at : at + cut])
        at += cut
    return [piece for piece in (*found, data[at:]) if piece]


# Checks ---------------------------------------------------------------------------------------------------------------


def check(case: Case) -> None:
    """What one end says is answered, or refused in words."""
    _CHECKS[case.kind](case)


class _Source:
    """Gives its batches, and then the end."""

    def __init__(self, batches: list[bytes]) -> None:
        self.left, self.ended = batches, False

    async def next_batch(self) -> bytes:
        return self.left.pop(0) if self.left else b""

    def close(self) -> None:
        self.ended = True


def _words(error: object) -> None:
    assert isinstance(error, str)
    assert error
    refused_well(SoftlanError(error))


def _read(text: bytes) -> Any:
    """A second reading, of what was read already: fields that nobody knows may hold anything."""
    return json.loads(text.decode("utf-8", "replace"), parse_int=lambda digits: int(digits[:4000]))


def _check_capture(case: Case) -> None:
    sources: list[_Source] = []

    def start(request: capture.Request) -> _Source:
        capture.start_capture(FrameLog(), request, only_room="HERE").close()
        assert 1 <= request.snaplen <= MAX_FRAME_LEN
        sources.append(_Source(_pieces(case.records, case.cuts)))
        return sources[0]

    written = _played(_served(capture.CaptureServer("client", start).answer, case))
    line, whole, _ = case.said.partition(b"\n")
    if not whole or len(line) > 1 << 16:
        assert written == b"", "that was no request"
        return
    told, _, records = written.partition(b"\n")
    error = json.loads(told)["error"]
    if error is not None:
        _words(error)
        assert not sources
        assert line not in (b"{}", b'{"room":"HERE"}'), "nothing is wrong with that"
        return
    asked = _read(line)
    assert asked.get("room") in (None, "HERE")
    assert case.records.startswith(records)
    assert records == case.records or case.hangs_up or case.said.partition(b"\n")[2]
    assert sources[0].ended


def _check_captured(case: Case) -> None:
    async def asked() -> list[Any]:
        reader, writer, wire = _ends()

        async def speak() -> None:
            for piece in _pieces(case.said + case.records, case.cuts):
                if wire.is_closing():
                    return
                reader.feed_data(piece)
                await asyncio.sleep(0)
            reader.feed_eof()

        async def connect(_: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return reader, writer

        speaking = asyncio.ensure_future(speak())
        try:
            with mock.patch.object(asyncio, "open_unix_connection", connect):
                return [one async for batch in _ask() for one in batch]
        finally:
            await speaking
            assert wire.is_closing()

    try:
        found = _played(asked())
    except SoftlanError as error:
        said = refused_well(error)
        assert "it does not let us" in said or "at.capture" in said
        return
    told, _, records = (case.said + case.records).partition(b"\n")
    assert _read(told).get("error") is None
    whole, _ = capture.read_records(records)
    assert found == whole, "in pieces it is something else"
    file = Pcapng("softlan")
    for record in found:
        if isinstance(record, capture.Captured):
            _check_packet(capture.write_pcapng(file, "relay", 64, record), record)


def _ask() -> AsyncIterator[list[capture.Captured | capture.Lost]]:
    return capture.ask(Path("at.capture"), capture.Request())


def _check_packet(blocks: bytes, frame: capture.Captured) -> None:
    """The last block is the packet (draft-ietf-opsawg-pcapng section 4.3), and each is as long as it says at both ends."""
    at = 0
    while at < len(blocks):
        start, (kind, length) = at, struct.unpack_from("<II", blocks, at)
        assert length % 4 == 0
        assert struct.unpack_from("<I", blocks, at + length - 4) == (length,)
        at += length
    assert (kind, at) == (6, len(blocks))
    _, high, low, kept, whole = struct.unpack_from("<5I", blocks, start + 8)
    assert ((high << 32) + low, kept, whole) == (frame.time_ns, len(frame.data), frame.length)
    assert blocks[start + 28 :].startswith(frame.data)
    assert capture.verdict(frame).encode() in blocks[start:]


_MEMBER: Any = SimpleNamespace(peer_id=7, role=Role.CLIENT, mac=Mac("02:00:5e:10:00:01"), room="HERE")


def _check_order(case: Case) -> None:
    state, gone = RelayState(), []
    relay: Any = SimpleNamespace(
        gate=SimpleNamespace(state=state, kicks=Kicks(), rules=OPEN_RULES),
        peers=lambda: [(_MEMBER, "192.0.2.7:40000", "192.0.2.7:40000")],
        snapshot=lambda: {"rooms": [{"code": "HERE", "peers": []}]},
        send_away=lambda *words: gone.append(words),
    )
    pins: Any = SimpleNamespace(all=["A" * 43])
    server = AdminServer(Desk(relay, pins))
    written = _played(_served(server._answer, case, MAX_REQUEST))
    state.close()
    line, whole, _ = case.said.partition(b"\n")
    if not whole or len(line) > MAX_REQUEST:
        assert written == b"", "that was no request"
        return
    try:
        done = read_answer(written)
    except SoftlanError as error:
        said = refused_well(error)
        assert "a fault in the relay" not in said
        assert json.loads(written)["error"] == said
        assert not gone
        assert line not in (b'{"ask":"bans"}', b'{"ask":"peers"}'), "nothing is wrong with that"
        return
    asked = _read(line)
    assert asked["ask"] in _ORDERS
    assert len(gone) == len(done.get("disconnected", [])) + ("kicked" in done)
    for moment in (done.get("expires"), (done.get("banned") or {}).get("until")):
        assert _until(moment).isprintable()


def _check_told(case: Case) -> None:
    try:
        done = read_answer(case.said)
    except SoftlanError as error:
        refused_well(error)
        return
    except (ValueError, RecursionError):
        return
    assert _read(case.said)["done"] == done


def _check_snapshot(case: Case) -> None:
    answer = read_snapshot(case.said)
    if answer is None:
        return
    assert answer.status == _read(case.said)["status"]
    fault = fault_in(answer.status)
    if fault is not None:
        _words(fault)


def _check_status(case: Case) -> None:
    """Whatever a snapshot holds is printed in a way that reads the same; what cannot be printed is told as a fault."""
    try:
        status = json.loads(case.said)
        plain = json.dumps(status, allow_nan=False, ensure_ascii=False)
    except (ValueError, RecursionError):
        return
    if not isinstance(status, dict):
        return

    async def encode() -> bytes:
        return StatusServer("relay", lambda: status)._encode()

    answer = read_snapshot(_played(encode()))
    assert answer is not None
    try:
        plain.encode()
    except UnicodeEncodeError:
        assert fault_in(answer.status), "half a character cannot be printed"
    else:
        assert answer.status == status


_CHECKS: dict[str, Callable[[Case], None]] = {
    "capture": _check_capture,
    "captured": _check_captured,
    "order": _check_order,
    "told": _check_told,
    "snapshot": _check_snapshot,
    "status": _check_status,
}
