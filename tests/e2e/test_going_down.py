"""A relay that goes down on purpose: peers are told, play on while it drains, and come back later or elsewhere."""

from __future__ import annotations

import shutil
import signal

from softlan.lab import Party
from softlan.lab.party import RELAY_ADDRESS, RELAY_PORT


async def test_a_draining_relay_lets_peers_play_on_and_nobody_new_in(empty_party: Party) -> None:
    party = empty_party
    relay = await party.start_relay("--drain", "60")
    ann = await party.start_client("ann", address="192.168.88.51")
    ben = await party.start_client("ben", address="192.168.88.52")
    told = ann.program.mark()
    relay.program.send_signal(signal.SIGTERM)
    notice = await ann.program.event("session.ending", since=told)
    assert notice.fields["in_s"] == 60
    # Frames flow still.
    assert (await ann.ping(ben)).good
    late = party.make_client("cid")
    await late.program.start()
    assert await late.program.wait(15) == 1
    assert "stopping or restarting" in late.program.tail()
    # When all have left there is nobody to wait for.
    await ann.part.stop()
    await ben.part.stop()
    assert await relay.program.wait(10) == 0


async def test_a_second_signal_ends_the_drain(empty_party: Party) -> None:
    relay = await empty_party.start_relay("--drain", "60", "--back-in", "1")
    ann = await empty_party.start_client("ann")
    since = ann.program.mark()
    relay.program.send_signal(signal.SIGTERM)
    await ann.program.event("session.ending", since=since)
    since = ann.program.mark()
    relay.program.send_signal(signal.SIGTERM)
    assert await relay.program.wait(10) == 0
    await ann.program.event("session.lost", since=since)
    retry = await ann.program.event("session.retry", since=since)
    assert 1.0 <= retry.fields["delay_s"] <= 1.25, "the relay said when it is back"
    await relay.start()
    await ann.joined(since)


async def test_peers_move_to_the_successor(empty_party: Party) -> None:
    """The successor has the same certificate; when it is gone too, peers go back to the relay they were given."""
    party = empty_party
    port = RELAY_PORT + 1
    relay = await party.start_relay("--successor", f"{RELAY_ADDRESS}:{port}", "--drain", "0")
    ann = await party.start_client("ann")
    second = party.another_relay("second", f"{RELAY_ADDRESS}:{port}")
    shutil.copy(relay.directory / "certificate.state", second.directory / "certificate.state")
    await second.start()
    since = ann.program.mark()
    await relay.stop()
    await ann.joined(since)
    assert (await ann.part.status())["relay"] == f"{RELAY_ADDRESS}:{port}"
    assert [peer["peer_id"] for peer in await second.peers()] == [ann.peer_id]
    since = ann.program.mark()
    await relay.start()
    await second.stop()
    await ann.joined(since)
    assert (await ann.part.status())["relay"] == f"{RELAY_ADDRESS}:{RELAY_PORT}"
