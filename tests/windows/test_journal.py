"""The undo journal: who owns it, what is in it when, and what the next start makes of it."""

import json
import os
import tempfile
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_ip import MemoryWorld
from scenarios import TAP

from softlan.errors import SoftlanError
from softlan.windows.errors import WindowsCallError, WindowsPrivilegeError
from softlan.windows.ip import Family, InterfaceSettings, Route
from softlan.windows.journal import Journal, recover
from softlan.windows.routes import InterfaceMtuSnapshot, ScopedInterfaceMtu, ScopedRoute
from softlan.windows.undo import AdapterUndo, CategoryUndo, InterfaceUndo, Outcome, RouteUndo, Undoer

ROUTE = Route(TAP, IPv4Network("224.0.0.0/4"), IPv4Address(0))
RECORDS = [
    InterfaceUndo(TAP, Family.IPV4, InterfaceSettings(mtu=1500), InterfaceSettings(mtu=1380)),
    InterfaceUndo(
        TAP,
        Family.IPV6,
        InterfaceSettings(metric=25, automatic_metric=True),
        InterfaceSettings(metric=1, automatic_metric=False),
    ),
    RouteUndo.of(ROUTE),
    CategoryUndo("{5A7C00AA-1111-4222-8333-444455556666}", 0, 1),
    AdapterUndo(r"ROOT\NET\0000"),
]


@pytest.fixture
def world():
    made = MemoryWorld()
    made.reset()
    return made


@pytest.fixture
def undoer(world):
    return Undoer(world.ip, sleep=lambda _: None)


def die(journal):
    """What is left of a process that was killed: the file, and no lock."""
    os.close(journal._lock)
    journal._lock = None


def files(directory):
    return sorted(path.suffix for path in directory.iterdir())


def test_a_record_is_in_the_file_before_its_change_is_made(world, undoer, tmp_path):
    seen = []
    change = world.ip.change_interface

    def look_first(*arguments):
        (path,) = tmp_path.glob("*.json")
        seen.append(len(json.loads(path.read_bytes())["records"]))
        change(*arguments)

    world.ip.change_interface = look_first
    with Journal(tmp_path, undoer) as journal, ScopedInterfaceMtu(world.ip, journal, TAP, 1380):
        assert seen == [1, 2]
    assert files(tmp_path) == []


def test_all_kinds_of_records_come_back_as_they_were(undoer, tmp_path):
    done = []

    class Recorder(Undoer):
        def undo(self, record):
            done.append(record)
            return Outcome.RESTORED

    journal = Journal(tmp_path, undoer)
    for record in RECORDS:
        journal.add(record)
    die(journal)
    assert recover(tmp_path, Recorder(undoer.ip)) == len(RECORDS)
    assert done == RECORDS[::-1]
    assert files(tmp_path) == []


def test_a_running_client_is_left_alone(world, undoer, tmp_path):
    with Journal(tmp_path, undoer) as journal, ScopedInterfaceMtu(world.ip, journal, TAP, 1380):
        assert recover(tmp_path, undoer) == 0
        assert InterfaceMtuSnapshot.take(world.ip, TAP) == InterfaceMtuSnapshot(TAP, 1380, 1380)


def test_a_dead_client_is_cleaned_up_after(world, undoer, tmp_path):
    before = world.state()
    journal = Journal(tmp_path, undoer)
    ScopedInterfaceMtu(world.ip, journal, TAP, 1380).__enter__()
    ScopedRoute(world.ip, journal, ROUTE).__enter__()
    die(journal)
    assert world.state() != before
    assert recover(tmp_path, undoer) == 3
    assert world.state() == before
    assert recover(tmp_path, undoer) == 0


def test_what_somebody_changed_since_is_left(world, undoer, tmp_path):
    journal = Journal(tmp_path, undoer)
    ScopedInterfaceMtu(world.ip, journal, TAP, 1380).__enter__()
    world.ip.change_interface(TAP, Family.IPV4, InterfaceSettings(mtu=1300))
    die(journal)
    assert recover(tmp_path, undoer) == 1
    assert InterfaceMtuSnapshot.take(world.ip, TAP) == InterfaceMtuSnapshot(TAP, 1300, 1500)


