"""Whom a peer believes."""

import hashlib
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from softlan.errors import ConfigError
from softlan.lab.testing import skip
from softlan.relay.certificates import make_dev_certificate
from softlan.trust import (
    load_trusted_certificates,
    parse_pin,
    public_key_pin,
    spki_sha256,
    system_trusted_certificates,
)


def pem(der):
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM)


@pytest.fixture(scope="module")
def one():
    return make_dev_certificate("one.example")


@pytest.fixture(scope="module")
def two():
    return make_dev_certificate("two.example")


def test_der_and_pem_give_the_same(tmp_path, one, two):
    path = tmp_path / "trusted"
    path.write_bytes(one.leaf)
    assert load_trusted_certificates(path) == [one.leaf]
    path.write_bytes(b"a comment\n" + pem(one.leaf) + b"\r\n" + pem(two.leaf))
    assert load_trusted_certificates(path) == [one.leaf, two.leaf]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"hello", "5 bytes of something else"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "a private key"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "damaged"),
        (b"-----BEGIN CERTIFICATE-----\n", "damaged"),
    ],
)
def test_what_is_no_certificate_is_refused_by_name(tmp_path, content, words):
    path = tmp_path / "trusted"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        load_trusted_certificates(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_comes_with_a_hint(tmp_path):
    with pytest.raises(ConfigError, match="No such file") as caught:
        load_trusted_certificates(tmp_path / "none")
    assert "--dev-cert-der-out" in caught.value.hint


def test_a_truncated_certificate_is_refused(tmp_path, one):
    path = tmp_path / "trusted"
    for length in (1, 10, len(one.leaf) - 1):
        path.write_bytes(one.leaf[:length])
        with pytest.raises(ConfigError):
            load_trusted_certificates(path)


def test_a_certificate_of_another_version_is_refused(tmp_path, one):
    """Found by fuzzing: cryptography says so by an exception of its own, which is no ValueError."""
    path = tmp_path / "trusted"
    version_3 = bytes([0xA0, 3, 2, 1, 2])
    assert version_3 in one.leaf
    path.write_bytes(one.leaf.replace(version_3, bytes([0xA0, 3, 2, 1, 1])))
    with pytest.raises(ConfigError, match="not a certificate"):
        load_trusted_certificates(path)


def test_the_pin_is_of_the_public_key(one, two):
    certificate = x509.load_der_x509_certificate(one.leaf)
    spki = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert spki_sha256(one.leaf) == spki_sha256(certificate) == hashlib.sha256(spki).hexdigest()
    assert spki_sha256(one.leaf) != spki_sha256(two.leaf)


def test_authorities_in_a_directory_are_found(tmp_path, monkeypatch, one):
    (tmp_path / "one.pem").write_bytes(pem(one.leaf))
    (tmp_path / "same.pem").write_bytes(pem(one.leaf))
    (tmp_path / "README").write_bytes(b"not one")
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    if ssl.create_default_context().get_ca_certs():
        skip("this system adds authorities of its own")
    assert system_trusted_certificates() == [one.leaf]


def test_every_system_authority_is_a_certificate():
    try:
        authorities = system_trusted_certificates()
    except ConfigError as error:
        skip(str(error))
    for der in authorities:
        x509.load_der_x509_certificate(der)


def test_a_machine_without_authorities_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none"))
    if ssl.create_default_context().get_ca_certs():
        skip("this system adds authorities of its own")
    with pytest.raises(ConfigError, match="no certificate authorities") as caught:
        system_trusted_certificates()
    assert "pin" in caught.value.hint


def test_pins_read_back_in_either_form():
    made = make_dev_certificate("relay.example")
    digest = bytes.fromhex(spki_sha256(made.leaf))
    assert made.pin == public_key_pin(made.leaf)
    assert len(made.pin) == 43
    assert parse_pin(made.pin) == parse_pin(made.pin + "=") == digest
    assert parse_pin(digest.hex()) == parse_pin(digest.hex(":").upper()) == digest


@pytest.mark.parametrize("text", ["", "A" * 42, "A" * 44, "g" * 64, "a" * 63, "+" * 43])
def test_what_is_no_pin(text):
    with pytest.raises(ConfigError, match="not a pin"):
        parse_pin(text)
