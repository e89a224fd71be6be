"""Windows as the client and the self-test use it: IP Helper, the network list, and the journal that puts all of it right.

Opening it takes back first what a client that crashed has left behind.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from softlan.windows.devices import enable_device
from softlan.windows.errors import ERROR_INVALID_PARAMETER, MISSING_CODES, WindowsCallError
from softlan.windows.ip import Family, IpHelper
from softlan.windows.iphlpapi import Iphlpapi
from softlan.windows.journal import Journal, default_journal_directory, recover
from softlan.windows.profile import NetworkList
from softlan.windows.undo import Undoer

__all__ = ["Machine", "open_machine", "wait_for_interface"]

_POLL_S = 0.2
_STARTING_CODES = MISSING_CODES | {ERROR_INVALID_PARAMETER}
"""What is said of an adapter that is not there yet; the last of a GUID that is not known yet (ConvertInterfaceGuidToLuid)."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What changes are made with. `recovered` counts the changes of former runs that were put right just now."""

    ip: IpHelper
    networks: NetworkList
    journal: Journal
    recovered: int = 0


@contextlib.contextmanager
def open_machine(directory: Path | None = None) -> Iterator[Machine]:
    """Put right what a crash left, and open a journal for this run, which takes back what is left when the block is.

    Raises:
        UnsupportedPlatformError: not on Windows.
        SoftlanError: no journal can be kept.

    """
    ip, networks = Iphlpapi(), NetworkList()
    undoer = Undoer(
        ip,
        read_category=networks.category,
        write_category=networks.set_category,
        enable_adapter=enable_device,
    )
    place = directory or default_journal_directory()
    recovered = recover(place, undoer)
    with Journal(place, undoer) as journal:
        yield Machine(ip, networks, journal, recovered)


def wait_for_interface(ip: IpHelper, guid: str, *, timeout_s: float = 10.0) -> int:
    """Give the LUID of an adapter once IPv4 is on it; a restarted adapter takes a second or two.

    Raises:
        WindowsCallError: it has not come within the time.

    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            luid = ip.luid_of_guid(guid)
            ip.interface(luid, Family.IPV4)
        except WindowsCallError as error:
            if error.code not in _STARTING_CODES or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)
        else:
            return luid
