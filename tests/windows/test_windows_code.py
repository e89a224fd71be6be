"""softlan's Windows code, run by a Windows Python under Wine: IP Helper's calls, a death in the middle, the registry, the console.

iphlpapi.dll is a stand-in that keeps state and enforces what MSDN documents; registry, processes, files and locks are Wine's.
"""

import json

import pytest
from standin_python import INSIDE, windows_path

CALLS = [
    "best_route",
    "no_route",
    "guid_to_luid_to_index",
    "site_prefix_length",
    "a_change_leaves_the_rest",
    "no_ipv6",
    "no_such_interface",
    "mtu_out_of_range",
    "not_an_administrator",
    "a_route_twice",
    "tables_are_given_back",
    "route_changes_are_told",
    "an_adapter_that_is_starting",
]


@pytest.fixture(scope="module")
def calls(standin):
    return standin.result(INSIDE / "run_calls.py")


@pytest.mark.parametrize("name", CALLS)
def test_a_call(calls, name):
    assert calls[name] is None, calls[name]


def test_no_check_is_left_out(calls):
    assert sorted(calls) == sorted(CALLS)


def test_a_terminated_client_is_cleaned_up_after_by_the_next(standin, tmp_path):
    directory = tmp_path / "undo"
    environment = {"SOFTLAN_STANDIN_STATE": windows_path(tmp_path / "machine.state")}
    died = standin.result(INSIDE / "run_crash.py", "play", directory, environment=environment)
    assert died["changed"] != died["before"]
    assert died["records"] == 8
    # A softlan beside it left everything alone: its journal has an owner.
    assert '"recovered": 0' in died["beside"]
    assert died["after_beside"] == died["changed"]
    assert len(list(directory.glob("*.json"))) == 1

    following = standin.result(INSIDE / "run_crash.py", "next", directory, environment=environment)
    assert following["recovered"] == died["records"]
    assert following["state"] == died["before"]
    assert following["left"] == []


def test_adapters_are_found_in_the_registry(standin, tap_wine):
    found = standin.result(INSIDE / "run_registry.py", environment={"WINEPREFIX": str(tap_wine.prefix)})
    adapters = {row[0]: row[1:] for row in found["adapters"]}
    assert sorted(adapters) == ["0041", "0042", "0051"]
    assert adapters["0041"] == [
        "{5F7A0001-50F7-4A1A-9A00-000000000001}",
        "softlan",
        r"ROOT\NET\0000",
        "9.27.0.0",
        r"\\.\Global\{5F7A0001-50F7-4A1A-9A00-000000000001}.tap",
    ]
    # An adapter without a connection goes by its GUID.
    guid = "{5F7A0009-50F7-4A1A-9A00-000000000009}"
    assert adapters["0051"] == [guid, guid.lower(), None, "9.24.2.601", rf"\\.\Global\{guid}.tap"]
    assert found["macs"] == [None, "02005E100001", None, None]
    assert "RegSetValueEx failed with error 2 (" in found["missing"]


def test_ctrl_c_and_log_off_wait_for_the_client(standin, wine, tmp_path):
    prefix = wine.copy(tmp_path / "wine")
    # Windows without a display need Wine's null driver.
    prefix.run("reg", "add", r"HKCU\Software\Wine\Drivers", "/v", "Graphics", "/d", "null", "/f")
    try:
        found = standin.result(INSIDE / "run_console.py", environment={"WINEPREFIX": str(prefix.prefix)})
    finally:
        prefix.server("-k")
    assert found["console"]
    assert found["ctrl_c_sent"]
    assert found["ctrl_c_stops"] == 1
    assert found["window"]
    assert found["query"] == 1
    assert found["cancelled_stops"] == 1, "a log-off that was called off must not end the game"
    assert found["log_off_stops"] == 2
    assert found["log_off_waits"]
    assert found["log_off_ends"]


CARDS = {
    "as_it_was_left": False,
    "interfaces": [
        ["{5A7C0001-1111-4222-8333-444455556666}", 0x6008001000000, 12, 1500, 25, True, True, "192.168.7.20"],
        ["{5F7A0001-50F7-4A1A-9A00-000000000001}", 0x35000005000000, 17, 1500, 35, True, True, "169.254.1.1"],
    ],
    "routes": [[0x6008001000000, "0.0.0.0", 0, "192.168.7.1", 0]],
}


