"""A stand-in for systemd where there is none to talk to: starts what a unit's ExecStart says, waits for READY=1, and keeps its journal.

`python manager.py serve` runs on a machine of the lab; `python manager.py systemctl|journalctl ...` asks it. What is real: the unit file,
its program, options, credentials, directories and sd_notify. What is not: users, sandboxing, the watchdog, restarts, dependencies (the
first two are judged by `systemd-analyze` in tests/packaging/test_systemd.py).
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

SOCKET = "/run/manager.socket"
UNITS = Path("/etc/systemd/system")
READY_WITHIN_S = 30
KNOWN = ("daemon-reload", "enable", "start", "restart", "reload", "stop", "status", "is-active")


def unescape(instance: str) -> str:
    r"""Give what `%I` is for an instance (systemd.unit(5)): a dash stands for a slash, a dash itself is `\x2d`."""
    return re.sub(r"\\x([0-9a-f]{2})", lambda m: chr(int(m[1], 16)), instance.replace("-", "/"))


class Unit:
    """One unit file, and the process that came of it."""

    def __init__(self, name: str) -> None:
        self.name = name if name.endswith(".service") else f"{name}.service"
        stem, at, instance = self.name.removesuffix(".service").partition("@")
        file = UNITS / f"{stem}{at}.service"
        if not file.exists():
            raise Refused(f"Unit {self.name} could not be found.")
        text = file.read_text().replace("%i", instance).replace("%I", unescape(instance))
        self.settings = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
        self.process: subprocess.Popen[bytes] | None = None
        self.status = ""
        self.journal = Path("/run/journal") / self.name

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.settings if name == key]

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self) -> None:
        for path in self.all("ConditionPathExists"):
            if not Path(path).exists():
                raise Refused(
                    f"{self.name} was skipped because of an unmet condition check (ConditionPathExists={path})."
                )
        credentials = Path("/run/credentials") / self.name
        told = {"CREDENTIALS_DIRECTORY": str(credentials)}
        for where, base in (("State", "/var/lib"), ("Runtime", "/run")):
            for name in self.all(f"{where}Directory"):
                made = Path(base, name)
                made.mkdir(parents=True, exist_ok=True, mode=0o755)
                made.chmod(0o700)
                told[f"{where.upper()}_DIRECTORY"] = str(made)
        for one in self.all("LoadCredential"):
            name, _, source = one.partition(":")
            credentials.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, credentials / name)
        (line,) = self.all("ExecStart")
        command = shlex.split(re.sub(r"\$\{(\w+)\}", lambda m: told[m[1]], line))
        self.journal.parent.mkdir(exist_ok=True)
        address = f"/run/notify-{self.name}"
        Path(address).unlink(missing_ok=True)
        notified = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notified.bind(address)
        notified.settimeout(0.2)
        with self.journal.open("ab") as journal:
            self.process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "--", *command],
                stdin=subprocess.DEVNULL,
                stdout=journal,
                stderr=journal,
                env={
                    "PATH": os.environ["PATH"],
                    "NOTIFY_SOCKET": address,
                    "WATCHDOG_USEC": "30000000",
                    **told,
                },
                cwd="/",
            )
        for _ in range(READY_WITHIN_S * 5):
            if not self.running:
                break
            try:
                if self.hear(notified.recv(65536)):
                    threading.Thread(target=self.listen, args=(notified,), daemon=True).start()
                    return
            except TimeoutError:
                continue
        raise Refused(f"Job for {self.name} failed.\n{self.journal.read_text()}")

    def hear(self, message: bytes) -> bool:
        for line in message.decode().splitlines():
            if line.startswith("STATUS="):
                self.status = line[7:]
        return b"READY=1" in message

    def listen(self, notified: socket.socket) -> None:
        notified.settimeout(None)
        while True:
            self.hear(notified.recv(65536))

    def stop(self) -> None:
        if self.process is not None and self.running:
            self.process.terminate()
            self.process.wait(20)

    def tell(self) -> str:
        state = "active (running)" if self.running else "inactive (dead)"
        return f"● {self.name}\n     Active: {state}\n     Status: {self.status}"


class Refused(Exception):
    """Why something was not done."""


class Manager:
    """All units of the machine."""

    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}
        self.loaded = False

    def answer(self, program: str, *arguments: str) -> str:
        if program == "journalctl":
            (name,) = [arguments[n + 1] for n, word in enumerate(arguments) if word == "-u"]
            return self.unit(name).journal.read_text()
        command, *names = [word for word in arguments if not word.startswith("-")]
        if command not in KNOWN:
            raise Refused(f"Unknown command verb {command}.")
        if command == "daemon-reload":
            self.loaded = True
        said = []
        for name in names:
            unit = self.unit(name)
            if command in ("stop", "restart"):
                unit.stop()
            if command in ("start", "restart") or "--now" in arguments:
                if not self.loaded:
                    raise Refused(f"Unit {name} could not be found: systemctl daemon-reload was forgotten.")
                if not unit.running:
                    unit.start()
            if command == "reload" and unit.process is not None:
                unit.process.send_signal(signal.SIGHUP)
            if command in ("status", "is-active"):
                said.append(unit.tell())
                if not unit.running:
                    raise Refused(unit.tell())
        return "\n".join(said)

    def unit(self, name: str) -> Unit:
        full = name if name.endswith(".service") else f"{name}.service"
        if full not in self.units:
            self.units[full] = Unit(full)
        return self.units[full]


def serve() -> None:
    manager = Manager()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(SOCKET)
        server.listen()
        print("ready", flush=True)
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rwb") as stream:
                try:
                    answer = [0, manager.answer(*json.loads(stream.readline()))]
                except Refused as error:
                    answer = [1, str(error)]
                stream.write(json.dumps(answer).encode() + b"\n")


def ask(words: list[str]) -> int:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(SOCKET)
        with client.makefile("rwb") as stream:
            stream.write(json.dumps(words).encode() + b"\n")
            stream.flush()
            status, said = json.loads(stream.readline())
    if said:
        print(said, file=sys.stderr if status else sys.stdout)
    return int(status)


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else sys.exit(ask(sys.argv[1:]))
