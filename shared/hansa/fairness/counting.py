"""From scored rows to integer tables, inside a member."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.errors import PrivacyParameterError
from hansa.fairness.layout import Table, TableLayout

Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoredRows:
    """A member's evaluation rows. Never leaves the member.

    Attributes:
        labels: class of each row, int64 [n]; what is outside the labels is not counted.
        scores: of the judged model, float64 [n, labels]: probabilities. Rows with a value that is not finite are not counted.
        groups: index of each row's value, int64 [n, attributes] in the order of the layout; what is outside is "no value".
        units: privacy unit of each row, int64 [n]; `None` where every row is a unit of its own.
        reference: scores of the model that the judged one is compared with, as `scores`.

    Raises:
        ValueError: the arrays do not fit together. That follows from shapes, never from values.
    """

    labels: Integers
    scores: Floats
    groups: Integers
    units: Integers | None = None
    reference: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.labels)
        fits = (
            self.labels.ndim == 1
            and self.scores.ndim == 2
            and self.groups.ndim == 2
            and len(self.scores) == len(self.groups) == n
            and (self.units is None or self.units.shape == (n,))
            and (self.reference is None or self.reference.shape == self.scores.shape)
        )
        if not fits:
            raise ValueError(
                f"labels {self.labels.shape}, scores {self.scores.shape} and groups {self.groups.shape} do not fit"
            )


def count(layout: TableLayout, rows: ScoredRows) -> Integers:
    """A member's tables, before clamping and noise. They never leave the member.

    Args:
        layout: public.
        rows: of the member.

    Returns:
        int64 [layout.size]: the tables one after the other, each in C order.

    Raises:
        ValueError: number of classes, attributes or models is not the layout's.

    Guarantees: adding or removing all rows of one unit, wherever they stand, moves the result by at most
        `layout.l2_sensitivity` in L2. Which rows of a unit are counted follows from that unit's rows alone: the first ones
        that can be counted, in their order.
    """
    if rows.scores.shape[1] != len(layout.labels) or rows.groups.shape[1] != len(layout.attributes):
        raise ValueError(
            f"scores {rows.scores.shape} and groups {rows.groups.shape} are not of {len(layout.labels)} labels "
            f"and {len(layout.attributes)} attributes"
        )
    if (rows.reference is None) != (layout.compared == "none"):
        raise ValueError("a reference model is counted where the layout has a place for it, and only there")
    kept = (rows.labels >= 0) & (rows.labels < len(layout.labels)) & np.isfinite(rows.scores).all(axis=1)
    if rows.reference is not None:
        kept &= np.isfinite(rows.reference).all(axis=1)
    chosen = np.flatnonzero(kept)
    if rows.units is not None:
        chosen = chosen[_rank_in_unit(rows.units[chosen]) < layout.rows_per_unit]
    parts = [_one(layout, table, rows, chosen) for table in layout.tables]
    return np.concatenate(parts)


def _rank_in_unit(units: Integers) -> Integers:
    """The how-manieth row of its unit each row is, from 0."""
    order = np.argsort(units, kind="stable")
    ordered = units[order]
    first = np.r_[True, ordered[1:] != ordered[:-1]] if len(ordered) else np.zeros(0, dtype=bool)
    starts = np.flatnonzero(first)
    ranks = np.empty(len(units), dtype=np.int64)
    ranks[order] = np.arange(len(units)) - np.repeat(starts, np.diff(np.r_[starts, len(units)]))
    return ranks


def _one(layout: TableLayout, table: Table, rows: ScoredRows, chosen: npt.NDArray[np.intp]) -> Integers:
    shape = layout.shape(table)
    names = list(layout.attributes)
    places: list[Integers] = []
    for name in table.attributes:
        values = len(layout.attributes[name])
        codes = rows.groups[chosen, names.index(name)]
        places.append(np.where((codes >= 0) & (codes < values), codes, values))
    labels, scores = rows.labels[chosen], rows.scores[chosen]
    target = table.against_rest
    if target is None:
        decided = np.argmax(scores, axis=1)
        score = scores[np.arange(len(chosen)), decided] if len(chosen) else np.zeros(0)
        places += [labels, decided.astype(np.int64), bins_of(layout, score)]
    else:
        places += [(labels == target).astype(np.int64), np.zeros(len(chosen), dtype=np.int64)]
        places.append(bins_of(layout, scores[:, target]))
    places.append(_reference(layout, target, rows, chosen))
    flat = np.ravel_multi_index(tuple(places), shape)
    return np.bincount(flat, minlength=math.prod(shape)).astype(np.int64)


def _reference(
    layout: TableLayout, target: int | None, rows: ScoredRows, chosen: npt.NDArray[np.intp]
) -> Integers:
    if rows.reference is None:
        return np.zeros(len(chosen), dtype=np.int64)
    scores = rows.reference[chosen]
    if target is None:
        return np.asarray(np.argmax(scores, axis=1), dtype=np.int64)
    found = bins_of(layout, scores[:, target])
    return found if layout.compared == "scores" else (scores[:, target] > layout.threshold).astype(np.int64)


def bins_of(layout: TableLayout, scores: Floats) -> Integers:
    """The bin of each score, int64 [n]: how many edges are below it."""
    places: Integers = np.searchsorted(np.array(layout.edges), scores, side="left").astype(np.int64)
    return places


def clamp(tables: Integers, cell_cap: int) -> Integers:
    """The tables with every cell in [0, cell_cap]: what bounds a member, and keeps a sum in its ring.

    Each coordinate moves by no more than it did before, so the sensitivity is not larger.

    Raises:
        PrivacyParameterError: the cap is not at least 1.
    """
    if type(cell_cap) is not int or cell_cap < 1:
        raise PrivacyParameterError(f"{cell_cap!r} is no cap of rows in a cell")
    clamped: Integers = np.clip(tables, 0, cell_cap)
    return clamped
