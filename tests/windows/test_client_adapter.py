"""The client's adapter on Windows, in memory: set up in order, looked after, put back, whatever call fails."""

import asyncio
from dataclasses import replace
from ipaddress import IPv4Network
from types import SimpleNamespace

import pytest
from memory_ip import MemoryWorld
from scenarios import CODES, ETHERNET, NOWHERE, RELAY, TAP, TAP_GUID, WIFI, outside

import softlan.client.windows as client_windows
from softlan._core import CoreError, Mac
from softlan.client.windows import PreparedAdapter, WindowsAdapter, WindowsOptions
from softlan.errors import InterfaceError, SoftlanError
from softlan.windows.errors import call_error
from softlan.windows.ip import Family, InterfaceSettings, Route
from softlan.windows.journal import Journal
from softlan.windows.mac_policy import MacPolicy
from softlan.windows.machine import Machine, wait_for_interface
from softlan.windows.pin import PinState
from softlan.windows.registry import InstalledAdapter
from softlan.windows.tap import GET_MAC, GET_MTU, GET_VERSION, SET_MEDIA_STATUS, Tap
from softlan.windows.undo import Undoer

PLAIN = WindowsOptions()
GAMES = WindowsOptions(lowest_metric=True, broadcast_routes=True, private_network=True)
RELAY_SOCKET = f"[::ffff:{RELAY}]:443"
ADAPTER = InstalledAdapter(guid=TAP_GUID, name="LAN party", key="0007", instance=r"ROOT\NET\0000")
DRIVER_MAC, IDENTITY = Mac("00:ff:5a:7c:00:01"), Mac("02:00:5e:10:00:01")
NETWORK = "{5A7C00AA-1111-4222-8333-444455556666}"


class Device:
    """A driver whose cable can be seen; media changes are calls that may fail too."""

    def __init__(self, world, mac=DRIVER_MAC):
        self.world, self.mac, self.connected, self.closed = world, mac, False, False

    def ioctl(self, code, data, answer_size):
        if self.closed:
            raise CoreError("closed", "it is closed")
        if code == SET_MEDIA_STATUS:
            try:
                self.world.ip._call("DeviceIoControl")
            except SoftlanError as error:
                raise CoreError("io", str(error)) from error
            self.connected = data[0] == 1
        answers = {
            GET_MAC: bytes(self.mac),
            GET_VERSION: b"\x09\0\0\0\x1b\0\0\0\0\0\0\0",
            GET_MTU: b"\xdc\x05\0\0",
        }
        return answers.get(code, data)

    def close(self):
        self.closed, self.connected = True, False


class Networks:
    """A network list with one public network, or none yet."""

    def __init__(self, world):
        self.world, self.known, self.now = world, True, 0

    def network_of(self, adapter):
        self.world.ip._call("GetNetworkConnections")
        if not self.known:
            raise call_error("GetNetworkConnections", 1168, "find the network")
        assert adapter == TAP_GUID
        return NETWORK

    def category(self, network):
        self.world.ip._call("GetCategory")
        return self.now

    def set_category(self, network, category):
        self.world.ip._call("SetCategory")
        self.now = category


class Bench:
    """A machine, a driver, and a journal."""

    def __init__(self, directory):
        self.world = MemoryWorld()
        self.world.reset()
        self.networks = Networks(self.world)
        self.device = Device(self.world)
        self.tap = Tap(ADAPTER, self.device)
        undoer = Undoer(
            self.world.ip,
            read_category=self.networks.category,
            write_category=self.networks.set_category,
            enable_adapter=lambda _: None,
            sleep=lambda _: None,
        )
        self.machine = Machine(self.world.ip, self.networks, Journal(directory, undoer))

    def state(self):
        return self.world.state(), self.networks.now

    def make(self, options=PLAIN, mtu=1416):
        return WindowsAdapter(self.machine, self.tap, TAP, options, mtu=mtu, relay=RELAY_SOCKET)

    def ipv4(self):
        return self.world.ip.rows[TAP, Family.IPV4]

    def prefixes(self, luid):
        return {str(route.prefix) for route in self.world.ip.table if route.luid == luid}


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.machine.journal.close()


