"""Every structure, method and number softlan takes from Windows' headers, compared with what a C compiler makes of them."""

import ctypes
import re
import subprocess
from pathlib import Path

import pytest

from softlan.lab.testing import need
from softlan.windows import console, devices, errors, profile, structs, tap
from softlan.windows.ip import Family

HERE = Path(__file__).parent
STRUCTURES = {name: getattr(structs, name) for name in structs.__all__} | {"WNDCLASSW": console._WindowClass}
METHODS = {
    "INetworkListManager.Release": profile.RELEASE,
    "INetworkListManager.GetNetwork": profile.MANAGER_GET_NETWORK,
    "INetworkListManager.GetNetworkConnections": profile.MANAGER_GET_NETWORK_CONNECTIONS,
    "IEnumNetworkConnections.Next": profile.ENUM_NEXT,
    "INetworkConnection.GetNetwork": profile.CONNECTION_GET_NETWORK,
    "INetworkConnection.GetAdapterId": profile.CONNECTION_GET_ADAPTER_ID,
    "INetwork.GetNetworkId": profile.NETWORK_GET_NETWORK_ID,
    "INetwork.GetCategory": profile.NETWORK_GET_CATEGORY,
    "INetwork.SetCategory": profile.NETWORK_SET_CATEGORY,
}
NUMBERS = {
    "MIB_IPPROTO_NETMGMT": structs.MIB_IPPROTO_NETMGMT,
    "AF_INET6": Family.IPV6,
    **{name: getattr(errors, name) for name in dir(errors) if name.startswith("ERROR_")},
    "CTRL_CLOSE_EVENT": console.CTRL_CLOSE,
    "CTRL_LOGOFF_EVENT": console.CTRL_LOGOFF,
    "CTRL_SHUTDOWN_EVENT": console.CTRL_SHUTDOWN,
    "WM_QUERYENDSESSION": console.WM_QUERYENDSESSION,
    "WM_ENDSESSION": console.WM_ENDSESSION,
    "CR_NO_SUCH_DEVNODE": 0x0D,
    "CR_INVALID_DEVNODE": 0x05,
    "CR_ACCESS_DENIED": 0x33,
    "CM_DISABLE_UI_NOT_OK": devices._CM_DISABLE_UI_NOT_OK,
    "TAP_WIN_IOCTL_GET_MAC": tap.GET_MAC,
    "TAP_WIN_IOCTL_GET_VERSION": tap.GET_VERSION,
    "TAP_WIN_IOCTL_GET_MTU": tap.GET_MTU,
    "TAP_WIN_IOCTL_SET_MEDIA_STATUS": tap.SET_MEDIA_STATUS,
}


@pytest.fixture(scope="module")
def headers():
    compiler = "x86_64-w64-mingw32-gcc"
    need(compiler)
    assembly = subprocess.run(
        [compiler, "-S", "-O0", "-o", "-", HERE / "layout.c"], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    return {
        name: int(value) for name, value in re.findall(r"^@LAYOUT (\S+) \$?(-?\d+)$", assembly, re.MULTILINE)
    }


FIELDS = {
    f"{name}.{field[0]}": getattr(structure, field[0]).offset
    for name, structure in STRUCTURES.items()
    for field in structure._fields_
}


@pytest.mark.windows
@pytest.mark.parametrize("name", FIELDS)
def test_a_field_lies_where_windows_has_it(headers, name):
    assert FIELDS[name] == headers[name]


@pytest.mark.windows
@pytest.mark.parametrize("name", STRUCTURES)
def test_a_structure_has_windows_size(headers, name):
    assert ctypes.sizeof(STRUCTURES[name]) == headers[name]


@pytest.mark.windows
@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_place(headers, name):
    assert METHODS[name] == headers[name]


@pytest.mark.windows
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_is_windows_own(headers, name):
    assert NUMBERS[name] == headers[name]


@pytest.mark.windows
def test_nothing_in_the_headers_goes_uncompared(headers):
    assert set(headers) == {*STRUCTURES, *FIELDS, *METHODS, *NUMBERS, "ipv4-address", "MSG"}
    assert structs.SOCKADDR_INET.sin6_flowinfo.offset == headers["ipv4-address"]
    assert structs.MIB_IPFORWARD_TABLE2.Table.offset == structs.TABLE_OFFSET
    assert headers["MSG"] <= 64


def test_the_sizes_that_matter():
    """Known without a compiler, so that a slip shows everywhere."""
    assert ctypes.sizeof(structs.MIB_IPINTERFACE_ROW) == 168
    assert ctypes.sizeof(structs.MIB_IPFORWARD_ROW2) == 104
    assert structs.MIB_IPINTERFACE_ROW.NlMtu.offset == 152
    assert structs.MIB_IPFORWARD_ROW2.NextHop.offset == 44
