"""Reading what people type: addresses, rates, rooms, times; each parser says what it would have liked.

The plain functions raise `ConfigError` and serve configuration files too; the click types at the end hand the
same words to click, which adds the option's name and exits with 2.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar, get_args

import click

from softlan._core import Mac
from softlan.control.fields import FieldFault, Role, check_role_and_mac, normalise_room_code
from softlan.errors import ConfigError
from softlan.texts import one_line

__all__ = [
    "CONGESTION_CONTROLLERS",
    "FRAME_RATE",
    "HOST",
    "HOST_PORT",
    "INTERFACE",
    "INVITE_TIME",
    "LISTEN",
    "MAX_INVITE_S",
    "RATE",
    "ROOM",
    "SECONDS",
    "SERVER_NAME",
    "VIRTUAL_MAC",
    "HostPort",
    "Listen",
    "option_type",
    "parse_frame_rate",
    "parse_host",
    "parse_host_port",
    "parse_interface",
    "parse_invite_time",
    "parse_listen",
    "parse_rate",
    "parse_room",
    "parse_seconds",
    "parse_server_name",
    "parse_virtual_mac",
]

T = TypeVar("T")

Congestion: TypeAlias = Literal["cubic", "bbr", "calm"]
"""QUIC's congestion controllers: RFC 9438, BBR, and softlan's own that goes by delay."""

CONGESTION_CONTROLLERS: tuple[str, ...] = get_args(Congestion)

_RATE_UNITS = {"bit": 1, "kbit": 10**3, "mbit": 10**6, "gbit": 10**9}
_TIME_UNITS = {"": 1.0, "s": 1.0, "ms": 1e-3, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
MAX_INVITE_S = 366 * 86400.0
"""How long an invite lets in at most: what is lost or passed on is to end some day."""

MAX_RATE = 10**12
"""Bits per second; the switch counts a limit in 64 bits."""

_LABEL = re.compile(r"[\w-]{1,63}")
"""One label of a host name (RFC 1035 section 2.3.4), in any script, and with the underscore that some networks use."""

_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,9})?)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class Listen:
    """Where a relay listens: an IP address (None: all of both families) and a UDP port."""

    address: str | None
    port: int

    def __str__(self) -> str:
        """Print it as it may be typed."""
        return f"{self.port}/udp" if self.address is None else _join(self.address, self.port)


@dataclass(frozen=True, slots=True)
class HostPort:
    """A relay as players name it: a DNS name or IP address, and a UDP port."""

    host: str
    port: int

    @property
    def name(self) -> str:
        """What its certificate is for: the host in ASCII, without a zone, which is this machine's name for a line (RFC 4007 section 11).

        Raises ConfigError: IDNA cannot write it. `parse_host_port` gives no such host.
        """
        return _in_ascii(self.host.partition("%")[0])

    def __str__(self) -> str:
        """Print it as it may be typed."""
        return _join(self.host, self.port)


def parse_listen(text: str) -> Listen:
    """Read `443/udp` (every address), `IP:PORT` or `[IPv6]:PORT`; port 0 lets the system choose."""
    port, slash, transport = text.partition("/")
    if slash or text.isdecimal():
        if slash and transport.lower() != "udp":
            raise ConfigError(f"{text!r}: QUIC runs over UDP", hint=f"write {one_line(port)}/udp")
        return Listen(None, _port(port, text, lowest=0))
    host, port = _split(text, "443/udp, 192.0.2.1:443 or [::]:443")
    try:
        address = ipaddress.ip_address(_printable(host))
    except ValueError as error:
        raise ConfigError(
            f"{host!r} is not an IP address to listen on",
            hint="443/udp listens on every address of this machine",
        ) from error
    return Listen(str(address), _port(port, text, lowest=0))


def parse_host_port(text: str) -> HostPort:
    """Read `host:port`, `192.0.2.1:443` or `[2001:db8::1]:443`."""
    host, port = _split(text, "relay.example.org:443 or [2001:db8::1]:443")
    if ":" in host or text.lstrip().startswith("["):
        try:
            host = str(ipaddress.IPv6Address(_printable(host)))
        except ValueError as error:
            raise ConfigError(f"{host!r} is not an IPv6 address") from error
    elif not _is_host_name(host):
        raise ConfigError(f"{host!r} is not a host name or IP address")
    else:
        _in_ascii(host)
    return HostPort(host, _port(port, text, lowest=1))


def parse_host(text: str) -> tuple[str, int | None]:
    """Read a relay's name or address with or without a port: `relay.example.org`, `[2001:db8::1]:4433`, `2001:db8::1`."""
    text = text.strip()
    bracketed = text.startswith("[") and text.endswith("]")
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(_printable(text[1:-1] if bracketed else text))), None
    if ":" not in text:
        return parse_host_port(f"{text}:1").host, None
    relay = parse_host_port(text)
    return relay.host, relay.port


