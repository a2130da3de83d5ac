"""A later evaluation beside the published one: what has changed, group by group, with the gate's own intervals.

Both are noisy sums that everybody may see, so this is post-processing of two releases. A member's own rows stay with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from hansa.agreement.conditions import SMALL_IS_GOOD
from hansa.fairness.errors import EvaluationError
from hansa.fairness.intervals import Estimate, difference
from hansa.fairness.judging import Rules
from hansa.fairness.layout import groups_of
from hansa.fairness.metrics import Metric, Reading, positives, quality
from hansa.fairness.release import NoisyTables
from hansa.fairness.views import view

Change: TypeAlias = Literal["worse", "better", "not told apart", "not assessable"]


@dataclass(frozen=True)
class Drift:
    """What became of one group.

    Attributes:
        attribute, group: which; the attribute is empty for everybody together.
        before, after: the metric, then and now; absent where the group was, or is, too small to be assessed.
        moved: after minus before; absent with either.
        records_before, records_after: noisy counts.
        change: ``worse`` or ``better`` only if the whole interval of `moved` says so.
    """

    attribute: str
    group: str
    before: Estimate | None
    after: Estimate | None
    moved: Estimate | None
    records_before: float
    records_after: float
    change: Change

    @property
    def name(self) -> str:
        """``attribute=value``, or ``everybody``."""
        return f"{self.attribute}={self.group}" if self.attribute else "everybody"


def drift(published: NoisyTables, later: NoisyTables, metric: Metric, rules: Rules) -> tuple[Drift, ...]:
    """Compare two evaluations of one model, of different records.

    Args:
        published: from which the published quality follows.
        later: of new records, under the same groups and labels.
        metric: that is compared.
        rules: of the agreement. The error is divided among all groups here, and among all evaluations.

    Guarantees: the probability over drawn records and noise that anything is called worse or better and is neither is at most
        about `rules.error` / `rules.evaluations`, whatever `rules.liars` members did within their caps.
    Assumes: the two evaluations are of different units; of the same ones the intervals are too wide.

    Raises:
        EvaluationError: the two are of other groups or labels, or do not hold the metric.
    """
    first, second = published.layout, later.layout
    if dict(first.attributes) != dict(second.attributes) or first.labels != second.labels:
        raise EvaluationError(
            "the two evaluations tell other groups or labels apart",
            remedy="Compare evaluations under the same [data] and [task].",
        )
    groups: list[tuple[str, str]] = [("", "")]
    for attribute in first.attributes:
        groups += [(attribute, name.removeprefix(f"{attribute}=")) for name in groups_of(first, attribute)]
    reading = rules.reading(len(groups))
    return tuple(_one(published, later, metric, reading, rules, *group) for group in groups)


def _one(
    published: NoisyTables,
    later: NoisyTables,
    metric: Metric,
    reading: Reading,
    rules: Rules,
    attribute: str,
    group: str,
) -> Drift:
    which = {attribute: group} if attribute else None
    found, records = [], []
    for tables in (published, later):
        seen = view(tables, which)
        records.append(float(seen.counts.sum()))
        small = bool(attribute) and positives(seen) < rules.smallest_group
        found.append(None if small else quality(tables, metric, reading, which))
    before, after = found
    if before is None or after is None:
        return Drift(attribute, group, before, after, None, records[0], records[1], "not assessable")
    moved = difference(after, before)
    change: Change = "not told apart"
    if moved.high < 0 or moved.low > 0:
        change = "better" if (moved.low > 0) is not (metric in SMALL_IS_GOOD) else "worse"
    return Drift(attribute, group, before, after, moved, records[0], records[1], change)
