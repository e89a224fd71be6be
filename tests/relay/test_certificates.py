"""The relay's certificates: made, kept, loaded."""

import asyncio
import datetime
import errno
import functools
import ipaddress
import logging
import os
import ssl
import stat
import sys

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from serving import serving, until

from softlan.client import Session
from softlan.errors import ConfigError, SoftlanError, TrustError, TrustFault
from softlan.relay import certificates, cli, server
from softlan.relay.access_options import AccessChoices
from softlan.relay.admin import Pins
from softlan.relay.certificates import (
    DEV_LIFETIME,
    kept_dev_certificate,
    load_certificate,
    make_dev_certificate,
    watch_expiry,
    write_der,
)
from softlan.trust import load_trusted_certificates

NAME = "lanparty-relay.local"
YEAR = datetime.timedelta(days=365)


def now():
    return datetime.datetime.now(datetime.UTC)


def write_pem(directory, certificate, key=None, chain=()):
    certificate_path, key_path = directory / "cert.pem", directory / "key.pem"
    parts = [x509.load_der_x509_certificate(der) for der in (*chain, *certificate.chain)]
    certificate_path.write_bytes(b"".join(part.public_bytes(Encoding.PEM) for part in parts))
    private = load_der_private_key((key or certificate).key, None)
    key_path.touch(mode=0o600)
    key_path.write_bytes(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return certificate_path, key_path


# Made


def test_a_dev_certificate_is_for_one_server():
    made = make_dev_certificate(NAME)
    certificate = x509.load_der_x509_certificate(made.leaf)
    extensions = certificate.extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [NAME]
    assert made.names == (NAME,)
    assert extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert list(extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.SERVER_AUTH
    ]
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    certificate.verify_directly_issued_by(certificate)


def test_it_is_valid_for_slow_clocks_and_long():
    moment = datetime.datetime(2026, 11, 23, tzinfo=datetime.UTC)
    made = make_dev_certificate(NAME, now=moment)
    certificate = x509.load_der_x509_certificate(made.leaf)
    assert certificate.not_valid_before_utc == moment - datetime.timedelta(days=1)
    assert 5 * YEAR < made.not_after - moment < 11 * YEAR


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1"])
def test_it_may_be_for_an_address(name):
    certificate = x509.load_der_x509_certificate(make_dev_certificate(name).leaf)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.IPAddress) == [ipaddress.ip_address(name)]


def test_it_may_have_a_long_name():
    name = ".".join(["label" * 6] * 4)
    assert make_dev_certificate(name).names == (name,)


@pytest.mark.parametrize(
    "name", ["", "a b", "spiel.münchen", "-a.example", "a..b", "x" * 64, "a\n", "*.example"]
)
def test_it_is_for_no_impossible_name(name):
    with pytest.raises(ConfigError, match="DNS name"):
        make_dev_certificate(name)


def test_the_key_is_in_no_repr():
    made = make_dev_certificate(NAME)
    assert repr(made.key) not in repr(made)


