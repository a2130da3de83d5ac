"""Metrics of a view, and how groups compare: every number with an interval that holds drawing and noise."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import TypeAlias, get_args

from hansa.agreement.conditions import SMALL_IS_GOOD, MetricName
from hansa.fairness.calibration import Calibration, calibration_error
from hansa.fairness.errors import EvaluationError
from hansa.fairness.intervals import Estimate, difference, mean, paired_bounds, ratio, share
from hansa.fairness.layout import TableLayout, groups_of
from hansa.fairness.ranking import Area, area_estimate
from hansa.fairness.release import NoisyTables
from hansa.fairness.views import Floats, Mask, Model, View, view

Metric: TypeAlias = MetricName
_OF_ALL_LABELS: frozenset[Metric] = frozenset({"accuracy", "balanced-accuracy", "calibration-error"})


def quantile(error: float, tests: int) -> float:
    """Standard deviations of a two-sided interval, when so many intervals share an error probability (Bonferroni).

    Raises:
        EvaluationError: the error is outside (0, 1), or there is no test.
    """
    if not 0 < error < 1 or tests < 1:
        raise EvaluationError(f"an error of {error:g} cannot be divided by {tests} tests")
    return NormalDist().inv_cdf(1 - error / (2 * tests))


@dataclass(frozen=True)
class Reading:
    """How sums are read.

    Attributes:
        z: standard deviations of every interval; see `quantile`.
        liars: members whose tables may be false within their caps; intervals hold whatever these did.
    """

    z: float
    liars: int = 0


def measure(
    seen: View, metric: Metric, reading: Reading, *, positive: int = 1, model: Model = "judged"
) -> Estimate | None:
    """One metric of one group.

    Args:
        seen: the group's counts.
        metric: of two labels, rates are of the second. Of more, they are of `positive` against the rest, and
            ``balanced-accuracy`` is the mean true-positive rate. ``calibration-error`` is of the class decided for.
        reading: of the intervals.
        positive: the class of one-vs-rest rates.
        model: the judged one, or the reference. A reference has scores only where the layout compares them.

    Returns:
        `None` where the sums hold no records to measure it on.

    Raises:
        EvaluationError: the tables do not hold what the metric needs.
    """
    if metric == "auc":
        found = auc(seen, reading, model=model)
        return None if found is None else found.estimate
    if metric == "calibration-error":
        error = calibration(seen, reading, model=model)
        return None if error is None else error.estimate
    if metric == "balanced-accuracy":
        recalls = [
            _share(seen, seen.label() == c, seen.decision(model) == c, reading)
            for c in range(seen.counts.shape[0])
        ]
        known = [recall for recall in recalls if recall is not None]
        return mean(known) if len(known) == len(recalls) else None
    label, decision = seen.label(), seen.decision(model)
    if metric == "accuracy":
        return _share(seen, _all(seen), label == decision, reading)
    if metric == "prevalence":
        return _share(seen, _all(seen), label == positive, reading)
    if metric == "selection-rate":
        return _share(seen, _all(seen), decision == positive, reading)
    if metric == "true-positive-rate":
        return _share(seen, label == positive, decision == positive, reading)
    if metric == "false-positive-rate":
        return _share(seen, label != positive, decision == positive, reading)
    return _share(seen, decision == positive, label == positive, reading)


def auc(seen: View, reading: Reading, *, model: Model = "judged") -> Area | None:
    """The area under the ROC curve, and what binning hides of it; see `hansa.fairness.ranking`.

    Raises:
        EvaluationError: the tables hold no scores of this class.
    """
    positives, negatives, entries = _by_bin(seen, model)
    return area_estimate(
        positives,
        negatives,
        seen.noise_variance * entries,
        reading.z,
        seen.lie * entries * reading.liars,
    )


def calibration(seen: View, reading: Reading, *, model: Model = "judged") -> Calibration | None:
    """Expected calibration error; of several labels, of the class that is decided for.

    Raises:
        EvaluationError: the tables hold no scores of this model.
    """
    if seen.against_rest is None:
        if model == "reference":
            raise EvaluationError("of several labels the tables hold no scores of the reference model")
        right = seen.everywhere(seen.label() == seen.decision())
        hits = (seen.counts * right).sum(axis=(0, 1, 3))
        rows = seen.counts.sum(axis=(0, 1, 3))
        places = seen.counts.shape[0] * seen.counts.shape[3]
        entries = places * (seen.counts.shape[1] - 1)  # of the wrong ones, which are more
        misses = rows - hits
    else:
        hits, misses, entries = _by_bin(seen, model)
    return calibration_error(
        hits,
        misses,
        seen.layout.edges,
        seen.noise_variance * entries,
        reading.z,
        seen.lie * entries * reading.liars,
    )


def _by_bin(seen: View, model: Model) -> tuple[Floats, Floats, int]:
    """Positives and negatives by score bin, and the entries under each."""
    if seen.against_rest is None:
        raise EvaluationError(
            "a table of all labels has no scores of each",
            remedy="Lay out one-vs-rest tables: TableLayout.of does so for fairness.metric = 'auc'.",
        )
    other = 3 if model == "judged" else 2
    if model == "reference" and seen.layout.compared != "scores":
        raise EvaluationError("the tables hold no scores of the reference model")
    counts = seen.counts.sum(axis=(1, other))
    return counts[1], counts[0], seen.counts.shape[other]


def _all(seen: View) -> Mask:
    return seen.everywhere(seen.label() >= 0)


def _share(seen: View, among: Mask, which: Mask, reading: Reading) -> Estimate | None:
    hits, misses = seen.sum(among & which), seen.sum(among & ~which)
    return share(
        hits.count,
        misses.count,
        hits.noise_variance,
        misses.noise_variance,
        reading.z,
        hits.lie * reading.liars,
        misses.lie * reading.liars,
    )


def positives(seen: View) -> float:
    """The noisy count by which a group is assessable or not: of records with the second of two labels, or of all records."""
    return seen.sum(seen.everywhere(seen.label() == 1) if seen.counts.shape[0] == 2 else _all(seen)).count


def loss(seen: View, metric: Metric, reading: Reading) -> Estimate | None:
    """By how much the judged model is worse than the reference on the same records.

    ``accuracy`` and ``balanced-accuracy`` are judged on pairs: only records on which one model is right and the other is not
    say anything. ``auc`` is judged as if the two came from different records, which makes its interval too wide.

    Raises:
        EvaluationError: there is no reference, or the metric cannot be compared.
    """
    if metric == "accuracy":
        return _paired(seen, _all(seen), reading)
    if metric == "balanced-accuracy":
        parts = [
            _paired(seen, seen.everywhere(seen.label() == c), reading) for c in range(seen.counts.shape[0])
        ]
        known = [part for part in parts if part is not None]
        return _mean_of_losses(known) if len(known) == len(parts) else None
    if metric == "auc":
        before, after = (measure(seen, metric, reading, model=model) for model in ("reference", "judged"))
        return None if before is None or after is None else difference(before, after)
    raise EvaluationError(f"no loss of {metric} is defined", remedy="Compare accuracy or AUC.")


def flips(seen: View, reading: Reading) -> Estimate | None:
    """How often the two models decide differently.

    Raises:
        EvaluationError: there is no reference.
    """
    return _share(seen, _all(seen), seen.decision() != seen.decision("reference"), reading)


def _paired(seen: View, among: Mask, reading: Reading) -> Estimate | None:
    right = seen.label() == seen.decision()
    was_right = seen.label() == seen.decision("reference")
    masks = [
        seen.everywhere(among & mask) for mask in (was_right & ~right, right & ~was_right, right == was_right)
    ]
    lost, won, same = (seen.sum(mask) for mask in masks)
    n = lost.count + won.count + same.count
    if not n > 0:
        return None
    entries = tuple(float(mask.sum()) for mask in masks)
    lie = seen.lie * reading.liars
    bottom, top = paired_bounds(
        lost.count, won.count, n, reading.z, (entries[0], entries[1], entries[2]), seen.noise_variance, lie
    )
    most, least = (
        _loss_at(
            lost.count + sign * entries[0] * lie,
            won.count - sign * entries[1] * lie,
            same.count,
            entries[2] * lie,
        )
        for sign in (1, -1)
    )
    value = min(max((lost.count - won.count) / n, -1.0), 1.0)
    low, high = min(float(bottom), value), max(float(top), value)
    return Estimate(value, low, high, max(low, min(least, value)), min(high, max(most, value)))


def _loss_at(lost: float, won: float, same: float, lie: float) -> float:
    """The loss furthest from 0 that has these pairs, and as few or as many others as lies allow."""
    lost, won = max(lost, 0.0), max(won, 0.0)
    n = lost + won + max(same - lie, 0.0)
    return (lost - won) / n if n > 0 else 0.0


def _mean_of_losses(parts: list[Estimate]) -> Estimate:
    """MOVER like `mean`, of values from −1 to 1."""
    found = mean([Estimate(*((x + 1) / 2 for x in astuple(part))) for part in parts])
    return Estimate(*(2 * x - 1 for x in astuple(found)))


# --- groups ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Groups:
    """One metric in every group of an attribute.

    Attributes:
        estimates: by ``attribute=value``, of groups that can be assessed.
        sizes: noisy counts by which that was decided, of all groups.
        too_small: groups that are not assessable.
    """

    estimates: Mapping[str, Estimate]
    sizes: Mapping[str, float]
    too_small: tuple[str, ...]


def by_group(
    tables: NoisyTables,
    attribute: str,
    metric: Metric,
    reading: Reading,
    *,
    smallest: float = 0,
    comparing: bool = False,
) -> Groups:
    """A metric in every group of an attribute.

    Args:
        tables: noisy sums.
        attribute: by whose values.
        metric: of each group.
        reading: of the intervals.
        smallest: groups with fewer positives, as counted with noise, are not assessable.
        comparing: the loss against the reference instead of the metric itself.
    """
    estimates, sizes, too_small = {}, {}, []
    for name in groups_of(tables.layout, attribute):
        group = {attribute: name.removeprefix(f"{attribute}=")}
        sizes[name] = positives(view(tables, group))
        found = quality(tables, metric, reading, group, comparing=comparing)
        if sizes[name] < smallest or found is None:
            too_small.append(name)
        else:
            estimates[name] = found
    return Groups(estimates, sizes, tuple(too_small))


def quality(
    tables: NoisyTables,
    metric: Metric,
    reading: Reading,
    group: Mapping[str, str] | None = None,
    *,
    comparing: bool = False,
) -> Estimate | None:
    """A metric, or the loss against the reference, of all records or of one group.

    An ``auc`` over more than two labels is the mean of those of each label against the rest, as in `hansa simulate`. They are
    of the same records, so the bounds are averaged as if all were off together.

    Raises:
        EvaluationError: the tables do not hold what is asked.
    """
    labels = len(tables.layout.labels)
    classes: tuple[int | None, ...] = tuple(range(labels)) if metric == "auc" and labels > 2 else (None,)
    found = []
    for c in classes:
        seen = view(tables, group, against_rest=c)
        one = loss(seen, metric, reading) if comparing else measure(seen, metric, reading)
        if one is None:
            return None
        found.append(astuple(one))
    return Estimate(*(math.fsum(values) / len(values) for values in zip(*found, strict=True)))


@dataclass(frozen=True)
class Gap:
    """How far apart groups are.

    Attributes:
        estimate: of the largest difference between two groups. If every pair's interval holds, so does this one.
        ratio: smallest of the groups' values over the largest.
        worst: where the metric is worst.
        between: the two groups that are furthest apart, as counted.
    """

    estimate: Estimate
    ratio: Estimate
    worst: str
    between: tuple[str, str]


def gap(groups: Mapping[str, Estimate], metric: Metric) -> Gap | None:
    """The largest difference; `None` with fewer than two groups.

    The largest |difference| over pairs is at least the largest lower bound and at most the largest upper bound.
    """
    if len(groups) < 2:
        return None
    pairs = {(a, b): apart(groups[a], groups[b]) for a, b in combinations(groups, 2)}
    names = max(pairs, key=lambda pair: pairs[pair].value)
    ends = {end: max(getattr(pair, end) for pair in pairs.values()) for end in _ENDS}
    least, most = (order(groups, key=lambda name: groups[name].value) for order in (min, max))
    worst = most if metric in SMALL_IS_GOOD else least
    return Gap(Estimate(**ends), ratio(groups[least], groups[most]), worst, names)


_ENDS = ("value", "low", "high", "value_low", "value_high")


def apart(first: Estimate, second: Estimate) -> Estimate:
    """|first − second| of two groups."""
    d = difference(first, second)
    low = max(0.0, d.low, -d.high)
    value_low = max(0.0, d.value_low, -d.value_high)
    return Estimate(
        abs(d.value), low, max(abs(d.low), abs(d.high)), value_low, max(abs(d.value_low), abs(d.value_high))
    )


def tests_of_gap(layout: TableLayout, attribute: str) -> int:
    """Intervals that a gap by an attribute needs: one for each pair of declared groups."""
    groups = len(groups_of(layout, attribute))
    return groups * (groups - 1) // 2


def all_metrics() -> tuple[Metric, ...]:
    """Every metric, in the order of reports."""
    return get_args(Metric)


def reported_metrics(labels: int) -> tuple[Metric, ...]:
    """What a report tells of every group.

    Of two labels all but the balanced accuracy, which follows from two rates; of more, what needs no label to be put against
    the rest.
    """
    if labels > 2:  # labels
        return tuple(one for one in all_metrics() if one in _OF_ALL_LABELS)
    return tuple(one for one in all_metrics() if one != "balanced-accuracy")
