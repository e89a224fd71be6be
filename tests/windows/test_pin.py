"""Is the relay's route still the pinned one, and which one would do instead: decided without Windows."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from memory_ip import MemoryWorld
from scenarios import ETHERNET, RELAY, ROUTER, TAP, WIFI

from softlan.errors import InterfaceError
from softlan.windows.errors import WindowsCallError, call_error
from softlan.windows.ip import BestRoute, Family, InterfaceSettings, Route, host_network, plain_address
from softlan.windows.journal import Journal
from softlan.windows.pin import PinState, RelayPin, judge_pin, underlay_route
from softlan.windows.undo import Undoer

PIN = Route(ETHERNET, host_network(RELAY), ROUTER)
ON_LINK = Route(ETHERNET, host_network(RELAY), IPv4Address(0))


def best(route):
    return BestRoute(RELAY, IPv4Address("192.168.7.20"), 12, route)


@pytest.mark.parametrize(
    ("pinned", "now", "state"),
    [
        (PIN, PIN, PinState.HELD),
        (PIN, Route(ETHERNET, PIN.prefix, ROUTER, metric=7), PinState.HELD),
        (ON_LINK, ON_LINK, PinState.HELD),
        (ON_LINK, Route(ETHERNET, PIN.prefix, RELAY), PinState.HELD),
        (PIN, Route(ETHERNET, IPv4Network("0.0.0.0/0"), ROUTER), PinState.LOST),
        (PIN, Route(ETHERNET, PIN.prefix, IPv4Address("192.168.7.2")), PinState.LOST),
        (PIN, Route(ETHERNET, PIN.prefix, RELAY), PinState.LOST),
        (PIN, Route(WIFI, PIN.prefix, ROUTER), PinState.LOST),
        (PIN, Route(TAP, PIN.prefix, ROUTER), PinState.THROUGH_ADAPTER),
        (PIN, Route(TAP, IPv4Network("0.0.0.0/0"), ROUTER), PinState.THROUGH_ADAPTER),
    ],
)
def test_what_the_best_route_says_of_the_pin(pinned, now, state):
    assert judge_pin(pinned, best(now), TAP) is state


def test_no_route_at_all_is_no_reason_to_pin_anew():
    assert judge_pin(PIN, None, TAP) is PinState.OFFLINE


DEFAULT = IPv4Network("0.0.0.0/0")
NEAR = IPv4Network("203.0.113.0/24")


@pytest.mark.parametrize(
    ("routes", "metrics", "chosen"),
    [
        ([], {ETHERNET: 1}, None),
        ([Route(TAP, DEFAULT, ROUTER)], {TAP: 1}, None),
        ([Route(ETHERNET, DEFAULT, ROUTER), Route(WIFI, DEFAULT, ROUTER)], {ETHERNET: 25, WIFI: 50}, 0),
        ([Route(ETHERNET, DEFAULT, ROUTER, 30), Route(WIFI, DEFAULT, ROUTER)], {ETHERNET: 25, WIFI: 50}, 1),
        ([Route(ETHERNET, DEFAULT, ROUTER), Route(WIFI, NEAR, ROUTER, 999)], {ETHERNET: 25, WIFI: 50}, 1),
        ([Route(ETHERNET, DEFAULT, ROUTER), Route(WIFI, NEAR, ROUTER)], {ETHERNET: 25}, 0),
        ([Route(ETHERNET, IPv4Network("10.0.0.0/8"), ROUTER)], {ETHERNET: 25}, None),
    ],
)
def test_the_way_besides_the_adapter(routes, metrics, chosen):
    assert underlay_route(routes, metrics, RELAY, TAP) == (None if chosen is None else routes[chosen])


@given(
    st.lists(
        st.builds(
            Route,
            st.sampled_from([ETHERNET, WIFI, TAP]),
            st.integers(0, 32).map(lambda n: IPv4Network((int(RELAY) >> (32 - n) << (32 - n), n))),
            st.just(ROUTER),
            st.integers(0, 300),
        )
    )
)
def test_the_way_never_leads_through_the_adapter(routes):
    found = underlay_route(routes, {ETHERNET: 25, WIFI: 50, TAP: 1}, RELAY, TAP)
    assert found is None or found.luid != TAP
    assert (found is None) == all(route.luid == TAP for route in routes)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("203.0.113.9", RELAY),
        ("::ffff:203.0.113.9", RELAY),
        ("2001:db8::1", IPv6Address("2001:db8::1")),
        ("fe80::1%12", IPv6Address("fe80::1")),
    ],
)
def test_addresses_as_sockets_name_them(text, address):
    assert plain_address(text) == address


@pytest.fixture
def world():
    made = MemoryWorld()
    made.reset()
    return made


@pytest.fixture
def journal(world, tmp_path):
    with Journal(tmp_path, Undoer(world.ip, sleep=lambda _: None)) as opened:
        yield opened


def test_a_relay_on_this_machine_needs_no_pin(world, journal):
    pin = RelayPin(world.ip, journal, TAP)
    before = world.state()
    pin.pin(IPv4Address("127.0.0.1"))
    assert pin.route is None
    assert pin.check() is PinState.HELD
    assert world.state() == before


def test_another_address_takes_the_place_of_the_first(world, journal):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    other = IPv4Address("203.0.113.10")
    pin.pin(other)
    hosts = [route.prefix for route in world.ip.routes(Family.IPV4) if route.prefix.prefixlen == 32]
    assert hosts == [host_network(other)]
    pin.close()
    assert journal.records == ()


def test_only_the_adapter_leads_there(world, journal):
    world.ip.table = [Route(TAP, DEFAULT, ROUTER)]
    with pytest.raises(InterfaceError, match="besides the virtual adapter"):
        RelayPin(world.ip, journal, TAP).pin(RELAY)
    assert journal.records == ()


def test_offline_the_pin_waits(world, journal):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    world.set_interface(ETHERNET, connected=False)
    assert pin.check() is PinState.OFFLINE
    world.set_interface(ETHERNET, connected=True)
    assert pin.check() is PinState.HELD


def without_default(world, luid):
    return [r for r in world.ip.table if r.luid != luid or r.prefix != DEFAULT]


OTHER_ROUTER = IPv4Address("192.168.7.254")


def another_router(world):
    """On the same cable, as a DHCP lease may bring it."""
    world.ip.table = [*without_default(world, ETHERNET), Route(ETHERNET, DEFAULT, OTHER_ROUTER)]


def another_network(world):
    """Ethernet has a cable and no way out any more, Wi-Fi is there."""
    world.ip.table = without_default(world, ETHERNET)
    world.set_interface(WIFI, connected=True)


@pytest.mark.parametrize(
    ("happens", "way"),
    [(another_router, (ETHERNET, OTHER_ROUTER)), (another_network, (WIFI, IPv4Address("10.9.0.1")))],
)
def test_the_pin_moves_with_the_machine_though_its_route_is_still_there(world, journal, happens, way):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    happens(world)
    assert pin.check() is PinState.MOVED
    assert pin.check() is PinState.HELD
    assert (pin.route.luid, pin.route.next_hop) == way
    assert [r for r in world.ip.table if r.prefix == pin.route.prefix] == [pin.route]
    pin.close()
    assert journal.records == ()


def test_the_pin_stays_while_the_machine_has_no_other_way(world, journal):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    world.ip.table = without_default(world, ETHERNET)
    assert pin.check() is PinState.HELD
    assert pin.route == PIN


def test_of_two_ways_as_good_the_pin_keeps_its_own(world, journal):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    world.ip.table.insert(0, Route(ETHERNET, DEFAULT, OTHER_ROUTER))
    assert pin.check() is PinState.HELD


def test_a_way_that_windows_did_not_take_is_no_reason_to_move(world, journal):
    """The choice made here is by metrics alone; Windows may know better, as with a router that is dead."""
    world.set_interface(WIFI, connected=True)
    way = world.ip.best_route(RELAY)
    world.ip.table.insert(0, Route(WIFI, NEAR, IPv4Address("10.9.0.1")))
    best_route, world.ip.best_route = world.ip.best_route, lambda _: way
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    world.ip.best_route = best_route
    assert pin.check() is PinState.HELD
    assert pin.route == PIN


def test_a_route_of_somebody_elses_is_not_moved(world, journal):
    world.ip.create_route(PIN)
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    another_router(world)
    assert pin.check() is PinState.HELD
    assert pin.route == PIN


def test_a_default_route_that_is_suppressed_is_no_way(world, journal):
    pin = RelayPin(world.ip, journal, 0x99)
    pin.pin(RELAY)
    world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(disable_default_routes=True))
    world.ip.table.append(Route(TAP, DEFAULT, ROUTER))
    world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(metric=1, automatic_metric=False))
    assert pin.check() is PinState.HELD
    assert pin.route == PIN


def test_what_keeps_failing_is_said_once(world, journal, caplog):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    world.ip.table = [route for route in world.ip.table if route.prefix.prefixlen != 32]

    def refuse(route):
        raise call_error("CreateIpForwardEntry2", 5, "add the route")

    world.ip.create_route = refuse
    for _ in range(3):
        assert pin.check() is PinState.LOST
    assert len([record for record in caplog.records if "cannot pin" in record.message]) == 1


def test_the_new_pin_counts_even_if_the_old_one_sticks(world, journal):
    pin = RelayPin(world.ip, journal, TAP)
    pin.pin(RELAY)
    delete, other = world.ip.delete_route, IPv4Address("203.0.113.10")

    def refuse(route):
        raise call_error("DeleteIpForwardEntry2", 5, "remove the route")

    world.ip.delete_route = refuse
    with pytest.raises(WindowsCallError):
        pin.pin(other)
    world.ip.delete_route = delete
    assert pin.check() is PinState.HELD
    assert pin.route.prefix == host_network(other)
    pin.close()
    journal.close()
    assert [route for route in world.ip.table if route.prefix.prefixlen == 32] == []


def test_two_clients_of_one_relay_share_the_route(world, journal, tmp_path):
    """The second uses the first one's route, and makes its own once that is gone with the first."""
    with Journal(tmp_path / "second", Undoer(world.ip, sleep=lambda _: None)) as other:
        first, second = RelayPin(world.ip, journal, TAP), RelayPin(world.ip, other, 0x99)
        first.pin(RELAY)
        second.pin(RELAY)
        assert other.records == ()
        first.close()
        assert second.check() is PinState.LOST
        assert second.check() is PinState.HELD
        assert len(other.records) == 1
        second.close()
    assert [route for route in world.ip.table if route.prefix.prefixlen == 32] == []
