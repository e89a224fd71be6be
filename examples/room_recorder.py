"""Records what a member of a room hears, broadcasts and multicasts above all, into a file that Wireshark opens.

    python examples/room_recorder.py --invite "softlan://party.example.org/ROOM1?pin=..." evening.pcapng

It ends with Ctrl-C, or after `--count` frames. It needs no rights. What two others say to each other does not come here: a relay's
operator sees that with `softlan capture`.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from pathlib import Path

from softlan.client import Session
from softlan.observe.pcapng import Interface, Pcapng


async def run(options: argparse.Namespace) -> None:
    """Record until interrupted, or until there are enough frames."""
    session = Session.join(
        options.invite,
        relay=options.relay,
        server_name=options.server_name,
        certificate=options.relay_ca_cert,
        room=options.room,
        name="room recorder",
    )
    file, interface, frames = Pcapng("softlan room recorder"), Interface(session.room), 0
    async with session:
        with options.file.open("wb") as out:
            out.write(file.header())
            print(
                f"recording room {session.room}, {len(session.peers)} others are in it",
                file=sys.stderr,
                flush=True,
            )
            try:
                async for batch in session.batches():
                    now = time.time_ns()
                    for frame in batch:
                        out.write(file.packet(interface, now, frame))
                        frames += 1
                        if frames == options.count:
                            return
                    out.flush()
            finally:
                if session.lost:
                    out.write(file.lost(interface, time.time_ns(), session.lost))
                print(f"{frames} frames recorded, {session.lost} lost", file=sys.stderr)


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description="Records what a member of a softlan room hears, as pcapng.")
    parser.add_argument(
        "--invite", metavar="LINE", help="the line players are given, or what it says by options:"
    )
    parser.add_argument("--relay", metavar="HOST:PORT")
    parser.add_argument("--server-name", metavar="NAME")
    parser.add_argument("--relay-ca-cert", metavar="FILE")
    parser.add_argument("--room", metavar="CODE")
    parser.add_argument("--count", type=int, metavar="N", help="end after so many frames")
    parser.add_argument("file", type=Path)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    main()
