"""An interface that was there before, as `softlan.client.linux` remembers it; `tests/e2e/test_lifecycle.py` shows it on a real TAP."""

from __future__ import annotations

import dataclasses
import sys

import pytest

from softlan.client import linux

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="interfaces of Linux")


def test_who_is_not_there_has_nothing_to_be_put_back() -> None:
    assert linux._Former.of("lo") is not None
    for name in ("nothing0", "lo" + "x" * 14, "l\0o", ""):
        assert linux._Former.of(name) is None


def test_what_is_as_it_was_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    former = linux._Former.of("lo")
    assert former is not None
    monkeypatch.setattr(linux, "_ioctl", read_only(linux._ioctl))
    former.put_back()


def test_another_interface_of_that_name_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    former = linux._Former.of("lo")
    assert former is not None
    monkeypatch.setattr(linux, "_ioctl", read_only(linux._ioctl))
    dataclasses.replace(former, index=former.index + 1000, mtu=1400, up=False).put_back()


def test_what_cannot_be_put_back_is_told_and_the_rest_is_put_back(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    former = linux._Former.of("lo")
    assert former is not None
    tried = []

    def refuse(name: str, number: int, layout: str, value: int | bytes) -> None:
        tried.append(value)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(linux, "_tell", refuse)
    dataclasses.replace(former, mac=bytes(16), mtu=1400, up=not former.up).put_back()
    assert tried[-2:] == [1400, bytes(16)]
    assert {record.event for record in caplog.records} == {"setting.stuck"}
    assert "Operation not permitted" in caplog.text


def read_only(ioctl):
    """Let nothing through that sets anything (`_SIOCSIF...`)."""

    def ask(number: int, request: bytes) -> bytes:
        assert number in (linux._SIOCGIFFLAGS, linux._SIOCGIFMTU, linux._SIOCGIFHWADDR)
        return ioctl(number, request)

    return ask
