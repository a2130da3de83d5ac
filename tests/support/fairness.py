"""Scored rows and tables for tests of private evaluation."""

from __future__ import annotations

import numpy as np

from hansa.fairness.counting import ScoredRows, count
from hansa.fairness.layout import Table, TableLayout, equal_edges
from hansa.fairness.release import NoisyTables

ATTRIBUTES = {"sex": ("female", "male"), "age": ("<45", "45-60", ">=60")}


def layout(**changes) -> TableLayout:
    values = {
        "attributes": ATTRIBUTES,
        "labels": ("healthy", "ill"),
        "edges": equal_edges(10),
        "tables": (Table(("sex", "age"), 1),),
    } | changes
    return TableLayout(**values)


def scored(rng: np.random.Generator, n: int, labels: int = 2, *, reference: bool = False) -> ScoredRows:
    """Rows whose scores say something about their labels; a few have no value of an attribute."""
    y = rng.integers(0, labels, n)

    def scores() -> np.ndarray:
        logits = rng.normal(0, 1, (n, labels)) + 1.2 * (np.arange(labels) == y[:, None])
        exponentials = np.exp(logits)
        return exponentials / exponentials.sum(axis=1, keepdims=True)

    groups = np.stack([rng.integers(-1, len(values), n) for values in ATTRIBUTES.values()], axis=1)
    return ScoredRows(y, scores(), groups, reference=scores() if reference else None)


def without_noise(form: TableLayout, rows: ScoredRows) -> NoisyTables:
    return NoisyTables(form, count(form, rows).astype(np.float64), 0.0, 10**6, 5)


def binary_tables(
    form: TableLayout, cells: dict[str, tuple[int, int, int, int]], *, noise_sd: float = 0.0, cap: int = 10**6
) -> NoisyTables:
    """Tables by sex alone, from (true positives, misses, false positives, true negatives) of each group.

    Counts lie in the outermost bins; `form` has one table over `sex`.
    """
    shape = form.shape(form.tables[0])
    array = np.zeros(shape)
    for value, (hit, missed, false, right) in cells.items():
        at = form.attributes["sex"].index(value)
        array[at, 1, 0, -1, 0], array[at, 1, 0, 0, 0] = hit, missed
        array[at, 0, 0, -1, 0], array[at, 0, 0, 0, 0] = false, right
    return NoisyTables(form, array.ravel(), noise_sd, cap, 5)
