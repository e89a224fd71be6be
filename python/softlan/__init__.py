"""softlan: a Layer 2 over QUIC bridge for LAN parties; players in different places share one Ethernet.

The package is the control plane: it says who may plug in, under which name and limits. Frames themselves move
in `softlan._core`, which is Rust.
"""

from importlib import metadata

__all__ = ["__version__"]

try:
    __version__ = metadata.version("softlan")
except metadata.PackageNotFoundError:  # imported from a source tree that was never installed
    __version__ = "0+unknown"
