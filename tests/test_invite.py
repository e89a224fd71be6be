"""Invites: what is written is read back, what chat programs do to them is undone, and what is broken is named."""

import base64
import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from softlan.errors import ConfigError
from softlan.invite import Invite, parse_invite

PIN = base64.urlsafe_b64encode(hashlib.sha256(b"a key").digest()).decode().rstrip("=")
OTHER = base64.urlsafe_b64encode(hashlib.sha256(b"another").digest()).decode().rstrip("=")
LINK = f"softlan://relay.example.org:4433/PARTY1?pin={PIN}&key=sl1.abc-DEF_1"
READ = Invite("relay.example.org", 4433, "PARTY1", (PIN,), "sl1.abc-DEF_1")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LINK, READ),
        ("softlan://relay.example.org/a", Invite("relay.example.org", 443, "A")),
        ("softlan://192.0.2.1:1/A?", Invite("192.0.2.1", 1, "A")),
        ("softlan://[2001:db8::1]/A", Invite("2001:db8::1", 443, "A")),
        ("softlan://[2001:DB8::1]:99/A/", Invite("2001:db8::1", 99, "A")),
        ("softlan://[fe80::1%25eth0]/A", Invite("fe80::1%eth0", 443, "A")),
        ("softlan://münchen.example/A", Invite("münchen.example", 443, "A")),
        (f"softlan://h/A?pin={PIN}&pin={OTHER}&pin={PIN}", Invite("h", 443, "A", (PIN, OTHER))),
        (f"softlan://h/A?PIN={PIN}=", Invite("h", 443, "A", (PIN,))),
        ("softlan://h/A?key=a%26b%3Dc&key=a%26b%3Dc", Invite("h", 443, "A", (), "a&b=c")),
        ("softlan://h/A?key=zwei%20W%C3%B6rter", Invite("h", 443, "A", (), "zwei Wörter")),
    ],
)
def test_reads(text, expected):
    assert parse_invite(text) == expected
    assert parse_invite(str(expected)) == expected


@pytest.mark.parametrize(
    "mangled",
    [
        f"  {LINK}\n",
        f"<{LINK}>",
        f"({LINK}).",
        f"{LINK},",
        f"“{LINK}”",
        f"'{LINK}'",
        f"»{LINK}«",
        f"`{LINK}`",
        f"**{LINK}**",
        LINK.replace("&", "&amp;"),
        LINK.replace("softlan", "SoftLAN"),
        LINK.replace("?", "\\?").replace("&", "\\&").replace("=", "\\=").replace("_", "\\_"),
        LINK.replace(":", "%3A")
        .replace("/", "%2F")
        .replace("?", "%3F")
        .replace("&", "%26")
        .replace("=", "%3D"),
        f"{LINK[:50]}\r\n{LINK[50:]}",
        f"{LINK[:50]}\n    {LINK[50:70]}  \n{LINK[70:]}",
        f"\ufeff{LINK[:40]}\u200b{LINK[40:]}",
        f"{LINK}…",
    ],
)
def test_what_chat_programs_do_is_undone(mangled):
    assert parse_invite(mangled) == READ


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        ("<>", "empty"),
        ("PARTY1", "is not an invite"),
        ("relay.example.org:443", "is not an invite"),
        ("https://relay.example.org/PARTY1", "web address"),
        ("softlan:relay.example.org/PARTY1", "two slashes"),
        ("softlan://relay.example.org", "names no room"),
        ("softlan://relay.example.org/", "names no room"),
        (f"softlan://relay.example.org?pin={PIN}", "names no room"),
        ("softlan://relay.example.org/A/B", "the invite's room"),
        ("softlan://relay.example.org/A B", "gap after"),
        ("softlan://relay.example.org/A come and play", "gap after"),
        ("softlan://relay.example.org/Ä", "'Ä'"),
        (f"softlan://relay.example.org/A?pin={PIN[:20]}—{PIN[22:]}", "'—'"),
        ("softlan:///A", "the invite's relay"),
        ("softlan://:443/A", "the invite's relay"),
        ("softlan://h:/A", "port"),
        ("softlan://h:99999/A", "port"),
        ("softlan://2001:db8::1/A", "brackets"),
        ("softlan://[2001:db8::g]/A", "IPv6"),
        ("softlan://[fe80::1%25%1bc]/A", "IPv6"),
        ("softlan://me@h/A", "'@'"),
        ("softlan://h/A#x", "'#'"),
        ("softlan://h/A%", "room in the invite is broken at a '%'"),
        ("softlan://h/A?key=%ff", "key in the invite is broken at a '%'"),
        ("softlan://h/A?pin=", "cut off: it has 0"),
        (f"softlan://h/A?pin={PIN[:-5]}", "cut off: it has 38"),
        (f"softlan://h/A?pin={PIN}A", "too long"),
        (f"softlan://h/A?pin={PIN[:-1]}!&key=a", "damaged"),
        (f"softlan://h/A?pin={PIN[:-1]}B", "damaged"),
        ("softlan://h/A?key=", "key in the invite is empty"),
        ("softlan://h/A?key=a&key=b", "two different keys"),
        ("softlan://h/A?key=a%0Ab", "printable characters"),
        ("softlan://h/A?key=%20", "printable characters"),
        ("softlan://h/A?key=" + "a" * 1025, "printable characters"),
        ("softlan://h/A?key=" + "a" * 5000, "characters long"),
        ("softlan://h/A?" + "&".join(f"pin={'A' * 41 + a + b}" for a in "ABCDE" for b in "AEIM"), "16 pins"),
    ],
)
def test_names_what_is_wrong(text, words):
    with pytest.raises(ConfigError) as caught:
        parse_invite(text)
    assert words in str(caught.value)
    assert caught.value.hint


