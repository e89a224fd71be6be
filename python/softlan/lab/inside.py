"""Starts a program inside a network namespace: `python inside.py FD -- command ...`; used by `programs`, stands alone.

It replaces itself with the command, so that the process id stays the same. The command dies with the thread that
started it (PR_SET_PDEATHSIG, prctl(2)), and sees the namespace's own interfaces in /sys (as `ip netns exec` does it).
"""

import ctypes
import os
import signal
import sys

CLONE_NEWNS = 0x0002_0000
CLONE_NEWNET = 0x4000_0000
MS_REC = 0x4000
MS_PRIVATE = 0x4_0000
PR_SET_PDEATHSIG = 1


def enter(fd: int) -> None:
    """Move this process into the namespace behind `fd`. Raises `OSError`."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if libc.setns(fd, CLONE_NEWNET) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"setns: {os.strerror(code)}")
    os.close(fd)
    # A machine that refuses this only shows the wrong interfaces in /sys: the program still runs.
    if libc.unshare(CLONE_NEWNS) == 0:
        libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None)
        libc.mount(b"softlan-lab", b"/sys", b"sysfs", 0, None)


def main() -> None:
    """Enters the namespace and becomes the command; exit status 127 when that cannot be."""
    parent = os.getppid()
    try:
        enter(int(sys.argv[1]))
        if os.getppid() != parent:
            return  # whoever asked for the command died before the death signal was set
        os.execvp(sys.argv[3], sys.argv[3:])  # noqa: S606 - without a shell on purpose
    except OSError as failure:
        print(f"{sys.argv[3]}: {failure.strerror}", file=sys.stderr)
        sys.exit(127)


if __name__ == "__main__":
    main()
