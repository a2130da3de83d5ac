"""What the tables and pictures of a report show, as values: sorted, subtracted and averaged, not yet formatted.

Nothing here depends on the order of a mapping, so a report that was written and read again is drawn the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum, inf, sqrt

from hansa.canonical import canonical_json
from hansa.report import words
from hansa.report.part import Interval
from hansa.report.schema import EventCount, Quality, Reference, Report


@dataclass(frozen=True)
class Estimate:
    """A named quality; without a value where it could not be measured."""

    name: str
    value: float | None
    interval: Interval | None
    records: int


@dataclass(frozen=True)
class Groups:
    """Quality by the values of one attribute.

    Attributes:
        attribute: its name.
        estimates: bands in the order of their numbers, other values by name.
        best, worst, gap: of the measured values; absent where fewer than two were measured.
        overlap: whether the intervals of best and worst overlap.
    """

    attribute: str
    estimates: tuple[Estimate, ...]
    best: Estimate | None
    worst: Estimate | None
    gap: float | None
    overlap: bool


@dataclass(frozen=True)
class Comparison:
    """A reference beside the run.

    Attributes:
        kind: of the reference.
        meaning: what the difference is, in words.
        mean, pooled: the reference's quality.
        mean_difference, pooled_difference: this run's minus the reference's.
        agreement_id: of the reference.
    """

    kind: str
    meaning: str
    mean: Estimate
    pooled: Estimate
    mean_difference: float
    pooled_difference: float
    agreement_id: str


@dataclass(frozen=True)
class Spread:
    """A quality over repeats; the standard deviation (n - 1) is absent for a single one."""

    what: str
    mean: float
    deviation: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Charge:
    """One kind of event, in words, and who was charged for it how often."""

    event: str
    members: tuple[str, ...]
    count: int


def members(report: Report) -> tuple[Estimate, ...]:
    """Quality by owner of test records: the agreement's members in its order, then any others by name."""
    quality = report.quality
    names = [member.name for member in report.members]
    return tuple(
        Estimate(
            name,
            quality.by_member.get(name),
            quality.intervals.by_member.get(name),
            quality.counts.by_member.get(name, 0),
        )
        for name in [
            *(name for name in names if name in quality.counts.by_member or not _is_pool(report)),
            *sorted(set(quality.counts.by_member) - set(names)),
        ]
    )


def _is_pool(report: Report) -> bool:
    """Whether those who own test records are not the members, as when all data were pooled into one."""
    return not {member.name for member in report.members} & set(report.quality.counts.by_member)


def groups(quality: Quality) -> tuple[Groups, ...]:
    """One table per group attribute, by name."""
    return tuple(_groups(quality, attribute) for attribute in sorted(quality.counts.by_group))


def _groups(quality: Quality, attribute: str) -> Groups:
    values = quality.by_group.get(attribute, {})
    intervals = quality.intervals.by_group.get(attribute, {})
    counts = quality.counts.by_group[attribute]
    estimates = tuple(
        Estimate(name, values.get(name), intervals.get(name), counts[name])
        for name in sorted(counts, key=band_order)
    )
    measured = sorted((e.value, -i, e) for i, e in enumerate(estimates) if e.value is not None)
    if len(measured) < 2:
        return Groups(attribute, estimates, None, None, None, overlap=True)
    (low, _, worst), (high, _, best) = measured[0], measured[-1]
    overlap = worst.interval is None or best.interval is None or worst.interval[1] >= best.interval[0]
    return Groups(attribute, estimates, best, worst, high - low, overlap)


def gap_in_words(group: Groups) -> str:
    """The gap of one attribute in a sentence."""
    if group.gap is None or group.worst is None or group.best is None:
        return "No gap: fewer than two groups could be measured."
    apart = "overlap" if group.overlap else "do not overlap"
    return f"Gap {group.gap:.3f} between {group.worst.name} and {group.best.name}; their intervals {apart}."


