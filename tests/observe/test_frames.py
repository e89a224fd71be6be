"""Frame logs."""

import asyncio
import contextlib
import logging
from dataclasses import dataclass, replace

import pytest

from softlan.observe.frames import ethertype_name, follow_frame_log, log_frame

logger = logging.getLogger("softlan.test.frames")


@dataclass(frozen=True)
class Record:
    room: str = "ROOM1"
    peer: int | None = 2
    source: str | None = "02:00:00:00:00:01"
    destination: str | None = "ff:ff:ff:ff:ff:ff"
    ethertype: int | None = 0x0806
    length: int = 42
    action: str = "broadcast"
    drop_reason: str | None = None
    targets: int = 3


def logged(caplog):
    return [(record.event.value, record.getMessage(), record.fields) for record in caplog.records]


@pytest.fixture(autouse=True)
def everything(caplog):
    caplog.set_level(logging.INFO, logger.name)


def test_a_relays_record(caplog):
    log_frame(logger, Record(), has_rooms=True)
    assert logged(caplog) == [
        (
            "frame.forwarded",
            "arp 02:00:00:00:00:01 -> ff:ff:ff:ff:ff:ff broadcast to 3 peers",
            {
                "room": "ROOM1",
                "peer": 2,
                "src": "02:00:00:00:00:01",
                "dst": "ff:ff:ff:ff:ff:ff",
                "ethertype": "0x0806",
                "length": 42,
                "action": "broadcast",
                "targets": 3,
            },
        )
    ]


def test_a_drop_says_why(caplog):
    log_frame(logger, replace(Record(), action="drop", drop_reason="dhcp-server", targets=0), has_rooms=True)
    ((event, message, fields),) = logged(caplog)
    assert event == "frame.dropped"
    assert message.endswith("dropped: dhcp-server")
    assert fields["reason"] == "dhcp-server"
    assert fields["targets"] == 0


def test_a_gateway_has_no_rooms_or_targets(caplog):
    log_frame(logger, replace(Record(), room="", peer=None, action="to-relay", targets=0))
    ((_, message, fields),) = logged(caplog)
    assert message.endswith("to-relay")
    assert not {"room", "targets", "peer"} & set(fields)


def test_a_frame_without_a_header_is_logged_too(caplog):
    record = replace(Record(), source=None, destination=None, ethertype=None, length=3, drop_reason="runt")
    log_frame(logger, record, has_rooms=True)
    ((_, message, fields),) = logged(caplog)
    assert message == "frame ? -> ? dropped: runt"
    assert not {"src", "dst", "ethertype"} & set(fields)


def test_ethertype_names():
    assert [ethertype_name(value) for value in (0x0800, 0x86DD, 0x05DC, 0x1234)] == [
        "ipv4",
        "ipv6",
        "802.3",
        "0x1234",
    ]


async def test_a_log_is_followed_and_losses_are_told(caplog):
    class Log:
        def __init__(self):
            self.batches = [([Record(), Record()], 0), ([Record()], 7)]
            self.read = asyncio.Event()

        async def next_batch(self):
            if not self.batches:
                self.read.set()
                await asyncio.Event().wait()
            return self.batches.pop(0)

    log = Log()
    task = asyncio.create_task(follow_frame_log(logger, log, has_rooms=True))
    await log.read.wait()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert [event for event, _, _ in logged(caplog)] == ["frame.forwarded"] * 3 + ["frame.unlogged"]
    assert caplog.records[-1].fields == {"count": 7}
