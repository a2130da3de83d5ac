"""Mitigation as a report tells of it: what was done, its cost in ε, its effect."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hansa.report import rows, words
from hansa.report.adaptation import AdaptationReport, AdaptiveClippingReport, GroupWeightsReport
from hansa.report.mitigation import MitigationReport
from hansa.report.schema import Quality, Reference, Report

WITHOUT = "federated, no mitigation"  # the reference that an effect is measured against


def told(report: Report) -> tuple[str, ...]:
    """Sentences; none where the agreement mitigates nothing."""
    by_group = () if report.mitigation is None else tuple(_told(report, report.mitigation))
    adapted = () if report.adaptation is None else tuple(_adapted(report, report.adaptation))
    return (*by_group, *adapted)


def heading(report: Report) -> str:
    """Over these sentences."""
    return "Mitigation" if report.mitigation is None else f"Mitigation by {report.mitigation.attribute}"


def _adapted(report: Report, made: AdaptationReport) -> Iterator[str]:
    taken = 0.0
    if made.clipping is not None:
        taken += made.clipping.noise_share
        yield _norm(made.clipping)
    if made.weights is not None:
        taken += made.weights.noise_share
        yield _weights(made.weights)
    yield (
        f"The cost of what adapts: no ε, and {words.plain(made.noise_factor)} times the noise in each gradient, since what is counted "
        f"takes {words.plain(taken)} of the squared sensitivity."
    )
    before, here = _without(report), report.quality
    if before is None:
        yield "What it changes shows beside a run with --no-mitigation (--references makes one)."
        return
    for group, other in zip(rows.groups(here), rows.groups(before.quality), strict=False):
        if group.gap is not None and other.gap is not None:
            yield (
                f"With everything under [mitigation], the gap in {words.metric(here.metric)} by {group.attribute} on the simulator's "
                f"test records is {words.quality(group.gap)}, and was {words.quality(other.gap)} without it."
            )
    yield f"Over all of them the metric moved by {words.difference(here.pooled - before.quality.pooled)}."


def _norm(clipping: AdaptiveClippingReport) -> str:
    first, last = clipping.norms[0], clipping.norms[-1]
    used = clipping.norms[:-1] or clipping.norms
    return (
        f"The clipping norm followed the length below which {words.plain(clipping.quantile)} of the units' gradients should be, by "
        f"noisy counts in the steps' own sums: it began at {words.plain(first)}, was between {words.plain(min(used))} and "
        f"{words.plain(max(used))}, and would go on at {words.plain(last)}. It is kept between {words.plain(clipping.smallest)} and "
        f"{words.plain(clipping.largest)}."
    )


def _weights(weights: GroupWeightsReport) -> str:
    groups = ", ".join(
        f"{one.value} {words.plain(one.weights[-1])} (mean {words.plain(math.fsum(one.weights) / len(one.weights))}, loss "
        f"{words.plain(one.loss)})"
        for one in weights.groups
    )
    return (
        f"Clipped gradients were weighed by {weights.attribute}, by noisy losses in the steps' own sums, each weight between "
        f"{words.plain(weights.smallest)} and 1. At the end: {groups}. Steps got shorter where weights fell."
    )


def _without(report: Report) -> Reference | None:
    return next((one for one in report.references if one.kind == WITHOUT), None)


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
    before = _without(report)
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
