"""The Windows client, from its adapter to a LAN: in a Windows Python under Wine, through a Linux relay, to a Linux gateway.

Real: the client (Python and Rust, from the wheel), QUIC, relay, gateway, LAN host, and the kernels at both ends that talk to each other.
Stand-ins: the TAP driver, whose wire leads to a Linux kernel in place of Windows' IP stack, and iphlpapi.dll. Wine in place of Windows.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from desk import Desk
from wine_lab import HERE, Wine, checked, windows_path

from softlan.lab import LabError, Party, Program
from softlan.lab.host import Host
from softlan.lab.programs import Event

STANDIN_PORT = 47700
TAP_GUID = "{5F7A0001-50F7-4A1A-9A00-000000000001}"
MAC = "02:ff:5e:00:00:01"
WAN, TAP = 0x6008001000000, 0x35000005000000
"""Interface LUIDs, of the kind Windows gives to Ethernet and to a TAP."""


class WindowsClient:
    """`python -m softlan.client` under Wine, on a machine of the lab."""

    def __init__(
        self,
        party: Party,
        machine: Host,
        wine: Wine,
        directory: Path,
        *options: str,
        mac: str = MAC,
        as_it_was_left: bool = False,
    ) -> None:
        """`directory` keeps identity and stand-in between runs; `as_it_was_left`: network cards and routes are those of the last run."""
        cards = {
            "as_it_was_left": as_it_was_left,
            "interfaces": [
                ["{5A7C0001-1111-4222-8333-444455556666}", WAN, 12, 1500, 25, True, True, "203.0.113.77"],
                [TAP_GUID, TAP, 17, 1500, 35, True, True, "169.254.10.1"],
            ],
            "routes": [[WAN, "203.0.113.0", 24, "0.0.0.0", 256], [WAN, "0.0.0.0", 0, "203.0.113.254", 0]],
        }
        arguments = [
            *("-u", windows_path(HERE / "inside" / "run_client.py"), json.dumps(cards)),
            *("--log-format", "json", *party.entrance("PARTY1"), "--virtual-mac", mac),
            *("--identity", windows_path(directory / "identity.json"), *options),
        ]
        # CPython under Wine wants three pipes. The shell ends with the client, not with the one that holds the first pipe open.
        script = '"$@" < <(exec sleep infinity) 2>&1 | cat'
        self.program = Program(
            machine,
            "windows-client",
            ["bash", "-c", script, "bash", str(HERE / "wine" / "run"), str(wine.python_exe), *arguments],
            wine.environment(
                WINEDLLOVERRIDES="iphlpapi=n", SOFTLAN_STANDIN_STATE=windows_path(directory / "machine.state")
            ),
        )

    async def start(self) -> Event:
        """Start it and wait until it is in the room and its adapter carries frames."""
        await self.program.start()
        await self.program.event("session.joined", 60)
        return await self.program.event("adapter.ready", 30)

    async def ctrl_c(self) -> Event:
        """Press Ctrl-C, and wait until it has ended; gives what the stand-in knows then."""
        # Wine makes a console's CTRL_C_EVENT of a SIGINT.
        os.kill(self._windows_process(), signal.SIGINT)
        return await self.program.event("standin.after", 30)

    async def kill(self) -> None:
        """End it at once, as the task manager does."""
        os.kill(self._windows_process(), signal.SIGKILL)
        await self.program.wait(15)

    def _windows_process(self) -> int:
        """The process that is python.exe to Windows. It is in the session that the lab made for the program."""
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                with contextlib.suppress(OSError):
                    pid = int(entry.name)
                    words = (entry / "cmdline").read_bytes()
                    if os.getsid(pid) == self.program.pid and words.split(b"\0")[0].endswith(b"python.exe"):
                        return pid
        raise LabError("the Windows client does not run")


@dataclass
class Setting:
    """What the tests look at."""

    party: Party
    client: WindowsClient
    desk: Desk
    ready: Event
    another: Callable[..., WindowsClient]
    """Makes another client on the same machine; the options are those of `WindowsClient`."""


@pytest.fixture(scope="module")
def machine_wine(wine: Wine, tmp_path_factory: pytest.TempPathFactory) -> Wine:
    """Wine with the stand-in driver and the stand-in iphlpapi.dll, nothing of it running yet."""
    made = wine.copy(tmp_path_factory.mktemp("client"), standin_port=STANDIN_PORT)
    checked([str(HERE / "standin" / "iphlpapi" / "build.sh"), str(made.python_directory)])
    return made


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def setting(
    namespaces: None, machine_wine: Wine, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Setting]:
    directory = tmp_path_factory.mktemp("run")
    async with Party() as party:
        lan = party.add_lan("home")
        await party.start_relay("--frame-log", "drops")
        await party.start_gateway("gateway", lan)
        machine = party.machine("windows")
        another = functools.partial(WindowsClient, party, machine, machine_wine, directory)
        client = another()
        try:
            ready = await client.start()
            async with Desk(machine, bytes.fromhex(MAC.replace(":", "")), standin_port=STANDIN_PORT) as desk:
                # Windows' own stack would take it from NlMtu.
                desk.host.ip(f"link set lan0 mtu {ready.fields['tap_mtu']}")
                desk.player.station.set_address("192.168.88.77/24")
                yield Setting(party, client, desk, ready, another)
        except LabError as error:
            raise LabError(f"{error}\n{client.program.tail(60)}\n{party.logs()}") from error
        finally:
            await client.program.stop()
            # What Wine left running sits in the machine's namespace.
            machine_wine.server("-k")


pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.party]


async def test_it_reports_driver_and_interface(setting: Setting) -> None:
    opened = setting.client.program.found("adapter.opened")[0].fields
    assert (opened["driver_mac"], opened["driver_mtu"], opened["ifindex"]) == (MAC, 1500, 17)
    assert opened["luid"] == f"{TAP:#x}"


async def test_pings_go_both_ways(setting: Setting) -> None:
    desk, server = setting.desk.player, setting.party.player("server")
    out = await desk.ping(server, 10)
    back = await server.ping(desk, 10)
    assert (out.received, back.received) == (10, 10)
    print(f"to the LAN {out}, from the LAN {back}")


async def test_a_full_packet_passes_whole(setting: Setting) -> None:
    mtu = int(setting.ready.fields["tap_mtu"])
    result = await setting.desk.player.ping(setting.party.player("server"), 3, size=mtu - 28, whole=True)
    assert result.received == 3


async def test_a_broadcast_finds_the_games_on_the_lan(setting: Setting) -> None:
    others = [setting.party.player("router"), setting.party.player("server")]
    found = await setting.desk.player.find_games(others)
    assert set(found) == {"router", "server"}


async def test_tcp_both_ways(setting: Setting) -> None:
    desk, server = setting.desk.player, setting.party.player("server")
    out = await desk.send_to(server)
    back = await server.send_to(desk)
    print(f"to the LAN {out}, from the LAN {back}")


async def test_a_power_change_does_not_end_the_game(setting: Setting) -> None:
    desk, server = setting.desk.player, setting.party.player("server")
    opens = (await setting.desk.counts())["opens"]
    assert await setting.desk.command("power 0") == "ok"
    async with asyncio.timeout(15):
        while (await desk.ping(server, 1, within=0.5)).received == 0:
            pass
    assert (await setting.desk.counts())["opens"] == opens + 1


async def test_ctrl_c_puts_the_machine_back(setting: Setting) -> None:
    """The client of the tests above is gone afterwards."""
    before = setting.client.program.found("standin.before")[0].fields["state"]
    after = (await setting.client.ctrl_c()).fields
    assert after["code"] == 0
    assert after["state"] == before
    changes = [call for call in after["calls"] if call.startswith(("Set", "Create", "Delete"))]
    assert changes, "nothing was ever changed: the test shows nothing"
    assert setting.client.program.found("session.left")
    counts = await setting.desk.counts()
    assert (counts["media"], counts["pending"]) == (0, 0)


async def test_what_a_killed_client_left_is_put_right_by_the_next(setting: Setting) -> None:
    first = setting.another("--game-mode")
    await first.start()
    before = first.program.found("standin.before")[0].fields["state"]
    await first.kill()
    second = setting.another(as_it_was_left=True)
    await second.start()
    found = second.program.found("standin.before")[0].fields["state"]
    assert found != before, "the first client had changed nothing: the test shows nothing"
    assert (await setting.desk.player.ping(setting.party.player("server"), 3)).received == 3
    after = (await second.ctrl_c()).fields
    assert (after["code"], after["state"]) == (0, before)


async def test_another_mac_than_the_drivers_stops_before_the_relay_is_asked(setting: Setting) -> None:
    opens = (await setting.desk.counts())["opens"]
    client = setting.another(mac="02:00:00:00:00:99")
    await client.program.start()
    after = (await client.program.event("standin.after", 60)).fields
    assert after["code"] not in (0, None)
    assert after["state"] == client.program.found("standin.before")[0].fields["state"]
    assert not client.program.found("session.connecting")
    assert MAC in client.program.tail()
    counts = await setting.desk.counts()
    assert (counts["opens"], counts["media"]) == (opens + 1, 0)


async def test_the_drivers_mac_can_be_adopted(setting: Setting) -> None:
    client = setting.another("--mac-policy", "adopt", mac="02:00:00:00:00:99")
    ready = await client.start()
    assert ready.fields["mac"] == MAC
    assert (await setting.desk.player.ping(setting.party.player("server"), 3)).received == 3
    assert (await client.ctrl_c()).fields["code"] == 0
