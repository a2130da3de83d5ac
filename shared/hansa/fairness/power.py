"""What a league of some size can decide at all, said before anything is trained.

The tables that would be expected are built from public sizes and an assumed quality, without noise in them, and judged with the
noise that they would have. A condition whose interval is wider than the distance from the assumed value to its limit cannot
pass: its evaluations would cost ε and decide nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from hansa.fairness.errors import EvaluationError
from hansa.fairness.judging import Condition, Evidence, Judgement, Rules, judge
from hansa.fairness.layout import Table, TableLayout
from hansa.fairness.release import EvaluationPlan, NoisyTables

Floats = npt.NDArray[np.float64]
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Assumed:
    """What is assumed about a league that nobody has measured yet. All of it is public.

    Attributes:
        records: evaluation records of all members together.
        quality: AUC of two labels (scores of the two are normal, one apart from the other, and calibrated); of more
            labels the share decided rightly, the same for each.
        prevalence: of each label, in order; by default equal.
        shares: of each group (``attribute=value``) among the records; by default groups of an attribute are equal. What is
            missing to 1 has no value. Attributes are taken as independent.
        flips: share of records on which judged and reference model decide differently.

    Raises:
        EvaluationError: numbers out of range.
    """

    records: float
    quality: float = 0.85
    prevalence: tuple[float, ...] | None = None
    shares: Mapping[str, float] = field(default_factory=dict)
    flips: float = 0.02

    def __post_init__(self) -> None:
        rates = [*(self.prevalence or ()), *self.shares.values(), self.flips]
        if not self.records > 0 or not 0.5 <= self.quality < 1 or not all(0 <= rate <= 1 for rate in rates):
            raise EvaluationError(
                f"{self.records:g} records, a quality of {self.quality:g} (0.5 to below 1) and the shares are no league"
            )


@dataclass(frozen=True)
class Decidability:
    """Whether one condition, or one group's part of it, could pass.

    Attributes:
        name: of the condition, with its group.
        distance: from the assumed value to the limit, on the good side.
        half_width: how far the interval reaches from the value towards the limit, lies included.
        probability: that it passes, if everything is as assumed.
        sentence: for a person.
    """

    name: str
    distance: float
    half_width: float
    probability: float
    sentence: str

    @property
    def decidable(self) -> bool:
        """Whether the interval reaches less far than the limit is, so that the condition can pass as assumed."""
        return self.half_width < self.distance


def decidability(
    condition: Condition, plan: EvaluationPlan, contributors: int, assumed: Assumed, rules: Rules
) -> tuple[Decidability, ...]:
    """What of a condition this league could decide; conditions that need no evaluation are left out.

    Args:
        condition: all of the agreement's.
        plan: of the evaluation, with its noise.
        contributors: members that take part.
        assumed: about the league.
        rules: as it will be judged by.

    Raises:
        EvaluationError: the layout does not hold what the condition asks about.
    """
    tables = NoisyTables(
        plan.layout,
        expected_counts(plan.layout, assumed),
        plan.noise_sd(contributors),
        plan.cell_cap,
        contributors,
    )
    judged = judge(condition, Evidence(tables, members=contributors), rules)
    z = rules.reading(condition.tests(plan.layout)).z
    return tuple(_forecast(leaf, z) for leaf in judged.leaves() if leaf.limit is not None)


def _forecast(leaf: Judgement, z: float) -> Decidability:
    if leaf.estimate is None or leaf.limit is None:
        return Decidability(leaf.name, 0.0, 1.0, 0.0, f"Cannot be decided. {leaf.sentence}")
    found = leaf.estimate
    if leaf.sense == "at least":
        distance, half, lies = (
            found.value - leaf.limit,
            found.value - found.low,
            found.value - found.value_low,
        )
    else:
        distance, half, lies = (
            leaf.limit - found.value,
            found.high - found.value,
            found.value_high - found.value,
        )
    spread = (half - lies) / z
    probability = _passing(found.low >= 0 and leaf.sense == "at most", found.value, distance, half, spread)
    told = f"{leaf.name}: {distance:.4g} from the limit, and the interval reaches {half:.4g}"
    if lies > 0:
        told += f", {lies:.4g} of it for lies"
    verdict = "can be decided" if half < distance else "cannot pass"
    return Decidability(leaf.name, distance, half, probability, f"{told}; {verdict} ({probability:.0%}).")


def _passing(absolute: bool, value: float, distance: float, half: float, spread: float) -> float:  # noqa: FBT001
    """How often the estimate is so far from the limit that its interval is too.

    An absolute difference that is 0 is estimated above it, on either side.
    """
    if not spread > 0:
        return float(distance > half)
    near = _NORMAL.cdf((distance - half) / spread)
    return max(0.0, near - _NORMAL.cdf((half - distance - 2 * value) / spread)) if absolute else near


# --- expected tables -------------------------------------------------------------------------------------


def expected_counts(layout: TableLayout, assumed: Assumed) -> Floats:
    """The tables that are expected, without noise, float64 [layout.size]."""
    return np.concatenate([_expected(layout, table, assumed).ravel() for table in layout.tables])


def _expected(layout: TableLayout, table: Table, assumed: Assumed) -> Floats:
    inner = _binary(layout, table, assumed) if table.against_rest is not None else _several(layout, assumed)
    for name in reversed(table.attributes):
        values = layout.attributes[name]
        given = {value: assumed.shares.get(f"{name}={value}") for value in values}
        told = math.fsum(share for share in given.values() if share is not None)
        left = sum(share is None for share in given.values())
        shares = [max(0.0, 1 - told) / left if share is None else share for share in given.values()]
        rest = max(0.0, 1 - math.fsum(shares))
        inner = np.multiply.outer(np.array([*shares, rest]), inner)
    return np.asarray(inner * assumed.records)


def _prevalence(layout: TableLayout, assumed: Assumed) -> Floats:
    labels = len(layout.labels)
    given = np.full(labels, 1 / labels) if assumed.prevalence is None else np.array(assumed.prevalence)
    if given.shape != (labels,) or not math.isclose(float(given.sum()), 1, rel_tol=1e-6):
        raise EvaluationError(f"the prevalences of {labels} labels add up to 1")
    return np.asarray(given, dtype=np.float64)


def _binary(layout: TableLayout, table: Table, assumed: Assumed) -> Floats:
    """Shares over (label, decision, bin, reference): x ~ N(±d/2, 1), score = logistic(d·x), AUC = Φ(d/√2)."""
    positive = float(_prevalence(layout, assumed)[table.against_rest or 0])
    d = max(0.05, math.sqrt(2) * _NORMAL.inv_cdf(assumed.quality))
    cuts = [math.log(edge / (1 - edge)) / d for edge in layout.edges]
    rows = []
    for weight, shift in ((1 - positive, -d / 2), (positive, d / 2)):
        below = np.array([0.0, *(_NORMAL.cdf(cut - shift) for cut in cuts), 1.0])
        rows.append(weight * np.diff(below))
    shares = np.array(rows)[:, None, :, None]
    return np.asarray(shares * _flipped(layout, table, assumed))


def _flipped(layout: TableLayout, table: Table, assumed: Assumed) -> Floats:
    """Share of each place of the reference model, given the judged one's bin [bins, reference]."""
    places = layout.reference_places(table)
    if places == 1:
        return np.ones((layout.bins, 1))
    if layout.compared == "scores":
        moved = np.eye(layout.bins) * (1 - assumed.flips)
        for place in range(layout.bins):
            moved[place, place + 1 if place + 1 < layout.bins else place - 1] += assumed.flips
        return moved
    first = layout.threshold_bin if len(layout.labels) == 2 else layout.bins // 2
    above = (np.arange(layout.bins) >= first).astype(np.float64)
    up = above * (1 - assumed.flips) + (1 - above) * assumed.flips
    return np.stack([1 - up, up], axis=1)


def _several(layout: TableLayout, assumed: Assumed) -> Floats:
    """Shares over (label, decision, bin, reference) of several labels; wrong decisions fall on the others alike."""
    labels = len(layout.labels)
    right = np.full((labels, labels), (1 - assumed.quality) / (labels - 1))
    np.fill_diagonal(right, assumed.quality)
    decided = _prevalence(layout, assumed)[:, None] * right
    bins = np.full(layout.bins, 1 / layout.bins)
    places = layout.reference_places(Table((), None))
    if places == 1:
        same = np.ones((labels, 1))
    else:
        same = np.full((labels, labels), assumed.flips / (labels - 1))
        np.fill_diagonal(same, 1 - assumed.flips)
    return np.asarray(decided[:, :, None, None] * bins[None, None, :, None] * same[None, :, None, :])
