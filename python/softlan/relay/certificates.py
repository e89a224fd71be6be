"""The relay's own certificate: made for development, kept between runs, or loaded from PEM files.

What peers compare it with is the business of `softlan.trust`.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import logging
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from softlan.errors import ConfigError, SoftlanError
from softlan.files import file_error, is_public, write_atomically
from softlan.observe.events import Event
from softlan.observe.logs import log_event
from softlan.trust import UNUSABLE, public_key_pin

__all__ = [
    "ServerCertificate",
    "kept_dev_certificate",
    "load_certificate",
    "make_dev_certificate",
    "watch_expiry",
    "write_der",
]

logger = logging.getLogger(__name__)

DEV_LIFETIME = datetime.timedelta(days=3650)
"""Peers pin a dev certificate whole, so its end is the end of every pin; ten years outlive any LAN party."""

BACKDATE = datetime.timedelta(days=1)
"""Players' clocks are off; a certificate made just now must be valid for them too."""

EXPIRY_WARNING = datetime.timedelta(days=14)

_LOOK_S = 86400.0
"""How often a running relay looks when its certificate ends: seconds, a day."""

_TlsKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
"""The kinds of key that TLS 1.3 here signs with."""

_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.IGNORECASE)
_MAX_COMMON_NAME = 64  # ub-common-name, RFC 5280 appendix A.1


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerCertificate:
    """What a TLS server shows and signs with.

    `chain` is DER, the server's own certificate first; `key` is its key as PKCS #8 DER. `file` is where the chain was read, None for one
    that was made.
    """

    chain: tuple[bytes, ...]
    key: bytes = field(repr=False)
    names: tuple[str, ...]
    self_issued: bool
    """No authority vouches for it: its issuer is its subject (RFC 5280 section 3.2)."""
    not_after: datetime.datetime
    file: Path | None = field(default=None, compare=False)

    @property
    def leaf(self) -> bytes:
        """The server's own certificate, DER."""
        return self.chain[0]

    @property
    def pin(self) -> str:
        """SHA-256 of the public key, as invites and `--pin` have it."""
        return public_key_pin(self.leaf)


def make_dev_certificate(
    name: str,
    *,
    key: _TlsKey | None = None,
    now: datetime.datetime | None = None,
) -> ServerCertificate:
    """Make a self-signed certificate for one DNS name or IP address, and its key (ECDSA on P-256) if none is given.

    Raises ConfigError: `name` is no name a certificate can carry.
    """
    name = _canonical(name)
    alternative = _general_name(name)
    moment = _utc(now)
    key = key or ec.generate_private_key(ec.SECP256R1())
    common_name = name if len(name) <= _MAX_COMMON_NAME else "softlan relay"
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(moment - BACKDATE)
        .not_valid_after(moment + DEV_LIFETIME)
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_signs_handshakes_only(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        # Ed25519 has its hash built in (RFC 8032).
        .sign(key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256())
    )
    return _server_certificate([certificate], key)


def kept_dev_certificate(path: Path, name: str, *, now: datetime.datetime | None = None) -> ServerCertificate:
    """Load the dev certificate kept in `path`, so that peers' pins survive a restart; make it when needed.

    It is made anew, with a log line, when the file is not there; and with the same key when it is for another name, since pins
    are of the key. One that has expired is kept, with a warning: it may be this machine's clock that is wrong. Raises
    ConfigError when the file cannot be read or written, or holds something else; it is then left alone. Raises SoftlanError: it cannot be
    read or written now (`file_error`), or holds another key than the certificate's.
    """
    moment = _utc(now)
    key = None
    try:
        is_kept = path.exists()
    except OSError as error:
        raise file_error(f"cannot look for the dev certificate {path}", error) from error
    if is_kept:
        kept = load_certificate(path, path, now=moment)
        if _canonical(name) in map(_canonical, kept.names):
            return kept
        names = ", ".join(kept.names) or "no name"
        why = f"the kept one is for {names}"
        former = load_der_private_key(kept.key, password=None)
        if not isinstance(former, _TlsKey):
            raise ConfigError(
                f"{path} is for {names}, not for {name}, and its key is of a kind that relays do not use",
                hint="move that file away, or give a certificate of your own with --cert and --key",
            )
        key = former
    else:
        why = "none was kept"
    made = make_dev_certificate(name, key=key, now=moment)
    try:
        write_atomically(path, _pem(made), mode=0o600)
    except OSError as error:
        raise file_error(f"cannot keep the dev certificate in {path}", error) from error
    log_event(
        logger,
        Event.CERTIFICATE_MADE,
        f"made a new dev certificate for {name}: {why}",
        name=name,
        file=str(path),
        pin=made.pin,
    )
    return replace(made, file=path)


