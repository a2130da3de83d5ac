"""Quality of a model on the simulator's own test records, with 95 % intervals.

The intervals cover which test records happened to be drawn, and nothing else: not the noise of training, not the
choice of members. A single proportion gets Wilson's interval, a single AUC Newcombe's; what is put together from
several estimates gets its interval from theirs by MOVER, so that an estimate at 0 or 1 never claims to be exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, sqrt
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.errors import DataError, ModelError, Problem
from hansa.report.schema import Counts, Intervals, Quality

Metric: TypeAlias = Literal["accuracy", "balanced-accuracy", "auc"]
Floats: TypeAlias = npt.NDArray[np.float64]
Integers: TypeAlias = npt.NDArray[np.int64]

Z = 1.959963984540054  # the 97.5 % point of the standard normal distribution


@dataclass(frozen=True)
class Estimate:
    """A value in [0, 1] and its 95 % interval."""

    value: float
    low: float
    high: float


def measure(
    metric: Metric,
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: npt.ArrayLike,
    members: Sequence[str] | npt.NDArray[np.str_],
    group_values: Mapping[str, Sequence[str]],
) -> Quality:
    """Measure one model: in all, by member, and by group.

    Args:
        metric: ``accuracy`` of the class with the highest score; ``balanced-accuracy``, the mean recall of the
            classes that the records have; ``auc``, for two classes the area under the ROC curve with ties
            counted half, for more the unweighted mean of the one-against-rest areas of the classes that the
            records have.
        labels: class of each record, integers [n] from 0.
        scores: class probabilities or their logarithms, floats [n, classes]. Of two classes only the difference
            of the two columns matters, so logits do as well there.
        groups: for each record and attribute the index into that attribute's values, -1 for none; integers
            [n, attributes], columns in the order of `group_values`.
        members: name of each record's owner [n].
        group_values: attribute to the names of its values.

    Returns:
        Values, intervals and counts. Who cannot be measured has a count and no value: no records, or, for AUC,
        records of one class only.

    Raises:
        DataError: nobody can be measured at all, so that there is no quality to report.
        ModelError: scores are NaN or infinite.
        ValueError: the arrays do not fit together.
    """
    y = np.asarray(labels, dtype=np.int64)
    s = np.asarray(scores, dtype=np.float64)
    owners = np.asarray(members, dtype=np.str_)
    g = np.asarray(groups, dtype=np.int64).reshape(len(y), len(group_values))
    _check(y, s, owners, g, group_values)

    names = sorted(set(owners.tolist()))
    masks = {name: owners == name for name in names}
    by_member = {name: _estimate(metric, y[mask], s[mask]) for name, mask in masks.items()}
    pooled = _estimate(metric, y, s)
    measured = {name: estimate for name, estimate in by_member.items() if estimate is not None}
    if pooled is None or not measured:
        raise DataError(
            f"{metric} cannot be measured",
            [
                Problem(
                    "test records",
                    "there are none" if len(y) == 0 else "no member's have more than one class",
                )
            ],
            remedy="Give members more test records, or choose fairness.metric = 'accuracy'.",
        )
    mean = combine(list(measured.values()))

    values: dict[str, dict[str, float]] = {}
    intervals: dict[str, dict[str, tuple[float, float]]] = {}
    counts: dict[str, dict[str, int]] = {}
    for column, (attribute, names_of_values) in enumerate(group_values.items()):
        values[attribute], intervals[attribute], counts[attribute] = {}, {}, {}
        for index, name in enumerate(names_of_values):
            mask = g[:, column] == index
            counts[attribute][name] = int(mask.sum())
            estimate = _estimate(metric, y[mask], s[mask])
            if estimate is not None:
                values[attribute][name] = estimate.value
                intervals[attribute][name] = (estimate.low, estimate.high)
    return Quality(
        metric=metric,
        pooled=pooled.value,
        mean_over_members=mean.value,
        by_member={name: estimate.value for name, estimate in measured.items()},
        by_group=values,
        intervals=Intervals(
            pooled=(pooled.low, pooled.high),
            mean_over_members=(mean.low, mean.high),
            by_member={name: (estimate.low, estimate.high) for name, estimate in measured.items()},
            by_group=intervals,
        ),
        counts=Counts(
            pooled=len(y), by_member={name: int(mask.sum()) for name, mask in masks.items()}, by_group=counts
        ),
    )


def mean_quality(qualities: Sequence[Quality]) -> Quality:
    """The mean over repeats, name by name.

    An interval's bounds are the means of the repeats' bounds: that is right where every repeat was measured on
    the same test records, and too wide where each had its own. The spread between repeats is not in it. A name is
    averaged over the repeats in which it could be measured; counts are rounded means.

    Raises:
        ValueError: no qualities, or of different metrics.
    """
    metrics = {quality.metric for quality in qualities}
    if len(metrics) != 1:
        raise ValueError(f"a mean needs qualities of one metric, not {sorted(metrics)}")
    trees = [quality.model_dump() for quality in qualities]
    counts = _mean([tree.pop("counts") for tree in trees])
    for tree in trees:
        del tree["metric"]
    return Quality.model_validate({"metric": metrics.pop(), **_mean(trees), "counts": _rounded(counts)})


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, of pairs of numbers, or of trees of them; a name counts where it stands."""
    first = values[0]
    if isinstance(first, Mapping):
        names = dict.fromkeys(name for value in values for name in value)
        return {name: _mean([value[name] for value in values if name in value]) for name in names}
    if isinstance(first, tuple):
        return tuple(_mean(position) for position in zip(*values, strict=True))
    return fsum(values) / len(values)


