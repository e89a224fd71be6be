"""The Rust core: frames, connections, rooms and ports. Nothing here blocks the GIL.

No frame passes through Python, but for a MemoryDevice's, which is for programs that ask for them, and those of a FrameCapture.
Durations are in seconds, sizes in bytes, rates in bits per second. Awaitables may be awaited from any asyncio loop.
"""

import sys
from collections.abc import Awaitable
from typing import Literal, TypeAlias, final

__all__ = [
    "COUNTER_NAMES",
    "DROP_REASONS",
    "FILTER_NAMES",
    "FRAGMENT_HEADER_LEN",
    "HEADER_LEN",
    "MAX_FRAME_LEN",
    "MAX_TAP_MTU",
    "MIN_DATAGRAM_BUDGET",
    "MIN_TAP_MTU",
    "WIRE_VERSION",
    "Bridge",
    "CloseReason",
    "Connection",
    "CoreError",
    "Datagram",
    "Endpoint",
    "EthernetFrame",
    "FrameCapture",
    "FrameLog",
    "FrameRecord",
    "Mac",
    "MemoryDevice",
    "PacketSocket",
    "PluggedPeer",
    "Reassembler",
    "Room",
    "RoomEvent",
    "TapDevice",
    "TransportSettings",
    "__version__",
    "datagram_for_tap_mtu",
    "decode_datagram",
    "encode_fragments",
    "encode_frame",
    "room_tap_mtu",
    "tap_mtu_for_datagram",
]
if sys.platform == "win32":
    __all__ += ["WindowsTap"]

__version__: str
WIRE_VERSION: int
HEADER_LEN: int
FRAGMENT_HEADER_LEN: int
MAX_FRAME_LEN: int
MIN_TAP_MTU: int
MAX_TAP_MTU: int
MIN_DATAGRAM_BUDGET: int
DROP_REASONS: tuple[str, ...]
COUNTER_NAMES: tuple[str, ...]
FILTER_NAMES: tuple[str, ...]

class CoreError(Exception):
    """A failure in the core; `args` are (kind, message), kind a short stable name such as `wrong-pin`."""

# Wire -----------------------------------------------------------------------------------------------------------------

@final
class Mac:
    """A 48-bit MAC address (IEEE 802). Text is `02:00:5e:10:00:01`; `-` separators and upper case are read as well.

    Raises ValueError for any other text.
    """

    def __new__(cls, text: str) -> Mac: ...
    @staticmethod
    def from_bytes(data: bytes) -> Mac: ...
    @staticmethod
    def random_local() -> Mac:
        """A random locally administered unicast address."""
    def __bytes__(self) -> bytes: ...
    def __hash__(self) -> int: ...
    def __eq__(self, other: object, /) -> bool: ...
    def __ne__(self, other: object, /) -> bool: ...
    def __lt__(self, other: Mac, /) -> bool: ...
    def __le__(self, other: Mac, /) -> bool: ...
    def __gt__(self, other: Mac, /) -> bool: ...
    def __ge__(self, other: Mac, /) -> bool: ...
    @property
    def is_group(self) -> bool: ...
    @property
    def is_locally_administered(self) -> bool: ...
    def check_client_identity(self) -> None:
        """Raise ValueError, saying why, if a client must not have this MAC (group address or zero)."""

@final
class EthernetFrame:
    """An Ethernet header, tags included. `tags` holds (TPID, TCI), outermost first."""

    @staticmethod
    def parse(data: bytes) -> EthernetFrame:
        """Raise ValueError for fewer than 14 bytes."""
    @property
    def destination(self) -> Mac: ...
    @property
    def source(self) -> Mac: ...
    @property
    def tags(self) -> list[tuple[int, int]]: ...
    @property
    def ethertype(self) -> int: ...
    @property
    def payload(self) -> bytes: ...

@final
class Datagram:
    """A decoded overlay datagram. `frame_id` is None for a whole frame; else `frame` is part `index` of 0 to `last`."""

    @property
    def peer_id(self) -> int: ...
    @property
    def frame(self) -> bytes: ...
    @property
    def frame_id(self) -> int | None: ...
    @property
    def index(self) -> int: ...
    @property
    def last(self) -> int: ...

@final
class Reassembler:
    """Puts fragments together, with the protocol's bounds."""

    def __new__(cls) -> Reassembler: ...
    def push(self, now: float, datagram: bytes) -> bytes | None:
        """Give the frame a datagram completes, if it does. Raise CoreError for a malformed one."""

def decode_datagram(data: bytes) -> Datagram:
    """Raise CoreError, kind being the reason, for a malformed datagram."""

