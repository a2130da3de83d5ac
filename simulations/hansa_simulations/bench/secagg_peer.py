"""Flower's SecAgg+, in the same run: every sample of a member is the best of five, as Hansa's are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hansa_simulations.bench.figures import Figure
from hansa_simulations.bench.peers import run_peer
from hansa_simulations.bench.sampling import BEST_OF, MILLION

_PEER = "hansa_simulations.bench.peers.flower_secaggplus"
_PEER_TIMEOUT_S = 600.0


def peer_figures() -> list[Figure]:
    """Flower's SecAgg+ for n = 10 and a million entries, then for n = 50.

    Raises:
        EngineError: it cannot be run, or its sum is wrong.
    """
    vectors, keys = run_secaggplus(10, MILLION, rounds=BEST_OF), run_secaggplus(50, 1000, rounds=1)
    return [
        Figure(
            "flower_member_mask_n10_1m_ms",
            "Flower: member, mask stage, n = 10, 1M",
            _best(vectors["member_s"]["collect_masked_vectors"]),
        ),
        Figure(
            "flower_coordinator_round_n10_1m_ms",
            "Flower: server, whole round, n = 10, 1M",
            _best(vectors["server_s"]),
        ),
        Figure(
            "flower_member_shares_n50_ms",
            "Flower: member, share stage, n = 50",
            _best(keys["member_s"]["share_keys"]),
        ),
        Figure("flower_coordinator_secrets_n50_ms", "Flower: server, n = 50", _best(keys["server_s"])),
        Figure(
            "flower_upload_bytes_per_parameter",
            "Flower: upload for each parameter",
            (vectors["upload_bytes"] / MILLION,),
        ),
    ]


def run_secaggplus(members: int, floats: int, rounds: int) -> dict[str, Any]:
    """What the peer's process measured: ``member_s`` by stage and ``server_s`` in seconds, ``upload_bytes``, ``max_error``."""
    sizes = {"--members": members, "--floats": floats, "--rounds": rounds}
    arguments = [str(part) for pair in sizes.items() for part in pair]
    return run_peer(_PEER, arguments, timeout_s=_PEER_TIMEOUT_S)


def _best(seconds: Sequence[float]) -> tuple[float, ...]:
    """Milliseconds, the best of each five in turn."""
    return tuple(1e3 * min(seconds[i : i + BEST_OF]) for i in range(0, len(seconds), BEST_OF))