def band_order(name: str) -> tuple[float, float, str]:
    """Sort key: ``<45`` before ``45-60`` before ``>=60``; names without numbers by themselves, after them."""
    found = re.fullmatch(r"(<|>=)?(-?\d+(?:\.\d+)?(?:e[+-]?\d+)?)(?:-.*)?", name)
    if found is None:
        return (inf, 0, name)
    return (float(found[2]), {"<": -1, None: 0, ">=": 1}[found[1]], name)


def comparisons(report: Report) -> tuple[Comparison, ...]:
    """Every reference with its differences, in the report's order."""
    return tuple(_comparison(report, reference) for reference in report.references)


def _comparison(report: Report, reference: Reference) -> Comparison:
    quality = reference.quality
    return Comparison(
        reference.kind,
        meaning_of(reference.kind, report.mechanism),
        Estimate(
            reference.kind,
            quality.mean_over_members,
            quality.intervals.mean_over_members,
            quality.counts.pooled,
        ),
        Estimate(reference.kind, quality.pooled, quality.intervals.pooled, quality.counts.pooled),
        report.quality.mean_over_members - quality.mean_over_members,
        report.quality.pooled - quality.pooled,
        reference.agreement_id,
    )


def meaning_of(kind: str, mechanism: str) -> str:
    """What the difference between a run and a reference of this kind stands for.

    Args:
        kind: as `Reference.kind`.
        mechanism: of the run that it is compared with.
    """
    place, _, privacy = (part.strip() for part in kind.partition(","))
    if privacy in ("local noise", "distributed noise"):
        return "what sharing the noise brings" if mechanism == "distributed" else "what local noise costs"
    if privacy == "no mitigation":
        return "what mitigation changes"
    changes = []
    if place == "pooled":
        changes.append("federation")
    if privacy == "no privacy" and mechanism != "none":
        changes.append("privacy")
    if place == "local only":
        return " and ".join(
            ["what training together brings", *(f"what {change} changes" for change in changes)]
        )
    if not changes or place not in ("pooled", "federated"):
        return "difference"
    return f"what {' and '.join(changes)} {'cost' if len(changes) > 1 else 'costs'}"


def spreads(report: Report) -> tuple[Spread, ...]:
    """Mean and spread over the repeats; empty where there are none."""
    if not report.repeats:
        return ()
    return (
        _spread("mean over members", [repeat.mean_over_members for repeat in report.repeats]),
        _spread("all test records", [repeat.pooled for repeat in report.repeats]),
    )


def _spread(what: str, values: list[float]) -> Spread:
    mean = fsum(values) / len(values)
    squares = fsum((value - mean) ** 2 for value in values)
    deviation = sqrt(squares / (len(values) - 1)) if len(values) > 1 else None
    return Spread(what, mean, deviation, min(values), max(values))


def charges(report: Report) -> tuple[Charge, ...]:
    """The events, equal ones of several members in one row, in the report's order."""
    found: dict[tuple[bytes, int], tuple[str, list[str]]] = {}
    for item in report.events:
        said = {"event": item.event, "shared": item.shared, "coalition": item.coalition}
        key = (canonical_json(said), item.count)  # type: ignore[arg-type]  # it came from JSON
        _, names = found.setdefault(key, (_charged(item, report.unit), []))
        names.append(item.member)
    return tuple(Charge(text, tuple(names), count) for (_, count), (text, names) in found.items())


def _charged(item: EventCount, unit: str) -> str:
    own = words.event(item.event, unit)
    if item.shared is None:
        return own
    few = words.counted(item.coalition, "other member")
    return f"against everyone: {own}; against {few} and all outside: {words.event(item.shared, unit)}"


def everyone(names: Iterable[str], report: Report) -> str:
    """Names as a list, or ``every member`` where they are all of several."""
    listed = list(names)
    whole = {member.name for member in report.members}
    return "every member" if len(whole) > 1 and set(listed) == whole else ", ".join(listed)


def absences(report: Report) -> int:
    """How often any member was absent from a round."""
    return sum(len(entry.absent) for entry in report.round_log)
