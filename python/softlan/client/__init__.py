"""The client: one player's virtual adapter, and the session that carries its frames to the relay.

For programs that want the frames themselves there is `Session` (docs/library.md): no adapter, and so no rights.
"""

from softlan.client.library import Peer, Session

__all__ = ["Peer", "Session"]
