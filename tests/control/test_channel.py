"""A control channel over a real connection: what a peer's way of sending costs its reader."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from ends import two_ends

from softlan._core import Connection
from softlan.control.channel import ControlChannel
from softlan.control.stream import MAX_BODY, encode_frame
from softlan.errors import RemoteProtocolError


class Counting:
    """A connection that counts how often it is read."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.reads = 0

    async def read_control(self, limit: int, **wanted: int) -> bytes:
        self.reads += 1
        return await self._connection.read_control(limit, **wanted)


@contextlib.asynccontextmanager
async def channel_between() -> AsyncIterator[tuple[Connection, ControlChannel, Counting]]:
    """The end that sends, and the channel over the other one."""
    async with two_ends() as (near, far):
        await near.open_control()
        await near.write_control(encode_frame(b"{}"))
        await far.accept_control()
        counting = Counting(far)
        channel = ControlChannel(counting)  # type: ignore[arg-type]
        assert await channel.receive() == b"{}"
        yield near, channel, counting


async def test_a_message_that_drips_in_is_read_as_one() -> None:
    body = b"x" * 2000
    async with channel_between() as (near, channel, counting):
        counting.reads = 0
        received = asyncio.create_task(channel.receive())
        for byte in encode_frame(body):
            await near.write_control(bytes([byte]))
        assert await asyncio.wait_for(received, 10) == body
        # One for the length, one for what that says.
        assert counting.reads <= 2


async def test_the_longest_message_is_read_in_a_few_pieces() -> None:
    body = b"x" * MAX_BODY
    async with channel_between() as (near, channel, counting):
        counting.reads = 0
        received = asyncio.create_task(channel.receive())
        await near.write_control(encode_frame(body) + encode_frame(b"{}"))
        assert await asyncio.wait_for(received, 10) == body
        assert await asyncio.wait_for(channel.receive(), 10) == b"{}"
        assert counting.reads <= 8


async def test_nothing_is_lost_when_a_wait_is_given_up() -> None:
    async with channel_between() as (near, channel, _):
        frame = encode_frame(b'{"type": "bye"}')
        await near.write_control(frame[:9])
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(channel.receive(), 0.1)
        await near.write_control(frame[9:])
        assert await asyncio.wait_for(channel.receive(), 10) == frame[4:]


async def test_an_end_inside_a_message_is_told() -> None:
    async with channel_between() as (near, channel, _):
        await near.write_control(encode_frame(b"x" * 100)[:50])
        await near.finish_control(timeout=0.1)
        with pytest.raises(RemoteProtocolError, match="inside a message"):
            await asyncio.wait_for(channel.receive(), 10)