def test_what_is_gone_needs_nothing(world, undoer, tmp_path):
    journal = Journal(tmp_path, undoer)
    ScopedRoute(world.ip, journal, ROUTE).__enter__()
    world.ip.delete_route(ROUTE)
    die(journal)
    assert recover(tmp_path, undoer) == 0
    assert files(tmp_path) == []


def test_what_cannot_be_undone_stays_for_next_time(world, undoer, tmp_path):
    before = world.state()
    journal = Journal(tmp_path, undoer)
    ScopedInterfaceMtu(world.ip, journal, TAP, 1380).__enter__()
    die(journal)
    world.arm(1, 5, on=True)
    assert recover(tmp_path, undoer) == 0
    assert files(tmp_path) == [".json", ".lock"]
    world.arm(0)
    assert recover(tmp_path, undoer) == 2
    assert world.state() == before


def test_leaving_a_scope_says_when_it_cannot_undo(world, undoer, tmp_path):
    journal = Journal(tmp_path, undoer)
    scope = ScopedInterfaceMtu(world.ip, journal, TAP, 1380).__enter__()
    world.arm(1, 5, on=True)
    with pytest.raises(WindowsPrivilegeError, match="GetIpInterfaceEntry failed with error 5"):
        scope.__exit__(None, None, None)
    journal.close()
    assert len(journal.records) == 2
    assert files(tmp_path) == [".json", ".lock"]


def test_an_error_on_its_way_is_not_hidden(world, undoer, tmp_path):
    def fail():
        with Journal(tmp_path, undoer) as journal, ScopedInterfaceMtu(world.ip, journal, TAP, 1380):
            world.arm(1, 5, on=True)
            raise LookupError("first")

    with pytest.raises(LookupError, match="first"):
        fail()


def test_a_scope_that_was_interrupted_is_undone(world, undoer, tmp_path):
    before = world.state()
    change = world.ip.change_interface

    def interrupted(*arguments):
        change(*arguments)
        raise KeyboardInterrupt

    def play():
        with Journal(tmp_path, undoer) as journal, ScopedInterfaceMtu(world.ip, journal, TAP, 1380):
            pytest.fail("not reached")

    world.ip.change_interface = interrupted
    with pytest.raises(KeyboardInterrupt):
        # Taking back is interrupted as well, once for each family; the journal does the rest.
        play()
    world.ip.change_interface = change
    recover(tmp_path, undoer)
    assert world.state() == before


@pytest.mark.parametrize(
    "content", [b"", b"{", b'{"version": 2, "records": []}', b'{"version": 1, "records": [{"type": "x"}]}']
)
def test_a_broken_journal_is_set_aside(undoer, tmp_path, content):
    (tmp_path / "1-aa.undo.json").write_bytes(content)
    assert recover(tmp_path, undoer) == 0
    assert files(tmp_path) == [".broken"]


def test_a_journal_with_no_addresses_in_it_is_set_aside(undoer, tmp_path):
    record = {"type": "route", "luid": 1, "prefix": "everywhere", "next_hop": "::"}
    (tmp_path / "1-aa.undo.json").write_text(json.dumps({"version": 1, "records": [record]}))
    assert recover(tmp_path, undoer) == 0
    assert files(tmp_path) == [".broken"]


