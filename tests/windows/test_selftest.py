"""What the self-test says where Windows refuses something: that, and all that comes after it."""

from types import SimpleNamespace

import pytest
from memory_ip import MemoryWorld
from scenarios import TAP, TAP_GUID

from softlan.windows import selftest
from softlan.windows.errors import call_error
from softlan.windows.journal import Journal
from softlan.windows.machine import Machine
from softlan.windows.selftest import Report
from softlan.windows.undo import Undoer


class Bench:
    """A machine in memory, an adapter whose cable is a word, and what was reported, by name."""

    def __init__(self, directory):
        self.world = MemoryWorld()
        self.world.reset()
        networks = SimpleNamespace(network_of=self._no_network)
        undoer = Undoer(self.world.ip, sleep=lambda _: None)
        self.machine = Machine(self.world.ip, networks, Journal(directory, undoer))
        self.media = []
        adapter = SimpleNamespace(guid=TAP_GUID)
        self.tap = SimpleNamespace(
            adapter=adapter, connect_media=lambda up=True: self.media.append("in" if up else "out")
        )
        self.lines = []
        self.report = Report(self.lines.append)

    @staticmethod
    def _no_network(_adapter):
        raise call_error("GetNetworkConnections", 1168, "find the network")

    def refuse(self, name):
        """Let a call of IP Helper's fail from now on."""

        def refused(*_arguments):
            raise call_error(name, 87, "do as it is told")

        setattr(self.world.ip, name, refused)

    def verdicts(self):
        return {line[5:39].strip(): line[:5].strip() for line in self.lines if line[:5].strip()}


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.machine.journal.close()


def test_a_route_that_is_refused_is_told_and_the_rest_is_tried(bench):
    bench.refuse("create_route")
    selftest._try_link(bench.report, bench.machine, bench.tap, TAP)
    told = bench.verdicts()
    assert (told["route 255.255.255.255/32"], told["route 224.0.0.0/4"]) == ("FAIL", "FAIL")
    assert "the route holds" not in told
    assert told["private network profile"] == "warn"
    assert told["pull the cable"] == "ok"
    assert bench.media == ["in", "out"]


def test_a_pin_that_was_refused_is_not_called_held(bench):
    bench.refuse("create_route")
    selftest._try_pin(bench.report, bench.machine, TAP)
    told = bench.verdicts()
    assert told["pin the relay's route"] == "FAIL"
    assert "the pin holds" not in told


def test_an_interface_that_goes_away_ends_in_words_and_without_a_cable(bench):
    bench.refuse("interface")
    selftest._try_link(bench.report, bench.machine, bench.tap, TAP)
    assert bench.verdicts()["the adapter's IP interface"] == "FAIL"
    assert bench.media == ["in", "out"]


def test_settings_that_are_refused_are_not_looked_at(bench):
    bench.refuse("change_interface")
    selftest._try_scopes(bench.report, bench.machine, TAP)
    assert bench.verdicts() == {
        "set the IP MTU": "FAIL",
        "set the metric": "FAIL",
        "suppress the default route": "FAIL",
    }


def test_all_of_it_works_in_memory(bench):
    before = bench.world.state()
    selftest._try_scopes(bench.report, bench.machine, TAP)
    selftest._try_pin(bench.report, bench.machine, TAP)
    selftest._try_link(bench.report, bench.machine, bench.tap, TAP)
    assert bench.report.failures == 0, bench.lines
    assert bench.verdicts()["the pin holds"] == "ok"
    assert bench.world.state() == before