def _rounded(value: Any) -> Any:
    return (
        {name: _rounded(item) for name, item in value.items()} if isinstance(value, Mapping) else round(value)
    )


# --- single estimates ------------------------------------------------------------------------------------


def _estimate(metric: Metric, labels: Integers, scores: Floats) -> Estimate | None:
    """One metric on some records, or `None` where it is not defined."""
    if len(labels) == 0:
        return None
    if metric == "auc":
        return _auc(labels, scores)
    hits = np.argmax(scores, axis=1) == labels
    if metric == "accuracy":
        return wilson(int(hits.sum()), len(hits))
    return combine(
        [wilson(int(hits[labels == c].sum()), int((labels == c).sum())) for c in np.unique(labels)]
    )


_CANCELLED = 1e-9  # of the variance of independent errors: what rounding leaves where they cancel


def wilson(hits: int, trials: int) -> Estimate:
    """A proportion with Wilson's score interval (JASA 22, 1927), which stays inside [0, 1].

    Args:
        hits: from 0 to `trials`.
        trials: at least 1.
    """
    p, z2 = hits / trials, Z * Z
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = Z / (1 + z2 / trials) * sqrt(p * (1 - p) / trials + z2 / (4 * trials * trials))
    return Estimate(p, min(p, max(0.0, centre - half)), max(p, min(1.0, centre + half)))


def combine(parts: Sequence[Estimate], correlation: Floats | None = None) -> Estimate:
    """The mean of several estimates, its interval from theirs by MOVER (Zou and Donner, Stat. Med. 27, 2008).

    Where the parts' intervals are symmetric, this is the normal interval from their variances.

    Args:
        parts: at least one estimate.
        correlation: of their errors [parts, parts]; independent where not given, as for members, whose test
            records are disjoint.
    """
    value = fsum(part.value for part in parts) / len(parts)
    down = np.array([part.value - part.low for part in parts]) / len(parts)
    up = np.array([part.high - part.value for part in parts]) / len(parts)
    matrix = np.eye(len(parts)) if correlation is None else correlation
    return Estimate(value, max(0.0, value - _together(down, matrix)), min(1.0, value + _together(up, matrix)))


def _together(sides: Floats, correlation: Floats) -> float:
    """How far the mean is from its bound. Errors that a handful of records show as cancelling out count as independent."""
    apart, found = float(sides @ sides), float(sides @ correlation @ sides)
    return sqrt(found if found > _CANCELLED * apart else apart)


