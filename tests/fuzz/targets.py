"""What must hold for any bytes that the Python side reads: one strategy and one check a target.

A check raises what it should not when a promise is broken. `test_any_input.py` runs each with a few hundred inputs, `run.py` for as
long as one likes. The Rust side's targets are in rust/fuzz. What inputs are made of is in `inputs.py`; the targets of files and of local
sockets, which take more words, are in `rooms.py` and `local.py`.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import itertools
import json
import math
import ssl
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import local
import rooms
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import strategies as st
from inputs import DIRECTORY, ODD_JSON, Picks, built, json_object, refused_well, spoilt

from softlan import config, invite
from softlan.client.identity import hold_identity
from softlan.control import keys, messages
from softlan.control.fields import FieldFault, Role
from softlan.control.stream import LENGTH_SIZE, MAX_BODY, FrameDecoder, encode_frame
from softlan.errors import ConfigError, RemoteProtocolError, SoftlanError
from softlan.observe.page.options import parse_page_address
from softlan.relay.access_options import AccessChoices
from softlan.relay.bans import parse_target, parse_where
from softlan.relay.certificates import kept_dev_certificate, load_certificate
from softlan.trust import load_trusted_certificates, parse_pin

sys.path.append(str(Path(__file__).parents[1] / "control"))

from kinds import FIELDS, GENUINE, MAC, TYPES

__all__ = ["PARSERS", "TARGETS", "Target"]

Target = tuple[st.SearchStrategy[Any], Callable[[Any], None]]

_ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)
"""Halves of characters as well: an argument that is not UTF-8 has such (PEP 383)."""

# Control messages -----------------------------------------------------------------------------------------------------

DECODERS: list[Callable[[bytes], Any]] = [
    messages.decode_hello,
    messages.decode_answer,
    messages.decode_from_peer,
    messages.decode_from_relay,
]

_VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    2,
    1280,
    65535,
    65536,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    10**30,
]
_VALUES += [
    0.5,
    -0.0,
    1e308,
    MAC,
    MAC.upper(),
    "ff:ff:ff:ff:ff:ff",
    "client",
    "gateway",
    "A" * 33,
    "LAN",
    "lan",
    "",
    " ",
]
_VALUES += [
    "ab" * 32,
    "AB" * 32,
    "x" * 64,
    "x" * 65,
    "x" * 600,
    "\n" * 300,
    "\x1b[2J",
    "a\u202eb",
    "\U0001f600" * 70,
    "\u0131",
    *TYPES,
]
_VALUES += [
    [],
    {},
    [1],
    [[]],
    [1, 1],
    {"a": 1},
    {"": {"a": []}},
    {"x" * 65: 1},
    {"a": -1},
    {"frames_sent": 2**63 - 1},
]
_VALUES += [
    {"code": "A", "peers": [], "gateway": True},
    [{"peer_id": 3, "role": "gateway"}],
    [{"peer_id": 0, "role": 1, "mac": MAC}],
]


def _message(picks: Picks) -> bytes:
    message = dict(picks.of(GENUINE))
    for name in picks.some(["type", *FIELDS], 4):
        message[name] = picks.of(_VALUES)
    for name in picks.some(list(message), 2) if picks.number(4) == 3 else ():
        message.pop(name, None)
    text = json.dumps(message, ensure_ascii=picks.number(2) == 0)
    if picks.number(16) == 15:
        text = text.replace("1", picks.of(ODD_JSON), 1)
    return text.encode("utf-8", "surrogatepass")


_MESSAGES = built(_message, 20)


def _refused(decode: Callable[[bytes], Any], body: bytes) -> RemoteProtocolError | None:
    try:
        message = decode(body)
    except RemoteProtocolError as error:
        return error
    assert message is None or decode(messages.encode(message)) == message, (
        "it reads as something else when sent on"
    )
    return None


def check_message(body: bytes) -> None:
    """Decodes, and reads the same when it is encoded, or is refused with a sentence that can be logged and sent back."""
    for decode in DECODERS:
        error = _refused(decode, body)
        if error is not None:
            assert len(str(error)) < 400
            assert str(error).isprintable()
            encode_frame(messages.encode(messages.reject_for(error)))


def _read(pieces: list[bytes]) -> tuple[list[bytes], str | None]:
    """Bodies and the error, if any, of a stream that comes in these pieces."""
    decoder, bodies = FrameDecoder(), []
    try:
        for piece in pieces:
            decoder.feed(piece)
            while (body := decoder.next_body()) is not None:
                bodies.append(body)
            assert len(decoder._buffer) < LENGTH_SIZE + MAX_BODY
        decoder.end()
    except RemoteProtocolError as error:
        assert not decoder._buffer
        return bodies, str(error)
    return bodies, None


def check_stream(case: tuple[list[bytes], bytes, list[int]]) -> None:
    """A stream says the same whole, byte by byte and in any pieces; what its messages say is `check_message`'s."""
    frames, tail, cuts = case
    data = b"".join(encode_frame(body) for body in frames if len(body) >= 2) + tail
    whole = _read([data])
    assert _read([bytes([byte]) for byte in data]) == whole
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    assert _read([data[start:end] for start, end in itertools.pairwise(places)]) == whole
    assert whole[0][: len(frames)] == [body for body in frames if len(body) >= 2]
    for body in whole[0]:
        check_message(body)


