"""Under Wine: what happens to a program that Windows wants to end, asked through the real handler and the real window. JSON on stdout."""

from __future__ import annotations

import ctypes
import json
import threading
import time

from softlan.windows import console

stops: list[float] = []
report: dict[str, object] = {}
windows: list[console._EndSessionWindow] = []


class _Seen(console._EndSessionWindow):
    def __init__(self, ending: console.Ending) -> None:
        super().__init__(ending)
        windows.append(self)


console._EndSessionWindow = _Seen  # type: ignore[misc]
kernel32, user32 = ctypes.WinDLL("kernel32"), console._user32()
user32.SendMessageW.argtypes = (ctypes.c_void_p, ctypes.c_uint32, ctypes.c_size_t, ctypes.c_ssize_t)

# With pipes for its streams this process has none; events are sent to those who share one.
kernel32.FreeConsole()
report["console"] = bool(kernel32.AllocConsole())

with console.graceful_end(lambda: stops.append(time.monotonic())):
    report["ctrl_c_sent"] = bool(kernel32.GenerateConsoleCtrlEvent(console.CTRL_C, 0))
    deadline = time.monotonic() + 5
    while not stops and time.monotonic() < deadline:
        time.sleep(0.01)
    report["ctrl_c_stops"] = len(stops)
    handle = windows[0].handle
    report["window"] = bool(handle)
    sender = None
    if handle:
        report["query"] = user32.SendMessageW(handle, console.WM_QUERYENDSESSION, 0, 0)
        user32.SendMessageW(handle, console.WM_ENDSESSION, 0, 0)
        report["cancelled_stops"] = len(stops)
        ended: list[float] = []
        sender = threading.Thread(
            target=lambda: (
                user32.SendMessageW(handle, console.WM_ENDSESSION, 1, 0),
                ended.append(time.monotonic()),
            )
        )
        sender.start()
        time.sleep(0.5)
        report["log_off_stops"] = len(stops)
        report["log_off_waits"] = not ended
if sender is not None:
    sender.join(10)
    report["log_off_ends"] = bool(ended)
print("RESULT " + json.dumps(report))