def encode_frame(peer_id: int, frame: bytes) -> bytes: ...
def encode_fragments(peer_id: int, frame_id: int, frame: bytes, datagram_size: int) -> list[bytes]: ...
def tap_mtu_for_datagram(datagram_size: int) -> int: ...
def datagram_for_tap_mtu(mtu: int) -> int: ...
def room_tap_mtu(first_budget: int, configured: int) -> int: ...

# Link -----------------------------------------------------------------------------------------------------------------

@final
class TransportSettings:
    """QUIC settings. Raises ValueError for a value out of range."""

    def __new__(
        cls,
        *,
        idle_timeout: float = 2.5,
        keep_alive: float | None = None,
        max_udp_payload: int = 1472,
        congestion: Literal["cubic", "bbr", "calm"] = "calm",
        udp: Literal["auto", "plain"] = "auto",
    ) -> TransportSettings: ...

@final
class Endpoint:
    """A UDP socket that speaks QUIC, with a data plane thread of its own."""

    @staticmethod
    def server(
        listen: str, certificate_chain: list[bytes], private_key: bytes, transport: TransportSettings
    ) -> Endpoint:
        """Listen on `IP:PORT`; chain (leaf first) and key in DER. Raise CoreError."""
    @staticmethod
    def client(local: str, transport: TransportSettings) -> Endpoint:
        """Bind to `IP:PORT`, usually the unspecified address and port 0. Raise CoreError."""
    @property
    def local_address(self) -> str: ...
    @property
    def plain_because(self) -> str | None:
        """Why the socket goes without ECN marks and offloads; None if it does not."""
    def handshakes(self) -> dict[str, int]:
        """What became of peers' first packets: begun, retries, held_back, displaced, given_up, dropped; how many are unfinished now."""
    def replace_certificate(self, certificate_chain: list[bytes], private_key: bytes) -> None:
        """Use another certificate for new connections. Raise CoreError; the former one then stays."""
    def accept(self) -> Awaitable[Connection | None]:
        """Wait for the next peer whose handshake is done; None once closed."""
    def connect(
        self, address: str, server_name: str, roots: list[bytes], *, pins: list[bytes] = ..., timeout: float
    ) -> Awaitable[Connection]:
        """Connect to `IP:PORT`, trusting the DER certificates in `roots`.

        With `pins`, each the SHA-256 of a public key (32 bytes), the relay must hold one of those keys, and nothing else is asked
        of its certificate.

        Raise CoreError of kind wrong-pin, wrong-name, expired, unverified, bad-certificate (of `roots`), no-common-protocol, timed-out,
        no-datagrams, ...
        """
    def close(self, code: int, reason: str, *, timeout: float = 0.5) -> Awaitable[None]:
        """Close all connections, and wait until the peers know."""
    def answers(self, *, timeout: float) -> Awaitable[bool]:
        """Have the data plane's thread run an empty errand; say whether it did within `timeout`."""
    def stop(self) -> None:
        """Stop the data plane's thread."""

@final
class CloseReason:
    """How a connection ended; `kind` is peer, local, timed-out, reset or transport, `code` the peer's close code."""

    @property
    def kind(self) -> str: ...
    @property
    def code(self) -> int | None: ...
    @property
    def reason(self) -> str: ...

@final
class Connection:
    """One QUIC connection, seen from the control plane."""

    @property
    def id(self) -> int: ...
    @property
    def remote_address(self) -> str:
        """`IP:PORT` as of now; any packet that names another source changes it, forged ones for a moment: to show, not to judge by."""
    @property
    def proven_address(self) -> str:
        """`IP:PORT` during the handshake, which its end proves (RFC 9000 section 8.1); it never changes."""
    @property
    def ended(self) -> bool:
        """Whether it is over."""
    @property
    def rtt(self) -> float: ...
    @property
    def max_datagram_size(self) -> int | None: ...
    def export_keying_material(self, label: bytes, context: bytes, length: int) -> bytes:
        """Give bytes only the two ends of the connection know (RFC 8446 section 7.5); CoreError for other than 1 to 8160."""
    def settled_datagram_budget(self, *, timeout: float) -> Awaitable[int]:
        """Wait until path MTU discovery has settled, `timeout` at most; give the largest datagram payload."""
    def silence(self, limit: float) -> Awaitable[None]:
        """Wait until nothing has arrived for `limit` seconds, or the connection has ended."""
    def heard(self, *, timeout: float) -> Awaitable[bool]:
        """Ask the other end for a sign of life and wait, `timeout` seconds at most, until it says anything.

        False where it did not, or the connection has ended.
        """
    def open_control(self) -> Awaitable[None]: ...
    def accept_control(self) -> Awaitable[None]: ...
    def read_control(self, limit: int, *, least: int = 1) -> Awaitable[bytes]:
        """Read `least` to `limit` bytes, or what is left at the end of the stream, b"" after it. Raise CoreError when the connection ended.

        What has come and is not enough yet stays there for the next one to read, also when a wait is given up.
        """
    def write_control(self, data: bytes) -> Awaitable[None]: ...
    def finish_control(self, *, timeout: float = 0.5) -> Awaitable[None]:
        """End our side of the control stream and wait until the peer has all of it, `timeout` at most."""
    def close(self, code: int, reason: str) -> None: ...
    def closed(self) -> Awaitable[CloseReason]: ...

