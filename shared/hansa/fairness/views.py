"""Views of noisy tables: everything together, one group, an intersection, one class against the rest.

A view is a sum of cells, so it is post-processing. It keeps how many cells lie under each of its entries, because that
says how much noise an entry has, and how far members that lie within their caps can have moved it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.fairness.errors import EvaluationError
from hansa.fairness.layout import Table, TableLayout
from hansa.fairness.release import NoisyTables

Model: TypeAlias = Literal["judged", "reference"]
Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class View:
    """Counts over (label, decision, bin, reference) of some group.

    Attributes:
        counts: float64 [labels, decisions, bins, reference].
        noise_variance: of each entry, in rows².
        lie: how far one lying member can have moved an entry, in rows.
        layout: of the tables it comes from.
        against_rest: the class that stands against all others, at label 1; `None` where all labels are told apart.
    """

    counts: Floats
    noise_variance: float
    lie: float
    layout: TableLayout
    against_rest: int | None

    def label(self) -> npt.NDArray[np.int64]:
        """The label of each entry, broadcastable to `counts`."""
        return np.arange(self.counts.shape[0]).reshape(-1, 1, 1, 1)

    def decision(self, model: Model = "judged") -> npt.NDArray[np.int64]:
        """What a model decides in each entry, broadcastable to `counts`.

        Raises:
            EvaluationError: one class of several stands against the rest here, and what is decided is not told; or
                there is no reference.
        """
        if model == "reference" and self.layout.compared == "none":
            raise EvaluationError("the tables hold no reference model to compare with")
        if self.against_rest is None:
            axis = 1 if model == "judged" else 3
            shape = [1, 1, 1, 1]
            shape[axis] = -1
            return np.arange(self.counts.shape[axis]).reshape(shape)
        if len(self.layout.labels) > 2:
            raise EvaluationError("a one-vs-rest table of several classes holds scores, not decisions")
        if model == "judged":
            above = np.arange(self.counts.shape[2]) >= self.layout.threshold_bin
            return above.astype(np.int64).reshape(1, 1, -1, 1)
        first = self.layout.threshold_bin if self.layout.compared == "scores" else 1
        return (np.arange(self.counts.shape[3]) >= first).astype(np.int64).reshape(1, 1, 1, -1)

    def everywhere(self, mask: Mask | npt.NDArray[np.bool_]) -> Mask:
        """A condition on entries in the shape of `counts`."""
        return np.broadcast_to(mask, self.counts.shape)

    def sum(self, mask: Mask) -> Part:
        """What the entries under a mask add up to."""
        mask = self.everywhere(mask)
        entries = int(np.count_nonzero(mask))
        return Part(float(self.counts[mask].sum()), self.noise_variance * entries, self.lie * entries)


@dataclass(frozen=True)
class Part:
    """A noisy sum of entries.

    Attributes:
        count: in rows.
        noise_variance: in rows².
        lie: how far one lying member can have moved it.
    """

    count: float
    noise_variance: float
    lie: float


def view(
    tables: NoisyTables, group: Mapping[str, str] | None = None, *, against_rest: int | None = None
) -> View:
    """The view of a group, from all tables that tell it apart, weighted by how little noise they have.

    Args:
        tables: noisy sums.
        group: attribute to value, several for an intersection; nobody is left out by default.
        against_rest: the class of a one-vs-rest table of scores. Of two labels the only table there is, whatever is asked.

    Raises:
        EvaluationError: an unknown attribute or value, or attributes that are crossed in no table.
    """
    layout, group = tables.layout, dict(group or {})
    for name, value in group.items():
        if value not in layout.attributes.get(name, ()):
            raise EvaluationError(f"{name}={value} is no declared group")
    target = 1 if len(layout.labels) == 2 else against_rest
    fitting = [table for table in layout.tables_with(*group) if table.against_rest == target]
    if not fitting:
        raise EvaluationError(
            f"no table crosses {', '.join(group) or 'nothing'} with what is asked",
            remedy="Declare the crossing in the layout before the evaluation.",
        )
    cells = np.array([_cells(layout, table, group) for table in fitting], dtype=np.float64)
    weights = (1 / cells) / (1 / cells).sum()
    counts = sum(
        weight * _marginal(tables, table, group) for weight, table in zip(weights, fitting, strict=True)
    )
    return View(
        np.asarray(counts),
        tables.noise_sd**2 / float((1 / cells).sum()),
        float(weights @ cells) * tables.cell_cap,
        layout,
        target,
    )


def _cells(layout: TableLayout, table: Table, group: Mapping[str, str]) -> int:
    sizes = [len(layout.attributes[name]) + 1 for name in table.attributes if name not in group]
    return int(np.prod(sizes, dtype=np.int64))


def _marginal(tables: NoisyTables, table: Table, group: Mapping[str, str]) -> Floats:
    layout, start = tables.layout, 0
    for before in layout.tables:
        shape = layout.shape(before)
        if before == table:
            break
        start += int(np.prod(shape))
    array = tables.counts[start : start + int(np.prod(shape))].reshape(shape)
    for name in reversed(table.attributes):
        axis = table.attributes.index(name)
        if name in group:
            array = np.take(array, layout.attributes[name].index(group[name]), axis=axis)
        else:
            array = array.sum(axis=axis)
    return np.asarray(array, dtype=np.float64)