def shake_hands(certificate, directory, server_name):
    """Run a whole TLS handshake in memory, with the certificate pinned."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*write_pem(directory, certificate))
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(cadata=certificate.leaf)
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=server_name),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        for end in list(ends):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
            ends.remove(end)
    assert not ends


def test_a_tls_stack_believes_it_for_its_name_alone(tmp_path):
    made = make_dev_certificate(NAME)
    shake_hands(made, tmp_path, NAME)
    with pytest.raises(ssl.SSLCertVerificationError, match="ostname"):
        shake_hands(made, tmp_path, "other.local")


# Kept


def test_a_kept_certificate_stays_the_same(tmp_path):
    path = tmp_path / "state.pem"
    made = kept_dev_certificate(path, NAME)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert kept_dev_certificate(path, NAME) == made
    assert kept_dev_certificate(path, NAME.upper()) == made


def test_a_name_may_be_written_in_several_ways(tmp_path):
    made = kept_dev_certificate(tmp_path / "state.pem", "2001:DB8:0::1")
    assert kept_dev_certificate(tmp_path / "state.pem", "2001:db8::1") == made
    assert make_dev_certificate("Relay.Example.").names == ("relay.example",)


def test_it_is_made_anew_with_the_same_key_when_it_is_for_another_name(tmp_path, caplog):
    path = tmp_path / "state.pem"
    made = kept_dev_certificate(path, NAME)
    with caplog.at_level(logging.INFO):
        again = kept_dev_certificate(path, "other.local")
    assert again.pin == made.pin
    assert again.names == ("other.local",)
    assert kept_dev_certificate(path, "other.local") == again
    assert f"is for {NAME}" in caplog.text


@pytest.mark.parametrize(
    "key",
    [ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)],
    ids=["ed25519", "rsa"],
)
def test_a_key_of_the_operators_own_stays_whatever_its_kind(tmp_path, key):
    """As when the files of another certificate were put into the place of the kept one."""
    path = tmp_path / "state.pem"
    given = make_dev_certificate(NAME, key=key)
    path.touch(mode=0o600)
    path.write_bytes(certificates._pem(given))
    again = kept_dev_certificate(path, "other.local")
    assert again.pin == given.pin
    assert kept_dev_certificate(path, "other.local") == again


def test_a_key_that_no_relay_uses_is_left_alone(tmp_path):
    key = ed448.Ed448PrivateKey.generate()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now() - YEAR, now() + YEAR).sign(
        key, None
    )
    path = tmp_path / "state.pem"
    path.touch(mode=0o600)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(before := key.private_bytes(*form) + made.public_bytes(Encoding.PEM))
    with pytest.raises(ConfigError, match="is for no name, not for"):
        kept_dev_certificate(path, "other.local")
    assert path.read_bytes() == before


def test_a_clock_that_is_off_ends_no_pin(tmp_path, caplog):
    path = tmp_path / "state.pem"
    made = kept_dev_certificate(path, NAME)
    with caplog.at_level(logging.INFO):
        assert kept_dev_certificate(path, NAME, now=now() + 20 * YEAR) == made
    assert "has expired" in caplog.text
    assert kept_dev_certificate(path, NAME, now=now() - 20 * YEAR) == made


@pytest.mark.parametrize("content", [b"", b"my diary", b"-----BEGIN CERTIFICATE-----\n"])
def test_a_file_that_is_something_else_is_left_alone(tmp_path, content):
    path = tmp_path / "state.pem"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=str(path)):
        kept_dev_certificate(path, NAME)
    assert path.read_bytes() == content


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "none" / "state.pem"
    with pytest.raises(ConfigError, match=str(path)):
        kept_dev_certificate(path, NAME)


def test_a_place_that_cannot_even_be_looked_at_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot look for the dev certificate .*: File name too long"):
        kept_dev_certificate(tmp_path / f"{'x' * 300}.pem", NAME)


def test_a_disk_that_is_full_when_it_is_to_be_kept_is_worth_another_try(tmp_path, monkeypatch):
    path = tmp_path / "state.pem"
    monkeypatch.setattr("softlan.relay.certificates.write_atomically", no_room)
    with pytest.raises(SoftlanError, match=r"cannot keep the dev certificate .* No space left") as caught:
        kept_dev_certificate(path, NAME)
    assert caught.value.exit_code == 1
    monkeypatch.undo()
    assert kept_dev_certificate(path, NAME).file == path


# Loaded


def test_a_chain_and_its_key(tmp_path):
    own, authority = make_dev_certificate("relay.example"), make_dev_certificate("authority.example")
    certificate_path, key_path = write_pem(tmp_path, own)
    with certificate_path.open("ab") as file:
        file.write(x509.load_der_x509_certificate(authority.leaf).public_bytes(Encoding.PEM))
    loaded = load_certificate(certificate_path, key_path)
    assert loaded.chain == (own.leaf, authority.leaf)
    assert loaded.key == own.key
    assert loaded.names == ("relay.example",)
    assert loaded.pin == own.pin


@pytest.mark.skipif(sys.platform == "win32", reason="modes are POSIX's")
def test_a_key_that_everybody_can_read_is_told(tmp_path, caplog):
    certificate_path, key_path = write_pem(tmp_path, make_dev_certificate(NAME))
    for mode, told in ((0o600, False), (0o640, False), (0o644, True)):
        key_path.chmod(mode)
        caplog.clear()
        load_certificate(certificate_path, key_path)
        assert ("every user of this machine can read the key" in caplog.text) is told, oct(mode)


def test_the_next_certificate_may_take_the_present_ones_place(tmp_path, caplog):
    present, following = make_dev_certificate(NAME), make_dev_certificate(NAME)
    certificate_path, key_path = write_pem(tmp_path, present)
    next_path = tmp_path / "next.pem"
    next_path.write_bytes(x509.load_der_x509_certificate(following.leaf).public_bytes(Encoding.PEM))
    pins = Pins(present.pin, AccessChoices(next_cert=next_path).next_pins)
    assert pins.all == [present.pin, following.pin]

    class Shows:
        pin = present.pin

        def replace_certificate(self, certificate):
            self.pin = certificate.pin

    relay, der = Shows(), tmp_path / "relay.der"
    write_pem(tmp_path, following)
    next_path.unlink()
    cli._reload(relay, lambda: load_certificate(certificate_path, key_path), der, pins)
    assert relay.pin == following.pin
    assert der.read_bytes() == following.leaf
    assert pins.all == [following.pin]
    assert "the former certificate stays" not in caplog.text
    assert "next.pem of --next-cert is not there" in caplog.text
    # So it goes at the next start with the same options.
    assert Pins(following.pin, AccessChoices(next_cert=next_path).next_pins).all == [following.pin]


def test_another_key_is_noticed(tmp_path):
    """A relay that starts between a renewal's two copies is to be started again."""
    paths = write_pem(tmp_path, make_dev_certificate("a.example"), key=make_dev_certificate("b.example"))
    with pytest.raises(SoftlanError, match="does not belong") as caught:
        load_certificate(*paths)
    assert caught.value.exit_code == 1


