"""Mitigation as a report tells of it: what was done, its cost in ε, its effect."""

from __future__ import annotations

from collections.abc import Iterator

from hansa.report import rows, words
from hansa.report.mitigation import MitigationReport
from hansa.report.schema import Quality, Report

WITHOUT = "federated, no mitigation"  # the reference that an effect is measured against


def told(report: Report) -> tuple[str, ...]:
    """Sentences; none where the agreement mitigates nothing."""
    return () if report.mitigation is None else tuple(_told(report, report.mitigation))


def _told(report: Report, made: MitigationReport) -> Iterator[str]:
    rates = ", ".join(f"{one.value} {words.plain(one.rate)}" for one in made.groups)
    yield (
        f"Each step drew units by {made.attribute}, with probability: {rates}. The divisor of the mean stayed what the largest "
        "rate makes it."
    )
    if report.mechanism != "none":
        own = ", ".join(f"{one.value} {words.epsilon(one.epsilon)}" for one in made.groups)
        yield (
            f"Its cost: every unit is charged at the largest rate, {words.plain(made.accounted_rate)}. At the rates of their own ε "
            f"would come to: {own}."
        )
    effect = tuple(_effect(report, made.attribute))
    yield from effect or (
        f"Its effect was not measured: no gap by {made.attribute} could be assessed, and no run without it was made "
        "(--references makes one).",
    )


def _effect(report: Report, attribute: str) -> Iterator[str]:
    evaluated = () if report.fairness is None else report.fairness.evaluations
    for one in evaluated:
        for gap in one.gaps:
            if gap.attribute == attribute:
                bounds = words.interval((gap.gap.low, gap.gap.high))
                yield (
                    f"Its effect, in private evaluation {one.number}: a gap in {words.metric(one.metric)} by {attribute} of "
                    f"{words.quality(gap.gap.value)} ({bounds}). A run with --no-mitigation shows what it would be without."
                )
    before = next((one for one in report.references if one.kind == WITHOUT), None)
    if before is None:
        return
    there, here = _gap(before.quality, attribute), _gap(report.quality, attribute)
    if there is not None and here is not None:
        yield (
            f"Its effect on the simulator's test records: the gap in {words.metric(report.quality.metric)} by {attribute} is "
            f"{words.quality(here)}, and was {words.quality(there)} without it; over all of them the metric moved by "
            f"{words.difference(report.quality.pooled - before.quality.pooled)}."
        )


def _gap(quality: Quality, attribute: str) -> float | None:
    return next((group.gap for group in rows.groups(quality) if group.attribute == attribute), None)