GENUINE = [msgspec.to_builtins(record) for record in RECORDS]
INTERFACE = {"type": "interface", "luid": TAP, "family": 2}
FORGED = [
    # Opening the firewall: a public network made private.
    {"type": "category", "network": "{5A7C00AA-1111-4222-8333-444455556666}", "before": 1, "after": 0},
    {"type": "category", "network": "{5A7C00AA-1111-4222-8333-444455556666}", "before": 2, "after": 1},
    # Switching on what the administrator has switched off.
    {"type": "adapter", "instance": "PCI\\VEN_8086&DEV_15B8&SUBSYS_00008086&REV_00\\3&11583659&0&FE"},
    {"type": "adapter", "instance": "ROOT\\SYSTEM\\0000"},
    # Taking away the way to everywhere, or to a company's network.
    {"type": "route", "luid": 1, "prefix": "0.0.0.0/0", "next_hop": "192.0.2.1"},
    {"type": "route", "luid": 1, "prefix": "::/0", "next_hop": "fe80::1"},
    {"type": "route", "luid": 1, "prefix": "10.0.0.0/8", "next_hop": "0.0.0.0"},
    {"type": "route", "luid": 1, "prefix": "224.0.0.0/4", "next_hop": "192.0.2.1"},
    {"type": "route", "luid": 1, "prefix": "192.0.2.1/32", "next_hop": "fe80::1"},
    # Settings that no scope makes.
    INTERFACE | {"before": {"mtu": 100}, "after": {"mtu": 1500}},
    INTERFACE | {"before": {}, "after": {}},
    INTERFACE | {"before": {"mtu": 1500, "metric": 1}, "after": {"mtu": 1400}},
    INTERFACE | {"before": {"mtu": 1500}, "after": {"mtu": 1400, "metric": 1}},
    INTERFACE
    | {
        "before": {"metric": 10_000, "automatic_metric": False},
        "after": {"metric": 1, "automatic_metric": False},
    },
    INTERFACE
    | {"before": {"metric": 5, "automatic_metric": True}, "after": {"metric": 1, "automatic_metric": True}},
    INTERFACE | {"before": {"disable_default_routes": True}, "after": {"disable_default_routes": False}},
]


@pytest.mark.parametrize("forged", FORGED, ids=lambda record: record["type"])
def test_what_softlan_never_writes_is_never_acted_on(world, undoer, tmp_path, forged):
    def fail(*_):
        pytest.fail("acted on a forged record")

    undoer.undo = fail
    (tmp_path / "1-aa.undo.json").write_text(json.dumps({"version": 1, "records": [*GENUINE, forged]}))
    assert recover(tmp_path, undoer) == 0
    assert files(tmp_path) == [".broken"]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.sampled_from(GENUINE + FORGED).flatmap(
            lambda record: st.fixed_dictionaries(
                {
                    name: st.just(value) | st.integers(-1, 2**64) | st.text(max_size=20) | st.none()
                    for name, value in record.items()
                }
            )
        ),
        max_size=4,
    ),
    st.binary(max_size=3),
)
def test_any_journal_is_acted_on_or_set_aside(records, tail):
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "1-aa.undo.json"
        path.write_bytes(json.dumps({"version": 1, "records": records}).encode() + tail)
        world = MemoryWorld()
        world.reset()
        recover(Path(place), Undoer(world.ip, sleep=lambda _: None))
        assert files(Path(place)) in ([], [".broken"], [".json", ".lock"])


def test_no_change_without_a_journal(world, undoer, tmp_path, monkeypatch):
    before = world.state()
    with Journal(tmp_path, undoer) as journal:

        def full(*_, **__):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("softlan.windows.journal.write_atomically", full)
        with pytest.raises(SoftlanError, match="No space left"):
            ScopedInterfaceMtu(world.ip, journal, TAP, 1380).__enter__()
        assert world.state() == before
        assert journal.records == ()


def test_a_journal_that_cannot_be_kept_is_said_at_once(undoer, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(SoftlanError, match="cannot keep a journal"):
        Journal(tmp_path / "file", undoer)


def test_recovering_where_there_never_was_a_journal(undoer, tmp_path):
    assert recover(tmp_path / "none", undoer) == 0


def test_an_adapter_that_is_gone_for_good_ends_the_matter(world, undoer):
    del world.ip.rows[TAP, Family.IPV4]
    assert undoer.undo(RECORDS[0]) is Outcome.GONE


def test_a_call_that_keeps_failing_is_tried_three_times(world):
    pauses = []
    undoer = Undoer(world.ip, sleep=pauses.append)
    world.arm(1, 31, on=True)
    with pytest.raises(WindowsCallError):
        undoer.undo(RECORDS[0])
    assert len(pauses) == 2
