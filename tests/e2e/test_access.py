"""Who may join, with the real programs: keys, invites, gateways, pins, kicks and bans."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator

import pytest_asyncio

from softlan.lab import Party
from softlan.lab.party import Part
from softlan.lab.testing import need
from softlan.relay.certificates import kept_dev_certificate
from softlan.trust import spki_sha256

ROOMS = """
[[room]]
code = "PARTY1"
key = "correct horse"
gateway-key-file = "gateway.key"

[[room]]
code = "OPEN"
open = true
"""


async def make_relay(party: Party, *options: str, rooms: str = ROOMS) -> None:
    (party.directory / "rooms.toml").write_text(rooms)
    (party.directory / "gateway.key").write_text("battery staple\n")
    files = ["--rooms", str(party.directory / "rooms.toml"), "--state", str(party.directory / "relay-state")]
    await party.start_relay(*files, *options)


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def guarded() -> AsyncIterator[Party]:
    """A relay with a room that asks for keys, and its gateway in it."""
    async with Party() as party:
        lan = party.add_lan("home")
        # One wrong key a minute and address: every machine here has its own, and makes no more unless it means to.
        await make_relay(party, "--wrong-keys-per-minute", "1")
        await party.start_gateway("gateway", lan, "--key", "battery staple")
        yield party


async def refused(part: Part, *statuses: int) -> str:
    """What a part says that the relay does not let in: it ends with 4 if not told otherwise, and says what and what next."""
    await part.program.start()
    assert await part.program.wait(20) in (statuses or (4,))
    said = "\n".join(line for line in part.program.lines if not line.startswith("{"))
    assert "error: " in said
    assert "hint: " in said
    assert "horse" not in part.program.tail(1000), "keys do not belong into logs"
    return said


async def test_the_right_key_lets_in_and_frames_flow(guarded: Party) -> None:
    ann = await guarded.start_client("ann", "--key", "correct horse", address="192.168.88.51")
    assert (await ann.ping(guarded.player("server"))).good


async def test_a_key_from_a_file(guarded: Party) -> None:
    key = guarded.directory / "key"
    key.write_text("correct horse\n")
    await guarded.start_client("filip", "--key-file", str(key))


async def test_a_key_from_the_environment(guarded: Party) -> None:
    eve = guarded.make_client("enviro")
    eve.part.program.environment = {**eve.part.environment, "SOFTLAN_KEY": "correct horse"}
    await eve.start()


async def test_the_wrong_key(guarded: Party) -> None:
    said = await refused(guarded.make_client("ben", "--key", "incorrect hors").part)
    assert "key" in said


async def test_no_key(guarded: Party) -> None:
    assert "--key" in await refused(guarded.make_client("cat").part)


async def test_the_players_key_makes_no_gateway(guarded: Party) -> None:
    other = guarded.add_lan("other")
    said = await refused(guarded.make_gateway("fake", other, "--key", "correct horse"))
    assert "gateway" in said


async def test_invites(guarded: Party) -> None:
    assert guarded.relay is not None
    invite = await guarded.relay.admin("invite", "PARTY1", "--single-use")
    dan = await guarded.start_client("dan", "--key", invite["key"])
    said = await refused(guarded.make_client("eve", "--key", invite["key"]).part)
    assert "invite of your own" in said
    expired = await guarded.relay.admin("invite", "PARTY1", "--expires", "1ms")
    assert "new invite" in await refused(guarded.make_client("fay", "--key", expired["key"]).part)

    # A peer that used its invite comes back with it, also to a relay that was restarted.
    since = dan.program.mark()
    guarded.relay.program.kill()
    await guarded.relay.program.wait(5)
    await guarded.relay.start()
    await dan.joined(since)
    said = await refused(guarded.make_client("gus", "--key", invite["key"]).part)
    assert "invite of your own" in said


async def test_who_may_make_no_adapter_has_not_used_the_invite(guarded: Party) -> None:
    """The invite is then the identity's that used it, and who forgot `sudo` comes back with root's."""
    need("setpriv")
    assert guarded.relay is not None
    invite = await guarded.relay.admin("invite", "PARTY1", "--single-use")
    nan = guarded.make_client("nan", "--key", invite["key"])
    since, command = guarded.relay.program.mark(), nan.program.command
    another = ["--identity", str(guarded.directory / "nan" / "user.json")]
    nan.program.command = ["setpriv", "--inh-caps=-all", "--bounding-set=-all", *command, *another]
    assert "CAP_NET" in await refused(nan.part, 1)
    assert not guarded.relay.program.found("peer.joined", since)
    nan.program.command = command
    await nan.start()


async def test_a_kicked_player_stays_out_for_a_while(guarded: Party) -> None:
    assert guarded.relay is not None
    hal = await guarded.start_client("hal", "--key", "correct horse")
    await guarded.relay.admin("kick", "PARTY1", hal.station.mac.hex(":"))
    assert await hal.program.wait(10) == 1
    assert "sent you away" in hal.program.tail()
    assert "minute" in await refused(hal.part, 1), "in a minute it may come back by itself"


async def test_a_banned_player_stays_out_over_a_restart(guarded: Party) -> None:
    assert guarded.relay is not None
    ida = await guarded.start_client("ida", "--key", "correct horse")
    await guarded.relay.admin("ban", "*", ida.station.mac.hex(":"), "--for", "1h")
    assert await ida.program.wait(10) == 1
    await guarded.relay.restart()
    assert "operator" in await refused(ida.part, 1), "when the ban is over it may come back by itself"
    await guarded.relay.admin("unban", "*", ida.station.mac.hex(":"))
    await ida.start()


async def test_guessing_ends_after_some_tries(guarded: Party) -> None:
    assert guarded.relay is not None
    jon = guarded.make_client("jon", "--key", "wrong guess")
    for _ in range(6):
        said = await refused(jon.part, 4, 1)
        if "too many wrong keys" in said:
            break
    assert "too many wrong keys" in said
    away = (await guarded.relay.status())["turned_away"]
    assert away["key-wrong"] >= 1
    assert away["too-many-attempts"] >= 1


async def test_those_who_were_in_went_on(guarded: Party) -> None:
    assert guarded.gateways["gateway"].program.running
    assert guarded.client("ann").program.running
    await guarded.start_client("kim", "--key", "correct horse")


# Pins


async def test_pins_in_place_of_names_and_overlapping_while_the_key_changes(empty_party: Party) -> None:
    party = empty_party
    present, following = party.directory / "present.pem", party.directory / "following.pem"
    # Key and certificate in one file each; the names are of no relay.
    old = kept_dev_certificate(present, "nobody.asks.example")
    new = kept_dev_certificate(following, "another.example")
    relay = party.make_relay("--cert", str(present), "--key", str(present), "--next-cert", str(following))
    await relay.start()
    listening = relay.program.found("relay.listening")[0]
    assert (listening.fields["pin"], listening.fields["next_pin"]) == (old.pin, new.pin)
    assert (await relay.admin("invite", "PARTY1"))["pins"] == [old.pin, new.pin]

    party.trust = ["--pin", spki_sha256(old.leaf), "--pin", new.pin]
    ann = await party.start_client("ann")
    party.trust = ["--pin", new.pin]
    stranger = party.make_client("stranger")
    said = await refused(stranger.part, 1)
    assert "pin" in said

    following.replace(present)
    since = relay.program.mark()
    relay.program.send_signal(signal.SIGHUP)
    await relay.program.event("certificate.loaded", since=since)
    await stranger.start()
    party.trust = ["--pin", old.pin]
    assert "pin" in await refused(party.make_client("late").part, 1)

    # Who holds both pins comes back to the relay with its new key.
    since = ann.program.mark()
    relay.program.kill()
    await relay.program.wait(5)
    await relay.start()
    await ann.joined(since)


async def test_a_pin_and_a_certificate_exclude_each_other(empty_party: Party) -> None:
    await empty_party.start_relay()
    part = empty_party.make_client("ann", "--pin", "A" * 43).part
    await part.program.start()
    assert await part.program.wait(10) == 2
    assert "exclude" in part.program.tail()


async def test_what_is_no_pin(empty_party: Party) -> None:
    await empty_party.start_relay()
    empty_party.trust = ["--pin", "A" * 44]
    part = empty_party.make_client("ann").part
    await part.program.start()
    assert await part.program.wait(10) == 2
    assert "43 characters" in part.program.tail()


# A relay without open rooms, and without a file


async def test_a_relay_for_invited_ones_alone(empty_party: Party) -> None:
    relay = await empty_party.start_relay("--no-open-rooms")
    lan = empty_party.add_lan("home")
    assert "key" in await refused(empty_party.make_client("ann").part)
    player = await relay.admin("invite", "ANYROOM")
    gateway = await relay.admin("invite", "ANYROOM", "--gateway")
    await empty_party.start_gateway("gateway", lan, "--key", gateway["key"], room="ANYROOM")
    ben = await empty_party.start_client(
        "ben", "--key", player["key"], room="ANYROOM", address="192.168.88.51"
    )
    assert (await ben.ping(empty_party.player("server"))).good


async def test_rooms_that_make_no_sense_are_named(empty_party: Party) -> None:
    rooms = empty_party.directory / "rooms.toml"
    rooms.write_text('[[room]]\ncode = "A"\nkey = "short"\n')
    relay = empty_party.make_relay("--rooms", str(rooms))
    await relay.program.start()
    assert await relay.program.wait(10) == 2
    assert "room 1 ('A'): key" in relay.program.tail()
