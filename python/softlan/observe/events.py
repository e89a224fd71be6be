"""The stable names of what happens, one list: scripts and tests wait for these, people grep for them.

A name never changes its meaning. Messages beside it are for people and may be reworded at any time.
"""

from __future__ import annotations

import logging
from enum import StrEnum

__all__ = ["Event"]


class Event(StrEnum):
    """What a log line is about; `level` is the level it is logged at."""

    level: int

    def __new__(cls, name: str, level: int) -> Event:
        """Make a member whose value is the name alone."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.level = level
        return member

    # The relay.
    RELAY_LISTENING = "relay.listening", logging.INFO
    RELAY_DRAINING = "relay.draining", logging.INFO
    RELAY_STOPPING = "relay.stopping", logging.INFO
    RELAY_STOPPED = "relay.stopped", logging.INFO
    CERTIFICATE_MADE = "certificate.made", logging.INFO
    CERTIFICATE_LOADED = "certificate.loaded", logging.INFO
    CERTIFICATE_EXPIRING = "certificate.expiring", logging.WARNING
    CERTIFICATE_EXPOSED = "certificate.exposed", logging.WARNING
    CERTIFICATE_AUTHORITY = "certificate.authority", logging.WARNING
    CERTIFICATE_FAILED = "certificate.failed", logging.ERROR
    ROOM_OPENED = "room.opened", logging.INFO
    ROOM_CLOSED = "room.closed", logging.INFO
    ROOM_LOOP = "room.loop", logging.WARNING
    ROOM_STORM = "room.storm", logging.WARNING
    ROOM_CROWDED = "room.crowded", logging.WARNING
    ROOM_CONFLICT = "room.conflict", logging.WARNING
    ROOM_CALM = "room.calm", logging.INFO
    ROOMS_OPEN = "rooms.open", logging.INFO
    RULES_LOADED = "rules.loaded", logging.INFO
    RULES_EXPOSED = "rules.exposed", logging.WARNING
    RULES_FAILED = "rules.failed", logging.ERROR
    STATE_FAILED = "state.failed", logging.ERROR
    INVITE_ISSUED = "invite.issued", logging.INFO
    PEER_KICKED = "peer.kicked", logging.WARNING
    BAN_ADDED = "ban.added", logging.WARNING
    BAN_LIFTED = "ban.lifted", logging.INFO
    HELLO_REJECTED = "hello.rejected", logging.WARNING
    CONNECTION_FAILED = "connection.failed", logging.INFO

    # Peers, as the relay and the other peers of the room see them.
    PEER_JOINED = "peer.joined", logging.INFO
    PEER_LEFT = "peer.left", logging.INFO
    PEER_REPLACED = "peer.replaced", logging.INFO
    PEER_MISBEHAVED = "peer.misbehaved", logging.WARNING
    PEER_STATS = "peer.stats", logging.DEBUG

    # A client's or gateway's session with the relay.
    SESSION_CONNECTING = "session.connecting", logging.INFO
    SESSION_CONNECTED = "session.connected", logging.INFO
    SESSION_JOINED = "session.joined", logging.INFO
    SESSION_REJECTED = "session.rejected", logging.WARNING
    SESSION_LOST = "session.lost", logging.WARNING
    SESSION_RETRY = "session.retry", logging.INFO
    SESSION_ENDING = "session.ending", logging.WARNING
    SESSION_MOVED = "session.moved", logging.INFO
    SESSION_LEFT = "session.left", logging.INFO
    SESSION_NOTICE = "session.notice", logging.WARNING
    SESSION_CALM = "session.calm", logging.INFO
    SESSION_STATUS = "session.status", logging.INFO
    PATH_MTU = "path.mtu", logging.INFO
    SOCKET_PLAIN = "socket.plain", logging.WARNING

    # Where frames enter and leave the machine.
    ADAPTER_READY = "adapter.ready", logging.INFO
    ADAPTER_REMOVED = "adapter.removed", logging.INFO
    INTERFACE_READY = "interface.ready", logging.INFO
    INTERFACE_DOWN = "interface.down", logging.WARNING
    INTERFACE_UP = "interface.up", logging.INFO
    INTERFACE_WARNING = "interface.warning", logging.WARNING

    # What a client changes on a machine, and puts back: on Windows, and on Linux of a TAP that was there before.
    ADAPTER_OPENED = "adapter.opened", logging.INFO
    ADAPTER_WARNING = "adapter.warning", logging.WARNING
    ADAPTER_MAC = "adapter.mac", logging.INFO
    ROUTE_PINNED = "route.pinned", logging.INFO
    ROUTE_LOST = "route.lost", logging.WARNING
    ROUTE_ADDED = "route.added", logging.INFO
    SETTING_CHANGED = "setting.changed", logging.INFO
    SETTING_REFUSED = "setting.refused", logging.WARNING
    SETTING_RESTORED = "setting.restored", logging.DEBUG
    SETTING_KEPT = "setting.kept", logging.INFO
    SETTING_STUCK = "setting.stuck", logging.ERROR
    JOURNAL_RECOVERED = "journal.recovered", logging.WARNING
    JOURNAL_BROKEN = "journal.broken", logging.ERROR

    # Standing services and their settings.
    SETTINGS_READ = "settings.read", logging.INFO
    INVITE_READY = "invite.ready", logging.INFO
    INVITE_NOTE = "invite.note", logging.INFO
    SERVICE_STALLED = "service.stalled", logging.ERROR
    SERVICE_HUNG = "service.hung", logging.ERROR

    # Observation itself.
    FRAME_FORWARDED = "frame.forwarded", logging.INFO
    FRAME_DROPPED = "frame.dropped", logging.INFO
    FRAMES_UNLOGGED = "frame.unlogged", logging.WARNING
    CAPTURE_STARTED = "capture.started", logging.INFO
    CAPTURE_ENDED = "capture.ended", logging.INFO
    COUNTERS_SUMMARY = "counters.summary", logging.INFO
    STATUS_SOCKET = "status.socket", logging.DEBUG
    PAGE_READY = "page.ready", logging.INFO
    PAGE_EXPOSED = "page.exposed", logging.WARNING
    STATUS_UNAVAILABLE = "status.unavailable", logging.WARNING
    IDENTITY_MADE = "identity.made", logging.INFO
    IDENTITY_EXPOSED = "identity.exposed", logging.WARNING
    FAULT = "fault", logging.ERROR