# What is typed --------------------------------------------------------------------------------------------------------


def _is_rate(rate: int | None) -> bool:
    return rate is None or 0 < rate <= config.MAX_RATE


PARSERS: dict[Callable[[str], Any], Callable[[Any], bool]] = {
    config.parse_listen: lambda listen: config.parse_listen(str(listen)) == listen,
    config.parse_host_port: lambda relay: config.parse_host_port(str(relay)) == relay,
    config.parse_host: lambda host: host[1] is None or 0 < host[1] < 65536,
    config.parse_room: lambda room: config.parse_room(room) == room,
    config.parse_virtual_mac: lambda mac: config.parse_virtual_mac(str(mac)) == mac,
    config.parse_rate: _is_rate,
    config.parse_frame_rate: _is_rate,
    config.parse_server_name: lambda name: name.isascii() and config.parse_server_name(name) == name,
    config.parse_interface: lambda name: config.parse_interface(name) == name,
    config.parse_seconds: lambda seconds: seconds >= 0 and math.isfinite(seconds),
    config.parse_invite_time: lambda seconds: 0 < seconds <= config.MAX_INVITE_S,
    parse_where: lambda room: parse_where(room) == room,
    parse_target: lambda target: parse_target(target) == target,
    parse_page_address: lambda page: parse_page_address(str(page)) == page,
    parse_pin: lambda pin: len(pin) == 32 and parse_pin(pin.hex()) == pin,
}
"""What reads a text, and what then holds: it prints as what reads the same, or is within bounds."""


def check_text(text: str) -> None:
    """What a person types is read, or refused with the error that names it."""
    for parse, holds in PARSERS.items():
        try:
            value = parse(text)
        except ConfigError as error:
            refused_well(error)
            continue
        assert holds(value), f"{parse.__name__}: {value!r}"


def _quantity(picks: Picks) -> str:
    digits = "".join(str(picks.number(10)) for _ in range(picks.number(14)))
    digits += picks.of(["", ".5", ".", f".{'0' * 9}1", "0" * 12])
    return (
        digits
        + picks.of(["", " ", "\t", "\n"])
        + picks.of(["", "bit", "kbit", "mbit", "gbit", "s", "ms", "m", "min", "h", "d", "x", "MBIT"])
    )


_HOSTS = [
    "",
    "192.0.2.1",
    "::",
    "2001:db8::1",
    "::ffff:192.0.2.1",
    "fe80::1%eth0",
    "relay.example.org.",
    "b\u00fccher.example",
    "a..b",
    "-",
]
_HOSTS += ["a" * 63, "a" * 64, ".".join(["a" * 50] * 6), "1.2.3", "0x7f.1", "*", " ", "\u0661\u0662"]


def _place(picks: Picks) -> str:
    host = picks.mostly(["{}", "[{}]"], ["[{}", "{}]", " {} "]).format(picks.of(_HOSTS))
    return (
        host
        + picks.of([":443", ":0", ":65535", ":65536", "", ":", ":\u0661", ":-1", ":+1", ": 1"])
        + picks.of(["", "/udp", "/tcp", "/UDP", "/"])
    )


_TYPED = [
    "443/udp",
    "0/udp",
    "192.0.2.1:443",
    "[2001:db8::1]:443",
    "[fe80::1%eth0]:443",
    "relay.example.org:443",
    "a_b.c.:1",
    "LAN-1_x",
    "localhost:8080",
    "*",
    "192.0.2.7/24",
    "2001:db8::/32",
    "::ffff:192.0.2.7/120",
]
_TYPED += [
    "off",
    "2.5mbit",
    "1000gbit",
    "500",
    "2.5s",
    "366d",
    MAC,
    MAC.replace(":", "-").upper(),
    "ab" * 32,
    ":".join(["ab"] * 32),
    "A" * 43,
]


def _as_text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


# Keys and invites -----------------------------------------------------------------------------------------------------


def check_key(text: str) -> None:
    """A key that is typed or stands in an invite is read or refused, without being repeated; what its token says likewise."""
    try:
        key = keys.parse_key(text)
    except ConfigError as error:
        told = refused_well(error) + (error.hint or "")
        assert len(text.strip()) < 4 or text.strip() not in told
        return
    assert keys.parse_key(_key_text(key)) == key
    if isinstance(key, keys.Invite):
        assert len(key.secret("LAN")) == 32
        try:
            facts = keys.read_token(key.token)
        except FieldFault:
            return
        assert facts.room == facts.room.upper()
        assert 0 <= facts.expires <= 2**53


