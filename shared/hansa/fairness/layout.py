"""The layout of the integer tables that an evaluation counts into: public, and the same at every member.

A table is over (group cell, label, decision, score bin, and what another model makes of the same record). A group cell is
one combination of the values of the table's attributes, and of "no value", so that every table counts every record.
Of two labels the decision is not an axis: it follows from the bin, since the threshold is an edge of bins.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from hansa.fairness.errors import EvaluationError

if TYPE_CHECKING:
    from hansa.agreement.publication import Evaluation
    from hansa.agreement.terms import Data, Task, Terms

Compared: TypeAlias = Literal["none", "decisions", "scores"]

MOST_CELLS = 1 << 20  # of all tables together; a release is a vector of so many integers at most
NO_VALUE = "none"  # the last place on an attribute's axis: records that have no value of it


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        attributes: names of those whose values are crossed; may be none.
        against_rest: the class whose label and score are counted against all others (one-vs-rest). `None`, of more
            than two labels only: every label, the class decided for, and the score of that class.
    """

    attributes: tuple[str, ...]
    against_rest: int | None


@dataclass(frozen=True)
class TableLayout:
    """What is counted, and how far one privacy unit can move it.

    Attributes:
        attributes: name to the names of its values, in the agreement's order.
        labels: the classes, in the order of the model's outputs.
        edges: of score bins: increasing, in (0, 1). A score on an edge lies in the bin below it. Two labels: they hold
            `threshold`.
        tables: what is counted, one after the other in the release.
        rows_per_unit: most rows of one privacy unit that are counted.
        compared: what is counted of a second model, the reference: nothing, its decisions, or its score bins.
        threshold: of two labels, the second is decided for if its score is above.

    Raises:
        EvaluationError: a layout that no table has; every problem is told.

    Guarantees: `l2_sensitivity` bounds the L2 distance between the tables of two data sets that differ in one unit, added
        or removed, as `hansa.fairness.counting.count` makes them. A brute-force test compares.
    """

    attributes: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...]
    edges: tuple[float, ...]
    tables: tuple[Table, ...]
    rows_per_unit: int = 1
    compared: Compared = "none"
    threshold: float = 0.5

    def __post_init__(self) -> None:
        problems = list(self._problems())
        if problems:
            raise EvaluationError(f"no table is laid out like this: {'; '.join(problems)}")

    def _problems(self) -> Iterable[str]:
        if len(self.labels) < 2:
            yield "there are fewer than two labels"
        if list(self.edges) != sorted(set(self.edges)) or not all(0 < edge < 1 for edge in self.edges):
            yield "edges of bins must increase, between 0 and 1"
        if len(self.labels) == 2 and self.threshold not in self.edges:
            yield f"the threshold {self.threshold:g} is no edge of a bin, so that no decision follows from a bin"
        if type(self.rows_per_unit) is not int or self.rows_per_unit < 1:
            yield f"{self.rows_per_unit!r} is no cap of rows"
        if not self.tables:
            yield "there is no table"
        for table in self.tables:
            unknown = [name for name in table.attributes if name not in self.attributes]
            if unknown or len(set(table.attributes)) != len(table.attributes):
                yield f"{table.attributes} are not distinct attributes"
                return
            classes = {1} if len(self.labels) == 2 else {None, *range(len(self.labels))}
            if table.against_rest not in classes:
                yield f"{table.against_rest!r} is no class that can be counted against the rest"
        if self.size > MOST_CELLS:
            yield f"{self.size} cells are more than {MOST_CELLS}"

    @classmethod
    def of(
        cls,
        terms: Terms,
        *,
        bins: int = 10,
        compared: Compared = "none",
        crossed: Iterable[tuple[str, ...]] | None = None,
    ) -> TableLayout:
        """The layout that follows from an agreement, from public terms alone.

        Args:
            terms: of the agreement. An ``auc`` over more than two labels adds a one-vs-rest table for each label. Where it
                has an `[evaluation]`, that says all that follows here, and the arguments are passed over.
            bins: of equal width; an even number, so that one half is an edge.
            compared: whether a reference model is counted beside the judged one. ``auc`` is compared by scores.
            crossed: sets of attributes that are counted together, one table each. By default one joint table of all
                attributes where that is not noisier for any single attribute, else one table for each
                (docs/decisions/0100).
        """
        if terms.evaluation is not None:
            return layout_of(terms.data, terms.task, terms.fairness.metric, terms.evaluation)
        cap = terms.privacy.max_records_per_unit
        return _laid_out(
            terms.data,
            terms.task,
            terms.fairness.metric,
            bins,
            compared,
            None if crossed is None else tuple(crossed),
            cap,
        )

    @property
    def l2_sensitivity(self) -> float:
        """Of all tables together, in rows: the cap of rows, which may all fall into one cell, times √tables."""
        return self.rows_per_unit * math.sqrt(len(self.tables))

    @property
    def bins(self) -> int:
        """Score bins."""
        return len(self.edges) + 1

    @property
    def threshold_bin(self) -> int:
        """The first bin in which the second of two labels is decided for."""
        return self.edges.index(self.threshold) + 1

    @property
    def size(self) -> int:
        """Integers in a release."""
        return sum(math.prod(self.shape(table)) for table in self.tables)

    def shape(self, table: Table) -> tuple[int, ...]:
        """Of a table: its attributes' values with "no value" last, labels, decisions, bins, the reference's places.

        Against the rest there are two labels (rest, class) and one place on the axis of decisions.
        """
        groups = tuple(len(self.attributes[name]) + 1 for name in table.attributes)
        classes = (2, 1) if table.against_rest is not None else (len(self.labels), len(self.labels))
        return (*groups, *classes, self.bins, self.reference_places(table))

    def reference_places(self, table: Table) -> int:
        """Places on the axis of the reference model; 1 where there is none."""
        if self.compared == "none":
            return 1
        if table.against_rest is None:
            return len(self.labels)  # the class that it decides for
        return self.bins if self.compared == "scores" else 2

    def tables_with(self, *names: str) -> tuple[Table, ...]:
        """The tables that tell these attributes apart, one-vs-rest or not."""
        return tuple(table for table in self.tables if set(names) <= set(table.attributes))


