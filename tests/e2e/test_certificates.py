"""The relay's certificates: production PEM files reloaded, a kept dev certificate, one that is made anew."""

from __future__ import annotations

import datetime
import shutil
import signal
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from softlan.lab import Party
from softlan.lab.party import RELAY_ADDRESS, SERVER_NAME
from softlan.relay.certificates import kept_dev_certificate

DAY = datetime.timedelta(days=1)


class Authority:
    """A certificate authority, as small as one can be."""

    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        ca = x509.BasicConstraints(ca=True, path_length=None)
        self.certificate = (
            self._builder(self.name, self.key)
            .add_extension(ca, critical=True)
            .sign(self.key, hashes.SHA256())
        )

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        now = datetime.datetime.now(datetime.UTC)
        builder = x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        return builder.not_valid_before(now - DAY).not_valid_after(now + 30 * DAY)

    def issue(self, directory: Path) -> str:
        """Write `cert.pem` and `key.pem` for the relay; gives the certificate's serial number."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName(SERVER_NAME)])
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, SERVER_NAME)])
        leaf = (
            self._builder(subject, key).add_extension(names, critical=False).sign(self.key, hashes.SHA256())
        )
        (directory / "key.pem").write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        )
        chain = [leaf, self.certificate]
        (directory / "cert.pem").write_bytes(b"".join(part.public_bytes(Encoding.PEM) for part in chain))
        return str(leaf.serial_number)

    def write(self, path: Path) -> None:
        path.write_bytes(self.certificate.public_bytes(Encoding.PEM))


async def test_production_files_are_reloaded_without_a_restart(empty_party: Party) -> None:
    party = empty_party
    ours, others = Authority("ours"), Authority("others")
    ours.issue(party.directory)
    relay = party.make_relay(
        "--cert", str(party.directory / "cert.pem"), "--key", str(party.directory / "key.pem")
    )
    await relay.start()
    ours.write(relay.certificate)  # players trust the authority
    ann = await party.start_client("ann")

    # A certificate of another authority: ann stays, and who trusts only ours is refused.
    others.issue(party.directory)
    since = relay.program.mark()
    relay.program.send_signal(signal.SIGHUP)
    await relay.program.event("certificate.loaded", since=since)
    ben = party.make_client("ben")
    await ben.program.start()
    assert await ben.program.wait(10) == 1
    assert "certificate" in ben.program.tail(3)
    assert [peer["peer_id"] for peer in await relay.peers()] == [ann.peer_id]

    # What cannot be used changes nothing.
    (party.directory / "key.pem").write_text("no key")
    since = relay.program.mark()
    relay.program.send_signal(signal.SIGHUP)
    await relay.program.event("certificate.failed", since=since)
    assert relay.program.running

    ours.issue(party.directory)
    since = relay.program.mark()
    relay.program.send_signal(signal.SIGHUP)
    await relay.program.event("certificate.loaded", since=since)
    ours.write(relay.certificate)  # the relay has written its own certificate there
    await ben.start()
    assert {peer["peer_id"] for peer in await relay.peers()} == {ann.peer_id, ben.peer_id}


async def test_invites_leave_the_pin_out_only_where_an_authority_vouches_for_the_certificate(
    empty_party: Party,
) -> None:
    """An operator's own self-signed certificate is in no player's list of authorities, whatever its name."""
    party = empty_party
    certificate, key = party.directory / "cert.pem", party.directory / "key.pem"
    made = kept_dev_certificate(certificate, SERVER_NAME)
    shutil.copy(certificate, key)
    relay = party.make_relay(
        *("--cert", str(certificate), "--key", str(key)),
        *("--public-host", SERVER_NAME, "--allow-room", "PARTY1"),
    )
    await relay.start()
    told = (await relay.program.event("invite.ready")).fields["message"]
    assert f"?pin={made.pin}" in told
    assert not relay.program.found("invite.note")
    # By its address, for want of a name server here.
    ann = party.make_client("ann", "--relay", f"{RELAY_ADDRESS}:443", invite=told.split('"')[1])
    await ann.start()

    Authority("ours").issue(party.directory)
    since = relay.program.mark()
    relay.program.send_signal(signal.SIGHUP)
    await relay.program.event("certificate.loaded", since=since)
    assert (await relay.status())["invite"]["pins"] == []


async def test_a_kept_dev_certificate_outlives_the_relay(empty_party: Party) -> None:
    relay = await empty_party.start_relay()
    before = relay.certificate.read_bytes()
    state = empty_party.directory / "relay" / "certificate.state"
    assert state.stat().st_mode & 0o077 == 0, "it holds the key"
    ann = await empty_party.start_client("ann")
    since = ann.program.mark()
    relay.program.kill()
    await relay.program.wait(5)
    await relay.start()
    assert relay.certificate.read_bytes() == before
    await ann.joined(since)


async def test_a_relay_that_makes_its_certificate_anew_is_found_by_its_new_file(empty_party: Party) -> None:
    """Peers read the file again at each attempt, so a copy that follows the relay is enough."""
    relay = await empty_party.start_relay()
    before = relay.certificate.read_bytes()
    ann = await empty_party.start_client("ann")
    since = ann.program.mark()
    relay.program.kill()
    await relay.program.wait(5)
    (empty_party.directory / "relay" / "certificate.state").unlink()
    await relay.start()
    assert relay.certificate.read_bytes() != before
    await ann.joined(since)
