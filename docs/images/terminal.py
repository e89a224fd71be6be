"""Draws docs/images/terminal.svg: `softlan status --live` beside the relay of a party that is held in the lab while it is drawn.

    python docs/images/terminal.py [FILE [SECONDS]]
    python docs/images/terminal.py --made-up [FILE]

What it shows is what the relay's status socket told. Only the party is made up: pings as games, a player that plays DHCP server.
With `--made-up` it draws terminal-200.svg, and the relay is made up too: the one with 200 peers in 30 rooms of tests/observe/synthetic.py.
"""

from __future__ import annotations

import asyncio
import io
import os
import re
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import TerminalTheme

from softlan import __version__
from softlan.lab import Party, Program
from softlan.lab.dhcp import rogue_offer
from softlan.lab.namespaces import ensure_namespaces
from softlan.lab.party import Client
from softlan.observe.live import Screen
from softlan.observe.local import PartStatus, read_all

WIDTH, HEIGHT, SECONDS = 86, 15, 12
PLAYERS = {"ann": "PARTY1", "ben": "PARTY1", "cleo": "PARTY1", "dora": "FRIDAY", "eli": "FRIDAY"}
THEME = TerminalTheme(
    (23, 27, 33),
    (225, 230, 236),
    [
        (60, 68, 78),
        (239, 125, 118),
        (134, 189, 124),
        (226, 180, 95),
        (99, 174, 222),
        (190, 150, 220),
        (110, 190, 190),
        (225, 230, 236),
    ],
)
# The picture in rich's own way, without the fonts it would fetch from elsewhere.
FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg"
  role="img" aria-label="softlan status --live">
  <style>
    .{unique_id}-matrix {{ font-family: ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, monospace;
      font-size: {char_height}px; line-height: {line_height}px; }}
    .{unique_id}-title {{ font-size: 18px; font-family: system-ui, 'Segoe UI', Roboto, Arial, sans-serif; }}
{styles}
  </style>
  <defs>
    <clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
  </defs>
{chrome}
  <g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
    <g class="{unique_id}-matrix">
{matrix}
    </g>
  </g>
</svg>
"""


def playing(client: Client, other: str, size: int, interval: float) -> Program:
    """A game of a kind: datagrams back and forth."""
    return Program(
        client.host, f"{client.name}'s game", ["ping", "-q", "-i", f"{interval}", "-s", f"{size}", other]
    )


async def party(seconds: int) -> Screen:
    """Hold it, and look at it once a second for so long."""
    screen = Screen()
    async with Party() as held:
        lan = held.add_lan("home", hosts=("router", "server"))
        relay = await held.start_relay()
        await held.start_gateway("gateway", lan)
        for number, (name, room) in enumerate(PLAYERS.items(), start=51):
            await held.start_client(name, room=room, address=f"192.168.88.{number}")
        games = [
            playing(held.client("ann"), "192.168.88.2", 600, 0.01),
            playing(held.client("ben"), "192.168.88.51", 220, 0.02),
            playing(held.client("cleo"), "192.168.88.2", 90, 0.05),
            playing(held.client("dora"), "192.168.88.55", 1200, 0.02),
        ]
        for game in games:
            await game.start()
        os.environ["SOFTLAN_RUNTIME_DIR"] = str(relay.directory)
        try:
            offer = rogue_offer(held.client("ben").station)
            with held.client("ben").frames() as port:
                for reading in range(seconds):
                    parts = await asyncio.to_thread(read_all)
                    screen.feed(time.monotonic(), time.time(), parts)
                    for _ in range(2 if reading > seconds - 3 else 0):
                        port.send(offer)
                    await asyncio.sleep(1)
            screen.feed(time.monotonic(), time.time(), await asyncio.to_thread(read_all))
        finally:
            for game in games:
                await game.stop()
    return screen


def made_up() -> Screen:
    """Look for two minutes at a relay that is none."""
    sys.path.append(str(Path(__file__).parents[2] / "tests" / "observe"))
    from synthetic import Synthetic

    screen, source = Screen(), Synthetic()
    for reading in range(120):
        source.at = 1000.0 + reading
        told = PartStatus(
            part="relay", pid=2106, version=__version__, uptime_s=source.at, status=source.snapshot()
        )
        screen.feed(source.at, source.at, [told])
    return screen


def draw(screen: Screen, height: int = HEIGHT) -> str:
    """Draw what the screen shows as SVG."""
    console = Console(
        record=True,
        width=WIDTH,
        height=height,
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        highlight=False,
    )
    for line in screen.lines(WIDTH, height):
        console.print(line, soft_wrap=True)
    drawn = console.export_svg(title="softlan status --live", theme=THEME, code_format=FORMAT, unique_id="s")
    return re.sub(r"[ \t]+$", "", drawn, flags=re.MULTILINE)


def main() -> None:
    """Hold the party, draw the picture."""
    here, words = Path(__file__).parent, sys.argv[1:]
    if words[:1] == ["--made-up"]:
        drawn = draw(made_up(), height=40)
        Path(*words[1:] or [here / "terminal-200.svg"]).write_text(drawn, encoding="utf-8")
        return
    ensure_namespaces([sys.executable, *sys.argv])
    file = Path(words[0]) if words else here / "terminal.svg"
    seconds = int(words[1]) if len(words) > 1 else SECONDS
    file.write_text(draw(asyncio.run(party(seconds))), encoding="utf-8")


if __name__ == "__main__":
    main()
