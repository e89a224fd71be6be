"""What people type, read and refused."""

import contextlib

import click
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from softlan import config
from softlan._core import Mac
from softlan.cli import main
from softlan.config import (
    HostPort,
    Listen,
    parse_frame_rate,
    parse_host,
    parse_host_port,
    parse_invite_time,
    parse_listen,
    parse_rate,
    parse_room,
    parse_seconds,
    parse_server_name,
    parse_virtual_mac,
)
from softlan.errors import ConfigError

PARSERS = [
    parse_listen,
    parse_frame_rate,
    parse_host,
    parse_host_port,
    parse_invite_time,
    parse_rate,
    parse_room,
    parse_seconds,
    parse_server_name,
    parse_virtual_mac,
]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("443/udp", Listen(None, 443)),
        ("443/UDP", Listen(None, 443)),
        ("4433", Listen(None, 4433)),
        ("0/udp", Listen(None, 0)),
        ("192.0.2.1:443", Listen("192.0.2.1", 443)),
        ("0.0.0.0:0", Listen("0.0.0.0", 0)),
        ("[::]:443", Listen("::", 443)),
        ("[2001:DB8:0::1]:1", Listen("2001:db8::1", 1)),
        ("[fe80::1%eth0]:443", Listen("fe80::1%eth0", 443)),
    ],
)
def test_listen(text, expected):
    assert parse_listen(text) == expected
    assert parse_listen(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("443/tcp", "QUIC runs over UDP"),
        ("65536/udp", "port"),
        ("-1/udp", "port"),
        ("192.0.2.1", "no port"),
        ("192.0.2.1:", "port"),
        ("relay.example:443", "not an IP address"),
        ("::1:443", "brackets"),
        ("[::1:443", "brackets"),
        ("192.0.2.256:443", "not an IP address"),
        ("", "no port"),
        ("²", "no port"),
        ("٤٤٣", "port"),
    ],
)
def test_listen_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_listen(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relay.example.org:443", HostPort("relay.example.org", 443)),
        ("192.0.2.1:443", HostPort("192.0.2.1", 443)),
        ("[2001:db8::1]:443", HostPort("2001:db8::1", 443)),
        ("localhost:1", HostPort("localhost", 1)),
        (" relay:443 ", HostPort("relay", 443)),
        ("relay.example.org.:443", HostPort("relay.example.org.", 443)),
        ("grüße_2.example:443", HostPort("grüße_2.example", 443)),
        ("[fe80::1%eth0]:443", HostPort("fe80::1%eth0", 443)),
    ],
)
def test_host_port(text, expected):
    assert parse_host_port(text) == expected
    assert parse_host_port(str(expected)) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("relay", "no port"),
        ("relay:0", "port"),
        ("relay:https", "port"),
        (":443", "host name"),
        ("2001:db8::1:443", "brackets"),
        ("[relay]:443", "IPv6"),
        ("[::g]:443", "IPv6"),
        ("http://relay:443", "brackets|host name"),
        ("re lay:443", "host name"),
        ("relay..example.org:443", "host name"),
        (".example.org:443", "host name"),
        (f"{'x' * 64}.example.org:443", "host name"),
        (f"{'ß' * 63}.example.org:443", "host name"),
        ("[fe80::1%\x1bc]:443", "IPv6"),
        ("[fe80::1%\udcff]:443", "IPv6"),
    ],
)
def test_host_port_refused(text, words):
    with pytest.raises(ConfigError, match=words):
        parse_host_port(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2mbit", 2_000_000),
        ("500kbit", 500_000),
        ("1gbit", 1_000_000_000),
        ("1.5Mbit", 1_500_000),
        ("64 kbit", 64_000),
        ("8bit", 8),
        ("off", None),
        ("OFF", None),
    ],
)
def test_rate(text, expected):
    assert parse_rate(text) == expected


@pytest.mark.parametrize(
    "text", ["", "2", "2mb", "2mbps", "mbit", "-1mbit", "0kbit", "0.0001bit", "1e3bit", "nan", "1001gbit"]
)
def test_rate_refused(text):
    with pytest.raises(ConfigError):
        parse_rate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5", 5.0), ("2.5s", 2.5), ("500ms", 0.5), ("5min", 300.0), ("0", 0.0), ("1h", 3600.0)],
)
def test_seconds(text, expected):
    assert parse_seconds(text) == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "-1", "inf", "nan", "1 day", "1e9"])
def test_seconds_refused(text):
    with pytest.raises(ConfigError):
        parse_seconds(text)


def test_how_long_an_invite_may_let_in():
    assert parse_invite_time("366d") == 366 * 86400
    for text in ("0", "367d", "9000h"):
        with pytest.raises(ConfigError, match=f"cannot let in for {text}: up to 366d"):
            parse_invite_time(text)


