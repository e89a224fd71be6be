"""tinc in switch mode: the relay is a node both others connect to, and they never speak to each other directly."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from softlan.lab.host import Host

from .site import LAN_TAP, Site, wan_address
from .system import Tunnel


class Tinc(Tunnel):
    """tinc 1.0, its default ciphers, relayed."""

    name = "tinc"
    title = "tinc"
    programs = ("tincd",)

    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Write one directory a node, start the relay first, then bridge."""
        taps = {relay: "tap0", gateway: LAN_TAP, client: "lan0"}
        public = {host: _node(site.directory / f"tinc-{host.name}") for host in taps}
        for host, tap in taps.items():
            directory = site.directory / f"tinc-{host.name}"
            for other, key in public.items():
                address = f"Address = {wan_address(relay)}\n" if other is relay else ""
                (directory / "hosts" / other.name).write_text(f"{address}IndirectData = yes\n{key}")
            joins = "" if host is relay else f"ConnectTo = {relay.name}\n"
            (directory / "tinc.conf").write_text(
                f"Name = {host.name}\nMode = switch\nDeviceType = tap\nInterface = {tap}\nAddressFamily = ipv4\n"
                f"PingInterval = 10\n{joins}"
            )
            files = ["-c", str(directory), f"--pidfile={directory}/pid"]
            await site.program(host, host.name, "tincd", "-D", "-d0", *files)
            await site.appeared(host, tap)
            host.ip(f"link set {tap} up")
        site.bridge(gateway)


def _node(directory: Path) -> str:
    (directory / "hosts").mkdir(parents=True)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    (directory / "rsa_key.priv").write_bytes(secret)
    (directory / "rsa_key.priv").chmod(0o600)
    public = key.public_key()
    return public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1).decode()