def layout_of(data: Data, task: Task, metric: str, evaluation: Evaluation) -> TableLayout:
    """The layout that the sections of an agreement lead to.

    Args:
        data, task, evaluation: the sections.
        metric: of `[fairness]`; an ``auc`` over more than two labels adds a one-vs-rest table for each label.

    Raises:
        EvaluationError: no table is laid out like this.
    """
    return _laid_out(
        data,
        task,
        metric,
        evaluation.bins,
        evaluation.compared,
        evaluation.groups or None,
        evaluation.max_rows_per_unit,
    )


def _laid_out(
    data: Data,
    task: Task,
    metric: str,
    bins: int,
    compared: Compared,
    crossed: tuple[tuple[str, ...], ...] | None,
    rows_per_unit: int,
) -> TableLayout:
    attributes = {group.name: group.values for group in data.groups}
    sets = quietest_tables(attributes) if crossed is None else crossed
    several = len(task.labels) > 2
    targets: tuple[int | None, ...] = (None,) if several else (1,)
    if several and metric == "auc":
        targets += tuple(range(len(task.labels)))
    return TableLayout(
        attributes=attributes,
        labels=task.labels,
        edges=equal_edges(bins),
        tables=tuple(Table(names, target) for names in sets for target in targets),
        rows_per_unit=rows_per_unit,
        compared=compared,
    )


def equal_edges(bins: int) -> tuple[float, ...]:
    """Edges of so many bins of equal width, one half among them.

    Raises:
        EvaluationError: an odd number, or none.
    """
    if bins < 2 or bins % 2:
        raise EvaluationError(
            f"{bins} bins of equal width do not meet at one half", remedy="Choose an even number of bins."
        )
    return tuple(place / bins for place in range(1, bins))


def quietest_tables(attributes: Mapping[str, tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    """Which attributes to cross: all in one table, or a table each.

    A value's row of the joint table is the sum of as many cells as the other attributes' values (and "no value") have
    combinations, each with its own noise. In A tables it is one cell, with A times the variance, as the sensitivity is √A
    times larger. The joint table is taken where it is not noisier for any attribute; it has the intersections too.
    """
    names = tuple(attributes)
    sizes = [len(values) + 1 for values in attributes.values()]
    summed = [math.prod(sizes) // size for size in sizes]
    if not names or max(summed) <= len(names):
        return (names,)
    return tuple((name,) for name in names)


def groups_of(layout: TableLayout, attribute: str) -> tuple[str, ...]:
    """The groups of an attribute, as ``attribute=value``.

    Raises:
        EvaluationError: the layout has no such attribute.
    """
    if attribute not in layout.attributes:
        raise EvaluationError(
            f"{attribute!r} is no attribute by which groups are told apart",
            remedy=f"Use one of {', '.join(layout.attributes) or 'none: the agreement declares no groups'}.",
        )
    return tuple(f"{attribute}={value}" for value in layout.attributes[attribute])


def intersections_of(layout: TableLayout, names: tuple[str, ...]) -> tuple[dict[str, str], ...]:
    """Every combination of the values of some attributes, as attribute to value."""
    values = [layout.attributes[name] for name in names]
    return tuple(dict(zip(names, combination, strict=True)) for combination in itertools.product(*values))
