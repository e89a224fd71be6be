"""The client's Windows options on the command line: shown everywhere, refused in words where they cannot work."""

import pytest
from click.testing import CliRunner

from softlan.client.cli import client, make_join
from softlan.client.windows_options import WindowsChoices
from softlan.windows.mac_policy import MacPolicy

OPTIONS = [
    ("--adapter", "LAN party"),
    ("--mac-policy", "adopt"),
    ("--allow-default-route",),
    ("--lowest-metric",),
    ("--broadcast-routes",),
    ("--private-network",),
    ("--game-mode",),
]
NEEDED = ["--relay", "relay.example.org:443", "--room", "ROOM1"]


def run(*arguments):
    return CliRunner().invoke(client, arguments)


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option[0])
def test_every_help_shows_it(option):
    assert option[0] in run("--help").output


@pytest.mark.parametrize("option", OPTIONS, ids=lambda option: option[0])
def test_linux_refuses_it_in_words(option, tmp_path):
    identity = tmp_path / "identity.json"
    result = run(*NEEDED, "--identity", str(identity), *option)
    assert not identity.exists(), "nothing is made for a client that cannot start"
    assert result.exit_code == 1
    assert f"error: {option[0]} works on Windows only; this is linux" in result.output
    assert "hint: " in result.output


def test_the_self_test_needs_neither_relay_nor_room():
    result = run("--self-test")
    assert result.exit_code == 1
    assert "error: --self-test tries out Windows' adapters and routes" in result.output


def test_without_it_both_are_needed():
    assert run("--room", "ROOM1").exit_code == 2
    assert "Missing option '--relay'" in run("--room", "ROOM1").output
    assert run("--self-test").exit_code == 1
    assert "Missing option '--room'" in run("--relay", "relay.example.org:443").output


def choices(**given):
    nothing = {
        "adapter": None,
        "mac_policy": None,
        "allow_default_route": False,
        "lowest_metric": False,
        "broadcast_routes": False,
        "private_network": False,
        "game_mode": False,
    }
    return WindowsChoices(**{**nothing, **given})


def test_nothing_asked_for_is_the_careful_way():
    options = choices().options()
    assert options.mac_policy is MacPolicy.STRICT
    assert not any(
        (
            options.allow_default_route,
            options.lowest_metric,
            options.broadcast_routes,
            options.private_network,
        )
    )


def test_game_mode_is_all_the_switches_for_games():
    options = choices(game_mode=True).options()
    assert options.lowest_metric
    assert options.broadcast_routes
    assert options.private_network
    assert not options.allow_default_route


def test_one_pasted_line_is_enough_on_windows_where_the_adapter_has_a_mac_of_its_own():
    policies = {
        platform: next(o for o in make_join(platform).params if o.name == "mac_policy").default
        for platform in ("win32", "linux")
    }
    assert policies["win32"] == "adopt"
    assert policies["linux"] == next(o for o in client.params if o.name == "mac_policy").default != "adopt"
