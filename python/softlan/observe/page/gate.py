"""Who may look at the page: whoever shows the token; without one, whoever asks this machine by its own name.

The token comes as `Authorization: Bearer` (RFC 6750) from programs. A browser shows it once and then has a cookie, which is a keyed
hash of the token under a key of this process: it says nothing of the token and ends with the relay.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from collections.abc import Mapping

__all__ = ["COOKIE", "Gate"]

COOKIE = "softlan_page"


class Gate:
    """Decides about requests by their headers, whose names are lower case."""

    def __init__(self, token: str | None) -> None:
        self._token = None if token is None else token.encode()
        key = secrets.token_bytes(32)
        self._pass = None if token is None else hmac.new(key, token.encode(), hashlib.sha256).hexdigest()

    @property
    def has_token(self) -> bool:
        """Whether a token is asked for."""
        return self._token is not None

    def admits(self, headers: Mapping[str, str], cookies: Mapping[str, str]) -> bool:
        """Whether a request may see the relay."""
        if self._token is None or self._pass is None:
            return True
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(shown.strip()):
            return True
        return hmac.compare_digest(cookies.get(COOKIE, "").encode(), self._pass.encode())

    def is_token(self, shown: str) -> bool:
        """Compare in a time that says nothing of how much of it is right."""
        return self._token is not None and hmac.compare_digest(shown.encode(), self._token)

    @property
    def cookie(self) -> str:
        """What a browser that showed the token gets."""
        assert self._pass is not None
        return self._pass

    def knows_host(self, host: str) -> bool:
        """Whether a Host header names this machine, where nothing else guards the page.

        A website whose name is made to lead here (DNS rebinding) could else have a browser of this machine read it out.
        """
        if self._token is not None:
            return True
        name = host.strip().lower()
        name = name[1:].partition("]")[0] if name.startswith("[") else name.partition(":")[0]
        try:
            return ipaddress.ip_address(name).is_loopback
        except ValueError:
            return name == "localhost"
