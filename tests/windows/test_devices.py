"""Restarting an adapter: whatever happens in between, it ends up enabled, or the journal sees to it at the next start."""

import pytest
from memory_ip import MemoryIp

from softlan.windows import devices
from softlan.windows.errors import WindowsCallError, call_error
from softlan.windows.journal import Journal, recover
from softlan.windows.undo import AdapterUndo, Undoer

INSTANCE = r"ROOT\NET\0000"


class Manager:
    """A device manager that notes what is asked of it."""

    def __init__(self):
        self.asked, self.failing, self.enabled = [], set(), True

    def call(self, name, instance, *flags):
        assert instance == INSTANCE
        self.asked.append(name)
        if name in self.failing:
            raise call_error(name, 31, "restart the device")
        if flags:
            self.enabled = name == "CM_Enable_DevNode"


@pytest.fixture
def manager(monkeypatch):
    made = Manager()
    monkeypatch.setattr(devices, "_call", made.call)
    return made


@pytest.fixture
def undoer():
    return Undoer(MemoryIp(), enable_adapter=devices.enable_device, sleep=lambda _: None)


@pytest.fixture
def journal(undoer, tmp_path):
    return Journal(tmp_path, undoer)


def test_off_and_on_again(manager, journal):
    devices.restart_device(journal, INSTANCE)
    assert manager.asked == ["CM_Locate_DevNodeW", "CM_Disable_DevNode", "CM_Enable_DevNode"]
    assert manager.enabled
    assert journal.records == ()


def test_without_the_device_nothing_is_done_or_written_down(manager, journal):
    manager.failing = {"CM_Locate_DevNodeW"}
    with pytest.raises(WindowsCallError):
        devices.restart_device(journal, INSTANCE)
    assert manager.asked == ["CM_Locate_DevNodeW"]
    assert journal.records == ()


def test_a_device_that_cannot_be_disabled_is_enabled(manager, journal):
    manager.failing = {"CM_Disable_DevNode"}
    with pytest.raises(WindowsCallError, match="CM_Disable_DevNode"):
        devices.restart_device(journal, INSTANCE)
    assert manager.enabled
    assert journal.records == ()


def test_a_device_that_stays_off_is_for_the_next_start(manager, journal, undoer, tmp_path):
    manager.failing = {"CM_Enable_DevNode"}
    with pytest.raises(WindowsCallError, match="CM_Enable_DevNode"):
        devices.restart_device(journal, INSTANCE)
    assert not manager.enabled
    assert journal.records == (AdapterUndo(INSTANCE),)
    journal.close()
    manager.failing = set()
    assert recover(tmp_path, undoer) == 1
    assert manager.enabled
