"""Room keys as docs/protocol.md describes them, over aioquic, which has no exporter: it imports nothing of softlan.

TLS-Exporter (RFC 8446 section 7.5) begins with the exporter master secret, which is derived like the application traffic secrets, at the
same point of the handshake. So the secret is taken there, out of aioquic's key schedule.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
from typing import Any

from aioquic.quic.connection import QuicConnection
from aioquic.tls import hkdf_expand_label
from cryptography.hazmat.primitives import hashes


class Exporter:
    """Takes the exporter master secret of one connection when it passes by; make it right after `connect`."""

    def __init__(self, quic: QuicConnection) -> None:
        self._tls = quic.tls
        self._usual: Any = self._tls._setup_traffic_protection
        self._secret = b""
        self._algorithm: Any = None
        self._tls._setup_traffic_protection = self._watch

    def _watch(self, direction: Any, epoch: Any, label: bytes) -> None:
        if label == b"s ap traffic":
            schedule = self._tls.key_schedule
            self._algorithm = schedule.algorithm
            self._secret = schedule.derive_secret(b"exp master")
        self._usual(direction, epoch, label)

    def export(self, label: bytes, context: bytes, length: int) -> bytes:
        assert self._secret, "the handshake is not done"
        derived = self._expand(self._secret, label, self._hash(b""), self._algorithm.digest_size)
        return self._expand(derived, b"exporter", self._hash(context), length)

    def _expand(self, secret: bytes, label: bytes, hashed: bytes, length: int) -> bytes:
        return hkdf_expand_label(
            algorithm=self._algorithm, secret=secret, label=label, hash_value=hashed, length=length
        )

    def _hash(self, data: bytes) -> bytes:
        digest = hashes.Hash(self._algorithm)
        digest.update(data)
        return digest.finalize()


@functools.cache
def passphrase_secret(passphrase: str, room: str) -> bytes:
    salt = b"softlan room key 1\0" + room.encode()
    return hashlib.scrypt(passphrase.encode(), salt=salt, n=32768, r=8, p=1, maxmem=1 << 26, dklen=32)


def proof_of(secret: bytes, exported: bytes, room: str, mac: str | None) -> str:
    role = b"gateway" if mac is None else b"client"
    parts = [b"softlan proof 1", exported, room.encode(), role, (mac or "").encode()]
    message = b"".join(len(part).to_bytes(2, "big") + part for part in parts)
    return hmac.new(secret, message, hashlib.sha256).hexdigest()


def prove(peer: Any, key: str, room: str, mac: str | None) -> dict[str, str]:
    """The fields of a hello that prove `key`, a passphrase or an invite, on this peer's connection."""
    exported = peer.exporter.export(b"EXPERIMENTAL softlan room key", room.encode(), 32)
    if not key.startswith("slk1."):
        return {"proof": proof_of(passphrase_secret(key, room), exported, room, mac)}
    _, token, secret = key.split(".")
    return {"proof": proof_of(base64.urlsafe_b64decode(secret + "="), exported, room, mac), "token": token}