async def test_what_is_set_up_and_put_back(bench):
    before = bench.state()
    adapter = bench.make()
    assert adapter.name == "LAN party"
    assert adapter.device is bench.device
    assert bench.device.connected
    assert bench.ipv4().mtu == 1416
    assert bench.ipv4().disable_default_routes
    assert bench.ipv4().automatic_metric
    assert f"{RELAY}/32" in bench.prefixes(ETHERNET)
    adapter.set_mtu(1400)
    assert bench.ipv4().mtu == 1400
    adapter.close()
    assert not bench.device.connected
    assert bench.state() == before
    assert bench.machine.journal.records == ()
    adapter.close()


async def test_the_switches_for_games(bench):
    before = bench.state()
    adapter = bench.make(GAMES)
    assert (bench.ipv4().metric, bench.ipv4().automatic_metric) == (1, False)
    assert bench.prefixes(TAP) == {"255.255.255.255/32", "224.0.0.0/4"}
    assert bench.networks.now == 1
    adapter.close()
    assert bench.state() == before


async def test_a_default_route_may_be_allowed(bench):
    adapter = bench.make(WindowsOptions(allow_default_route=True))
    assert not bench.ipv4().disable_default_routes
    adapter.close()


async def test_the_relay_is_pinned_and_all_is_set_before_the_cable_is_in(bench):
    seen = []
    original = bench.device.ioctl

    def look(code, data, answer_size):
        if code == SET_MEDIA_STATUS and data[0]:
            seen.append(
                (
                    f"{RELAY}/32" in bench.prefixes(ETHERNET),
                    bench.ipv4().mtu,
                    bench.ipv4().disable_default_routes,
                )
            )
        return original(code, data, answer_size)

    bench.device.ioctl = look
    bench.make().close()
    assert seen == [(True, 1416, True)]


async def count_calls(tmp_path, options):
    bench = Bench(tmp_path / "count")
    bench.world.arm(0)
    bench.make(options).close()
    return bench.world.calls()


@pytest.mark.slow
@pytest.mark.parametrize("options", [PLAIN, GAMES], ids=["plain", "games"])
async def test_any_call_may_fail(options, tmp_path):
    calls = await count_calls(tmp_path, options)
    assert calls > 15
    failed = 0
    for number in range(1, calls + 1):
        for code in CODES:
            bench = Bench(tmp_path / f"{number}-{code}")
            before = bench.state()
            bench.world.arm(number, code)
            try:
                bench.make(options).close()
            except SoftlanError:
                failed += 1
            bench.world.arm(0)
            bench.machine.journal.close()
            bench.tap.close()  # As `prepare` does; the link is down then in any case.
            assert bench.state() == before, f"call {number} failing with {code}"
            assert not bench.device.connected
            assert not list((tmp_path / f"{number}-{code}").iterdir())
    assert failed > calls


async def test_a_way_through_the_adapter_stops_it(bench, monkeypatch):
    bench.world.ip.automatic[TAP] = 0
    for family in Family:
        bench.world.ip.rows[TAP, family] = replace(bench.world.ip.rows[TAP, family], metric=0)
    before = bench.state()
    lan = Route(TAP, IPv4Network(f"{RELAY}/32"), NOWHERE)
    connect = bench.tap.connect_media

    def connect_and_learn(connected=True):
        connect(connected)
        bench.world.ip.table = [route for route in bench.world.ip.table if route != lan] + [lan] * connected

    monkeypatch.setattr(bench.tap, "connect_media", connect_and_learn)
    with pytest.raises(InterfaceError, match="through the virtual adapter itself"):
        bench.make()
    assert bench.state() == before


async def pinned_again(bench):
    async with asyncio.timeout(5):
        while f"{RELAY}/32" not in bench.prefixes(ETHERNET):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)


async def test_a_lost_pin_is_noticed_by_the_route_change(bench, monkeypatch):
    monkeypatch.setattr(client_windows, "_SETTLE_S", 0.001)
    adapter = bench.make()
    await asyncio.sleep(0)
    pinned = next(route for route in bench.world.ip.table if route.prefix.prefixlen == 32)
    bench.world.ip.delete_route(pinned)
    await pinned_again(bench)
    adapter.close()