def parse_server_name(text: str) -> str:
    """Read the name that a relay's certificate is for, a DNS name or IP address, as certificates have it: in ASCII."""
    host, port = parse_host(text)
    if port is not None:
        raise ConfigError(f"{text!r}: a certificate is for a name, whatever the port", hint=f"write {host}")
    return HostPort(host, 1).name


def parse_interface(text: str) -> str:
    """Read the name of a network interface; whether there is one of that name is the system's to say."""
    if not text.isprintable():
        raise ConfigError(
            f"{text!r} cannot be an interface's name", hint="`ip link` lists those of this machine"
        )
    return text


def parse_rate(text: str) -> int | None:
    """Read a bit rate (`2mbit`, `500kbit`, `1gbit`) as bits per second; `off` is None, no limit."""
    if text.strip().lower() == "off":
        return None
    number, unit = _quantity(text)
    if number is None or unit not in _RATE_UNITS:
        raise ConfigError(f"{text!r} is not a rate", hint="write it like 500kbit, 2mbit or 1gbit, or off")
    rate = round(number * _RATE_UNITS[unit])
    if rate <= 0:
        raise ConfigError("a rate of 0 would let nothing through", hint="off means no limit")
    if rate > MAX_RATE:
        raise ConfigError(f"{text!r} is above 1000gbit, which nothing reaches", hint="off means no limit")
    return rate


def parse_frame_rate(text: str) -> int | None:
    """Read a number of frames per second (`500`); `off` is None, no limit."""
    if text.strip().lower() == "off":
        return None
    number, unit = _quantity(text)
    if number is None or unit or number != int(number) or not 1 <= number <= 1_000_000:
        raise ConfigError(
            f"{text!r} is not a number of frames a second", hint="write it like 500 (1 to 1000000), or off"
        )
    return int(number)


def parse_seconds(text: str) -> float:
    """Read a time (`5`, `2.5s`, `500ms`, `5min`) as seconds."""
    number, unit = _quantity(text)
    if number is None or unit not in _TIME_UNITS:
        raise ConfigError(f"{text!r} is not a time", hint="write it in seconds, or like 500ms or 5min")
    return number * _TIME_UNITS[unit]


def parse_invite_time(text: str) -> float:
    """Read how long an invite lets in, as `parse_seconds`: up to `MAX_INVITE_S`."""
    seconds = parse_seconds(text)
    if not 0 < seconds <= MAX_INVITE_S:
        raise ConfigError(
            f"an invite cannot let in for {one_line(text)}: up to {MAX_INVITE_S / 86400:.0f}d",
            hint="a room with a key of its own (--rooms) needs no invites that last for years",
        )
    return seconds


def parse_room(text: str) -> str:
    """Read a room code, folded to upper case."""
    try:
        return normalise_room_code(text.strip())
    except FieldFault as fault:
        raise ConfigError(f"{text!r} cannot be a room: {fault.problem}") from fault


