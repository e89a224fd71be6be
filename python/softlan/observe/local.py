"""`softlan status`: each running part answers on a unix socket of its own with one JSON snapshot of itself.

The sockets lie in one directory only their owner may enter; nothing secret is in a snapshot all the same. A
part that cannot have a socket runs on without one and says so in its log: status is a convenience, never a
reason to stop. `LocalServer` is such a socket; `capture.py` has another.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from softlan import __version__
from softlan.errors import SoftlanError, UnsupportedPlatformError
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.texts import harmless

__all__ = [
    "LocalServer",
    "LocalSocket",
    "PartStatus",
    "StatusServer",
    "fault_in",
    "find_sockets",
    "listen_privately",
    "need_local_sockets",
    "read_all",
    "read_snapshot",
    "runtime_directories",
    "runtime_directory",
    "why_untold",
]

logger = logging.getLogger(__name__)

SUFFIX = ".status"
MAX_SNAPSHOT = 16 << 20
"""Bytes read from one part at most. A peer of a relay takes about 2 KB."""

READ_TIMEOUT_S = 2.0
"""How long a reader waits for one part, and a part for a reader that does not read."""

_SYSTEM = Path("/run/softlan")

_AF_UNIX: Any = getattr(socket, "AF_UNIX", None)
"""None where Python has no unix sockets, as on Windows."""

_IN_THE_MAKING = ".new"
"""Ends the name of a socket that nobody listens on yet: who looks for sockets does not see it. No longer than what takes its place."""

_MAX_SOCKET_PATH = 107
"""Bytes of sun_path without the closing NUL (unix(7))."""


class PartStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One part's answer: which part of which version it is, since when, and what it says of itself."""

    part: str
    pid: int
    version: str
    uptime_s: float
    status: dict[str, Any]
    tasks: int = 0
    """asyncio tasks alive: some for the part, a few for each peer; a number that only grows is a leak."""


def runtime_directory() -> Path:
    """Say where this process would put its socket.

    In order: `SOFTLAN_RUNTIME_DIR`; `RUNTIME_DIRECTORY`, which systemd sets (systemd.exec(5)); /run/softlan
    for root; `$XDG_RUNTIME_DIR/softlan`; /tmp/softlan-UID.
    """
    return runtime_directories()[0]


def runtime_directories() -> list[Path]:
    """List where sockets that concern this user may lie, its own place first."""
    if chosen := os.environ.get("SOFTLAN_RUNTIME_DIR"):
        return [Path(chosen)]
    found = []
    if services := os.environ.get("RUNTIME_DIRECTORY"):
        found.append(Path(services.split(":")[0]))
    system, user_id = _SYSTEM, _user_id()
    # Root does not use another user's XDG_RUNTIME_DIR, which `sudo -E` leaves in place.
    if user_id == 0:
        found.append(system)
    elif session := os.environ.get("XDG_RUNTIME_DIR"):
        found.append(Path(session, "softlan"))
    found += [Path(f"/tmp/softlan-{user_id}"), system]  # noqa: S108 - checked for owner and mode before use
    # Services that each run as a user of their own have a directory each in there (packaging/systemd).
    with contextlib.suppress(OSError):
        found += sorted(path for path in system.iterdir() if path.is_dir())
    return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class LocalSocket:
    """A socket that was found: whose it is by its name, and where."""

    part: str
    pid: int
    path: Path


