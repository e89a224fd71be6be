"""Seeing a party: `softlan capture` opened by tshark, and the examples of the library in a room with real machines."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from browser import open_browser

from softlan.lab import Party, Program
from softlan.lab.packets import BROADCAST, ethernet, mac_bytes
from softlan.lab.party import RELAY_ADDRESS, ROOM, Part
from softlan.trust import public_key_pin

EXAMPLES = Path(__file__).parents[2] / "examples"


def capturing(part: Part, *options: str) -> Program:
    """`softlan capture` beside a running part."""
    command = [sys.executable, "-m", "softlan", "capture", *options]
    return Program(part.host, f"capture of {part.name}", command, part.environment)


def dissected(file: Path, *fields: str) -> list[dict[str, str]]:
    """What tshark reads in a capture file: one row a frame."""
    wanted = [argument for field in fields for argument in ("-e", field)]
    said = subprocess.run(
        ["tshark", "-n", "-r", str(file), "-T", "json", *wanted], check=True, capture_output=True, timeout=60
    )
    packets = json.loads(said.stdout)
    return [
        {name: ",".join(values) for name, values in packet["_source"]["layers"].items()} for packet in packets
    ]


async def test_a_capture_shows_each_frames_verdict(
    party: Party, tool: Any, needs: Callable[[str], None], tmp_path: Path
) -> None:
    needs("tshark")
    relay, file = party.relay, tmp_path / "relay.pcapng"
    assert relay is not None
    since = relay.program.mark()
    capture = capturing(relay, "-c", "40", str(file))
    await capture.start()
    await relay.program.event("capture.started", since=since)
    ann, ben = party.client("ann"), party.client("ben")
    with ann.frames() as port:
        foreign = ethernet(BROADCAST, mac_bytes("02:00:00:00:00:99"), 0x88B5, b"not mine".ljust(46))
        port.send(foreign)
        await tool(ann, "ping", "-c", "20", "-i", "0.05", "-q", ben.address)
        port.send(ethernet(BROADCAST, ann.mac, 0x88B5, b"for all".ljust(46)))
    assert await capture.wait(20) == 0
    await relay.program.event("capture.ended", since=since)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    rows = dissected(
        file, "frame.comment", "frame.interface_name", "eth.src", "eth.type", "icmp.type", "frame.len"
    )
    print(*rows, sep="\n")
    assert len(rows) == 40
    assert {row["frame.interface_name"] for row in rows} == {ROOM}
    echoes = [row for row in rows if row.get("icmp.type") in ("8", "0")]
    assert echoes
    assert {row["frame.comment"] for row in echoes} == {
        f"passed: unicast to 1 peer, peer {ann.peer_id}",
        f"passed: unicast to 1 peer, peer {ben.peer_id}",
    }
    assert {row["frame.len"] for row in echoes} == {"98"}
    (dropped,) = [row for row in rows if row["eth.src"] == "02:00:00:00:00:99"]
    assert dropped["frame.comment"] == f"dropped: source-foreign, peer {ann.peer_id}"


async def test_drops_of_one_room_alone_and_cut_short(
    party: Party, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("tshark")
    relay, file = party.relay, tmp_path / "drops.pcapng"
    assert relay is not None
    since = relay.program.mark()
    capture = capturing(relay, "--room", ROOM.lower(), "--drops", "--snaplen", "20", "-c", "2", str(file))
    await capture.start()
    await relay.program.event("capture.started", since=since)
    ann = party.client("ann")
    with ann.frames() as port:
        port.send(ethernet(BROADCAST, ann.mac, 0x88B5, b"for all".ljust(46)))
        for _ in range(2):
            port.send(ethernet(BROADCAST, mac_bytes("02:00:00:00:00:99"), 0x88B5, b"no".ljust(46)))
    assert await capture.wait(20) == 0
    rows = dissected(file, "frame.comment", "frame.cap_len", "frame.len")
    assert (
        rows
        == [
            {
                "frame.comment": f"dropped: source-foreign, peer {ann.peer_id}",
                "frame.cap_len": "20",
                "frame.len": "60",
            }
        ]
        * 2
    )


async def test_a_clients_own_frames_and_another_room(
    party: Party, tool: Any, tmp_path: Path, needs: Callable[[str], None]
) -> None:
    needs("tshark")
    ann, ben, file = party.client("ann"), party.client("ben"), tmp_path / "ann.pcapng"
    refused = capturing(ann.part, "--room", "OTHER", str(tmp_path / "none.pcapng"))
    await refused.start()
    assert await refused.wait(10) == 1
    assert f"it is in room {ROOM}, not in OTHER" in refused.tail()

    since = ann.program.mark()
    capture = capturing(ann.part, str(file))
    await capture.start()
    await ann.program.event("capture.started", since=since)
    await tool(ann, "ping", "-c", "3", "-i", "0.2", "-q", ben.address)
    await asyncio.sleep(0.2)
    assert await capture.stop() == 0
    await ann.program.event("capture.ended", since=since)
    rows = dissected(file, "frame.comment", "icmp.type", "frame.interface_name")
    told = {(row.get("icmp.type"), row["frame.comment"].split(",")[0]) for row in rows}
    assert {("8", "passed: to-relay"), ("0", "passed: to-port")} <= told
    assert {row["frame.interface_name"] for row in rows} == {"client"}


def example(party: Party, name: str, *options: str) -> Program:
    """One of `examples/`, on a machine of its own on the internet, as a user without any rights."""
    command = [sys.executable, str(EXAMPLES / name), *options]
    return Program(party.machine(name), name, command, {"PYTHONUNBUFFERED": "1"})


async def said(program: Program, words: str) -> None:
    """Wait until a program has written a line with these words."""
    async with asyncio.timeout(20):
        while not any(words in line for line in program.lines):
            assert program.running, program.tail()
            await asyncio.sleep(0.02)


async def test_the_discovery_bot_answers_arp_and_broadcasts(party: Party, tool: Any) -> None:
    assert party.relay is not None
    pin = public_key_pin(party.relay.certificate.read_bytes())
    invite = f"softlan://{RELAY_ADDRESS}/{ROOM}?pin={pin}"
    options = ["--invite", invite, "--address", "192.168.88.200", "--port", "6112"]
    bot = example(party, "discovery_bot.py", *options)
    await bot.start()
    try:
        await said(bot, f"in room {ROOM}")
        loop = asyncio.get_running_loop()
        for name in ("ann", "server"):
            player = party.player(name)
            with player.host.socket() as browser:
                browser.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                browser.bind((player.address, 0))
                for to in ("255.255.255.255", "192.168.88.255", "192.168.88.200"):
                    await loop.sock_sendto(browser, b"anybody there?", (to, 6112))
                    answer, source = await asyncio.wait_for(loop.sock_recvfrom(browser, 2048), 5)
                    assert (answer, source[0]) == (b"softlan bot heard: anybody there?", "192.168.88.200")
        neighbours = await tool(party.player("ann"), "ip", "neigh", "show", "192.168.88.200")
        assert "lladdr" in neighbours, "the unicast was sent to the MAC the bot told by ARP"
    finally:
        await bot.stop()


async def test_the_room_recorder_records(party: Party, tmp_path: Path, needs: Callable[[str], None]) -> None:
    needs("tshark")
    file = tmp_path / "evening.pcapng"
    recorder = example(party, "room_recorder.py", *party.entrance(ROOM), "--count", "3", str(file))
    await recorder.start()
    await said(recorder, "recording room")
    ann = party.client("ann")
    sent = [ethernet(BROADCAST, ann.mac, 0x88B5, f"line {n}".encode().ljust(46)) for n in range(40)]
    with ann.frames() as port:
        for frame in sent:
            port.send(frame)
            await asyncio.sleep(0.05)
            if not recorder.running:
                break
    assert await recorder.wait(10) == 0
    rows = dissected(file, "eth.src", "frame.interface_name")
    assert len(rows) == 3
    assert {row["frame.interface_name"] for row in rows} == {ROOM}
    assert any(row["eth.src"] == ann.mac.hex(":") for row in rows)


async def test_nothing_to_capture_from(party: Party, tmp_path: Path) -> None:
    environment = {"SOFTLAN_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"]}
    lonely = Program(
        party.player("ann").host,
        "lonely",
        [sys.executable, "-m", "softlan", "capture", "x.pcapng"],
        environment,
    )
    await lonely.start()
    assert await lonely.wait(10) == 1
    assert "nothing of softlan is running here" in lonely.tail()


def asking(url: str, *options: str) -> tuple[str, ...]:
    """Ask for a page on the machine this is run on."""
    script = (
        "import sys, urllib.request as web\n"
        "headers = dict(option.split(': ', 1) for option in sys.argv[2:])\n"
        "print(web.urlopen(web.Request(sys.argv[1], headers=headers), timeout=10).read().decode())"
    )
    return (sys.executable, "-c", script, url, *options)


async def test_the_page_and_the_metrics_of_a_real_relay(
    empty_party: Party, tool: Any, needs: Callable[[str], None], tmp_path: Path
) -> None:
    """The numbers a browser shows and Prometheus reads are the counters `softlan status` tells."""
    needs("chromium")
    party = empty_party
    relay = await party.start_relay("--page", "8080")
    ready = await relay.program.event("page.ready")
    assert ready.fields["address"] == "127.0.0.1:8080"
    ann = await party.start_client("ann", address="192.168.88.51")
    ben = await party.start_client("ben", address="192.168.88.52")
    await tool(ann, "ping", "-c", "20", "-i", "0.05", "-q", ben.address)
    with ann.frames() as port:
        for _ in range(7):
            port.send(ethernet(BROADCAST, mac_bytes("02:00:00:00:00:99"), 0x88B5, b"no".ljust(46)))

    def seen() -> tuple[list[str], str, list[str]]:
        with open_browser(relay.host.call) as browser:
            browser.look("http://127.0.0.1:8080/", width=375, height=812)
            browser.until("document.querySelectorAll('#room-list > li').length === 1")
            browser.ask("document.querySelector('#room-list details').open = true")
            browser.until("document.querySelectorAll('.inside tbody tr').length === 2")
            macs = browser.ask("[...document.querySelectorAll('.inside .mac')].map((e) => e.textContent)")
            dropped = browser.ask("document.querySelector('.inside tbody tr td:last-child').textContent")
            return macs, dropped, browser.problems

    async def compared() -> tuple[int, int]:
        """What the page shows as dropped, and what was."""
        macs, dropped, problems = await asyncio.to_thread(seen)
        assert macs == [ann.mac.hex(":"), ben.mac.hex(":")]
        assert problems == []
        counted = await relay.peer_counters(ann.peer_id)
        assert counted["drop_source_foreign"] == 7
        return int(dropped), sum(value for name, value in counted.items() if name.startswith("drop_"))

    # The page shows its last look, which may be some seconds old.
    for _ in range(5):
        shown, real = await compared()
        if shown == real:
            break
    assert shown == real

    # Counters go on when a peer leaves.
    await ben.part.stop()
    await relay.program.event("peer.left")
    told = await asyncio.to_thread(relay.host.run, *asking("http://127.0.0.1:8080/metrics"))
    metrics = dict(line.rsplit(" ", 1) for line in told.splitlines() if line.startswith("softlan_"))
    assert float(metrics[f'softlan_frames_dropped_total{{reason="source-foreign",room="{ROOM}"}}']) == 7
    assert float(metrics[f'softlan_peers{{role="client",room="{ROOM}"}}']) == 1
    assert float(metrics[f'softlan_frames_received_total{{room="{ROOM}"}}']) >= 40
    assert float(metrics["softlan_admissions_total"]) == 2
    assert (await asyncio.to_thread(relay.host.run, *asking("http://127.0.0.1:8080/healthz"))).strip() == "ok"
    assert await relay.stop() == 0


async def test_a_page_for_other_machines_asks_for_a_token(empty_party: Party, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-token-of-twenty-five-ch\n")
    token.chmod(0o600)
    relay = await empty_party.start_relay("--page", "203.0.113.1:8080", "--page-token-file", str(token))
    await relay.program.event("page.exposed")
    elsewhere, url = empty_party.machine("operator"), "http://203.0.113.1:8080/metrics"
    refused = await asyncio.to_thread(lambda: elsewhere.run(*asking(url), check=False))
    assert "softlan_rooms" not in refused
    bearer = "Authorization: Bearer a-token-of-twenty-five-ch"
    assert "softlan_rooms 0.0" in await asyncio.to_thread(elsewhere.run, *asking(url, bearer))
    assert "a-token-of" not in relay.program.tail(1000)
    assert await relay.stop() == 0