def test_room():
    assert parse_room(" room1 ") == "ROOM1"
    with pytest.raises(ConfigError, match="letters"):
        parse_room("room 1")


def test_virtual_mac():
    assert parse_virtual_mac("02-00-5E-10-00-01") == Mac("02:00:5e:10:00:01")
    for text in ("02:00:5e", "01:00:5e:00:00:01", "00:00:00:00:00:00"):
        with pytest.raises(ConfigError, match=text):
            parse_virtual_mac(text)


@given(st.sampled_from(PARSERS), st.text(max_size=30) | st.from_regex(r"[\[\]0-9a-f:./%a-z]{0,20}"))
def test_whatever_is_typed_is_read_or_refused(parse, text):
    with contextlib.suppress(ConfigError):
        parse(text)


def run(option_type, default, *args):
    @click.command()
    @click.option("--it", type=option_type, default=default, show_default=True)
    def command(it):
        click.echo(repr(it))

    return CliRunner().invoke(command, args)


def test_as_click_types():
    assert run(config.LISTEN, "443/udp").output == "Listen(address=None, port=443)\n"
    assert run(config.RATE, "2mbit", "--it", "off").output == "None\n"
    assert run(config.SECONDS, "5").output == "5.0\n"
    refused = run(config.HOST_PORT, None, "--it", "relay")
    assert refused.exit_code == 2
    assert "--it" in refused.output
    assert "has no port" in refused.output
    assert "relay.example.org:443" in refused.output, "the hint is shown as well"
    assert "--it HOST:PORT" in run(config.HOST_PORT, None, "--help").output


@pytest.mark.parametrize(
    ("text", "expected"), [("500", 500), ("off", None), (" OFF ", None), ("1000000", 10**6)]
)
def test_frame_rates(text, expected):
    assert parse_frame_rate(text) == expected


@pytest.mark.parametrize("text", ["0", "1.5", "500kbit", "-1", "1000001", "", "many"])
def test_not_frame_rates(text):
    with pytest.raises(ConfigError):
        parse_frame_rate(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relay.example.org", ("relay.example.org", None)),
        ("relay.example.org:4433", ("relay.example.org", 4433)),
        ("192.0.2.1", ("192.0.2.1", None)),
        ("192.0.2.1:1", ("192.0.2.1", 1)),
        ("2001:DB8::1", ("2001:db8::1", None)),
        ("[2001:db8::1]", ("2001:db8::1", None)),
        ("[2001:db8::1]:5", ("2001:db8::1", 5)),
    ],
)
def test_host(text, expected):
    assert parse_host(text) == expected


@pytest.mark.parametrize(
    "text", ["", "a b", "h:", "h:99999", "2001:db8::g", "[::1", "http://h", "fe80::1%\x1bc"]
)
def test_no_host(text):
    with pytest.raises(ConfigError):
        parse_host(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("relay.example.org", "relay.example.org"),
        ("Grüße.example.", "xn--grsse-lva.example."),
        ("例え.テスト", "xn--r8jz45g.xn--zckzah"),
        ("xn--mller-kva.example", "xn--mller-kva.example"),
        ("2001:DB8::1", "2001:db8::1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_a_server_name_is_in_ascii(text, expected):
    assert parse_server_name(text) == expected
    assert parse_server_name(expected) == expected


@pytest.mark.parametrize("text", ["", "a b", "relay.example.org:443", "ß" * 63, "\udcff"])
def test_no_server_name(text):
    with pytest.raises(ConfigError):
        parse_server_name(text)


@pytest.mark.parametrize("name", ["⑴", "relay.⑴", ".".join(["一搏稞逭堜渫萺驉戸硇蹖噅"] * 8)])
def test_a_name_that_is_none_in_ascii_is_refused(name):
    """Its letters are written as such that no name has, or it gets too long."""
    with pytest.raises(ConfigError, match="is not a host name: in ASCII it is"):
        parse_server_name(name)
    with pytest.raises(ConfigError, match="is not a host name: in ASCII it is"):
        parse_host_port(f"{name}:443")


@pytest.mark.parametrize(
    ("part", "option"),
    [
        *((part, "--server-name") for part in ("client", "gateway", "doctor", "ping")),
        *((part, option) for part in ("client", "doctor") for option in ("--tap", "--attach")),
        *((part, "--interface") for part in ("gateway", "doctor")),
    ],
)
def test_arguments_that_are_no_text_are_refused_by_name(part, option, tmp_path, monkeypatch):
    """Bytes that are no UTF-8 come in as lone surrogates (PEP 383)."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = [part, *(["ann"] if part == "ping" else []), f"softlan://127.0.0.1:1/R?pin={'A' * 43}"]
    result = CliRunner().invoke(main, [*words, option, "\udcff"])
    assert result.exit_code == 2, result.output
    assert f"Invalid value for '{option}'" in result.output
    assert not list(tmp_path.iterdir())
