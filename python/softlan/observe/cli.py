"""`softlan capture`: the frames of a running part, each with its verdict, into a file for Wireshark."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from pathlib import Path
from typing import BinaryIO

import click

from softlan import __version__
from softlan._core import MAX_FRAME_LEN
from softlan.config import ROOM
from softlan.errors import ConfigError, SoftlanError
from softlan.observe.capture import SUFFIX, Captured, Lost, Request, ask, interface_of, write_pcapng
from softlan.observe.local import LocalSocket, find_sockets, need_local_sockets
from softlan.observe.pcapng import Interface, Pcapng
from softlan.parts import reported, run_part, version_option
from softlan.texts import several

__all__ = ["capture"]

_AS_ROOT = "as root, `sudo softlan capture` sees parts of root"


@click.command(
    short_help="Write frames, with the verdict on each, for Wireshark.",
    context_settings={"show_default": True, "help_option_names": ["-h", "--help"]},
)
@click.option("--room", type=ROOM, metavar="CODE", help="Only this room's frames; all rooms' if not given.")
@click.option("--drops", is_flag=True, help="Only frames that were dropped.")
@click.option(
    "--snaplen",
    type=click.IntRange(14, MAX_FRAME_LEN),
    default=MAX_FRAME_LEN,
    metavar="BYTES",
    help="How much of each frame is kept; 64 is enough for most headers.",
)
@click.option("-c", "--count", type=click.IntRange(1), metavar="N", help="End after so many frames.")
@click.option(
    "--part", metavar="NAME", help="Which part, if several run: relay, gateway, client, or a process id."
)
@version_option
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True))
@reported
def capture(
    *, room: str | None, drops: bool, snaplen: int, count: int | None, part: str | None, file: Path
) -> None:
    """Write the frames a relay, gateway or client of this machine handles to FILE (pcapng), or to stdout with -.

    Each frame's comment says what became of it: passed and how, or dropped and why. It ends with Ctrl-C, after -c frames, or with
    the part. To watch: softlan capture - | wireshark -k -i -
    """
    need_local_sockets()
    chosen = _choose(find_sockets(SUFFIX), part)
    request = Request(room=room, drops_only=drops, snaplen=snaplen)
    told = _Told(chosen, snaplen, file)

    async def main(stopping: asyncio.Event) -> None:
        with _open(file) as out:
            recording = asyncio.ensure_future(told.record(request, out, count))
            stop = asyncio.ensure_future(stopping.wait())
            try:
                await asyncio.wait((recording, stop), return_when=asyncio.FIRST_COMPLETED)
                if recording.done():
                    recording.result()
            finally:
                for task in (recording, stop):
                    task.cancel()
                await asyncio.gather(recording, stop, return_exceptions=True)
                told.finish(out)

    try:
        run_part(main)
    except BrokenPipeError:  # Whoever read the pipe has seen enough.
        pass
    except OSError as error:
        raise SoftlanError(f"cannot write {file}: {error.strerror or error}") from error
    lost = f", {told.lost} more came too fast" if told.lost else ""
    click.echo(f"{several(told.frames, 'frame')} captured{lost}", err=True)


class _Told:
    """A capture on its way into the file at `path`, or into stdout where that is `-`."""

    def __init__(self, part: LocalSocket, snaplen: int, path: Path) -> None:
        self.frames = 0
        self.lost = 0
        self._part = part
        self._snaplen = snaplen
        self._path = path
        self._file = Pcapng(f"softlan {__version__}")
        self._latest: tuple[Interface, int] | None = None

    async def record(self, request: Request, out: BinaryIO, count: int | None) -> None:
        """Write frames until there are `count`, or no more come. What was in the file goes once the capture runs, not before."""
        begun = False
        async for records in ask(self._part.path, request):
            if not begun:
                _take(self._path, out)
                out.write(self._file.header())
                begun = True
            for record in records:
                match record:
                    case Lost(lost):
                        self.lost += lost
                    case Captured() as frame:
                        out.write(write_pcapng(self._file, self._part.part, self._snaplen, frame))
                        self._latest = interface_of(self._part.part, self._snaplen, frame), frame.time_ns
                        self.frames += 1
                        if self.frames == count:
                            return
            out.flush()

    def finish(self, out: BinaryIO) -> None:
        """Say in the file, too, how many frames it does not have."""
        if self.lost and self._latest is not None:
            out.write(self._file.lost(*self._latest, self.lost))
            out.flush()


def _choose(found: list[LocalSocket], wanted: str | None) -> LocalSocket:
    matching = [one for one in found if wanted in (None, one.part, str(one.pid))]
    if len(matching) == 1:
        return matching[0]
    if not found:
        raise SoftlanError("nothing of softlan is running here for this user", hint=_AS_ROOT)
    running = ", ".join(f"{one.part} (pid {one.pid})" for one in found)
    if not matching:
        raise ConfigError(f"no {wanted} is running here for this user, only: {running}", hint=_AS_ROOT)
    raise ConfigError(f"several parts run here: {running}", hint="choose one with --part NAME or --part PID")


def _open(path: Path) -> BinaryIO:
    """Open for writing, and leave what is there for now."""
    if str(path) == "-":
        if sys.stdout.isatty():
            raise ConfigError("a capture is no text for a terminal", hint="give a file, or pipe it on")
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o600)
    except OSError as error:
        raise ConfigError(f"cannot write {path}: {error.strerror or error}") from error
    return os.fdopen(handle, "wb")


def _take(path: Path, out: BinaryIO) -> None:
    """Empty a file that was there, and keep others from reading it: frames hold what people say. Pipes and stdout are as they are."""
    if str(path) == "-" or not stat.S_ISREG(os.fstat(out.fileno()).st_mode):
        return
    if hasattr(os, "fchmod"):
        os.fchmod(out.fileno(), 0o600)
    out.truncate(0)