async def test_a_lost_pin_is_noticed_by_looking_now_and_then(bench, monkeypatch):
    monkeypatch.setattr(client_windows, "_RECHECK_S", 0.001)
    adapter = bench.make()
    await asyncio.sleep(0)
    bench.world.ip.table = [route for route in bench.world.ip.table if route.prefix.prefixlen != 32]
    await pinned_again(bench)
    adapter.close()


async def test_it_still_looks_now_and_then_when_changes_cannot_be_watched(bench, monkeypatch):
    monkeypatch.setattr(client_windows, "_RECHECK_S", 0.001)

    def refuse(_):
        raise call_error("NotifyRouteChange2", 50, "watch the routing table")

    monkeypatch.setattr(bench.world.ip, "watch_routes", refuse)
    await test_a_lost_pin_is_noticed_by_looking_now_and_then(bench, monkeypatch)


async def test_what_windows_lost_is_set_up_again(bench):
    before = bench.state()
    adapter = bench.make(GAMES)
    bench.world.ip.table = [route for route in bench.world.ip.table if route.luid != TAP]
    bench.world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(mtu=1500))
    adapter.check()
    assert bench.prefixes(TAP) == {"255.255.255.255/32", "224.0.0.0/4"}
    assert bench.ipv4().mtu == 1416
    adapter.close()
    assert bench.state() == before


async def test_what_the_player_changed_is_left(bench):
    adapter = bench.make()
    bench.world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(mtu=1300))
    adapter.check()
    assert bench.ipv4().mtu == 1300
    adapter.close()
    assert bench.ipv4().mtu == 1300


async def test_the_network_is_made_private_once_windows_knows_it(bench):
    bench.networks.known = False
    adapter = bench.make(GAMES)
    assert bench.networks.now == 0
    bench.networks.known = True
    adapter.check()
    assert bench.networks.now == 1
    adapter.close()
    assert bench.networks.now == 0


async def test_what_keeps_failing_is_said_once(bench, caplog):
    bench.networks.known = False
    adapter = bench.make(GAMES)
    bench.networks.known = True

    def refuse(network, category):
        raise call_error("SetCategory", 5, "use the network profile")

    bench.networks.set_category = refuse
    records = bench.machine.journal.records
    for _ in range(3):
        adapter.check()
    said = [record.message for record in caplog.records if "cannot see to" in record.message]
    assert len(said) == 1
    assert "the private network profile" in said[0]
    assert bench.machine.journal.records == records
    adapter.close()


async def test_a_domain_network_is_left_alone(bench):
    bench.networks.now = 2
    adapter = bench.make(GAMES)
    assert bench.networks.now == 2
    adapter.close()
    assert bench.networks.now == 2


async def test_the_relay_may_move(bench):
    adapter = bench.make()
    adapter.relay_moved("203.0.113.77:443")
    assert {"203.0.113.77/32", f"{RELAY}/32"} & bench.prefixes(ETHERNET) == {"203.0.113.77/32"}
    adapter.close()


async def test_a_move_that_cannot_be_pinned_does_not_end_the_session(bench):
    adapter = bench.make()
    bench.world.arm(1, 31, on=True)
    adapter.relay_moved("203.0.113.77:443")
    bench.world.arm(0)
    adapter.close()


async def test_the_machine_may_move(bench):
    before = bench.state()
    adapter = bench.make()
    bench.world.set_interface(ETHERNET, connected=False)
    bench.world.set_interface(WIFI, connected=True)
    adapter.check()
    assert f"{RELAY}/32" in bench.prefixes(WIFI)
    assert adapter._pin.state() is PinState.HELD
    adapter.close()
    assert bench.state() == before


# Before the relay is asked --------------------------------------------------------------------------------------------


