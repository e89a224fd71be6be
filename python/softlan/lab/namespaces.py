"""Network namespaces without names: each is kept alive by one file descriptor of this process.

Nothing is left in the file system and no process holds them, so that a lab ends with the program that made it, kill -9
included. What runs inside a namespace is the business of `host` (sockets, short commands) and `programs` (long ones).

Sources: namespaces(7), network_namespaces(7), user_namespaces(7), setns(2), unshare(2).
"""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final, NoReturn, TypeVar

from softlan.errors import SoftlanError

CLONE_NEWNET: Final = 0x4000_0000
"""linux/sched.h."""

_INSIDE: Final = "SOFTLAN_LAB_INSIDE"
"""Set while the program runs under `unshare`, so that a refusal there does not re-execute for ever."""

# Elsewhere there is none by that name; the lab is imported there for the sake of its command's help alone.
_libc: Any = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None

T = TypeVar("T")


class LabError(SoftlanError):
    """The lab could not be built or something in it did not happen in time."""


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")


def in_thread(work: Callable[[], T]) -> T:
    """Run `work` in a thread of its own and gives its result, or raises what it raised.

    A namespace belongs to a thread: one that changed its own must end rather than go back to other work.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work())
        except BaseException as failure:  # handed to the caller's thread
            failures.append(failure)

    thread = threading.Thread(target=body, name="softlan-lab-namespace", daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]
    return results[0]


class Namespace:
    """A network namespace, alive until `close`, with its loopback interface up."""

    def __init__(self) -> None:
        """Make the namespace. Raises `OSError` (EPERM without CAP_SYS_ADMIN, see `ensure_namespaces`)."""

        def make() -> int:
            _check(_libc.unshare(CLONE_NEWNET), "unshare(CLONE_NEWNET)")
            return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)

        self._fd: int | None = in_thread(make)
        self.run(["ip", "link", "set", "lo", "up"])

    @property
    def fd(self) -> int:
        """The descriptor that keeps the namespace alive."""
        if self._fd is None:
            raise LabError("the namespace is closed")
        return self._fd

    @property
    def path(self) -> str:
        """A path other programs (`ip link set X netns PATH`, `nsenter --net=PATH`) can open while this process lives."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def call(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread that sits in this namespace; sockets it opens belong to the namespace for good."""

        def inside() -> T:
            _check(_libc.setns(self.fd, CLONE_NEWNET), "setns")
            return work()

        return in_thread(inside)

    def run(
        self, command: Sequence[str], *, feed: str = "", check: bool = True, timeout: float = 20.0
    ) -> str:
        """Run a short command in the namespace and gives its output; `feed` goes to its standard input.

        Raises `LabError` with the command's own words when `check` and it ends with another status than 0, and when it
        takes longer than `timeout` seconds.
        """

        def work() -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                command,
                input=feed,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
                errors="replace",
            )

        words = " ".join(command)
        try:
            done = self.call(work)
        except FileNotFoundError:
            raise LabError(
                f"the program `{command[0]}` is not installed", hint=f"it is needed for: {words}"
            ) from None
        except subprocess.TimeoutExpired:
            raise LabError(f"`{words}` did not end within {timeout:g} s") from None
        if check and done.returncode != 0:
            said = (done.stderr or done.stdout).strip() or f"exit status {done.returncode}"
            raise LabError(f"`{words}` failed: {said}" + (f"\nits input was:\n{feed}" if feed else ""))
        return done.stdout

    def ip(self, *commands: str) -> None:
        """Run `ip` commands ("link set eth0 up") in one batch; the first that fails ends it with `LabError`."""
        self.run(["ip", "-batch", "-"], feed="".join(f"{command}\n" for command in commands))

    def close(self) -> None:
        """Lets go of the namespace; the kernel takes it and its interfaces down once nothing else runs in it."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def namespaces_allowed() -> bool:
    """Whether this process may make network namespaces as it is."""
    try:
        Namespace().close()
    except OSError as failure:
        if failure.errno in (errno.EPERM, errno.ENOSPC):
            return False
        raise
    return True


def ensure_namespaces(command: Sequence[str]) -> None:
    """Return when this process may make network namespaces, else runs `command` in its place in a user namespace.

    `command` is the program that is running, from its start: it comes by here a second time as root of a user namespace.
    Raises `LabError` when the machine refuses user namespaces too.
    """
    if sys.platform != "linux":
        raise LabError("the lab stands on Linux network namespaces", hint="run it on Linux, or in WSL 2")
    if namespaces_allowed():
        return
    unshare = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]
    if os.environ.get(_INSIDE):
        _refused("a user namespace was made, but network namespaces are refused inside it")
    try:
        trial = subprocess.run([*unshare, "true"], capture_output=True, text=True, check=False, timeout=20)
    except FileNotFoundError:
        raise LabError(
            "the program `unshare` is not installed", hint="it is in the package util-linux"
        ) from None
    if trial.returncode != 0:
        _refused(trial.stderr.strip() or f"unshare ended with {trial.returncode}")
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvpe(unshare[0], [*unshare, *command], {**os.environ, _INSIDE: "1"})  # noqa: S606 - without a shell on purpose


def _refused(said: str) -> NoReturn:
    raise LabError(
        f"this machine lets an ordinary user make no network namespaces ({said})",
        hint=_refusal_hint(),
    )


def _refusal_hint() -> str:
    switches = (
        ("/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    )
    for path, refusing, remedy in switches:
        try:
            with open(path, encoding="ascii") as file:
                if file.read().strip() == refusing:
                    return f"allow it (`sudo {remedy}`), or run this as root"
        except OSError:
            continue
    return "run this as root (in a container: with --privileged)"
