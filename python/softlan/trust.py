"""Whom a peer believes: certificates to trust, read from a file or from the system, and public-key pins.

Whether a relay's certificate is believed is decided in `softlan._core`, during the TLS handshake; this module
only brings together what it is to be compared with.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import re
import ssl
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from softlan.errors import ConfigError
from softlan.files import file_error

__all__ = [
    "UNUSABLE",
    "load_trusted_certificates",
    "parse_pin",
    "public_key_pin",
    "read_trusted_certificates",
    "spki_sha256",
    "system_trusted_certificates",
]

UNUSABLE = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""What `cryptography` raises where it reads what is no certificate, or one of no use to it. Some of these are no ValueErrors."""

_PIN = re.compile(r"[A-Za-z0-9_-]{43}")
_HEX_PIN = re.compile(r"[0-9A-Fa-f]{2}(?::?[0-9A-Fa-f]{2}){31}")
_PEM_MARK = b"-----BEGIN "


def spki_sha256(certificate: bytes | x509.Certificate) -> str:
    """Hash a certificate's public key (SubjectPublicKeyInfo, RFC 5280 section 4.1.2.7), as 64 hex digits.

    A pin by public key outlives a renewed certificate, as in RFC 7469 section 2.4. Bytes are taken as DER.
    """
    if isinstance(certificate, bytes):
        certificate = x509.load_der_x509_certificate(certificate)
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()


def public_key_pin(certificate: bytes | x509.Certificate) -> str:
    """Print a certificate's pin as invites carry it: SHA-256 of its public key, base64url without padding, 43 characters."""
    return base64.urlsafe_b64encode(bytes.fromhex(spki_sha256(certificate))).rstrip(b"=").decode("ascii")


def parse_pin(text: str) -> bytes:
    """Read a pin, base64url or 64 hex digits, as 32 bytes.

    Raises ConfigError: it is neither.
    """
    text = text.strip().rstrip("=")
    if _HEX_PIN.fullmatch(text):
        return bytes.fromhex(text.replace(":", ""))
    if not _PIN.fullmatch(text):
        raise ConfigError(
            f"{text[:80]!r} is not a pin", hint="the relay logs its pin when it starts: 43 characters"
        )
    return base64.urlsafe_b64decode(text + "=")


def load_trusted_certificates(path: Path) -> list[bytes]:
    """Read the file of `--relay-ca-cert`, one DER certificate or PEM with one or several, as a list of DER.

    Raises ConfigError: the file cannot be read, or holds no certificate. Raises SoftlanError: it cannot be read now (`file_error`).
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise file_error(
            f"cannot read the certificate {path}",
            error,
            hint="the relay writes it with --dev-cert-der-out FILE; copy that file here",
        ) from error
    return read_trusted_certificates(data, str(path))


def read_trusted_certificates(data: bytes, name: str) -> list[bytes]:
    """Read one DER certificate or PEM with one or several, as a list of DER. `name` is what messages call it.

    Raises ConfigError: it is empty, or holds no certificate.
    """
    if not data:
        raise ConfigError(f"{name} is empty", hint="was the relay still starting when it was copied?")
    try:
        certificates = (
            x509.load_pem_x509_certificates(data)
            if _PEM_MARK in data
            else [x509.load_der_x509_certificate(data)]
        )
    except UNUSABLE as error:
        raise ConfigError(
            f"{name} holds {_what_else(data)}, not a certificate in DER or PEM",
            hint="the relay writes it with --dev-cert-der-out FILE; copy that file, in binary",
        ) from error
    return [certificate.public_bytes(Encoding.DER) for certificate in certificates]


def system_trusted_certificates() -> list[bytes]:
    """Collect the certificate authorities this machine trusts, as a list of DER.

    Raises ConfigError: there are none.
    """
    found = dict.fromkeys(ssl.create_default_context().get_ca_certs(binary_form=True))
    # OpenSSL reads a directory of authorities only while it verifies, so get_ca_certs() does not have those.
    directory = ssl.get_default_verify_paths().capath
    if not found and directory is not None:
        entries: list[Path] = []
        with contextlib.suppress(OSError):
            entries = sorted(Path(directory).iterdir())
        for entry in entries:
            with contextlib.suppress(OSError, *UNUSABLE):
                found.update(
                    (certificate.public_bytes(Encoding.DER), None)
                    for certificate in x509.load_pem_x509_certificates(entry.read_bytes())
                )
    if not found:
        raise ConfigError(
            "this machine knows no certificate authorities, by which to believe a relay",
            hint="join by an invite with a pin, or install them (Linux: the package ca-certificates)",
        )
    return list(found)


def _what_else(data: bytes) -> str:
    """Say what a file that is no certificate looks like."""
    if b"PRIVATE KEY-----" in data:
        return "a private key"
    if _PEM_MARK in data:
        return "damaged or other PEM"
    return f"{len(data)} bytes of something else"