def _key_text(key: keys.RoomKey) -> str:
    if isinstance(key, keys.Passphrase):
        return key.text
    return f"slk1.{key.token}.{base64.urlsafe_b64encode(key.issued_secret).rstrip(b'=').decode()}"


_ISSUED = [
    keys.issue(bytes(32), "LAN", role, expires=1, once=once) for role in Role for once in (False, True)
]
_FACTS = {
    "id": ['"AbCd_-"', '"' + "x" * 32 + '"', '"' + "x" * 33 + '"', '"a b"'],
    "room": ['"LAN"', '"lan"', '"' + "A" * 33 + '"'],
    "role": ['"client"', '"gateway"', '"nobody"'],
    "expires": ["1", "9007199254740992", "9007199254740993", "-1", "1.0", "1e3"],
    "once": ["true", "false"],
}


def _key_with_any_token(picks: Picks) -> str:
    facts = json_object(picks, _FACTS, ["id", "room", "role", "expires"]).encode("utf-8", "replace")
    token = base64.urlsafe_b64encode(facts[:200]).rstrip(b"=").decode()
    return f"slk1.{token}.{'A' * 43}"


def check_invite(case: tuple[str, str]) -> None:
    """An invite link is read, and then prints as one that reads the same, also with what programs put around it; or it is refused."""
    link, around = case
    try:
        read = invite.parse_invite(link)
    except ConfigError as error:
        refused_well(error)
        return
    printed = str(read)
    assert invite.parse_invite(printed) == read
    half = len(printed) // 2
    assert invite.parse_invite(f"{printed[:half]}\r\n  {printed[half:]}") == read, "a break makes it another"
    assert invite.parse_invite(around.format(printed)) == read, (
        "what a program puts around it makes it another"
    )


_AROUND = ["{}", "<{}>", '"{}"', "{}.", " {}\r\n", "\u201c{}\u201d", "({}),", "**{}**", "\u200b{}", "`{}`!"]
_PIN = "kR0dxMu4kgQlbl1vT5CBmZ-pJd0d3wgEU2dE_Fv0x0A"


def _link(picks: Picks) -> tuple[str, str]:
    relay = picks.of(
        [
            "relay.example.org",
            "192.0.2.1:4433",
            "[2001:db8::1]:443",
            "[fe80::1%25eth0]:443",
            "b\u00fccher.example",
            "a_b:1",
        ]
    )
    room = picks.of(["PARTY1", "party1", "A%42", "-_-", "", "A" * 33, "a/b"])
    query = picks.some(
        [
            f"pin={_PIN}",
            f"pin={_PIN}%3D",
            f"PIN={_PIN[:-1]}",
            f"key={_ISSUED[0]}",
            "key=correct%20horse",
            "key=%FF",
        ],
        4,
    )
    query += picks.some(
        ["key=a%26b%3Dc%2E", "key=caf%C3%A9", "name=x", "x", "=", "key=", "pin=" + "A" * 43], 1
    )
    link = f"softlan://{relay}/{room}" + (
        picks.of(["?", "?", "?&", "#"]) + picks.of(["&", "&", "&amp;"]).join(query) if query else ""
    )
    for former, now in (
        ("://", "%3A%2F%2F"),
        ("?", "\\?"),
        ("softlan", "Softlan"),
        ("pin", "\r\npin"),
        ("=", "\u200b="),
        ("/", "//"),
    ):
        if picks.number(16) == 15:
            link = link.replace(former, now, 1)
    return link, picks.of(_AROUND)


_LINKS = st.builds(
    lambda relay, room, query: f"softlan://{relay}/{room}{query}",
    st.from_regex(r"([a-z0-9.-]{1,20}|\[[0-9a-f:]{2,20}\])(:[0-9]{1,6})?", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_%-]{0,34}", fullmatch=True),
    st.from_regex(r"(\?(key|pin|name|x)=[^&# ]{0,50}(&(key|pin)=.{0,50})?)?", fullmatch=True),
)

# Files of players and relays ------------------------------------------------------------------------------------------


def check_identity(content: bytes) -> None:
    """An identity file is read, and the same each time, or called broken by name."""
    path = DIRECTORY / "identity.json"
    path.write_bytes(content)
    path.chmod(0o600)
    for role in Role:
        try:
            with hold_identity(path, role) as held, hold_identity(path, role) as shared:
                assert (held.identity.mac is None) == (role is Role.GATEWAY)
                assert len(held.identity.secret) == 32
                assert (held.shared, shared.shared) == (False, True)
                assert shared.identity.mac == held.identity.mac
                assert shared.identity.secret != held.identity.secret, (
                    "two processes, and the relay could not tell them apart"
                )
                secret = held.identity.secret
            with hold_identity(path, role) as again:
                assert again.identity.secret == secret
        except ConfigError as error:
            refused_well(error, path)
    assert path.read_bytes() == content, "it is the player's, and left alone"


