"""Ending in good order when Windows ends us: Ctrl-C, Ctrl-Break, a closed console window, log-off and shutdown.

Windows tells a console program through a handler on a thread of its own, and terminates the process when the handler of a close
returns, or after about five seconds (SetConsoleCtrlHandler, HandlerRoutine). So the handler asks the program to stop and waits until
it has put everything back. Log-off and shutdown do not reach the handler of a process that has user32 loaded, as Python has: for
those there is a window that nobody sees (WM_QUERYENDSESSION, WM_ENDSESSION).
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
from collections.abc import Callable, Iterator
from ctypes import c_int32, c_size_t, c_ssize_t, c_uint32, c_void_p, c_wchar_p
from typing import Any

__all__ = ["Ending", "graceful_end"]

CTRL_C, CTRL_BREAK, CTRL_CLOSE, CTRL_LOGOFF, CTRL_SHUTDOWN = 0, 1, 2, 5, 6
"""wincon.h."""
WM_DESTROY, WM_CLOSE, WM_QUERYENDSESSION, WM_ENDSESSION = 0x02, 0x10, 0x11, 0x16
"""winuser.h."""

_PATIENCE_S = 4.5
"""Less than the five seconds that Windows gives (HungAppTimeout, SPI_GETHUNGAPPTIMEOUT)."""


class Ending:
    """What happens when Windows wants the program to end; called on threads of Windows' choice."""

    def __init__(self, stop: Callable[[], None], *, patience_s: float = _PATIENCE_S) -> None:
        self._stop = stop
        self._patience_s = patience_s
        self._asked = False
        self._over = threading.Event()

    def control(self, kind: int) -> bool:
        """Handle a console event; False leaves it to the next handler, which is Python's own.

        The first Ctrl-C or Ctrl-Break ends the program in good order, the second one at once.
        """
        if kind in (CTRL_C, CTRL_BREAK):
            first, self._asked = not self._asked, True
            if first:
                self._stop()
            return first
        if kind in (CTRL_CLOSE, CTRL_LOGOFF, CTRL_SHUTDOWN):
            self.end_session()
            return True
        return False

    def end_session(self) -> None:
        """Stop, and wait until everything is put back, as long as Windows lets us."""
        self._asked = True
        self._stop()
        self._over.wait(self._patience_s)

    def over(self) -> None:
        """Everything is put back: whoever waits may let Windows go on."""
        self._over.set()


@contextlib.contextmanager
def graceful_end(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop`, on another thread, when the program is to end, and hold Windows up until the block is left.

    Elsewhere than on Windows this does nothing: signals do it all.
    """
    if sys.platform != "win32":
        yield
        return
    ending = Ending(stop)
    handler = ctypes.WINFUNCTYPE(c_int32, c_uint32)(ending.control)
    kernel32 = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel32.SetConsoleCtrlHandler(handler, 1)
    window = _EndSessionWindow(ending)
    window.start()
    try:
        yield
    finally:
        ending.over()
        window.close()
        kernel32.SetConsoleCtrlHandler(handler, 0)


class _EndSessionWindow:
    """A top-level window that is never shown: a message-only one would not be told of the session's end (MSDN, "Window Features")."""

    def __init__(self, ending: Ending) -> None:
        self._ending = ending
        self._thread = threading.Thread(target=self._run, name="softlan-end-session", daemon=True)
        self._made = threading.Event()
        self.handle: int | None = None

    def start(self) -> None:
        """Make the window, on the thread that serves it. Where there is no desktop there is none, and no log-off either."""
        self._thread.start()
        self._made.wait(_PATIENCE_S)

    def close(self) -> None:
        """Destroy the window and wait for its thread."""
        if sys.platform == "win32" and self.handle:
            _user32().PostMessageW(self.handle, WM_CLOSE, 0, 0)
            self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        if sys.platform != "win32":
            return
        user32 = _user32()
        procedure = _window_procedure()(self._message)
        name = f"softlan-end-session-{threading.get_native_id()}"
        window_class = _WindowClass(lpfnWndProc=ctypes.cast(procedure, c_void_p), lpszClassName=name)
        if user32.RegisterClassW(ctypes.byref(window_class)):
            self.handle = user32.CreateWindowExW(0, name, "softlan", 0, 0, 0, 0, 0, None, None, None, None)
        self._made.set()
        message = (c_uint32 * 16)()  # MSG has 48 bytes.
        while self.handle and user32.GetMessageW(ctypes.byref(message), None, 0, 0) > 0:
            user32.DispatchMessageW(ctypes.byref(message))

    def _message(self, window: int, message: int, first: int, second: int) -> int:
        if sys.platform != "win32":
            raise AssertionError("only Windows sends messages")
        if message == WM_QUERYENDSESSION:
            return 1
        if message == WM_ENDSESSION:
            if first:
                self._ending.end_session()
            return 0
        if message == WM_DESTROY:
            _user32().PostQuitMessage(0)
            return 0
        return int(_user32().DefWindowProcW(window, message, first, second))


class _WindowClass(ctypes.Structure):
    """WNDCLASSW, 72 bytes (winuser.h)."""

    _fields_ = (
        ("style", c_uint32),
        ("lpfnWndProc", c_void_p),
        ("cbClsExtra", c_int32),
        ("cbWndExtra", c_int32),
        ("hInstance", c_void_p),
        ("hIcon", c_void_p),
        ("hCursor", c_void_p),
        ("hbrBackground", c_void_p),
        ("lpszMenuName", c_wchar_p),
        ("lpszClassName", c_wchar_p),
    )


def _window_procedure() -> Any:
    if sys.platform != "win32":
        raise AssertionError("only Windows has windows")
    return ctypes.WINFUNCTYPE(c_ssize_t, c_void_p, c_uint32, c_size_t, c_ssize_t)


def _user32() -> Any:
    if sys.platform != "win32":
        raise AssertionError("only Windows has windows")
    user32 = ctypes.WinDLL("user32")
    user32.RegisterClassW.argtypes = (c_void_p,)
    user32.RegisterClassW.restype = c_uint32
    user32.CreateWindowExW.argtypes = (
        *(c_uint32, c_wchar_p, c_wchar_p, c_uint32),
        *(c_int32, c_int32, c_int32, c_int32),
        *(c_void_p, c_void_p, c_void_p, c_void_p),
    )
    user32.CreateWindowExW.restype = c_void_p
    user32.DefWindowProcW.argtypes = (c_void_p, c_uint32, c_size_t, c_ssize_t)
    user32.DefWindowProcW.restype = c_ssize_t
    user32.PostMessageW.argtypes = (c_void_p, c_uint32, c_size_t, c_ssize_t)
    user32.GetMessageW.argtypes = (c_void_p, c_void_p, c_uint32, c_uint32)
    user32.DispatchMessageW.argtypes = (c_void_p,)
    return user32