def parse_virtual_mac(text: str) -> Mac:
    """Read a MAC that a client may have as its own: unicast and not zero."""
    try:
        mac = Mac(text.strip())
    except ValueError as error:
        raise ConfigError(f"{text!r} is not a MAC address", hint="write it like 02:00:5e:10:00:01") from error
    try:
        check_role_and_mac(Role.CLIENT, mac)
    except FieldFault as fault:
        raise ConfigError(f"{text!r} cannot be a client's MAC: {fault.problem}") from fault
    return mac


def option_type(name: str, parse: Callable[[str], T]) -> Callable[[object], T]:
    """Make a parser usable as the `type` of a click option; `name` is what help shows."""

    def convert(value: object) -> T:
        try:
            return parse(str(value))
        except ConfigError as error:
            raise click.BadParameter(
                one_line(f"{error}; {error.hint}" if error.hint else str(error))
            ) from error

    convert.__name__ = name
    return convert


LISTEN = option_type("address", parse_listen)
HOST = option_type("host", parse_host)
HOST_PORT = option_type("host:port", parse_host_port)
FRAME_RATE = option_type("frames", parse_frame_rate)
INTERFACE = option_type("interface", parse_interface)
RATE = option_type("rate", parse_rate)
ROOM = option_type("room", parse_room)
SECONDS = option_type("seconds", parse_seconds)
SERVER_NAME = option_type("name", parse_server_name)
INVITE_TIME = option_type("time", parse_invite_time)
VIRTUAL_MAC = option_type("mac", parse_virtual_mac)


def _is_host_name(host: str) -> bool:
    """Say whether a name has a name's lengths and labels (RFC 1035 section 2.3.4)."""
    return len(host) <= 253 and all(map(_LABEL.fullmatch, host.removesuffix(".").split(".")))


def _in_ascii(host: str) -> str:
    """Write a name as name servers and certificates have it: what is in another script in its xn-- form (RFC 3490, as getaddrinfo does)."""
    if host.isascii():
        return host
    try:
        written = host.encode("idna").decode("ascii")
    except UnicodeError as error:
        raise ConfigError(
            f"{host!r} is not a host name: it has no form in ASCII", hint="check the spelling"
        ) from error
    # A letter may be written as several: ⑴ as "(1)". And a name grows by its xn-- forms.
    if not _is_host_name(written):
        raise ConfigError(
            f"{host!r} is not a host name: in ASCII it is {written!r}", hint="check the spelling"
        )
    return written


def _printable(address: str) -> str:
    """Give an address back whose zone (RFC 4007 section 11) can be shown; `ipaddress` takes any. Raises ValueError."""
    if not address.isprintable():
        raise ValueError("not printable")
    return address


def _join(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _split(text: str, examples: str) -> tuple[str, str]:
    """Take the port off the end, and the brackets off an IPv6 address."""
    host, colon, port = text.strip().rpartition(":")
    if not colon:
        raise ConfigError(f"{text!r} has no port", hint=f"write it like {examples}")
    if host.startswith("[") and host.endswith("]"):
        return host[1:-1], port
    if ":" in host or "[" in host or "]" in host:
        raise ConfigError(f"{text!r}: an IPv6 address goes into brackets", hint=f"write it like {examples}")
    return host, port


def _port(digits: str, text: str, *, lowest: int) -> int:
    if re.fullmatch(r"[0-9]{1,5}", digits) and lowest <= int(digits) <= 65535:
        return int(digits)
    raise ConfigError(f"{text!r}: a port is a number from {lowest} to 65535")


def _quantity(text: str) -> tuple[float | None, str]:
    """Split a number from its unit; None when there is no number."""
    matched = _QUANTITY.fullmatch(text.strip().lower())
    if matched is None:
        return None, ""
    number = float(matched[1])
    return (number if math.isfinite(number) else None), matched[2]