# Relay ----------------------------------------------------------------------------------------------------------------

@final
class FrameRecord:
    """What was decided about one frame. `action` is unicast, broadcast, multicast, unknown, to-relay, to-port, answered or drop."""

    @property
    def time(self) -> float: ...
    @property
    def room(self) -> str: ...
    @property
    def peer(self) -> int | None: ...
    @property
    def source(self) -> str | None: ...
    @property
    def destination(self) -> str | None: ...
    @property
    def ethertype(self) -> int | None: ...
    @property
    def length(self) -> int: ...
    @property
    def action(self) -> str: ...
    @property
    def drop_reason(self) -> str | None: ...
    @property
    def targets(self) -> int: ...

@final
class FrameLog:
    """A bounded log of frames. Raises ValueError for an unknown mode."""

    def __new__(cls, mode: str = "off", *, sample: int = 100) -> FrameLog: ...
    def next_batch(self) -> Awaitable[tuple[list[FrameRecord], int]]:
        """Wait for records; give them and the number of those lost because nobody read."""
    def capture(
        self, *, room: str | None = None, drops_only: bool = False, snaplen: int = 9216
    ) -> FrameCapture:
        """Begin to keep whole frames, `snaplen` bytes of each at most, whatever the mode.

        Raise CoreError of kind too-many-captures when four run already.
        """

@final
class FrameCapture:
    """A running capture. It keeps 4 MiB; what comes faster than it is read is counted and lost. It ends when it is let go of."""

    def next_batch(self) -> Awaitable[bytes]:
        """Wait for records and give them as bytes, laid out as rust/link/src/frame_log/capture.rs says; b"" once it is closed."""
    def close(self) -> None: ...

@final
class PluggedPeer:
    """A peer in a room."""

    def counters(self) -> dict[str, int]:
        """Count what was received from the peer, sent to it and dropped."""
    def unplug(self) -> None: ...

@final
class Room:
    """A switch. `filters_off` names filters not to apply (FILTER_NAMES).

    `limit_storm` is in broadcasts and multicasts a second of all peers together; when they are used up each peer still has a twentieth of
    its own `limit_storm`. None is no limit.
    """

    def __new__(
        cls,
        name: str,
        frame_log: FrameLog,
        *,
        filters_off: list[str] = ...,
        mac_age: float = 300.0,
        mac_capacity: int = 4096,
        limit_storm: int | None = None,
    ) -> Room: ...
    def is_on_lan(self, mac: Mac) -> bool:
        """Say whether a station of the LAN behind the room's gateway has this MAC, so that no client can be plugged in with it.

        A client that left within the time a station is remembered is let in again, whatever the LAN shows.
        """
    def plug(
        self,
        connection: Connection,
        peer_id: int,
        *,
        mac: Mac | None,
        takes_fragments: bool = True,
        limit_total: int | None = None,
        limit_broadcast: int | None = None,
        limit_unknown: int | None = None,
        limit_storm: int | None = None,
        malformed_limit: int = 64,
        malformed_code: int,
        malformed_reason: str,
    ) -> PluggedPeer:
        """Forward the peer's frames from now on. Limits are in bits per second; `mac` None means gateway.

        `limit_storm` is in broadcasts and multicasts per second.
        Raise CoreError of kind plug if the id or MAC is in the room already, or the MAC on its LAN.
        """
    def next_events(self) -> Awaitable[list[RoomEvent]]:
        """Wait for loops, storms, full tables, conflicts of IP and MAC addresses to set in or end; for one task at a time."""

@final
class RoomEvent:
    """What has set in or ended in a room."""

    @property
    def kind(
        self,
    ) -> Literal[
        "loop-found",
        "echo-found",
        "loop-gone",
        "storm-began",
        "storm-ended",
        "table-full",
        "table-eased",
        "address-conflict",
        "address-settled",
        "mac-conflict",
        "mac-settled",
    ]: ...
    @property
    def peers(self) -> list[int]:
        """The peer ids concerned: two of a loop or conflict, one of anything else; none for a storm of all peers together."""
    @property
    def mac(self) -> str | None:
        """Of a loop or echo found: the source of the frame that came back. Of a MAC conflict: the address."""
    @property
    def address(self) -> str | None:
        """Of an address conflict: the IP address that both claim."""
    @property
    def dropped(self) -> int:
        """Of a storm that ended: the frames dropped in it."""