def test_the_wrong_order_is_noticed(tmp_path):
    own, authority = make_dev_certificate("relay.example"), make_dev_certificate("authority.example")
    paths = write_pem(tmp_path, own, chain=authority.chain)
    with pytest.raises(ConfigError, match="first certificate") as caught:
        load_certificate(*paths)
    assert "number 2" in caught.value.hint


def test_a_certificate_of_another_version_is_refused(tmp_path):
    own = make_dev_certificate("relay.example")
    certificate_path, key_path = write_pem(tmp_path, own)
    other = own.leaf.replace(bytes([0xA0, 3, 2, 1, 2]), bytes([0xA0, 3, 2, 1, 1]))
    certificate_path.write_text(ssl.DER_cert_to_PEM_cert(other))
    with pytest.raises(ConfigError, match="no certificate in PEM"):
        load_certificate(certificate_path, key_path)
    with pytest.raises(ConfigError, match="no certificate in PEM"):
        AccessChoices(next_cert=certificate_path).next_pins()


def test_an_encrypted_key_is_refused_with_a_reason(tmp_path):
    own = make_dev_certificate("relay.example")
    certificate_path, key_path = write_pem(tmp_path, own)
    key = load_der_private_key(own.key, None)
    key_path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(ConfigError, match="passphrase"):
        load_certificate(certificate_path, key_path)


