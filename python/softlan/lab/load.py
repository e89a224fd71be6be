"""Load for a line: `python load.py ADDRESS PORT MBIT BYTES` sends UDP at a rate until it is ended; stands alone, as `inside` does.

It goes on through missing routes and interfaces, so that a part can be stopped and started under it.
"""

import contextlib
import socket
import sys
import time

_STEP_S = 0.002


def main() -> None:
    """Send; ends with a signal."""
    address, port, megabits, size = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    data = bytes(range(256)) * (size // 256 + 1)
    gap = size * 8 / (megabits * 1e6)
    due = time.monotonic()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setblocking(False)
        while True:
            now = time.monotonic()
            due = max(due, now - 0.05)  # what could not be sent in time is not made up for
            while due <= now:
                with contextlib.suppress(OSError):
                    sender.sendto(data[:size], (address, port))
                due += gap
            time.sleep(max(_STEP_S, due - now))


if __name__ == "__main__":
    main()
