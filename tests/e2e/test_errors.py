"""What people get wrong: each ends with another status than 0, in one to three lines that say what and what next."""

from __future__ import annotations

import datetime
import sys
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from softlan.lab import Party, Program
from softlan.lab.host import Host
from softlan.lab.party import RELAY_ADDRESS, Relay
from softlan.lab.testing import need, need_tun
from softlan.trust import public_key_pin

RELAY = f"{RELAY_ADDRESS}:443"


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def strict() -> AsyncIterator[Party]:
    """A relay that serves PARTY1 and TINY only, with 3 peers a room; PARTY1 has a gateway and ann."""
    async with Party() as party:
        lan = party.add_lan("home")
        await party.start_relay("--max-peers-per-room", "3", "--allow-room", "PARTY1", "--allow-room", "TINY")
        await party.start_gateway("gateway", lan)
        await party.start_client("ann")
        yield party


@pytest.fixture
def newcomer(strict: Party) -> Host:
    """A machine on the internet that has not joined yet."""
    return strict.machine("newcomer")


class Attempt:
    """One command that is expected to fail."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def __call__(
        self,
        host: Host,
        part: str,
        *options: str,
        status: int = 1,
        within: float = 15.0,
        before: Sequence[str] = (),
    ) -> str:
        """Run it, hold it to the rules for errors, and give what it said."""
        command = [*before, sys.executable, "-m", f"softlan.{part}", "--log-level", "error", *options]
        program = Program(host, part, command, {"SOFTLAN_RUNTIME_DIR": str(self._directory)})
        await program.start()
        try:
            ended = await program.wait(within)
        finally:
            await program.stop()
        said = "\n".join(program.lines)
        print(said)
        assert ended == status, said
        assert "Traceback" not in said
        if status in (1, 4):
            assert 1 <= len(program.lines) <= 3, said
            assert "error: " in said
            assert "hint: " in said, "it says what, but not what next"
        return said


@pytest.fixture
def fails(tmp_path: Path) -> Attempt:
    return Attempt(tmp_path)


def client_options(party: Party, tmp_path: Path, **changed: str) -> list[str]:
    assert party.relay is not None
    options = {
        "--relay": RELAY,
        "--server-name": "lanparty-relay.local",
        "--relay-ca-cert": str(party.relay.certificate),
        "--room": "PARTY1",
        "--identity": str(tmp_path / "identity.json"),
        **({"--attach": "wan"} if party.attach else {"--tap": "lan7"}),
    }
    options.update({f"--{name.replace('_', '-')}": value for name, value in changed.items()})
    return [word for pair in options.items() for word in pair]


def gateway_options(party: Party, tmp_path: Path, **changed: str) -> list[str]:
    options = client_options(party, tmp_path, **changed)
    for name in ("--attach", "--tap"):
        if name in options:
            del options[options.index(name) : options.index(name) + 2]
    return options if "--interface" in options else [*options, "--interface", "wan"]


async def test_duplicate_mac(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    mac = strict.client("ann").mac.hex(":")
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, virtual_mac=mac))
    assert mac in said


async def test_second_gateway(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    said = await fails(newcomer, "gateway", *gateway_options(strict, tmp_path))
    assert "room PARTY1 has a gateway already" in said


async def test_full_room(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    names = [f"tiny{number}" for number in range(3)]
    for name in names:
        await strict.start_client(name, room="TINY")
    try:
        said = await fails(newcomer, "client", *client_options(strict, tmp_path, room="tiny"))
        assert "room TINY is full: it holds 3 peers" in said
    finally:
        for name in names:
            await strict.client(name).part.stop()
            del strict.clients[name]


async def test_room_the_relay_does_not_serve(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path
) -> None:
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, room="ELSEWHERE"), status=4)
    assert "does not serve room ELSEWHERE" in said


@pytest.mark.parametrize("room", ["a room", "", "x" * 33, "ROOM/1"])
async def test_bad_room_code(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path, room: str
) -> None:
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, room=room), status=2)
    assert f"{room!r} cannot be a room" in said


def write_certificate(path: Path, name: str) -> Path:
    """Somebody else's certificate for a name, as DER."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.DER))
    return path


NOT_THAT_RELAY = "it is not the relay whose certificate or pin you were given"


async def test_wrong_certificate(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    other = write_certificate(tmp_path / "other.der", "lanparty-relay.local")
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, relay_ca_cert=str(other)))
    assert NOT_THAT_RELAY in said


