"""Starts a command on a clean machine: `python enter.py DIRECTORY -- command ...`; stands alone.

What a newcomer changes (/etc, /opt, /run, ...) is the machine's own, from `DIRECTORY/own`; the rest of the file system is this one's.
Directories that a Linux has anyway show this one's content read-only, below `DIRECTORY/below`. Must run in a mount namespace of its own
(`softlan.lab.inside` makes it), as root of it.
"""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 1, 32, 4096, 0x4000, 0x40000

OWN = ("/etc", "/opt", "/run", "/usr/local/bin", "/var/lib")
"""In this order; each is a directory of the machine's own."""

_libc = ctypes.CDLL(None, use_errno=True)


def prepare(directory: Path, files: dict[str, str]) -> None:
    """Make the directories of a machine; `files` are written into them, by absolute path."""
    for path in OWN:
        own, below = directory / f"own{path}", directory / f"below{path}"
        own.mkdir(parents=True)
        below.mkdir(parents=True)
        if path == "/run":
            continue
        replaced = {Path(file).relative_to(path).parts[0] for file in files if file.startswith(f"{path}/")}
        for name in os.listdir(path):
            if name not in replaced | {"softlan"}:  # this machine may have one of its own
                (own / name).symlink_to(below / name)
    for path, content in files.items():
        file = Path(f"{directory}/own{path}")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        if content.startswith("#!"):
            file.chmod(0o755)


def mount(source: str, target: str, flags: int) -> None:
    if _libc.mount(source.encode(), target.encode(), None, flags, None) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"mount {source} on {target}: {os.strerror(code)}")


def enter(directory: str) -> None:
    mount("none", "/", MS_REC | MS_PRIVATE)
    for path in OWN:
        below = f"{directory}/below{path}"
        mount(path, below, MS_BIND | MS_REC)
        # In a user namespace other flags of the mount may be locked; files of root are not ours to write there anyway.
        with contextlib.suppress(PermissionError):
            mount("none", below, MS_BIND | MS_REMOUNT | MS_RDONLY)
    for path in OWN:
        mount(f"{directory}/own{path}", path, MS_BIND)


if __name__ == "__main__":
    enter(sys.argv[1])
    os.execvp(sys.argv[3], sys.argv[3:])