@pytest.mark.parametrize("broken", ["cert.pem", "key.pem"])
@pytest.mark.parametrize("content", [None, b"", b"nothing"])
def test_the_file_at_fault_is_named(tmp_path, broken, content):
    paths = write_pem(tmp_path, make_dev_certificate("relay.example"))
    path = tmp_path / broken
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=broken):
        load_certificate(*paths)


@pytest.mark.parametrize(
    ("left", "words"),
    [(-1, "has expired"), (3, "expires in 2 days"), (300, None)],
)
def test_the_end_is_announced(tmp_path, caplog, left, words):
    own = make_dev_certificate("relay.example")
    moment = own.not_after - datetime.timedelta(days=left) + datetime.timedelta(hours=1)
    with caplog.at_level(logging.INFO):
        load_certificate(*write_pem(tmp_path, own), now=moment)
    assert (words in caplog.text) if words else (caplog.text == "")


def ending(left_days):
    """Make a certificate that ends in so many days and an hour."""
    return make_dev_certificate(NAME, now=now() - DEV_LIFETIME + datetime.timedelta(days=left_days, hours=1))


async def test_a_relay_that_runs_looks_at_the_certificate_that_it_shows(caplog, monkeypatch):
    monkeypatch.setattr(server, "watch_expiry", functools.partial(watch_expiry, every_s=0.01))
    far, near = ending(300), ending(3)
    running = server.Relay.start(server.RelayConfig(listen="127.0.0.1:0"), far)
    task = asyncio.create_task(running.serve())
    try:
        assert running.numbers().certificate_not_after == far.not_after.timestamp()
        running.replace_certificate(near)
        await until(lambda: "the certificate expires in 3 days" in caplog.text)
        assert running.numbers().certificate_not_after == near.not_after.timestamp()
    finally:
        await running.close()
        await asyncio.gather(task, return_exceptions=True)
    assert "certificate.expiring" in {record.event for record in caplog.records}


@pytest.fixture
def authority(tmp_path):
    """What `openssl req -x509` makes if not told otherwise: a self-signed certificate that is an authority's."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, now() - YEAR, now() + YEAR)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(NAME)])
    builder = builder.add_extension(alternatives, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
    path = tmp_path / "both.pem"
    path.touch(mode=0o600)
    form = (Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(key.private_bytes(*form) + builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return path


async def test_an_authoritys_certificate_is_good_for_its_pin_alone(authority, caplog):
    shown = load_certificate(authority, authority)
    assert "only those who have its pin" in caplog.text
    async with serving(server.RelayConfig(listen="127.0.0.1:0"), shown=shown) as relay:
        where = {"relay": relay.local_address, "room": "room1"}
        # For another name as well: no name mends it.
        for name in (NAME, "other.example"):
            with pytest.raises(TrustError, match="could not be verified") as caught:
                async with Session.join(**where, certificate=shown.leaf, server_name=name):
                    pass
            assert caught.value.kind is TrustFault.OTHER
            assert "--pin" in caught.value.hint
        async with Session.join(**where, pins=[shown.pin]) as ann:
            assert ann.connected


# Handed out


def test_what_is_written_is_what_peers_load(tmp_path):
    made = make_dev_certificate(NAME)
    path = tmp_path / "relay-cert.der"
    write_der(path, made)
    assert load_trusted_certificates(path) == [made.leaf]
    with pytest.raises(ConfigError, match="none"):
        write_der(tmp_path / "none" / "cert.der", made)


def test_a_file_that_holds_the_certificate_already_is_left_alone(tmp_path, monkeypatch):
    """A relay that comes back must not fail on a full disk."""
    made = make_dev_certificate(NAME)
    path = tmp_path / "relay-cert.der"
    write_der(path, made)
    monkeypatch.setattr("softlan.relay.certificates.write_atomically", no_room)
    write_der(path, made)
    with pytest.raises(SoftlanError, match="No space left") as caught:
        write_der(path, make_dev_certificate(NAME))
    assert caught.value.exit_code == 1
    assert path.read_bytes() == made.leaf


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