class LocalServer:
    """A part's own socket for programs of the same user, from `start` to `close`; also an async context manager."""

    def __init__(self, part: str, suffix: str) -> None:
        self.path: Path | None = None
        self._part = part
        self._suffix = suffix
        self._server: asyncio.Server | None = None

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        raise NotImplementedError

    async def start(self) -> None:
        """Begin to answer; where that cannot be, log why and do nothing."""
        try:
            if _AF_UNIX is None:
                raise SoftlanError("this platform has no unix sockets")
            path = runtime_directory() / f"{self._part}-{os.getpid()}{self._suffix}"
            listener = listen_privately(path)
            _sweep(path.parent, self._part, self._suffix)
        except (SoftlanError, OSError) as error:
            log_event(
                logger,
                Event.STATUS_UNAVAILABLE,
                f"`softlan {self._suffix[1:]}` will not see this {self._part}: {error}",
                part=self._part,
            )
            return
        if sys.platform == "win32":
            raise AssertionError("Python has no AF_UNIX there")
        self._server = await asyncio.start_unix_server(self.answer, sock=listener)
        self.path = path
        log_event(logger, Event.STATUS_SOCKET, f"{self._suffix[1:]} at {path}", path=str(path))

    async def close(self) -> None:
        """Stop answering and take the socket away; closing twice does no harm."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        path, self.path = self.path, None
        if path is not None:
            with contextlib.suppress(OSError):
                path.unlink()

    async def __aenter__(self) -> Self:
        """Start."""
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        await self.close()


class StatusServer(LocalServer):
    """Answers with a snapshot of one running part.

    `snapshot` is called once a connection, on the event loop, and returns what JSON can hold.
    """

    def __init__(self, part: str, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        super().__init__(part, SUFFIX)
        self._snapshot = snapshot
        self._started = time.monotonic()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send a snapshot to whoever connects."""
        try:
            writer.write(self._encode())
            async with asyncio.timeout(READ_TIMEOUT_S):
                await writer.drain()
            writer.close()
            async with asyncio.timeout(READ_TIMEOUT_S):
                await writer.wait_closed()
        except (OSError, TimeoutError):
            # The reader's trouble, not ours.
            writer.transport.abort()

    def _encode(self) -> bytes:
        try:
            return self._envelope(dict(self._snapshot()))
        except Exception as error:  # a fault in a snapshot must not end the part
            log_event(logger, Event.FAULT, f"cannot take a status snapshot: {error}", exc_info=error)
            return self._envelope({"error": str(error)})  # `fault_in` reads it

    def _envelope(self, status: dict[str, Any]) -> bytes:
        answer = PartStatus(
            part=self._part,
            pid=os.getpid(),
            version=__version__,
            uptime_s=round(time.monotonic() - self._started, 3),
            status=status,
            tasks=len(asyncio.all_tasks()),
        )
        return msgspec.json.encode(answer, enc_hook=str)


def need_local_sockets(hint: str = "what a part does, it says in its own window and log") -> None:
    """Raise UnsupportedPlatformError where running parts cannot be asked anything: none found would not mean that none runs."""
    if _AF_UNIX is None:
        raise UnsupportedPlatformError(
            "what runs here cannot be asked: it takes unix sockets, which Python does not have on Windows",
            hint=hint,
        )


def fault_in(status: Mapping[str, Any]) -> str | None:
    """Say that a part could not take its snapshot, on one line; None where it could."""
    error = status.get("error")
    return None if error is None else f"it cannot tell how it does: {harmless(str(error))}"


def why_untold(status: Mapping[str, Any]) -> str:
    """Say why there is nothing to show of a part's snapshot: it could not take one, or is of another version."""
    fault = fault_in(status)
    return (
        f"{fault}; its log says more"
        if fault
        else "it tells what this version of softlan does not understand"
    )


def read_all() -> list[PartStatus]:
    """Ask every part this user may ask, ordered by part and process id; remove what nobody answers on."""
    answers: list[PartStatus] = []
    if _AF_UNIX is None:
        return answers
    for path in _sockets(SUFFIX):
        answer = _read(path)
        if answer is not None:
            answers.append(answer)
    return sorted(answers, key=lambda answer: (answer.part, answer.pid))


def find_sockets(suffix: str) -> list[LocalSocket]:
    """List the sockets of one kind that this user may use, ordered by part and process id; remove those nobody answers on."""
    found = []
    for path in _sockets(suffix) if _AF_UNIX is not None else ():
        part, _, pid = path.name.removesuffix(suffix).rpartition("-")
        if part and pid.isdecimal():
            with socket.socket(_AF_UNIX, socket.SOCK_STREAM) as connection, contextlib.suppress(OSError):
                _connect(connection, path)
                found.append(LocalSocket(part, int(pid), path))
    return sorted(found, key=lambda one: (one.part, one.pid))


