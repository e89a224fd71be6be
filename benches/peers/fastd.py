"""fastd with TAPs: the relay forwards between its peers."""

from __future__ import annotations

from softlan.lab.host import Host

from .site import CLIENT_MAC, LAN_TAP, Site, wan_address
from .system import Tunnel

_PORT = 10_000


class Fastd(Tunnel):
    """fastd, salsa2012+umac, forwarding on the relay."""

    name = "fastd"
    title = "fastd"
    programs = ("fastd",)

    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Make keys, start the relay and both others, and bridge."""
        taps = {relay: "tap0", gateway: LAN_TAP, client: "lan0"}
        keys = {host: _keys(host) for host in taps}
        for host, tap in taps.items():
            lines = [
                "log level warn;",
                "mode tap;",
                f'interface "{tap}";',
                "mtu 1500;",
                'method "salsa2012+umac";',
            ]
            lines += [f'secret "{keys[host][0]}";']
            if host is relay:
                lines += [f"bind {wan_address(relay)}:{_PORT};", "forward yes;"]
                others = [gateway, client]
            else:
                others = [relay]
            for other in others:
                remote = f"remote {wan_address(relay)}:{_PORT};" if other is relay else ""
                lines += [f'peer "{other.name}" {{ key "{keys[other][1]}"; {remote} }}']
            file = site.directory / f"fastd-{host.name}.conf"
            file.touch(mode=0o600)
            file.write_text("\n".join(lines) + "\n")
            await site.program(host, host.name, "fastd", "-c", str(file))
            await site.appeared(host, tap)
            if host is client:
                host.ip(f"link set {tap} address {CLIENT_MAC}")
            host.ip(f"link set {tap} up")
        site.bridge(gateway)


def _keys(host: Host) -> tuple[str, str]:
    """Secret and public key, as `fastd --generate-key` words them."""
    told = dict(line.split(": ") for line in host.run("fastd", "--generate-key").splitlines() if ": " in line)
    return told["Secret"], told["Public"]
