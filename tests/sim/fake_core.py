"""A stand-in for what `softlan._core` offers sessions and relays, on virtual lines: connections, and rooms without frames.

It keeps to what the core, RFC 9000 and RFC 9002 do as far as the control plane can tell: a handshake of one round trip; one reliable,
ordered control stream whose lost packets are sent again after ever longer probe timeouts; keep-alives by the joining side; the idle
timeout; a close that is sent once, and again to whoever still sends within three probe timeouts; stateless resets by a relay that has its
key again; a joining side that goes on from another address. There is no congestion, no flow control, no Retry, and no frames.
"""

# ruff: noqa: ASYNC109 -- the core's own parameters.

from __future__ import annotations

import asyncio
import hashlib
import itertools
from collections import deque
from collections.abc import Callable
from typing import Any

from lines import DOWN, UP, Line
from virtual_clock import VirtualLoop, owner

from softlan._core import CoreError

__all__ = ["Connection", "Endpoint", "Machine", "Network", "Room", "TransportSettings"]

_GRANULARITY_S = 0.001
_ACK_DELAY_S = 0.025
_FIRST_RTT_S = 0.1
"""rust/link/src/transport.rs, INITIAL_RTT."""

_DRAIN_LIMIT_S = 3.0
"""rust/link/src/engine/driver.rs, DRAIN_LIMIT."""

_PACKET_THRESHOLD = 3
"""RFC 9002 section 6.1.1."""

_MTU_QUIET_S = 0.06
"""rust/link/src/connection.rs, MTU_QUIET."""

_PACKET_COST = 38
"""What QUIC adds to a datagram, in bytes."""

CLIENT_HELLO, SERVER_HELLO, FINISHED, OPEN, END = "client-hello", "server-hello", "finished", "open", "end"
"""What travels reliably besides the control stream's bytes."""


class TransportSettings:
    """As the core's, but that what was set can be read."""

    def __init__(self, *, idle_timeout: float = 2.5, keep_alive: float | None = None, **_others: Any) -> None:
        self.idle_timeout = idle_timeout
        self.keep_alive = keep_alive


class Machine:
    """Where programs run: an address that may change, and a line."""

    def __init__(self, network: Network, host: str, line: Line) -> None:
        self.network = network
        self.host = host
        self.line = line
        self._ports = itertools.count(40001)

    def address(self, port: int) -> str:
        """Give `IP:PORT`; a port of its own for 0."""
        return f"{self.host}:{port or next(self._ports)}"

    def move(self, host: str) -> None:
        """Have another address from now on; what is sent to the former one is lost."""
        self.host = host
        for endpoint in [one for one in self.network.endpoints.values() if one.machine is self]:
            endpoint.rebind(self.address(0))


class Packet:
    """One packet. `items` begin with number `first`; `have` says how many the sender has received in order, `acks` which packets."""

    __slots__ = ("acks", "close", "eliciting", "family", "first", "have", "items", "key", "number", "reset")

    def __init__(
        self,
        key: int,
        *,
        number: int = -1,
        first: int = 0,
        items: tuple[Any, ...] = (),
        have: int = 0,
        acks: tuple[int, ...] = (),
        eliciting: bool = False,
        close: CloseReason | None = None,
        reset: bool = False,
        family: bytes | None = None,
    ) -> None:
        self.key = key
        self.number = number
        self.first = first
        self.items = items
        self.have = have
        self.acks = acks
        self.eliciting = eliciting
        self.close = close
        self.reset = reset
        self.family = family