def _user_id() -> int:
    return os.geteuid() if hasattr(os, "geteuid") else 0


def listen_privately(path: Path) -> socket.socket:
    """Bind a unix socket that only its owner can connect to.

    Raises SoftlanError, OSError: it cannot be had there.
    """
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise SoftlanError(f"{path} is too long for a unix socket; set SOFTLAN_RUNTIME_DIR to a shorter one")
    _prepare_directory(path.parent)
    making = path.with_suffix(_IN_THE_MAKING)
    with contextlib.suppress(FileNotFoundError):
        making.unlink()  # a former process with our number; it cannot be alive
    listener = socket.socket(_AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(making))
        # Before listen(), so that there is no moment at which others could connect.
        making.chmod(0o600)
        listener.listen()
        listener.setblocking(False)
        # After it, so that there is none at which it looks like one of a process that was killed (`_connect`).
        making.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            making.unlink()
        listener.close()
        raise
    return listener


def _sweep(directory: Path, part: str, suffix: str) -> None:
    """Remove the sockets of processes that were killed: nobody else does where nobody asks for the status."""
    for path in directory.glob(f"{part}-*{suffix}"):
        if Path("/proc", path.stem.rpartition("-")[2]).exists():
            continue
        # Alive all the same if it answers: a container has process ids of its own.
        with contextlib.suppress(OSError), socket.socket(_AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.setblocking(False)
            if connection.connect_ex(str(path)) == errno.ECONNREFUSED:
                path.unlink()


def _prepare_directory(path: Path) -> None:
    """Make the directory, or make sure that nobody else made it for us (in /tmp anybody could)."""
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    found = path.lstat()
    if not stat.S_ISDIR(found.st_mode):
        raise SoftlanError(f"{path} is not a directory")
    if found.st_uid != _user_id() or found.st_mode & 0o022:
        raise SoftlanError(f"{path} belongs to somebody else or is writable by others")


def _is_safe(directory: Path) -> bool:
    """Whether nobody can answer there in a part's name whom this user does not trust."""
    try:
        found = directory.lstat()
    except OSError:
        return False
    if not stat.S_ISDIR(found.st_mode) or found.st_mode & 0o022:
        return False
    # In /run, root alone makes directories, for services that are users of their own; and one that was named is meant.
    by_root = _SYSTEM in {directory, directory.parent}
    return by_root or found.st_uid in {0, _user_id()} or "SOFTLAN_RUNTIME_DIR" in os.environ


def _sockets(suffix: str) -> Iterator[Path]:
    for directory in filter(_is_safe, runtime_directories()):
        try:
            yield from sorted(directory.glob(f"*{suffix}"))
        except OSError:
            continue


def _connect(connection: socket.socket, path: Path) -> None:
    """Connect to a part's socket. Raises OSError: nobody is there; the socket is then removed."""
    connection.settimeout(READ_TIMEOUT_S)
    try:
        connection.connect(str(path))
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            # Nobody has it open: its process was killed before it could take it away.
            with contextlib.suppress(OSError):
                path.unlink()
        raise


def _read(path: Path) -> PartStatus | None:
    """Read one answer; None when there is none that makes sense."""
    deadline = time.monotonic() + READ_TIMEOUT_S
    data = bytearray()
    with socket.socket(_AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            _connect(connection, path)
            while len(data) <= MAX_SNAPSHOT and (piece := connection.recv(65536)):
                data += piece
                connection.settimeout(max(deadline - time.monotonic(), 0.001))
        except OSError:
            return None
    return read_snapshot(bytes(data))


def read_snapshot(data: bytes) -> PartStatus | None:
    """Read what a part answers; None when it makes no sense."""
    try:
        return msgspec.json.decode(data, type=PartStatus)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