def load_certificate(
    certificate_path: Path, key_path: Path, *, now: datetime.datetime | None = None
) -> ServerCertificate:
    """Load a PEM chain, the server's own certificate first, and the key that belongs to it.

    A certificate that has expired or soon will, or is an authority's, is loaded all the same, with a warning in the log: peers that
    pin its key do not mind, and a relay that does not start helps nobody.

    Raises ConfigError: a file cannot be read or holds something else. Raises SoftlanError: one cannot be read now (`file_error`), or the
    two do not belong together, as between the two copies of a renewal.
    """
    data = _read(certificate_path, "certificate")
    try:
        chain = x509.load_pem_x509_certificates(data)
    except UNUSABLE as error:
        raise ConfigError(
            f"{certificate_path} holds no certificate in PEM",
            hint="give the full chain in PEM (fullchain.pem), the relay's own certificate first",
        ) from error
    key = _load_key(key_path)
    try:
        matching = [index for index, entry in enumerate(chain) if _belong_together(entry, key)]
    except UNUSABLE as error:
        raise ConfigError(f"a key in {certificate_path} or {key_path} cannot be used: {error}") from error
    if not matching:
        raise SoftlanError(
            f"the key in {key_path} does not belong to the certificate in {certificate_path}",
            hint="if they were just renewed, try again once both are there",
        )
    if matching[0] != 0:
        raise ConfigError(
            f"the first certificate in {certificate_path} is not the one the key belongs to",
            hint=f"put the relay's own certificate first; it is number {matching[0] + 1} now",
        )
    try:
        loaded = replace(_server_certificate(chain, key), file=certificate_path)
    except UNUSABLE as error:
        raise ConfigError(f"the certificate in {certificate_path} cannot be used: {error}") from error
    _warn_of_expiry(loaded, _utc(now))
    _warn_of_authority(chain[0], certificate_path)
    return loaded


def _warn_of_expiry(certificate: ServerCertificate, now: datetime.datetime) -> None:
    """Log that a certificate has expired or will within two weeks of `now`, if so."""
    left = certificate.not_after - now
    if left > EXPIRY_WARNING:
        return
    words = "has expired" if left <= datetime.timedelta(0) else f"expires in {left.days} days"
    where = "" if certificate.file is None else f" in {certificate.file}"
    log_event(
        logger,
        Event.CERTIFICATE_EXPIRING,
        f"the certificate{where} {words}; renew it and reload the relay",
        file=None if certificate.file is None else str(certificate.file),
        not_after=certificate.not_after.isoformat(),
    )


async def watch_expiry(shown: Callable[[], ServerCertificate], *, every_s: float = _LOOK_S) -> None:
    """Look every so often, in seconds, whether the certificate that is shown then is about to end, and warn each time; does not return."""
    while True:
        await asyncio.sleep(every_s)
        _warn_of_expiry(shown(), _utc(None))


def write_der(path: Path, certificate: ServerCertificate) -> None:
    """Write the server's own certificate as DER, for peers to pin; the file appears whole.

    One that holds it already is left alone, so that a relay that comes back needs no room on its disk. Raises what `file_error` gives:
    it cannot be written.
    """
    try:
        if path.is_file() and path.read_bytes() == certificate.leaf:
            return
        write_atomically(path, certificate.leaf)
    except OSError as error:
        raise file_error(f"cannot write the certificate to {path}", error) from error


def _canonical(name: str) -> str:
    """Print a name or address the one way it is compared in."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower().removesuffix(".")


def _general_name(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    labels = name.split(".")
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ConfigError(
            f"{name!r} is no DNS name or IP address",
            hint="a name such as lanparty-relay.local; write other scripts in their xn-- form",
        )
    return x509.DNSName(name)


def _signs_handshakes_only() -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _read(path: Path, what: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise file_error(f"cannot read the {what} {path}", error) from error


def _load_key(path: Path) -> PrivateKeyTypes:
    data = _read(path, "key")
    # A group may be meant to read it, as Debian's ssl-cert is; everybody is not.
    if is_public(path):
        log_event(
            logger,
            Event.CERTIFICATE_EXPOSED,
            f"every user of this machine can read the key in {path}, and pose as the relay with it",
            file=str(path),
            hint=f"chmod 600 {path}",
        )
    try:
        return load_pem_private_key(data, password=None)
    except TypeError as error:  # how cryptography says that a password is needed
        raise ConfigError(
            f"the key in {path} is encrypted with a passphrase",
            hint="the relay starts without a person: store the key unencrypted, readable by the relay alone",
        ) from error
    except UNUSABLE as error:
        raise ConfigError(f"{path} holds no private key in PEM that can be used") from error


def _belong_together(certificate: x509.Certificate, key: PrivateKeyTypes) -> bool:
    form = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return certificate.public_key().public_bytes(*form) == key.public_key().public_bytes(*form)


def _server_certificate(chain: list[x509.Certificate], key: PrivateKeyTypes) -> ServerCertificate:
    leaf = chain[0]
    try:
        alternatives = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names = [
            *alternatives.get_values_for_type(x509.DNSName),
            *map(str, alternatives.get_values_for_type(x509.IPAddress)),
        ]
    except x509.ExtensionNotFound:
        names = []
    return ServerCertificate(
        chain=tuple(certificate.public_bytes(Encoding.DER) for certificate in chain),
        key=key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        names=tuple(names),
        self_issued=leaf.issuer == leaf.subject,
        not_after=leaf.not_valid_after_utc,
    )


def _pem(certificate: ServerCertificate) -> bytes:
    key = load_der_private_key(certificate.key, password=None)
    return b"".join(
        (
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            *(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in certificate.chain),
        )
    )


def _warn_of_authority(leaf: x509.Certificate, path: Path) -> None:
    """Warn of what `openssl req -x509` makes if not told otherwise: peers' TLS (webpki) takes no authority for a server."""
    with contextlib.suppress(x509.ExtensionNotFound):
        if leaf.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
            log_event(
                logger,
                Event.CERTIFICATE_AUTHORITY,
                f"the certificate in {path} is an authority's (CA:TRUE): only those who have its pin can join",
                file=str(path),
                hint=(
                    "make it with `openssl req -x509 -addext basicConstraints=critical,CA:FALSE ...`, or leave it to the relay,"
                    " without --cert and --key and with --state"
                ),
            )


def _utc(now: datetime.datetime | None) -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC) if now is None else now
