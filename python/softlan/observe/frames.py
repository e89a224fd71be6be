"""Frame logs: one line for what a relay, gateway or client did with one Ethernet frame.

The deciding and the sampling happen in `softlan._core`; records come in batches and only while somebody asked
for them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from typing import NoReturn, Protocol

from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.texts import several

__all__ = ["FrameLog", "FrameRecord", "ethertype_name", "follow_frame_log", "log_frame"]

_ETHERTYPES = {
    0x0800: "ipv4",
    0x0806: "arp",
    0x8035: "rarp",
    0x8100: "vlan",
    0x8137: "ipx",
    0x86DD: "ipv6",
    0x8863: "pppoe-discovery",
    0x8864: "pppoe",
    0x88A8: "qinq",
    0x88CC: "lldp",
}
"""Common names of the IEEE's EtherType registry."""

_FIRST_ETHERTYPE = 0x0600
"""Smaller values are lengths (IEEE 802.3, clause 3.2.6)."""


class FrameRecord(Protocol):
    """One frame and its fate, as `softlan._core.FrameRecord` has it.

    `action` is `unicast`, `broadcast`, `multicast`, `unknown`, `to-relay`, `to-port`, `answered` (a loopback message) or `drop`;
    `drop_reason` is the name of the counter that counted it, `length` the frame's bytes without FCS. Only a relay fills in
    `room` and `targets`. A frame too short for a header has no addresses and no EtherType.
    """

    @property
    def room(self) -> str: ...  # noqa: D102 - the class says it
    @property
    def peer(self) -> int | None: ...  # noqa: D102
    @property
    def source(self) -> str | None: ...  # noqa: D102
    @property
    def destination(self) -> str | None: ...  # noqa: D102
    @property
    def ethertype(self) -> int | None: ...  # noqa: D102
    @property
    def length(self) -> int: ...  # noqa: D102
    @property
    def action(self) -> str: ...  # noqa: D102
    @property
    def drop_reason(self) -> str | None: ...  # noqa: D102
    @property
    def targets(self) -> int: ...  # noqa: D102


class FrameLog(Protocol):
    """Where records come from, as `softlan._core.FrameLog` has it."""

    def next_batch(self) -> Awaitable[tuple[Sequence[FrameRecord], int]]:
        """Wait for records; give them and the number of those lost because nobody read."""


def ethertype_name(value: int) -> str:
    """Print an EtherType by its name where it is well known."""
    if value < _FIRST_ETHERTYPE:
        return "802.3"
    return _ETHERTYPES.get(value, f"0x{value:04x}")


async def follow_frame_log(
    logger: logging.Logger, frame_log: FrameLog, *, has_rooms: bool = False
) -> NoReturn:
    """Log every record of a frame log until cancelled; `has_rooms` is for a relay's."""
    while True:
        records, lost = await frame_log.next_batch()
        for record in records:
            log_frame(logger, record, has_rooms=has_rooms)
        if lost:
            log_event(
                logger,
                Event.FRAMES_UNLOGGED,
                f"{several(lost, 'frame')} came too fast to be logged",
                count=lost,
            )
        # Writing lines blocks; between two batches everybody else gets a turn.
        await asyncio.sleep(0)


def log_frame(logger: logging.Logger, record: FrameRecord, *, has_rooms: bool = False) -> None:
    """Log one frame; what a record does not have is left out of the line."""
    event = Event.FRAME_FORWARDED if record.drop_reason is None else Event.FRAME_DROPPED
    if not logger.isEnabledFor(event.level):
        return
    fields: dict[str, object] = {
        "room": record.room if has_rooms else None,
        "peer": record.peer,
        "src": record.source,
        "dst": record.destination,
        "ethertype": None if record.ethertype is None else f"0x{record.ethertype:04x}",
        "length": record.length,
        "action": record.action,
        "reason": record.drop_reason,
        "targets": record.targets if has_rooms else None,
    }
    present = {name: value for name, value in fields.items() if value is not None}
    log_event(logger, event, _sentence(record, has_rooms=has_rooms), **present)


def _sentence(record: FrameRecord, *, has_rooms: bool) -> str:
    kind = "frame" if record.ethertype is None else ethertype_name(record.ethertype)
    what = f"{kind} {record.source or '?'} -> {record.destination or '?'}"
    if record.drop_reason is not None:
        return f"{what} dropped: {record.drop_reason}"
    if not has_rooms:
        return f"{what} {record.action}"
    return f"{what} {record.action} to {several(record.targets, 'peer')}"
