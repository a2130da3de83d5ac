"""What a user would pick instead of Hansa, each run in a process of its own that writes what it measured as JSON."""

from hansa_simulations.bench.peers.process import run_peer

__all__ = ["run_peer"]