class Network:
    """Everything between machines."""

    def __init__(self, loop: VirtualLoop) -> None:
        self.loop = loop
        self.endpoints: dict[str, Endpoint] = {}
        self.resets = True
        """Whether relays that were restarted say that they do not know a connection."""
        self.packets = 0
        self.lost = 0
        self.lacks: set[str] = set()
        self._keys = itertools.count(1)
        self._ids = itertools.count(1)

    def missing(self, name: str) -> None:
        """Be told of something that this stand-in lacks."""
        self.lacks.add(name)

    def next_key(self) -> int:
        """A number for a connection that both ends know it by."""
        return next(self._keys)

    def next_id(self) -> int:
        """`Connection.id`."""
        return next(self._ids)

    def send(self, sender: Endpoint, to: str, packet: Packet) -> None:
        """Put a packet on its way."""
        receiver = self.endpoints.get(to)
        self.packets += 1
        now = self.loop.time()
        if not sender.machine.line.passes(UP, now):
            self.lost += 1
            return
        if receiver is None:
            return
        line = receiver.machine.line
        if not line.passes(DOWN, now):
            self.lost += 1
            return
        for _ in range(2 if line.doubles() else 1):
            due = now + sender.machine.line.takes() + line.takes()
            self.loop.call_at(due, self._arrive, sender.local_address, to, packet)

    def _arrive(self, sender: str, to: str, packet: Packet) -> None:
        receiver = self.endpoints.get(to)
        if receiver is not None:
            receiver.take(sender, packet)


class Endpoint:
    """A socket."""

    def __init__(self, machine: Machine, port: int, transport: TransportSettings, key: bytes | None) -> None:
        self.machine = machine
        self.network = machine.network
        self.transport = transport
        self.key = key
        self.local_address = machine.address(port)
        self.plain_because: str | None = None
        self.links: dict[int, Connection] = {}
        self._accepted: deque[Connection] = deque()
        self._stopped = False
        self._changed: list[asyncio.Future[None]] = []
        if self.local_address in self.network.endpoints:
            raise CoreError("io", "Address already in use")
        self.network.endpoints[self.local_address] = self

    @staticmethod
    def server(
        listen: str, _chain: list[bytes], private_key: bytes, transport: TransportSettings
    ) -> Endpoint:
        """Listen."""
        program = owner.get()
        assert program is not None
        return Endpoint(program.machine, int(listen.rpartition(":")[2]), transport, private_key)

    @staticmethod
    def client(_local: str, transport: TransportSettings) -> Endpoint:
        """Bind to any port."""
        program = owner.get()
        assert program is not None
        return Endpoint(program.machine, 0, transport, None)

    def rebind(self, address: str) -> None:
        """Send from another address from now on."""
        del self.network.endpoints[self.local_address]
        self.local_address = address
        self.network.endpoints[address] = self

    def __getattr__(self, name: str) -> Any:
        """See `Connection`."""
        self.network.missing(f"Endpoint.{name}")
        raise AttributeError(name)

    def handshakes(self) -> dict[str, int]:
        """Nothing is counted."""
        return {}

    def replace_certificate(self, _chain: list[bytes], _private_key: bytes) -> None:
        """Certificates are not looked at."""

    async def answers(self, *, timeout: float) -> bool:
        """The data plane is always well."""
        del timeout
        return not self._stopped

    async def accept(self) -> Connection | None:
        """As the core's."""
        while not self._accepted:
            if self._stopped:
                return None
            await self._change()
        return self._accepted.popleft()

    async def connect(
        self, address: str, _name: str, _roots: list[bytes], *, pins: list[bytes] = (), timeout: float
    ) -> Connection:
        """As the core's; certificates are not looked at."""
        del pins
        if self._stopped:
            raise CoreError("closed", "the endpoint has stopped")
        link = Connection(self, self.network.next_key(), address, is_client=True)
        link.queue(CLIENT_HELLO)
        try:
            async with asyncio.timeout(timeout):
                await link.wait_for(lambda: link.how_ended or (link.connected or None))
        except TimeoutError:
            link.close(0, "")
            raise CoreError("timed-out", "no answer within the time limit") from None
        except BaseException:
            link.close(0, "")
            raise
        if link.how_ended is not None:
            kind = "timed-out" if link.how_ended.kind == "timed-out" else "closed"
            raise CoreError(kind, f"the connection is closed: {link.how_ended.kind}")
        return link

    async def close(self, code: int, reason: str, *, timeout: float = 0.5) -> None:
        """As the core's."""
        for link in list(self.links.values()):
            link.close(code, reason)
        try:
            async with asyncio.timeout(timeout):
                while self.links and not self._stopped:
                    await self._change()
        except TimeoutError:
            pass

    def stop(self) -> None:
        """As the core's; also what becomes of it when its program is killed: nothing is sent."""
        if self._stopped:
            return
        self._stopped = True
        del self.network.endpoints[self.local_address]
        for link in list(self.links.values()):
            link.end(CloseReason("local"))
        self.links.clear()
        self._wake()

    @property
    def open_links(self) -> list[Connection]:
        """Connections that have not ended; for checks."""
        return [link for link in self.links.values() if link.how_ended is None]

    def forget(self, link: Connection) -> None:
        """Let go of a connection that is over."""
        if self.links.pop(link.key, None) is not None and not self.links:
            self._wake()

    def accepted(self, link: Connection) -> None:
        """Hand out a connection whose handshake is done."""
        self._accepted.append(link)
        self._wake()

    def take(self, sender: str, packet: Packet) -> None:
        """Give a packet to its connection, or meet a stranger."""
        link = self.links.get(packet.key)
        if link is not None:
            link.take(sender, packet)
        elif self.key is None or packet.close is not None:
            return
        elif packet.first == 0 and packet.items and packet.items[0] is CLIENT_HELLO:
            Connection(self, packet.key, sender, is_client=False).take(sender, packet)
        elif packet.family == self.key and self.network.resets:
            self.network.send(self, sender, Packet(packet.key, reset=True))

    async def _change(self) -> None:
        waiter: asyncio.Future[None] = self.network.loop.create_future()
        self._changed.append(waiter)
        await waiter

    def _wake(self) -> None:
        waiters, self._changed = self._changed, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class CloseReason:
    """As the core's."""

    __slots__ = ("code", "kind", "reason")

    def __init__(self, kind: str, code: int | None = None, reason: str = "") -> None:
        self.kind = kind
        self.code = code
        self.reason = reason


