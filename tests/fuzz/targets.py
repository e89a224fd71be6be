"""What must hold for any bytes that the Python side reads: one strategy and one check a target.

A check raises what it should not when a promise is broken. `test_any_input.py` runs each with a few hundred inputs, `run.py` for as
long as one likes. The Rust side's targets are in rust/fuzz.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import json
import ssl
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from softlan import config
from softlan.client.identity import hold_identity
from softlan.control import messages
from softlan.control.fields import FieldFault, Role
from softlan.control.stream import LENGTH_SIZE, MAX_BODY, FrameDecoder, encode_frame
from softlan.errors import ConfigError, RemoteProtocolError
from softlan.relay.access_options import AccessChoices
from softlan.relay.certificates import kept_dev_certificate, load_certificate
from softlan.trust import load_trusted_certificates

sys.path.append(str(Path(__file__).parents[1] / "control"))

from kinds import FIELDS, GENUINE, MAC, TYPES

__all__ = ["TARGETS", "Target"]

DECODERS: list[Callable[[bytes], object]] = [
    messages.decode_hello,
    messages.decode_answer,
    messages.decode_from_peer,
    messages.decode_from_relay,
]

_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from(
        [0, 1, -1, 65535, 65536, 2**31, 2**63, 2**64, 1e308, MAC, "client", "gateway", "A" * 33, *TYPES]
    )
    | st.floats()
    | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_MESSAGES = st.builds(
    lambda base, changes, left_out: {
        name: value for name, value in (base | changes).items() if name not in left_out
    },
    st.sampled_from(GENUINE),
    st.dictionaries(st.sampled_from(["type", *FIELDS]), _VALUES, max_size=4),
    st.sets(st.sampled_from(["type", *FIELDS]), max_size=2),
).map(lambda message: json.dumps(message).encode("utf-8", "surrogatepass"))


@st.composite
def _spoilt(draw: st.DrawFn, base: st.SearchStrategy[bytes]) -> bytes:
    """Bytes with a few cut out, changed or put in."""
    data = bytearray(draw(base))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 8)))
        data[start:end] = draw(st.binary(max_size=8))
    return bytes(data)


def _refused(decode: Callable[[bytes], object], body: bytes) -> RemoteProtocolError | None:
    try:
        decode(body)
    except RemoteProtocolError as error:
        return error
    return None


def check_message(body: bytes) -> None:
    """Decodes, or is refused with a sentence that can be logged and sent back."""
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


def check_text(text: str) -> None:
    """What a person types is read, or refused with the error that names it."""
    for parse in (
        config.parse_listen,
        config.parse_host_port,
        config.parse_rate,
        config.parse_seconds,
        config.parse_room,
        config.parse_virtual_mac,
    ):
        try:
            value = parse(text)
        except ConfigError:
            continue
        if parse in (
            config.parse_listen,
            config.parse_host_port,
            config.parse_room,
            config.parse_virtual_mac,
        ):
            assert parse(str(value)) == value, "what is read prints as something else"


_DIRECTORY = tempfile.TemporaryDirectory(prefix="softlan-fuzz-")


def check_identity(content: bytes) -> None:
    """An identity file is read or called broken."""
    path = Path(_DIRECTORY.name) / "identity.json"
    path.write_bytes(content)
    path.chmod(0o600)
    for role in Role:
        try:
            with hold_identity(path, role) as held:
                assert (held.identity.mac is None) == (role is Role.GATEWAY)
        except ConfigError:
            continue


def check_certificates(content: bytes) -> None:
    """A certificate file holds certificates, or is refused: as one to trust, as the relay's own, as its next one."""
    path = Path(_DIRECTORY.name) / "relay-cert.der"
    for data in (content, ssl.DER_cert_to_PEM_cert(content).encode()):
        path.write_bytes(data)
        with contextlib.suppress(ConfigError):
            assert load_trusted_certificates(path)
        with contextlib.suppress(ConfigError):
            assert load_certificate(path, _KEY_PATH).chain
        with contextlib.suppress(ConfigError):
            assert AccessChoices(next_cert=path).next_pins()


