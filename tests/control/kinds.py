"""Every kind of control message, as the classes say, for whatever tries "any message": a new kind is then among them by itself.

`test_messages.py` demands a genuine one of each kind and with each field.
"""

from __future__ import annotations

from typing import Any, get_args

import msgspec

from softlan.control import messages

__all__ = ["FIELDS", "GENUINE", "KINDS", "TYPES"]

KINDS: tuple[type[msgspec.Struct], ...] = get_args(messages.ControlMessage)
TYPES: list[str] = [str(kind.__struct_config__.tag) for kind in KINDS]
_PUBLIC = [getattr(messages, name) for name in messages.__all__]
# Those of the facts inside of messages as well.
FIELDS: list[str] = sorted(
    {
        field.encode_name
        for public in _PUBLIC
        if isinstance(public, type) and issubclass(public, msgspec.Struct)
        for field in msgspec.structs.fields(public)
    }
)

MAC = "02:00:5e:10:00:01"
PEER = {"peer_id": 3, "role": "client", "mac": MAC}
GENUINE: list[dict[str, Any]] = [
    {"type": "hello", "protocol": 1, "role": "client", "room": "LAN", "mac": MAC, "datagram_budget": 1200},
    {
        "type": "hello",
        "protocol": 1,
        "role": "gateway",
        "room": "LAN",
        "datagram_budget": 1434,
        "fragments": False,
        "resume": "ab" * 32,
        "proof": "cd" * 32,
        "token": "A" * 40,
        "software": "softlan 1",
    },
    {
        "type": "welcome",
        "protocol": 1,
        "peer_id": 2,
        "tap_mtu": 1400,
        "room": {"code": "A", "peers": [PEER], "gateway": False},
        "storm_limit": 500,
    },
    {
        "type": "reject",
        "code": "room-full",
        "reason": "full",
        "field": "room",
        "supported_protocols": [1],
        "required_budget": 1300,
    },
    {
        "type": "reject",
        "code": "shutting-down",
        "reason": "an update",
        "back_in_s": 5.0,
        "relay": "192.0.2.1:443",
    },
    {"type": "peer_joined", **PEER},
    {"type": "peer_left", "peer_id": 3, "reason": "goodbye"},
    {"type": "stats", "counters": {"frames_sent": 7}, "interval_s": 10.0},
    {"type": "going_down", "reason": "an update", "in_s": 60.0, "relay": "192.0.2.1:443"},
    {
        "type": "disconnect",
        "code": "shutting-down",
        "reason": "an update",
        "back_in_s": 5.0,
        "relay": "192.0.2.1:443",
    },
    {"type": "notice", "topic": "loop", "reason": "frames come back", "peers": [2, 3], "over": True},
]