class Connection:
    """One end of a connection."""

    def __init__(self, endpoint: Endpoint, key: int, remote: str, *, is_client: bool) -> None:
        self.endpoint = endpoint
        self.network = endpoint.network
        self.loop = endpoint.network.loop
        self.key = key
        self.id = self.network.next_id()
        self.remote_address = self.proven_address = remote
        self.is_client = is_client
        self.connected = False
        self.how_ended: CloseReason | None = None
        self.rtt = _FIRST_RTT_S
        self.family = None if is_client else endpoint.key
        self._closing: CloseReason | None = None
        self._waiters: list[asyncio.Future[None]] = []
        # What is sent reliably: all items, how many were sent, how many have arrived.
        self._out: list[Any] = []
        self._sent = 0
        self._arrived = 0
        # What is received: items ahead of their turn, and how many came in turn.
        self._ahead: dict[int, Any] = {}
        self._have = 0
        self._stream = bytearray()
        self._has_control = False
        self._offered_control = False
        self._stream_over = False
        # Packets: by number, when sent and whether with items.
        self._number = 0
        self._waiting: dict[int, tuple[float, bool]] = {}
        self._largest_acked = -1
        self._largest_taken = -1
        self._taken: deque[int] = deque(maxlen=12)
        self._rtt_var: float | None = None
        self._probes = 0
        now = self.loop.time()
        self.last_taken = now
        self._heard = 0
        self._ears = 0
        self._last_sent = now
        self._may_reset_idle = True
        self._idle_at = now + self._idle
        self._keep_alive_at: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        endpoint.links[key] = self
        self._arm()

    def __getattr__(self, name: str) -> Any:
        """Find fault with what the core has and this has not: a task that fails by it may be taken for a connection that failed."""
        self.network.missing(f"Connection.{name}")
        raise AttributeError(name)

    # What the control plane asks ---------------------------------------------------------------------------------------

    @property
    def ended(self) -> bool:
        """Whether it is over."""
        return self.how_ended is not None

    @property
    def max_datagram_size(self) -> int | None:
        """By what the joining side's path carries now."""
        return self.endpoint.machine.line.mtu - _PACKET_COST

    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """The same at both ends."""
        return hashlib.shake_128(b"%d %b %b" % (self.key, label, context)).digest(length)

    async def settled_datagram_budget(self, *, timeout: float) -> int:
        """As the core's: sooner on a path that carries all that is looked for."""
        is_full = self.endpoint.machine.line.mtu >= 1472
        pause = min(timeout, 2 * self.rtt if is_full else _MTU_QUIET_S + 3 * self.rtt)
        try:
            async with asyncio.timeout(pause):
                await self.wait_for(lambda: self.how_ended)
        except TimeoutError:
            return self.max_datagram_size or 0
        raise self._closed_error()

    async def silence(self, limit: float) -> None:
        """As the core's, which looks five times within the limit."""
        step = limit / 5
        begun = self.loop.time()
        since = begun
        while not self.ended:
            left = since + limit - self.loop.time()
            if left <= 0:
                return
            try:
                async with asyncio.timeout(left):
                    await self.wait_for(lambda: self.how_ended)
            except TimeoutError:
                if self.last_taken > since:
                    # Noticed by the first look after it.
                    looks = -(-(self.last_taken - begun) // step)
                    since = max(since + step, begun + looks * step)
                else:
                    return

    async def heard(self, *, timeout: float) -> bool:
        """As the core's."""
        before = self._heard
        if not self.ended:
            self._send(self._sent, eliciting=True)
        self._ears += 1
        try:
            async with asyncio.timeout(timeout):
                await self.wait_for(lambda: self._heard != before or self.how_ended)
        except TimeoutError:
            return False
        finally:
            self._ears -= 1
        return self._heard != before

    async def open_control(self) -> None:
        """As the core's."""
        if self.ended:
            raise self._closed_error()
        self._has_control = True
        self.queue(OPEN)

    async def accept_control(self) -> None:
        """As the core's."""
        await self.wait_for(lambda: self._offered_control or self.how_ended)
        if not self._offered_control:
            raise self._closed_error()
        self._has_control = True

    async def read_control(self, limit: int, *, least: int = 1) -> bytes:
        """As the core's."""
        if not self._has_control:
            raise CoreError("closed", "the control stream is not open")
        await self.wait_for(lambda: len(self._stream) >= least or self._stream_over or self.how_ended)
        if len(self._stream) < least and not self._stream_over:
            raise self._closed_error()
        data = bytes(self._stream[:limit])
        del self._stream[:limit]
        return data

    async def write_control(self, data: bytes) -> None:
        """As the core's, with all the room there may be."""
        if not self._has_control or self.ended:
            raise self._closed_error()
        self.queue(data)

    async def finish_control(self, *, timeout: float = 0.5) -> None:
        """As the core's."""
        if not self._has_control or self.ended:
            return
        self.queue(END)
        try:
            async with asyncio.timeout(timeout):
                await self.wait_for(lambda: self.how_ended or self._arrived == len(self._out) or None)
        except TimeoutError:
            pass

    def close(self, code: int, reason: str) -> None:
        """As the core's: it is over here at once, and the other end may hear of it."""
        if self.ended:
            return
        # RFC 9000 section 10.2.3: before the handshake is done the application's code stays at home.
        is_told = self.connected or not self.is_client
        self._closing = CloseReason("peer", code, reason) if is_told else CloseReason("transport")
        self.end(CloseReason("local"))

    async def closed(self) -> CloseReason:
        """As the core's."""
        await self.wait_for(lambda: self.how_ended)
        assert self.how_ended is not None
        return self.how_ended

    async def wait_for(self, look: Callable[[], Any]) -> None:
        """Wait until `look` finds something."""
        while not look():
            waiter: asyncio.Future[None] = self.loop.create_future()
            self._waiters.append(waiter)
            await waiter

    def _closed_error(self) -> CoreError:
        how = "not open" if self.how_ended is None else self.how_ended.kind
        return CoreError("closed", f"the connection is closed: {how}")

    # What QUIC does ----------------------------------------------------------------------------------------------------

    @property
    def _pto(self) -> float:
        """RFC 9002 section 6.2.1."""
        if self._rtt_var is None:
            return 3 * _FIRST_RTT_S
        return self.rtt + max(4 * self._rtt_var, _GRANULARITY_S) + _ACK_DELAY_S

    @property
    def _idle(self) -> float:
        """RFC 9000 section 10.1."""
        return max(self.endpoint.transport.idle_timeout, 3 * self._pto)

    def end(self, how: CloseReason) -> None:
        """Be over; a close of our own is told."""
        self.how_ended = how
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._closing is not None:
            self._tell_close()
        if how.kind in {"local", "peer"}:
            pause = min(3 * self._pto, _DRAIN_LIMIT_S)
            self.loop.call_later(pause, self.endpoint.forget, self)
        else:
            self.endpoint.forget(self)
        self._wake()

    def queue(self, item: Any) -> None:
        """Send something reliably."""
        self._out.append(item)
        self._send(self._sent, eliciting=True)

    def take(self, sender: str, packet: Packet) -> None:
        """Take a packet in."""
        if self.ended:
            # RFC 9000 section 10.2.1: whoever still sends has not heard.
            if self._closing is not None and packet.close is None and not packet.reset:
                self._tell_close()
            return
        if packet.close is not None:
            self.end(packet.close)
            return
        if packet.reset:
            if self.connected:
                self.end(CloseReason("reset"))
            return
        if packet.number in self._taken:
            return
        self._taken.append(packet.number)
        if packet.number > self._largest_taken:
            self._largest_taken = packet.number
            if not self.is_client:
                self.remote_address = sender
        now = self.loop.time()
        self.last_taken = now
        self._heard += 1
        if self._ears:
            self._wake()
        self._idle_at = now + self._idle
        self._may_reset_idle = True
        if self.endpoint.transport.keep_alive is not None and self.connected:
            self._keep_alive_at = now + self.endpoint.transport.keep_alive
        if packet.family is not None:
            self.family = packet.family
        if packet.acks:
            self._take_acks(packet, now)
        before = len(self._out)
        if packet.items:
            self._take_items(packet)
        if self.ended:
            return
        # What was just queued has carried the acknowledgement already.
        if packet.eliciting and len(self._out) == before:
            self._send(self._sent, eliciting=False)
        self._arm()

    def _take_acks(self, packet: Packet, now: float) -> None:
        waiting = self._waiting
        largest = packet.acks[-1] if len(packet.acks) == 1 else max(packet.acks)
        if largest > self._largest_acked:
            self._largest_acked = largest
            if largest in waiting:
                self._measure(now - waiting[largest][0])
        for number in packet.acks:
            if waiting.pop(number, None) is not None:
                self._probes = 0
        if packet.have > self._arrived:
            self._arrived = packet.have
            if self._arrived == len(self._out):
                self._wake()
        if not waiting:
            return
        oldest = now - max(self.rtt * 9 / 8, _GRANULARITY_S)
        lost = [
            number
            for number, (at, _) in waiting.items()
            if number < self._largest_acked
            and (at < oldest or number <= self._largest_acked - _PACKET_THRESHOLD)
        ]
        had_items = [waiting.pop(number)[1] for number in lost]
        if any(had_items) and self._arrived < self._sent:
            self._send(self._arrived, eliciting=True)

    def _measure(self, sample: float) -> None:
        """RFC 9002 section 5.3."""
        if self._rtt_var is None:
            self.rtt, self._rtt_var = sample, sample / 2
        else:
            self._rtt_var = 0.75 * self._rtt_var + 0.25 * abs(self.rtt - sample)
            self.rtt = 0.875 * self.rtt + 0.125 * sample

    def _take_items(self, packet: Packet) -> None:
        for index, item in enumerate(packet.items, packet.first):
            if index >= self._have:
                self._ahead[index] = item
        is_new = False
        while self._have in self._ahead:
            item = self._ahead.pop(self._have)
            self._have += 1
            is_new = True
            if isinstance(item, bytes):
                self._stream += item
            elif item is OPEN:
                self._offered_control = True
            elif item is END:
                self._stream_over = True
            elif item is CLIENT_HELLO:
                self.queue(SERVER_HELLO)
            else:
                self.connected = True
                if item is SERVER_HELLO:
                    self.queue(FINISHED)
                else:
                    self.endpoint.accepted(self)
        if is_new:
            self._wake()

    def _send(self, first: int, *, eliciting: bool) -> None:
        packet = Packet(
            self.key,
            number=self._number,
            first=first,
            items=tuple(self._out[first:]),
            have=self._have,
            acks=tuple(self._taken),
            eliciting=eliciting,
            family=self.family,
        )
        self._number += 1
        self._sent = len(self._out)
        if eliciting:
            now = self.loop.time()
            self._waiting[packet.number] = (now, bool(packet.items))
            self._last_sent = now
            if self._may_reset_idle:
                self._may_reset_idle = False
                self._idle_at = now + self._idle
            self._arm()
        self.network.send(self.endpoint, self.remote_address, packet)

    def _tell_close(self) -> None:
        if self.endpoint.network.endpoints.get(self.endpoint.local_address) is self.endpoint:
            self.network.send(self.endpoint, self.remote_address, Packet(self.key, close=self._closing))

    def _arm(self) -> None:
        if self.ended:
            return
        due = self._idle_at
        if self._keep_alive_at is not None and self._keep_alive_at < due:
            due = self._keep_alive_at
        if self._waiting:
            due = min(due, self._last_sent + self._pto * 2 ** min(self._probes, 16))
        timer = self._timer
        if timer is not None:
            # One that is early looks again.
            if timer.when() <= due:
                return
            timer.cancel()
        self._timer = self.loop.call_at(due, self._look)

    def _look(self) -> None:
        """See which timer is due."""
        self._timer = None
        now = self.loop.time()
        if now >= self._idle_at:
            self.end(CloseReason("timed-out"))
            return
        if self._keep_alive_at is not None and now >= self._keep_alive_at:
            self._keep_alive_at = None
            self._send(self._sent, eliciting=True)
        if self._waiting and now >= self._last_sent + self._pto * 2 ** min(self._probes, 16):
            self._probes += 1
            for _ in range(2):
                self._send(self._arrived, eliciting=True)
        self._arm()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class PluggedPeer:
    """A place in a room's switch."""

    def __init__(self, room: Room, peer_id: int, mac: Any) -> None:
        self.peer_id = peer_id
        self.mac = mac
        self._room = room

    def counters(self) -> dict[str, int]:
        """There are no frames."""
        return {"frames_received": 0, "drop_malformed": 0}

    def unplug(self) -> None:
        """As the core's."""
        self._room.plugged.pop(self.peer_id, None)


class Room:
    """A switch without frames: who is plugged in."""

    def __init__(self, name: str, _frame_log: Any, **_settings: Any) -> None:
        self.name = name
        self.plugged: dict[int, PluggedPeer] = {}

    def is_on_lan(self, _mac: Any) -> bool:
        """There are no stations."""
        return False

    def plug(self, _connection: Connection, peer_id: int, *, mac: Any, **_options: Any) -> PluggedPeer:
        """As the core's."""
        others = [peer.mac for peer in self.plugged.values()]
        if peer_id in self.plugged or mac in others:
            raise CoreError("plug", f"peer {peer_id} or {mac} is in the room already")
        peer = self.plugged[peer_id] = PluggedPeer(self, peer_id, mac)
        return peer

    async def next_events(self) -> list[Any]:
        """Nothing ever goes wrong between frames."""
        await asyncio.get_running_loop().create_future()
        return []