# Ports ----------------------------------------------------------------------------------------------------------------

@final
class TapDevice:
    """A virtual adapter, gone when closed. Linux; elsewhere `create` raises CoreError of kind unsupported."""

    @staticmethod
    def create(name: str | None, mac: Mac, mtu: int) -> TapDevice:
        """Create it and bring it up. Raise CoreError of kind no-privilege, no-tun-device, name-taken, ..."""
    @property
    def name(self) -> str: ...
    @property
    def index(self) -> int: ...
    def close(self) -> None: ...

@final
class PacketSocket:
    """An existing interface through AF_PACKET. Linux; elsewhere `open` raises CoreError of kind unsupported.

    The kernel ends promiscuous mode with the socket.
    """

    @staticmethod
    def open(interface: str, *, promiscuous: bool = True) -> PacketSocket:
        """Raise CoreError of kind interface-missing, interface-down, not-ethernet, no-privilege, ..."""
    def close(self) -> None: ...

@final
class MemoryDevice:
    """A device that is no machine's: its frames are the program's. `capacity` frames wait each way at most; ValueError if out of range."""

    def __new__(cls, *, capacity: int = 1024) -> MemoryDevice: ...
    def offer(self, frame: bytes) -> bool:
        """Hand a frame to the bridge; False if there is no place for it.

        Raise ValueError for fewer than 14 or more than 9216 bytes, CoreError of kind closed after `close`.
        """
    def send(self, frame: bytes) -> Awaitable[None]:
        """Wait for a place and hand the frame to the bridge; raises as `offer` does."""
    def receive(self) -> Awaitable[list[bytes]]:
        """Wait for frames and give all that are there, 256 at most; none once it is closed.

        Frames that come while `capacity` wait are counted by the bridge (`drop_port_full`).
        """
    def close(self) -> None: ...

if sys.platform == "win32":
    @final
    class WindowsTap:
        """A TAP-Windows6 adapter that this process has alone, gone from it when closed. Windows.

        When Windows takes the adapter away while a bridge uses it (a restart of the adapter, a sleep), it is opened anew.
        """

        @staticmethod
        def open(path: str, *, on_reopen: tuple[int, bytes] | None = None) -> WindowsTap:
            r"""Open `\\.\Global\{GUID}.tap`. `on_reopen`, a control code and its data, is sent whenever it was opened anew.

            Raise CoreError of kind adapter-missing, adapter-busy, no-privilege or io.
            """
        def ioctl(self, code: int, data: bytes, answer_size: int) -> bytes:
            """Ask the driver, also while bridging (DeviceIoControl, METHOD_BUFFERED); blocks until it answers, 5 s at most.

            Raise CoreError of kind adapter-down (it is being opened anew), closed, no-privilege or io.
            """
        def counters(self) -> dict[str, int]:
            """Count the frames the driver gave, took and refused."""
        @property
        def reopenings(self) -> int:
            """How often it was opened anew."""
        def close(self) -> None:
            """Close it: its link goes down, and a bridge on it ends. Blocks for 2 s at most."""

    _Device: TypeAlias = TapDevice | PacketSocket | MemoryDevice | WindowsTap
else:
    _Device: TypeAlias = TapDevice | PacketSocket | MemoryDevice

@final
class Bridge:
    """Carries frames between a device, which it takes (a WindowsTap it shares), and whatever connection is attached."""

    @staticmethod
    def start(
        endpoint: Endpoint,
        device: _Device,
        frame_log: FrameLog,
        *,
        gateway: bool = False,
        cam_refresh: float | None = None,
        loopback: Mac | None = None,
    ) -> Bridge:
        """Begin; frames are dropped until `attach`. Loopback messages to `loopback` are answered and do not reach the device."""
    def attach(self, connection: Connection, peer_id: int, *, storm_limit: int | None = None) -> None:
        """Carry frames over this connection.

        `storm_limit`, the relay's in its welcome, is in broadcasts and multicasts a second; what the device has above that and a
        quarter is dropped and counted.
        """
    def detach(self) -> None: ...
    def add_remote(self, mac: Mac) -> bool:
        """Say that a client with this MAC is in the room; False if it is the device's own on the LAN, and so nobody else's."""
    def remove_remote(self, mac: Mac) -> None: ...
    def counters(self) -> dict[str, int]: ...
    def port_counters(self) -> dict[str, int]:
        """Count what the device itself took, gave and lost."""
    def up_changed(self) -> Awaitable[bool]:
        """Wait until the device's interface goes down or comes back; say whether it is up."""
    def failed(self) -> Awaitable[str]:
        """Wait until the device failed for good; give the reason."""
    def close(self) -> None: ...
