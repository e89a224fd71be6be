"""One pasted line: players and gateways that know nothing but an invite."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from softlan.invite import parse_invite
from softlan.lab import Party
from softlan.lab.party import RELAY_ADDRESS, Client, Relay

ROOMS = """
[[room]]
code = "PARTY1"
key = "correct horse battery"
"""

MEMORY_DENY_WRITE_EXECUTE = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN (linux/prctl.h, Linux 6.3); older kernels refuse
os.execvp(sys.argv[1], sys.argv[1:])
"""


async def invite(relay: Relay, *options: str) -> str:
    """Run `softlan invite` beside the relay."""
    environment = ["env", f"SOFTLAN_RUNTIME_DIR={relay.directory}"]
    made = await asyncio.to_thread(
        relay.host.run, *environment, sys.executable, "-m", "softlan", "invite", *options, timeout=60
    )
    return made.splitlines()[0]


def paste(client: Client, line: str) -> None:
    """Have the client started by a shell that is given the whole line, as a player does it."""
    command = client.program.command
    rest = command[command.index("-") + 1 :]
    client.program.command = ["bash", "-c", f'exec {line} "$@"', "player", "--log-format", "json", *rest]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    client.part.environment["PATH"] = client.program.environment["PATH"] = path


async def test_a_player_and_a_gateway_join_by_the_line_the_relay_logs(empty_party: Party) -> None:
    party = empty_party
    lan = party.add_lan("home")
    relay = await party.start_relay("--public-host", RELAY_ADDRESS, "--allow-room", "party1")
    told = (await relay.program.event("invite.ready")).fields["message"]
    line = told.partition(": ")[2]
    assert line.startswith('softlan join "softlan://203.0.113.1/PARTY1?pin='), "port 443 goes without saying"
    gateway = party.make_gateway("gateway", lan, invite=line.split('"')[1])
    await gateway.start()
    ann = party.make_client("ann", invite="-")
    paste(ann, line)
    await ann.start()
    ann.station.set_address("192.168.88.51/24")
    assert (await ann.ping(party.player("server"))).good
    assert (await ann.part.status())["room"] == "PARTY1"


async def test_a_room_with_a_key_is_entered_by_invite_alone(empty_party: Party) -> None:
    party = empty_party
    rooms = party.directory / "rooms.toml"
    rooms.write_text(ROOMS)
    relay = await party.start_relay("--rooms", str(rooms), "--public-host", RELAY_ADDRESS)
    assert "softlan invite PARTY1" in (await relay.program.event("invite.ready")).fields["message"]
    link = await invite(relay, "--single-use", "--expires", "1h")
    ann = party.make_client("ann", invite=f"<{link.replace('&', '&amp;')}>")
    await ann.start()
    # The key is in nobody's log.
    key = parse_invite(link).key
    assert key is not None
    assert key not in ann.program.tail(500) + relay.program.tail(500)
    # Used once; and without the key, as when a shell cut the line at its "&".
    for name, given, words in (("ben", link, "invite"), ("cid", link.partition("&")[0], "key")):
        late = party.make_client(name, invite=given)
        await late.program.start()
        assert await late.program.wait(20) == 4
        assert words in late.program.tail(), late.program.tail()
    lan = party.add_lan("home")
    gateway = party.make_gateway("gateway", lan, invite=await invite(relay, "PARTY1", "--gateway"))
    await gateway.start()
    assert {peer["role"] for peer in await relay.peers()} == {"client", "gateway"}


async def test_another_relay_s_pin_is_named(empty_party: Party) -> None:
    await empty_party.start_relay()
    ann = empty_party.make_client("ann", invite=f"softlan://{RELAY_ADDRESS}/PARTY1?pin={'A' * 43}")
    await ann.program.start()
    assert await ann.program.wait(20) == 1
    assert "pin" in ann.program.tail(), ann.program.tail()


async def test_parts_need_no_more_rights_than_their_units_give(empty_party: Party) -> None:
    """The relay binds port 443 with CAP_NET_BIND_SERVICE, the gateway works with CAP_NET_RAW, a TAP takes CAP_NET_ADMIN.

    None makes memory both writable and executable (MemoryDenyWriteExecute=).
    """
    party = empty_party
    lan = party.add_lan("home")

    def restricted(program: object, capability: str) -> None:
        assert hasattr(program, "command")
        program.command = [
            "setpriv",
            f"--bounding-set=-all,+{capability}",
            "--no-new-privs",
            *program.command,
        ]

    relay = party.make_relay()
    restricted(relay.program, "net_bind_service")
    await relay.start()
    gateway = party.make_gateway("gateway", lan)
    restricted(gateway.program, "net_raw")
    await gateway.start()
    ann = party.make_client("ann")
    # One end of a cable, in place of a TAP, is a packet socket too.
    restricted(ann.program, "net_raw" if ann.attached else "net_admin")
    await ann.start()
    ann.station.set_address("192.168.88.51/24")
    assert (await ann.ping(party.player("server"))).good


async def test_a_service_tells_how_it_is(empty_party: Party) -> None:
    """Ready once it is in the room, and alive while it looks for a relay that is gone."""
    party = empty_party
    relay = await party.start_relay()
    ann = party.make_client("ann")
    address = str(party.directory / "notify")
    ann.program.environment |= {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(30)

        async def heard(*lines: str) -> None:
            while not set(lines) <= set((await asyncio.to_thread(manager.recv, 65536)).decode().splitlines()):
                pass

        await ann.program.start()
        message = (await asyncio.to_thread(manager.recv, 65536)).decode()
        assert "READY" not in message
        assert f"STATUS=trying to reach {RELAY_ADDRESS}:443" in message
        await heard("READY=1")
        await ann.joined(0)
        await relay.stop()
        await heard("WATCHDOG=1", f"STATUS=trying to reach {RELAY_ADDRESS}:443")
        ann.program.send_signal(signal.SIGTERM)
        await heard("STOPPING=1")
        assert await ann.program.wait(10) == 0
