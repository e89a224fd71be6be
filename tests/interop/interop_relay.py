"""A real relay on loopback for the interop peer; no namespaces, no privileges."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from interop_peer import Peer


@dataclass
class RelayProcess:
    """A relay, and what it logged."""

    address: tuple[str, int]
    certificate: Path
    lines: list[str] = field(default_factory=list)
    pid: int = 0

    def hang_up(self) -> None:
        """Have it read its files again."""
        os.kill(self.pid, signal.SIGHUP)

    def connect(self) -> Coroutine[Any, Any, Peer]:
        return Peer.connect(self.address, self.certificate)


@contextlib.contextmanager
def running_relay(directory: Path, *options: str) -> Iterator[RelayProcess]:
    certificate = directory / "relay-cert.der"
    command = [sys.executable, "-m", "softlan.relay", "--listen", "127.0.0.1:0", "--log-format", "json"]
    command += ["--dev-cert-der-out", str(certificate), *options]
    environment = {**os.environ, "SOFTLAN_RUNTIME_DIR": str(directory)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        lines: list[str] = []
        try:
            for line in process.stderr:
                lines.append(line)
                event = json.loads(line)
                if event["event"] == "relay.listening":
                    host, _, port = event["address"].rpartition(":")
                    break
            else:
                raise AssertionError("the relay did not start:\n" + "".join(lines))
            rest = process.stderr
            reader = threading.Thread(target=lambda: lines.extend(rest), daemon=True)
            reader.start()
            yield RelayProcess((host, int(port)), certificate, lines, process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
        assert process.returncode == 0, "".join(lines)
        assert "Traceback" not in "".join(lines)


@contextlib.asynccontextmanager
async def connected(relay: RelayProcess) -> AsyncIterator[Peer]:
    peer = await relay.connect()
    try:
        yield peer
    finally:
        await peer.leave()