async def test_wrong_pin(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    """Said with the pin that the relay has, so that the two can be compared."""
    options = client_options(strict, tmp_path)
    at = options.index("--relay-ca-cert")
    other = write_certificate(tmp_path / "other.der", "lanparty-relay.local").read_bytes()
    options[at : at + 2] = ["--pin", public_key_pin(other)]
    said = await fails(newcomer, "client", *options)
    assert NOT_THAT_RELAY in said
    assert strict.relay is not None
    assert public_key_pin(strict.relay.certificate.read_bytes()) in said


async def test_wrong_server_name(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, server_name="another.example"))
    assert "another.example" in said


@pytest.mark.parametrize("relay", ["203.0.113.250:443", f"{RELAY_ADDRESS}:9", "[2001:db8:5050::1]:9"])
async def test_unreachable_relay(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path, relay: str
) -> None:
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, relay=relay), within=20)
    assert relay in said


async def test_relay_name_that_does_not_resolve(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path
) -> None:
    said = await fails(
        newcomer, "client", *client_options(strict, tmp_path, relay="relay.invalid:443"), within=40
    )
    assert "relay.invalid" in said


async def test_missing_certificate_file(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path
) -> None:
    missing = str(tmp_path / "nothing.der")
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, relay_ca_cert=missing), status=2)
    assert "nothing.der" in said


async def test_certificate_file_that_is_none(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path
) -> None:
    noise = tmp_path / "noise.der"
    noise.write_bytes(b"not a certificate")
    said = await fails(
        newcomer, "client", *client_options(strict, tmp_path, relay_ca_cert=str(noise)), status=2
    )
    assert "noise.der" in said


async def test_missing_interface(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    said = await fails(newcomer, "gateway", *gateway_options(strict, tmp_path, interface="nope0"))
    assert "nope0" in said


async def test_interface_that_is_down(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    newcomer.ip("link add name asleep0 type veth peer name asleep1")
    said = await fails(newcomer, "gateway", *gateway_options(strict, tmp_path, interface="asleep0"))
    assert "asleep0" in said
    assert "down" in said


async def test_interface_that_is_no_ethernet(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path
) -> None:
    await fails(newcomer, "gateway", *gateway_options(strict, tmp_path, interface="lo"))


async def test_tap_name_that_is_taken(strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path) -> None:
    need_tun(strict.attach)
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, tap="wan"))
    assert "wan" in said


NO_PRIVILEGES = ["setpriv", "--inh-caps=-all", "--bounding-set=-all"]


@pytest.mark.parametrize("part", ["client", "gateway"])
async def test_no_privileges(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path, part: str
) -> None:
    need("setpriv")
    options = {"client": client_options, "gateway": gateway_options}[part](strict, tmp_path)
    said = await fails(newcomer, part, *options, before=NO_PRIVILEGES)
    assert "root" in said or "CAP_NET" in said


@pytest.mark.parametrize(
    "mac", ["03:00:00:00:00:01", "00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff", "02-00", "zz"]
)
async def test_mac_that_is_no_identity(
    strict: Party, newcomer: Host, fails: Attempt, tmp_path: Path, mac: str
) -> None:
    said = await fails(newcomer, "client", *client_options(strict, tmp_path, virtual_mac=mac), status=2)
    assert mac in said


async def test_relay_address_in_use(strict: Party, fails: Attempt) -> None:
    assert strict.relay is not None
    said = await fails(strict.relay.host, "relay", "--listen", RELAY)
    assert RELAY in said


async def test_relay_address_of_nobody(strict: Party, fails: Attempt) -> None:
    assert strict.relay is not None
    await fails(strict.relay.host, "relay", "--listen", "198.51.100.7:443")


@pytest.mark.parametrize(
    "options", [["--listen", "443/tcp"], ["--listen", "nowhere"], ["--cert", "chain.pem"]]
)
async def test_relay_options_that_make_no_sense(strict: Party, fails: Attempt, options: list[str]) -> None:
    assert isinstance(strict.relay, Relay)
    await fails(strict.relay.host, "relay", *options, status=2)


async def test_the_party_went_on(strict: Party) -> None:
    """None of the failures above disturbed those who were there."""
    assert strict.relay is not None
    assert {(peer["role"], peer["room"]) for peer in await strict.relay.peers()} == {
        ("gateway", "PARTY1"),
        ("client", "PARTY1"),
    }
    assert strict.client("ann").program.running