def _auc(labels: Integers, scores: Floats) -> Estimate | None:
    classes = scores.shape[1]
    columns = [(1, scores[:, 1] - scores[:, 0])] if classes == 2 else list(enumerate(scores.T))
    parts, influences = [], []
    for c, column in columns:
        positive = labels == c
        if positive.any() and not positive.all():
            value, influence = _area(positive, column)
            parts.append(newcombe(value, int(positive.sum()), int((~positive).sum())))
            influences.append(influence)
    return combine(parts, _correlation(np.array(influences))) if parts else None


def _area(positive: npt.NDArray[np.bool_], scores: Floats) -> tuple[float, Floats]:
    """The area under a ROC curve, and what each record adds to its error.

    The second is DeLong's decomposition (Biometrics 44, 1988) by midranks (Sun and Xu, IEEE SPL 21, 2014): a
    record's placement among the records of the other class, centred and divided by the size of its own class.
    """
    m, n = int(positive.sum()), int((~positive).sum())
    ranks = _midranks(scores)
    placement = np.empty(len(scores))
    placement[positive] = (ranks[positive] - _midranks(scores[positive])) / n
    placement[~positive] = 1 - (ranks[~positive] - _midranks(scores[~positive])) / m
    value = float(placement[positive].mean())
    return value, (placement - value) / np.where(positive, m, n)


def _midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: Floats = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks


def _correlation(influences: Floats) -> Floats:
    """Correlations of the errors of several areas on the same records; 0 where one has no spread."""
    covariance = influences @ influences.T
    scale = np.sqrt(np.diag(covariance))
    scale[scale == 0] = np.inf
    correlation: Floats = covariance / np.outer(scale, scale)
    np.fill_diagonal(correlation, 1.0)
    return correlation


def newcombe(area: float, positives: int, negatives: int) -> Estimate:
    """An area under a ROC curve with the score interval of Newcombe (Stat. Med. 25, 2006, part 2, method 5).

    The bounds are the areas from which the observed one is just 1.96 standard errors away, with the variance of
    Hanley and McNeil (1982) at the bound and both classes' sizes replaced by their mean. Unlike DeLong's, the
    interval of an area of 1 does not shrink to a point.

    Args:
        area: observed.
        positives: records of the class, at least 1.
        negatives: records of the others, at least 1.
    """
    mean_size = (positives + negatives) / 2 - 1

    def too_far(bound: float) -> bool:
        spread = 1 + mean_size * ((1 - bound) / (2 - bound) + bound / (1 + bound))
        return abs(area - bound) > Z * sqrt(bound * (1 - bound) * spread / (positives * negatives))

    return Estimate(area, _edge(too_far, 0.0, area), _edge(too_far, 1.0, area))


def _edge(too_far: Callable[[float], bool], outside: float, inside: float) -> float:
    """Bisect between a bound that is too far away and the estimate itself, down to float64's resolution."""
    if outside == inside:
        return outside
    for _ in range(60):
        middle = (outside + inside) / 2
        if too_far(middle):
            outside = middle
        else:
            inside = middle
    return inside


def _check(
    labels: Integers,
    scores: Floats,
    owners: npt.NDArray[np.str_],
    groups: Integers,
    group_values: Mapping[str, Sequence[str]],
) -> None:
    n = len(labels)
    if (
        labels.ndim != 1
        or scores.ndim != 2
        or len(scores) != n
        or scores.shape[1] < 2
        or owners.shape != (n,)
    ):
        raise ValueError(
            f"labels {labels.shape}, scores {scores.shape} and members {owners.shape} do not fit together"
        )
    if n and not 0 <= labels.min() <= labels.max() < scores.shape[1]:
        raise ValueError(f"labels must be from 0 to {scores.shape[1] - 1}")
    for column, (attribute, values) in enumerate(group_values.items()):
        if n and not -1 <= groups[:, column].min() <= groups[:, column].max() < len(values):
            raise ValueError(f"groups of {attribute!r} must be from -1 to {len(values) - 1}")
    broken = int((~np.isfinite(scores).all(axis=1)).sum())
    if broken:
        raise ModelError(
            f"the model's scores are not finite for {broken} of {n} test records",
            remedy="Training diverged: lower training.learning_rate or the server's learning rate.",
        )