_IDENTITY = {
    "version": ["1", "0", "2", "1.0", "9" * 30],
    "mac": [
        f'"{MAC}"',
        f'"{MAC.upper()}"',
        '"ff:ff:ff:ff:ff:ff"',
        '"00:00:00:00:00:00"',
        '"02-00-5e-10-00-01"',
        "null",
    ],
    "secret": [f'"{"cd" * 32}"', f'"{"CD" * 32}"', f'"{"cd" * 31}"', f'"{"xy" * 32}"', f'"{"cd" * 32}\\n"'],
    "more": ["1", "[{}]"],
}

_KEY_PATH = DIRECTORY / "relay-key.pem"


def check_certificates(content: bytes) -> None:
    """A certificate file holds certificates, or is refused by name: as one to trust, as the relay's own, as its next one."""
    path = DIRECTORY / "relay-cert.der"
    for data in (content, ssl.DER_cert_to_PEM_cert(content).encode()):
        path.write_bytes(data)
        for load in (
            lambda: load_trusted_certificates(path),
            lambda: load_certificate(path, _KEY_PATH).chain,
            lambda: AccessChoices(next_cert=path).next_pins(),
        ):
            try:
                assert load()
            except SoftlanError as error:
                refused_well(error)


def _certificate(key: Any, *names: x509.GeneralName) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "relay.example.org")])
    made = x509.CertificateBuilder(
        subject, subject, key.public_key(), 7, _BEGIN, _BEGIN + datetime.timedelta(days=1)
    )
    made = made.add_extension(x509.SubjectAlternativeName(names), critical=False) if names else made
    return made.sign(
        key, None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA384()
    ).public_bytes(Encoding.DER)


_BEGIN = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
_NAMES = [
    x509.DNSName("*.example.org"),
    x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
    x509.UniformResourceIdentifier("x:y"),
    x509.RFC822Name("a@example.org"),
    x509.OtherName(x509.ObjectIdentifier("1.2.3"), b"\x0c\x01a"),
]
_DERS = [
    kept_dev_certificate(_KEY_PATH, "relay.example.org").leaf,
    _certificate(ed25519.Ed25519PrivateKey.generate(), *_NAMES),
    _certificate(ec.generate_private_key(ec.SECP384R1())),
]
_BESIDE = [
    "",
    "some words\n",
    "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n",
    _KEY_PATH.read_text(),
    "-----BEGIN X-----\n",
]


def _certificates(picks: Picks) -> bytes:
    if picks.number(2):
        return picks.of(_DERS)
    pems = [
        ssl.DER_cert_to_PEM_cert(picks.of(_DERS)) + picks.mostly([""], _BESIDE)
        for _ in range(1 + picks.number(3))
    ]
    return "".join(pems).encode()


TARGETS: dict[str, Target] = {
    "messages": (spoilt(_MESSAGES) | st.binary(max_size=300), check_message),
    "stream": (
        st.tuples(
            st.lists(_MESSAGES | st.binary(min_size=2, max_size=60), max_size=4),
            st.binary(max_size=40) | spoilt(_MESSAGES.map(encode_frame)),
            st.lists(st.integers(0, 600), max_size=6),
        ),
        check_stream,
    ),
    "texts": (
        built(_quantity, 20)
        | built(_place, 4)
        | _ANY_TEXT
        | spoilt(st.sampled_from(_TYPED).map(str.encode)).map(_as_text),
        check_text,
    ),
    "identity": (
        spoilt(
            built(
                lambda picks: json_object(picks, _IDENTITY, list(_IDENTITY)[:3]).encode("utf-8", "replace"),
                12,
            )
        )
        | st.binary(max_size=200),
        check_identity,
    ),
    "certificates": (spoilt(built(_certificates, 8)) | st.binary(max_size=200), check_certificates),
    "keys": (
        built(_key_with_any_token, 12)
        | spoilt(st.sampled_from(_ISSUED).map(str.encode)).map(_as_text)
        | _ANY_TEXT,
        check_key,
    ),
    "invite": (
        built(_link, 24)
        | st.tuples(
            spoilt(built(lambda picks: _link(picks)[0].encode(), 24)).map(_as_text) | _LINKS | _ANY_TEXT,
            st.sampled_from(_AROUND),
        ),
        check_invite,
    ),
    "rooms": (rooms.CASES, rooms.check),
    "local": (local.CASES, local.check),
}