@pytest.fixture
def prepared(bench, monkeypatch):
    """`prepare` with everything that is Windows replaced; gives what was done, and the driver's MAC after a restart."""
    done = SimpleNamespace(log=[], after=IDENTITY, opened=[])
    monkeypatch.setattr(client_windows, "require_administrator", lambda: None)
    monkeypatch.setattr(client_windows, "installed_adapters", lambda: [ADAPTER])
    monkeypatch.setattr(client_windows, "read_network_address", lambda _: "FORMER")
    monkeypatch.setattr(
        client_windows, "write_network_address", lambda _, value: done.log.append(f"write {value}")
    )
    monkeypatch.setattr(client_windows, "_REOPEN_S", 0.05)

    def restart(journal, instance):
        done.log.append("restart")
        bench.device.mac = done.after

    class Machines:
        def __enter__(self):
            return bench.machine

        def __exit__(self, *_):
            pass

    def open_tap(_):
        bench.device.closed = False
        done.opened.append(True)
        return bench.tap

    monkeypatch.setattr(client_windows, "restart_device", restart)
    monkeypatch.setattr(client_windows, "open_machine", Machines)
    monkeypatch.setattr(client_windows.Tap, "open", open_tap)
    return done


def prepare(policy, identity=IDENTITY):
    return client_windows.prepare(WindowsOptions(mac_policy=policy), identity)


def test_strict_stops_before_anything_is_changed(bench, prepared):
    before = bench.state()
    with pytest.raises(InterfaceError, match="the adapter's MAC is"), prepare(MacPolicy.STRICT):
        pass
    assert bench.device.closed
    assert bench.state() == before
    assert prepared.log == []


def test_strict_goes_on_with_equal_macs(bench, prepared):
    with prepare(MacPolicy.STRICT, DRIVER_MAC) as adapter:
        assert isinstance(adapter, PreparedAdapter)
        assert adapter.mac == DRIVER_MAC
        assert not bench.device.connected
    assert bench.device.closed


def test_adopt_says_hello_with_the_drivers(prepared):
    with prepare(MacPolicy.ADOPT) as adapter:
        assert adapter.mac == DRIVER_MAC
    assert prepared.log == []


def test_configure_writes_restarts_reopens_and_verifies(bench, prepared):
    with prepare(MacPolicy.CONFIGURE) as adapter:
        assert adapter.mac == IDENTITY
        assert prepared.log == ["write 02005E100001", "restart"]
        assert len(prepared.opened) == 2
        assert bench.tap.mac() == IDENTITY


def test_configure_puts_the_former_mac_back_if_the_driver_ignores_it(bench, prepared):
    prepared.after = DRIVER_MAC
    with pytest.raises(InterfaceError, match="was told to have the MAC"), prepare(MacPolicy.CONFIGURE):
        pass
    assert prepared.log == ["write 02005E100001", "restart", "write FORMER", "restart"]
    assert bench.device.closed


def test_configure_waits_for_an_adapter_that_is_starting(bench, prepared, monkeypatch):
    fine = client_windows.Tap.open
    attempts = []

    def slow(adapter):
        attempts.append(True)
        if len(attempts) == 2:
            raise InterfaceError("not running")
        return fine(adapter)

    monkeypatch.setattr(client_windows, "_SETTLE_S", 0.001)
    monkeypatch.setattr(client_windows.Tap, "open", slow)
    with prepare(MacPolicy.CONFIGURE) as adapter:
        assert adapter.mac == IDENTITY
    assert len(attempts) == 3


def test_an_interface_that_is_starting_is_waited_for(bench):
    failures = [1168, 1168, 2]
    interface = bench.world.ip.interface

    def starting(luid, family):
        if failures:
            raise call_error("GetIpInterfaceEntry", failures.pop(), "read the interface")
        return interface(luid, family)

    bench.world.ip.interface = starting
    assert wait_for_interface(bench.world.ip, TAP_GUID, timeout_s=30) == TAP


def test_an_interface_that_does_not_come_is_said(bench):
    bench.world.arm(1, 1168, on=True)
    with pytest.raises(SoftlanError, match="1168"):
        wait_for_interface(bench.world.ip, TAP_GUID, timeout_s=0)


def test_outside_calls_are_not_counted(bench):
    outside(bench.world, bench.world.ip.routes, Family.IPV4)
    assert bench.world.calls() == 0
