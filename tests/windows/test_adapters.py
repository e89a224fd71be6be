"""Choosing an adapter, asking its driver, and whose MAC it is: decided without Windows."""

import pytest

from softlan._core import CoreError, Mac
from softlan.errors import ConfigError, InterfaceError, PrivilegeError, UnsupportedPlatformError
from softlan.windows import tap as tap_module
from softlan.windows.iphlpapi import Iphlpapi
from softlan.windows.mac_policy import MacDecision, MacPolicy, decide_mac
from softlan.windows.registry import (
    InstalledAdapter,
    choose_adapter,
    installed_adapters,
    is_tap,
    network_address,
)
from softlan.windows.tap import DriverVersion, Tap, driver_warning, tap_error


def adapter(name, number=1):
    return InstalledAdapter(
        guid=f"{{5A7C000{number}-1111-4222-8333-444455556666}}", name=name, key=f"000{number}"
    )


PARTY, OPENVPN, OWN = adapter("LAN party", 1), adapter("OpenVPN TAP-Windows6", 2), adapter("softlan", 3)


@pytest.mark.parametrize("component", ["tap0901", "TAP0901", r"root\tap0901", r"ROOT\TAP0901"])
def test_what_tap_windows_is_called(component):
    assert is_tap(component)


@pytest.mark.parametrize("component", [None, 7, "", "tap0801", "wintun", r"root\tap0901x", "ovpn-dco"])
def test_what_it_is_not_called(component):
    assert not is_tap(component)


def test_the_device_path():
    assert PARTY.device_path == r"\\.\Global\{5A7C0001-1111-4222-8333-444455556666}.tap"


@pytest.mark.parametrize(
    ("there", "wanted", "chosen"),
    [
        ([PARTY], None, PARTY),
        ([PARTY, OPENVPN], "lan PARTY", PARTY),
        ([PARTY, OPENVPN], OPENVPN.guid.lower(), OPENVPN),
        ([PARTY, OPENVPN, OWN], None, OWN),
    ],
)
def test_choosing(there, wanted, chosen):
    assert choose_adapter(there, wanted) is chosen


def test_without_an_adapter_it_says_what_to_install():
    with pytest.raises(InterfaceError, match="no TAP-Windows6 adapter") as caught:
        choose_adapter([], None)
    assert "tapctl create" in caught.value.hint


@pytest.mark.parametrize(
    ("wanted", "said"), [(None, "several TAP adapters"), ("sofltan", "called 'sofltan'")]
)
def test_a_choice_that_cannot_be_made_lists_what_there_is(wanted, said):
    with pytest.raises(ConfigError, match=said) as caught:
        choose_adapter([PARTY, OPENVPN], wanted)
    assert "'LAN party', 'OpenVPN TAP-Windows6'" in caught.value.hint


class Driver:
    """A device that answers from a table."""

    def __init__(self, answers):
        self.answers = answers
        self.asked = []

    def ioctl(self, code, data, answer_size):
        self.asked.append((code, data, answer_size))
        answer = self.answers[code]
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self):
        pass


def test_the_questions_to_the_driver():
    driver = Driver(
        {
            0x220004: bytes.fromhex("00ff5a7c0001"),
            0x220008: bytes.fromhex("090000001b00000000000000"),
            0x22000C: bytes.fromhex("dc050000"),
            0x220018: bytes.fromhex("01000000"),
        }
    )
    tap = Tap(PARTY, driver)
    assert tap.mac() == Mac("00:ff:5a:7c:00:01")
    assert tap.version() == DriverVersion(9, 27)
    assert tap.mtu() == 1500
    tap.connect_media()
    tap.connect_media(False)
    assert driver.asked[-2:] == [(0x220018, b"\x01\0\0\0", 4), (0x220018, b"\0\0\0\0", 4)]


def test_a_driver_that_answers_too_little_is_none():
    with pytest.raises(InterfaceError, match="answered 3 bytes to control code 0x220004"):
        Tap(PARTY, Driver({tap_module.GET_MAC: b"abc"})).mac()


def test_a_driver_that_refuses():
    with pytest.raises(InterfaceError, match="'LAN party' failed: no"):
        Tap(PARTY, Driver({tap_module.GET_MTU: CoreError("io", "no")})).mtu()


@pytest.mark.parametrize(
    ("kind", "error", "said"),
    [
        ("adapter-missing", InterfaceError, "not running"),
        ("adapter-busy", InterfaceError, "in use by another program"),
        ("no-privilege", PrivilegeError, "administrator rights"),
    ],
)
def test_a_device_that_cannot_be_opened_says_what_to_do(kind, error, said):
    made = tap_error(CoreError(kind, "error 2"), "LAN party")
    assert type(made) is error
    assert said in made.message
    assert made.hint


@pytest.mark.parametrize("version", [DriverVersion(9, 9), DriverVersion(9, 26), DriverVersion(8, 99)])
def test_an_old_driver_is_warned_of(version):
    warning, hint = driver_warning(version)
    assert "CVE-2024-1305" in warning
    assert "9.27" in hint


@pytest.mark.parametrize("version", [DriverVersion(9, 27), DriverVersion(9, 30), DriverVersion(10, 0)])
def test_a_newer_driver_is_not(version):
    assert driver_warning(version) is None


IDENTITY, DRIVER = Mac("02:00:5e:10:00:01"), Mac("00:ff:5a:7c:00:01")


@pytest.mark.parametrize("policy", MacPolicy)
def test_equal_macs_need_no_policy(policy):
    assert decide_mac(policy, DRIVER, DRIVER) == MacDecision(DRIVER)


def test_strict_stops():
    with pytest.raises(InterfaceError, match=f"{DRIVER}, but this player's identity is {IDENTITY}") as caught:
        decide_mac(MacPolicy.STRICT, IDENTITY, DRIVER)
    assert "adopt" in caught.value.hint
    assert "configure" in caught.value.hint


def test_adopt_takes_the_drivers():
    assert decide_mac(MacPolicy.ADOPT, IDENTITY, DRIVER) == MacDecision(DRIVER)


@pytest.mark.parametrize("mac", ["01:00:5e:00:00:01", "00:00:00:00:00:00"])
def test_adopt_takes_no_mac_that_nobody_may_have(mac):
    with pytest.raises(InterfaceError, match="cannot be a player's"):
        decide_mac(MacPolicy.ADOPT, IDENTITY, Mac(mac))


def test_configure_gives_the_identitys():
    assert decide_mac(MacPolicy.CONFIGURE, IDENTITY, DRIVER) == MacDecision(IDENTITY, configure=True)


@pytest.mark.parametrize("mac", ["00:1b:21:00:00:01", "03:00:00:00:00:01"])
def test_configure_refuses_what_the_driver_would_ignore(mac):
    with pytest.raises(ConfigError, match="does not take"):
        decide_mac(MacPolicy.CONFIGURE, Mac(mac), DRIVER)


def test_a_mac_as_the_registry_has_it():
    assert network_address(IDENTITY) == "02005E100001"


@pytest.mark.parametrize("call", [Iphlpapi, installed_adapters, lambda: Tap.open(PARTY)])
def test_elsewhere_than_on_windows_it_says_so(call):
    with pytest.raises(UnsupportedPlatformError, match="exists on Windows only"):
        call()
