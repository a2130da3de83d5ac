"""Private evaluations as a report shows them: sentences, a table and a picture by group."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.report import rows, words
from hansa.report.drawing import BLUE, QUIET, Picture, dots, height, picture, span
from hansa.report.fairness import EstimateReport, EvaluationReport, GroupReport
from hansa.report.schema import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_SHOWN = ("true-positive-rate", "false-positive-rate", "selection-rate")  # beside the report's own metric


@dataclass(frozen=True)
class Row:
    """One group: texts of a table's row; empty cells where it is too small."""

    name: str
    size: str
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Shown:
    """One evaluation, ready to be drawn.

    Attributes:
        heading: its title.
        sentences: what was done, what it cost, how far groups are apart.
        counted: what the size of a group counts.
        columns: of the table, after group and size.
        rows: all records first.
        too_small: groups that cannot be assessed.
        drawn: the metric by group with its intervals; `None` where no group can be assessed.
    """

    heading: str
    sentences: tuple[str, ...]
    counted: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    too_small: tuple[str, ...]
    drawn: Picture | None


def shown(report: Report) -> tuple[Shown, ...]:
    """Every evaluation of a report, in order."""
    told = report.fairness
    if told is None:
        return ()
    first = told.evaluations[:1]
    return tuple(
        _shown(one, report.unit, alone=any(one.run != trained.run for trained in first))
        for one in told.evaluations
    )


def lacking(report: Report) -> str:
    """What did not take place, where a report says why."""
    told = report.fairness
    return (
        "Not evaluated on later records"
        if told is not None and told.evaluations
        else "Not evaluated by group"
    )


def _shown(told: EvaluationReport, unit: str, *, alone: bool) -> Shown:
    metric = words.metric(told.metric)
    beside = [name for name in _SHOWN if name != told.metric and name in told.overall.metrics]
    names = [told.metric, *beside]
    columns = [
        words.sentence_start(metric),
        *(words.sentence_start(name.replace("-", " ")) for name in beside),
    ]
    if told.reference_sha256 is not None:
        columns += ["Loss by compression", "Decisions changed"]
    every = (told.overall, *told.groups)
    return Shown(
        heading=f"Evaluation {told.number} of {told.allowed}",
        sentences=tuple(_sentences(told, unit, alone=alone)),
        counted="positives, noisy" if len(told.layout.labels) == 2 else "records, noisy",
        columns=tuple(columns),
        rows=tuple(_row(group, names, compared=told.reference_sha256 is not None) for group in every),
        too_small=tuple(f"{group.name} ({group.size:.0f})" for group in told.groups if not group.assessable),
        drawn=_drawn(told, metric),
    )


def _row(group: GroupReport, names: list[str], *, compared: bool) -> Row:
    cells = [_interval(group.metrics.get(name)) for name in names]
    if compared:
        cells += [_interval(group.loss), _interval(group.flips)]
    if not group.assessable:
        cells = ["too small to assess", *[""] * (len(cells) - 1)]
    return Row(group.name, f"{group.size:.0f}", tuple(cells))


def _interval(found: EstimateReport | None) -> str:
    if found is None:
        return words.ABSENT
    return f"{words.quality(found.value)} ({words.quality(found.low)} to {words.quality(found.high)})"


def _sentences(told: EvaluationReport, unit: str, *, alone: bool) -> Iterator[str]:
    """Args: `alone`: the evaluation was a run of its own, after the one that trained."""
    yield (
        f"{words.counted(len(told.contributors), 'member')} ran the file {told.artifact_sha256[:12]}… on "
        + (
            f"{unit}s that a public rule keeps out of training"
            if told.units == "held-out"
            else "records of their own file"
        )
        + f" and counted by group; each count has noise with a standard deviation of {told.noise_sd:.2f} rows in the sum."
    )
    most = max((cost.epsilon for cost in told.costs), default=0.0)
    few = [cost.epsilon_colluding for cost in told.costs if cost.epsilon_colluding is not None]
    against = f", {words.epsilon(max(few))} against few" if few else ""
    if alone:
        charged = f"This one of the {told.allowed} evaluations that are allowed was a run of its own and cost"
    elif told.allowed == 1:
        charged = "The one evaluation that is allowed costs"
    else:
        charged = f"All {told.allowed} evaluations that are allowed cost"
    yield (
        charged
        + f" ε = {words.epsilon(most)}{against} at δ = {words.plain(told.delta)} at most. "
        + (
            f"No {unit} both trains and evaluates, so that it loses the larger of this and the ε of training."
            if told.composition == "parallel"
            else "It is in the ε of the members above, as the same people may be in both."
        )
    )
    liars = (
        "" if not told.liars else f", whatever {words.counted(told.liars, 'member')} did within their caps"
    )
    yield (
        f"Intervals hold sampling and noise, and of one metric all together with {words.percent(told.confidence)} over all "
        f"evaluations that are allowed{liars}. They are no proof that a model is fair."
    )
    for one in told.gaps:
        yield (
            f"By {one.attribute}, {words.metric(told.metric)} differs by {_interval(one.gap)}, most between "
            f"{one.between[0]} and {one.between[1]}; it is worst for {one.worst}."
        )


def _drawn(told: EvaluationReport, metric: str) -> Picture | None:
    found = [(group, group.metrics.get(told.metric)) for group in (told.overall, *told.groups)]
    estimates = [
        rows.Estimate(group.name, one.value, (one.low, one.high), max(round(group.size), 0))
        for group, one in found
        if one is not None
    ]
    if len(estimates) < 2:
        return None

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dots(axes, estimates, span(estimates), [QUIET, *[BLUE] * (len(estimates) - 1)])
        axes.axvline(estimates[0].value or 0.0, color=QUIET, linewidth=1, linestyle="--", zorder=1)

    title = f"{words.sentence_start(metric)} by group, privately evaluated, intervals with noise"
    parts = [f"{one.name} {words.quality(one.value)}" for one in estimates]
    return picture(
        f"evaluation-{told.number}",
        title,
        f"{'; '.join(parts)}.",
        height([one.name for one in estimates]),
        draw,
    )
