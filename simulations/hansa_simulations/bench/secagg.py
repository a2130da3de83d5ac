"""The secure sum's speed, beside Flower's SecAgg+ in the same run.

Every sample of a short figure is the best of five runs, because a busy machine only ever adds time. The share of
AES-CTR's own speed is taken against a loop of plain AES-256-CTR that takes turns with what is measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from hansa_simulations.bench.figures import Bench, Figure, Grid, Ratio, describe_machine
from hansa_simulations.bench.sampling import MILLION
from hansa_simulations.bench.secagg_coordinator import (
    coordinator_round,
    coordinator_secrets,
    round_walls,
    steady_rounds,
)
from hansa_simulations.bench.secagg_growth import GROWTH_LENGTHS, GROWTH_MEMBERS, growth_grids
from hansa_simulations.bench.secagg_member import large_member, member_mask, member_shares
from hansa_simulations.bench.secagg_peer import peer_figures

_NOTES = (
    "Mask phase: encode, agree on n - 1 keys, expand and add n masks; hash and durable spool are apart.",
    "Share phase: check n signatures, n - 1 X25519, split two secrets, 2(n - 1) envelopes, sign, seal the state.",
    "Coordinator's secrets: all n self-mask seeds from t shares each, compared with their commitments.",
    "Coordinator's round: three exchanges, the next round's preparation in them; hashing vectors is apart. A sample is "
    "the sum of its steps, each the best of five rounds.",
    "Members of n = 10 and a million entries mask in one process; `processes` are the coordinator's.",
    "Peak memory counts what two processes share twice.",
    "Rounds with a carrier: all parties in one process, one after the other; the carrier only waits.",
)
_PEER_NOTE = "Flower's figures: its stages collect_masked_vectors and share_keys, and all that its server does in a round."


def measure_secagg(
    *,
    peer: bool = True,
    large: bool = True,
    growth: bool = True,
    processes: int = 2,
    repeats: int = 5,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure the secure sum.

    Args:
        peer: run Flower's SecAgg+ too, in a process of its own; needs flwr.
        large: also mask 100 million entries, which takes 1.3 GB of memory and 0.4 GB of disk for a while.
        growth: also measure how time grows with n and d.
        processes: for the large vector and for the coordinator's round.
        repeats: samples of each short figure.
        progress: told what comes next.

    Raises:
        EngineError: the peer cannot be run, or a sum came out wrong.
    """
    steps: list[tuple[str, Callable[[], Sequence[Figure]]]] = [
        ("member, mask phase, n = 10, 1M entries", lambda: member_mask(10, MILLION, repeats)),
        ("member, share phase, n = 50", lambda: member_shares(50, repeats)),
        ("member, share phase, n = 50, hybrid", lambda: member_shares(50, repeats, post_quantum=True)),
        ("coordinator, secrets, n = 50", lambda: coordinator_secrets(50, repeats)),
        (
            "coordinator, whole round, n = 10, 1M entries",
            lambda: coordinator_round(10, MILLION, repeats, processes),
        ),
        ("exchanges of a steady round", steady_rounds),
        ("rounds with a carrier", lambda: round_walls(10, MILLION // 10, repeats)),
    ]
    if large:
        steps.append(("member, n = 10, 100M entries", lambda: large_member(10, 100 * MILLION, processes)))
    if peer:
        steps.append(("Flower SecAgg+, n = 10, 1M entries, then n = 50", peer_figures))
    figures: dict[str, Figure] = {}
    for what, step in steps:
        progress(what)
        figures |= {figure.name: figure for figure in step()}
    grids: Sequence[Grid] = ()
    if growth:
        progress("growth with n and d")
        grids = growth_grids(GROWTH_MEMBERS, GROWTH_LENGTHS)
    return Bench(
        title="The secure sum",
        settings={"processes": processes, "repeats": repeats},
        figures=tuple(figures.values()),
        ratios=ratios_of(figures),
        grids=grids,
        notes=(*_NOTES, _PEER_NOTE) if peer else _NOTES,
        machine=describe_machine(),
    )


def ratios_of(figures: Mapping[str, Figure]) -> tuple[Ratio, ...]:
    """The peer's figures divided by Hansa's, and plain AES-CTR's time by that of expanding and adding masks."""
    compared: dict[str, tuple[str, float | None]] = {
        "member_mask_n10_1m": ("member: mask phase, n = 10, 1M entries", 8.0),
        "member_shares_n50": ("member: share phase, n = 50", None),
        "coordinator_secrets_n50": ("coordinator: secrets, n = 50 (of Flower, its whole server)", None),
        "coordinator_round_n10_1m": ("coordinator: whole round, n = 10, 1M entries", None),
    }
    ratios = [
        Ratio(name, what, peer=figures[f"flower_{name}_ms"], ours=figures[f"{name}_ms"], goal=goal)
        for name, (what, goal) in compared.items()
        if f"flower_{name}_ms" in figures
    ]
    plain, ours = figures["aes_256_ctr_n10_1m_ms"], figures["member_expand_and_add_n10_1m_ms"]
    what = "expand and add, as a share of AES-256-CTR's own speed"
    return (*ratios, Ratio("share_of_aes_ctr", what, peer=plain, ours=ours, goal=0.6))