def test_what_is_not_known_is_left_out_with_a_note():
    invite = parse_invite(f"{LINK}&colour=blue&&flag")
    assert invite == READ
    assert len(invite.notes) == 2
    assert "'colour'" in invite.notes[0]
    assert "'flag'" in invite.notes[1]


def test_writes_what_every_shell_takes_in_double_quotes():
    assert str(READ) == LINK
    assert READ.command == f'softlan join "{LINK}"'
    awkward = str(Invite("fe80::1%a$b", 443, "A", (PIN,), 'a$b`c"d!e\\f%g&h'))
    assert not set(awkward) & set("$`\"!\\' ")


def test_a_key_stays_out_of_a_repr():
    assert "abc-DEF" not in repr(READ)


keys = st.text(min_size=1, max_size=64).filter(lambda key: key.isprintable() and key.strip() == key)
pins = st.binary(min_size=32, max_size=32).map(lambda d: base64.urlsafe_b64encode(d).decode().rstrip("="))
hosts = st.one_of(
    st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,60}[a-z0-9])?", fullmatch=True),
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(str),
)
invites = st.builds(
    Invite,
    host=hosts,
    port=st.integers(1, 65535),
    room=st.from_regex(r"[A-Za-z0-9_-]{1,32}", fullmatch=True),
    pins=st.lists(pins, max_size=4).map(tuple),
    key=st.none() | keys,
)


@given(invites)
@example(Invite("h", 443, "A", (), "."))
@example(Invite("h", 443, "A", (), "who? me!."))
def test_round_trip(invite):
    link = str(invite)
    assert parse_invite(link) == invite
    assert str(parse_invite(link)) == link
    assert link.isascii()
    assert parse_invite(f"<{link.replace('&', '&amp;')}>.\n") == invite


@given(st.text(max_size=200))
@example("softlan://")
@example("softlan://[/A")
@example("softlan://h/A?pin=%")
@example("softlan%3A%2F%2F%1B%5D0%3Bowned%07%1B%5B2Jrelay")
@example("\x1b]0;owned\x07relay")
def test_garbage_is_an_invite_or_an_error(text):
    for tried in (text, f"softlan://{text}", f"softlan://h/A?{text}", f"softlan://h/A?{text}\udcff"):
        try:
            invite = parse_invite(tried)
        except ConfigError as error:
            told = f"{error} {error.hint}"
        else:
            told = str(invite)
            assert parse_invite(told) == invite
        assert told.isprintable()