_IDENTITY = json.dumps({"version": 1, "mac": MAC, "secret": "cd" * 32}).encode()
_QUANTITIES = st.from_regex(r"[0-9]{1,14}(\.[0-9]{0,12})? ?(k|m|g)?(bit|s|ms|min|h|x)?", fullmatch=True)
_PLACES = st.from_regex(r"\[?([0-9a-f.:]{0,40}|[a-z.-]{1,20})\]?(:[0-9]{0,6})?(/udp|/tcp)?", fullmatch=True)


_KEY_PATH = Path(_DIRECTORY.name) / "relay-key.pem"
_DER = kept_dev_certificate(_KEY_PATH, "relay.example.org").leaf
_PEM = ssl.DER_cert_to_PEM_cert(_DER).encode()

Target = tuple[st.SearchStrategy[Any], Callable[[Any], None]]

TARGETS: dict[str, Target] = {
    "messages": (_spoilt(_MESSAGES) | st.binary(max_size=300), check_message),
    "stream": (
        st.tuples(
            st.lists(_MESSAGES | st.binary(min_size=2, max_size=60), max_size=4),
            st.binary(max_size=40) | _spoilt(_MESSAGES.map(encode_frame)),
            st.lists(st.integers(0, 600), max_size=6),
        ),
        check_stream,
    ),
    "texts": (st.text(max_size=60) | _QUANTITIES | _PLACES, check_text),
    "identity": (_spoilt(st.just(_IDENTITY)) | st.binary(max_size=200), check_identity),
    "certificates": (_spoilt(st.sampled_from([_DER, _PEM])) | st.binary(max_size=200), check_certificates),
}


def check_key(text: str) -> None:
    """A key that is typed or stands in an invite is read or refused, without being repeated; what its token says likewise."""
    from softlan.control import keys

    key, refusal = None, ""
    try:
        key = keys.parse_key(text)
    except ConfigError as error:
        refusal = str(error)
    assert len(text.strip()) < 4 or text.strip() not in refusal
    if isinstance(key, keys.Invite):
        assert len(key.secret("LAN")) == 32
        try:
            facts = keys.read_token(key.token)
        except FieldFault:
            return
        assert facts.room == facts.room.upper()


def check_invite(text: str) -> None:
    """An invite link is read, and then prints as one that reads the same, or is refused."""
    from softlan import invite

    try:
        read = invite.parse_invite(text)
    except ConfigError:
        return
    assert invite.parse_invite(str(read)) == read


def _genuine_keys() -> st.SearchStrategy[str]:
    from softlan.control import keys

    made = [
        keys.issue(bytes(32), "LAN", role, expires=1, once=once) for role in Role for once in (False, True)
    ]
    return _spoilt(st.sampled_from(made).map(str.encode)).map(lambda key: key.decode("utf-8", "replace"))


_LINKS = st.builds(
    lambda relay, room, query: f"softlan://{relay}/{room}{query}",
    st.from_regex(r"([a-z0-9.-]{1,20}|\[[0-9a-f:]{2,20}\])(:[0-9]{1,6})?", fullmatch=True),
    st.from_regex(r"[A-Za-z0-9_%-]{0,34}", fullmatch=True),
    st.from_regex(r"(\?(key|pin|name|x)=[^&# ]{0,50}(&(key|pin)=.{0,50})?)?", fullmatch=True),
)

# Parts of softlan that may not be there yet.
if importlib.util.find_spec("softlan.control.keys"):
    TARGETS["keys"] = (_genuine_keys() | st.text(max_size=60), check_key)
if importlib.util.find_spec("softlan.invite"):
    TARGETS["invite"] = (_LINKS | st.text(max_size=60), check_invite)