@pytest.fixture
def run_client(standin, tap_wine):
    """Run the client on a machine with the stand-in's cards and driver; gives exit status, lines, the machine before and after."""

    def run(*arguments, wine=tap_wine):
        home = {"WINEPREFIX": str(wine.prefix)}
        _, output = standin.run(INSIDE / "run_client.py", json.dumps(CARDS), *arguments, environment=home)
        told = [json.loads(line) for line in output.splitlines() if line.startswith('{"event": "standin')]
        assert [it["event"] for it in told] == ["standin.before", "standin.after"], output
        lines = [line for line in output.splitlines() if not line.startswith('{"event": "standin')]
        return told[1]["code"], lines, (told[0]["state"], told[1]["state"])

    return run


def test_the_self_test_finds_all_well_and_changes_nothing(run_client, tap_wine):
    code, lines, (before, after) = run_client("--self-test", "--adapter", "SOFTLAN", "--log-level", "error")
    assert code == 0, "\n".join(lines)
    assert lines[-1] == "all good"
    verdicts = {line[5:39].strip(): line[:4].strip() for line in lines[:-1]}
    assert set(verdicts.values()) <= {"ok", "warn"}
    for name in (
        "driver MAC",
        "set the IP MTU",
        "the metric holds",
        "pin the relay's route",
        "route 224.0.0.0/4",
    ):
        assert verdicts[name] == "ok"
    assert before == after
    (journals,) = tap_wine.prefix.glob("drive_c/users/*/AppData/Local/softlan/undo")
    assert list(journals.iterdir()) == []


def test_the_self_test_says_what_does_not_work(run_client, wine):
    """The cached prefix has no TAP driver."""
    code, lines, _ = run_client("--self-test", "--log-level", "error", wine=wine)
    assert code == 1
    assert any(line.startswith("FAIL the adapter") and "no TAP-Windows6 adapter" in line for line in lines)
    assert any("tapctl create" in line for line in lines)


def test_a_system_without_these_calls_is_said_in_a_sentence(standin):
    """Wine's own iphlpapi.dll."""
    own = {"WINEDLLOVERRIDES": "iphlpapi=b"}
    status, output = standin.run("-m", "softlan.client", "--self-test", environment=own)
    assert status == 1
    assert "iphlpapi.dll has no GetIpInterfaceEntry" in output
    assert "Traceback" not in output


def play(run_client, tmp_path, *more):
    identity = windows_path(tmp_path / "identity.json")
    return run_client("--relay", "127.0.0.1:9", "--room", "ROOM1", "--identity", identity, *more)


def test_another_mac_stops_the_client_before_anything(run_client, tmp_path):
    code, lines, (before, after) = play(run_client, tmp_path)
    assert code == 1
    assert lines[-2].startswith(
        "error: the adapter's MAC is 02:ff:5e:00:00:01, but this player's identity is "
    )
    assert lines[-1].startswith("hint: let --mac-policy adopt")
    assert before == after


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--adapter", "nobody's"], 'error: there is no TAP adapter called "nobody\'s"'),
        (["--tap", "tap0"], "error: --tap works on Linux only"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(run_client, tmp_path, options, said):
    code, lines, (before, after) = play(run_client, tmp_path, *options)
    assert code in (1, 2)
    assert said in lines
    assert before == after


def test_adopt_reports_the_driver_and_goes_on_to_the_relay(run_client, tmp_path):
    code, lines, (before, after) = play(run_client, tmp_path, "--mac-policy", "adopt", "--log-format", "json")
    events = {it["event"]: it for it in map(json.loads, (line for line in lines if line.startswith("{")))}
    opened = events["adapter.opened"]
    assert (opened["driver"], opened["driver_mac"], opened["driver_mtu"]) == (
        "9.27",
        "02:ff:5e:00:00:01",
        1500,
    )
    assert (opened["ifindex"], opened["luid"]) == (17, "0x35000005000000")
    assert "session.connecting" in events
    assert code == 1
    assert before == after


def test_the_network_list_is_called_by_its_methods(standin):
    """Wine's own network list answers; it has no SetCategory."""
    found = standin.result(INSIDE / "run_networks.py")
    assert found["found"] == found["adapters"]
    assert set(found["categories"]) <= {0, 1, 2}
    assert "failed with error 1168" in found["unknown_adapter"]
    assert "failed with error 1168" in found["unknown_network"]
