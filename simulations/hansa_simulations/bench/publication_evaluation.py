"""Private evaluation beyond inference: five members of ten thousand rows, eight groups, one noisy sum."""

from __future__ import annotations

import os
import time
from functools import partial

import numpy as np

from hansa.fairness.counting import ScoredRows, count
from hansa.fairness.layout import Table, TableLayout, equal_edges
from hansa.fairness.release import EvaluationPlan
from hansa.identity import COORDINATOR
from hansa.privacy.randomness import SecretRandomness
from hansa.protocol import JUDGED, table_encoding
from hansa.secagg import Coordinator, Manifest, MemoryStore, Seal, SumTerms, answer
from hansa.secagg import Member as SumMember
from hansa.secagg.terms import VectorTerms
from hansa_simulations.bench.figures import Figure
from hansa_simulations.identities import Identities

MEMBERS, ROWS, GROUPS = 5, 10_000, 8
GOAL_S = 0.2


class _Evaluating:
    """A member's side of the sum, without a ledger: counting, clamping and noise are timed, inference is not."""

    def __init__(self, plan: EvaluationPlan, rows: ScoredRows) -> None:
        self._plan, self._rows = plan, rows

    def contribute(
        self, _manifest: Manifest, _seeds: object = None
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """The noisy table."""
        return self._plan.release(count(self._plan.layout, self._rows), SecretRandomness())

    def released(self, *_: object) -> None:
        """Nowhere."""

    def summed(self, *_: object) -> None:
        """Always."""


def evaluation_figure(repeats: int, *, rows: int = ROWS) -> Figure:
    """Seconds of one evaluation from scored rows to the unmasked sum, all members one after the other on one machine.

    Keys and shares are prepared before, as a run prepares the next round's while it sums one. Each member counts its rows
    by group, label, score bin and both models' decisions, clamps, adds noise and masks; the coordinator unmasks.
    """
    layout = TableLayout(
        attributes={"group": tuple(f"g{i}" for i in range(GROUPS))},
        labels=("no", "yes"),
        edges=equal_edges(10),
        tables=(Table(("group",), 1),),
        compared="decisions",
    )
    plan = EvaluationPlan(layout, 3.73, rows)
    scored = [_rows(rows, seed) for seed in range(MEMBERS)]
    samples = tuple(_seconds(plan, scored, f"r{i}") for i in range(repeats + 1))[1:]
    name = "evaluation_s_5x10k"
    return Figure(
        name, f"private evaluation of {MEMBERS} members × {rows:,} rows × {GROUPS} groups, beyond inference", samples,
        GOAL_S if rows == ROWS else None, cost=True,
    )  # fmt: skip


def _seconds(plan: EvaluationPlan, scored: list[ScoredRows], run: str) -> float:
    names = [f"m{i}" for i in range(MEMBERS)]
    identities = Identities.ephemeral(names)
    terms = SumTerms(
        "0" * 64, identities.roster, {JUDGED: VectorTerms(plan.layout.size, table_encoding(plan, MEMBERS))}
    )
    coordinator = Coordinator(terms, run, identities.signer(COORDINATOR), spool=MemoryStore())
    members = {
        name: SumMember(
            terms,
            run,
            identities.signer(name),
            _Evaluating(plan, rows),
            store=MemoryStore(),
            seal=Seal(os.urandom(32)),
        )
        for name, rows in zip(names, scored, strict=True)
    }

    def exchange() -> bool:
        for name, request in coordinator.requests().items():
            coordinator.receive(name, answer(members[name], request, partial(_refused, name)))
        return coordinator.close() is not None

    while not coordinator.ready:
        exchange()
    started = time.perf_counter()
    coordinator.begin(JUDGED, 0, "ab" * 32, artifacts=("cd" * 32, "ef" * 32), last=True)
    while not exchange():
        pass
    return time.perf_counter() - started


def _refused(name: str, error: Exception) -> None:
    raise RuntimeError(f"{name} refuses in a bench: {error}") from error


def _rows(n: int, seed: int) -> ScoredRows:
    rng = np.random.default_rng(seed)
    second = rng.uniform(0, 1, n)
    other = np.clip(second + rng.normal(0, 0.05, n), 0, 1)
    return ScoredRows(
        labels=(rng.uniform(0, 1, n) < second).astype(np.int64),
        scores=np.stack([1 - second, second], 1),
        groups=rng.integers(0, GROUPS, (n, 1)),
        units=np.arange(n),
        reference=np.stack([1 - other, other], 1),
    )
