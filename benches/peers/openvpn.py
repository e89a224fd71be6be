"""OpenVPN with TAPs: the server is the relay (client-to-client), the gateway is a client that bridges."""

from __future__ import annotations

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from softlan.lab.host import Host

from .site import CLIENT_MAC, LAN_TAP, Site, wan_address
from .system import Tunnel

_PORT = 1194
_CIPHER = "AES-256-GCM"


class OpenVpn(Tunnel):
    """OpenVPN 2 in TAP mode over UDP, AES-256-GCM, everything else at its defaults."""

    name = "openvpn"
    title = "OpenVPN-TAP"
    programs = ("openvpn",)

    async def connect(self, site: Site, relay: Host, gateway: Host, client: Host) -> None:
        """Write certificates, start the server, then both clients, and bridge."""
        _write_certificates(site.directory)
        common = ["--data-ciphers", _CIPHER, "--cipher", _CIPHER, "--keepalive", "10", "60", "--verb", "1"]
        common += ["--ca", f"{site.directory}/ca.pem", "--script-security", "1"]
        await site.program(
            *(relay, "relay", "openvpn", "--dev", "tap0", "--dev-type", "tap", "--proto", "udp"),
            *("--mode", "server", "--tls-server", "--dh", "none", "--client-to-client", "--duplicate-cn"),
            *("--local", wan_address(relay), "--port", str(_PORT), *_own(site.directory, "relay"), *common),
        )
        # A server whose own TAP is down reads errors from it in place of packets from its clients.
        await site.appeared(relay, "tap0")
        relay.ip("link set tap0 up")
        for host, tap in ((gateway, LAN_TAP), (client, "lan0")):
            await site.program(
                *(host, host.name, "openvpn", "--dev", tap, "--dev-type", "tap", "--proto", "udp"),
                *("--client", "--nobind", "--remote", wan_address(relay), str(_PORT), "--connect-retry", "1"),
                *("--remote-cert-tls", "server", *_own(site.directory, "peer"), *common),
                *(("--lladdr", CLIENT_MAC) if host is client else ()),
            )
            await site.appeared(host, tap, within=15.0)
            host.ip(f"link set {tap} up")
        site.bridge(gateway)


def _own(directory: Path, name: str) -> list[str]:
    return ["--cert", f"{directory}/{name}.pem", "--key", f"{directory}/{name}.key"]


def _write_certificates(directory: Path) -> None:
    now = datetime.datetime.now(datetime.UTC)
    keys = {name: ec.generate_private_key(ec.SECP256R1()) for name in ("ca", "relay", "peer")}
    uses = {"relay": x509.ExtendedKeyUsageOID.SERVER_AUTH, "peer": x509.ExtendedKeyUsageOID.CLIENT_AUTH}
    issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
    for name, key in keys.items():
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=name == "ca", path_length=None), critical=True)
            .add_extension(_key_usage(authority=name == "ca"), critical=True)
        )
        if name in uses:
            builder = builder.add_extension(x509.ExtendedKeyUsage([uses[name]]), critical=False)
        certificate = builder.sign(keys["ca"], hashes.SHA256())
        (directory / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        secret = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (directory / f"{name}.key").write_bytes(secret)
        (directory / f"{name}.key").chmod(0o600)


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_agreement=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        encipher_only=False,
        decipher_only=False,
    )
