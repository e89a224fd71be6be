"""A LAN party on one machine, in network namespaces: `softlan demo`, the end-to-end tests and the benchmarks.

ensure_namespaces([sys.executable, *sys.argv])
async with usual_party() as party:
    print(await party.client("ann").ping(party.player("server")))
"""

from .namespaces import LabError, ensure_namespaces, namespaces_allowed
from .party import Party, usual_party
from .players import Player
from .programs import Program

__all__ = ["LabError", "Party", "Player", "Program", "ensure_namespaces", "namespaces_allowed", "usual_party"]
