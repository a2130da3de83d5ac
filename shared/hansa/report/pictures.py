"""The pictures of a report: which there are, and what each shows.

A picture that would show nothing is `None`: no history, no privacy, nobody ever absent, no references.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hansa.report import rows, words
from hansa.report.drawing import (
    BLUE,
    ORANGE,
    QUIET,
    SKY,
    SMALL_PT,
    THREAD,
    TRACK,
    VERMILION,
    Picture,
    above,
    cells,
    dots,
    height,
    names,
    picture,
    span,
    whole_numbers,
)
from hansa.report.schema import HistoryPoint, Report

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_POINTS = 200  # of a curve; more cannot be told apart at this width
MAX_CURVES = 12  # members drawn one by one; with more, their range is shaded


def over_rounds(report: Report) -> Picture | None:
    """Quality and ε after each round, one above the other; `None` with fewer than two measured rounds."""
    if len(report.history) < 2:
        return None
    history = _thinned(report.history)
    private = any(point.epsilon is not None for point in history)
    metric = words.metric(report.quality.metric)
    first, last = history[0], history[-1]
    description = (
        f"{words.sentence_start(metric)}, mean over members, goes from {words.quality(first.mean_over_members)} at round "
        f"{first.round} to {words.quality(last.mean_over_members)} at round {last.round}."
    )
    if private:
        few = (
            f"{words.epsilon(last.epsilon_colluding)} against few, and "
            if last.epsilon_colluding is not None
            else ""
        )
        description += f" The largest ε of any member is {few}{words.epsilon(last.epsilon)} at the end."

    def draw(figure: Figure) -> None:
        panels = figure.subplots(
            2 if private else 1, 1, sharex=True, squeeze=False, height_ratios=[3, 2][: 1 + private]
        )
        _quality_panel(figure, panels[0][0], history, metric)
        if private:
            _epsilon_panel(panels[1][0], history, _budgets(report))
        margin = 0.02 * (last.round - first.round)
        panels[-1][0].set_xlim(first.round - margin, last.round + margin)
        whole_numbers(panels[-1][0], "round")

    title = (
        f"{words.sentence_start(metric)} and ε over rounds"
        if private
        else f"{words.sentence_start(metric)} over rounds"
    )
    return picture("over-rounds", title, description, 4.1 if private else 2.9, draw)


def _quality_panel(figure: Figure, axes: Axes, history: Sequence[HistoryPoint], metric: str) -> None:
    x = [point.round for point in history]
    members = sorted({name for point in history for name in point.by_member})
    if len(members) <= MAX_CURVES:
        for index, name in enumerate(members):
            measured = [(point.round, point.by_member[name]) for point in history if name in point.by_member]
            label = "each member" if index == 0 else "_"
            axes.plot(*zip(*measured, strict=True), color=THREAD, linewidth=0.8, label=label)
    else:
        spans = [
            (p.round, min(p.by_member.values()), max(p.by_member.values())) for p in history if p.by_member
        ]
        rounds, lows, highs = zip(*spans, strict=True)
        axes.fill_between(rounds, lows, highs, color=TRACK, linewidth=0, label="range over members")
    axes.plot(
        x,
        [p.pooled for p in history],
        color=ORANGE,
        linewidth=1.6,
        linestyle=(0, (4, 1.5)),
        label="all records",
    )
    axes.plot(x, [p.mean_over_members for p in history], color=BLUE, linewidth=2.2, label="mean over members")
    axes.set_ylabel(metric)
    axes.grid(axis="y")
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles[::-1], labels[::-1], loc="outside upper left", ncols=3, handlelength=1.4, columnspacing=1.0
    )


def _epsilon_panel(axes: Axes, history: Sequence[HistoryPoint], budgets: Sequence[float]) -> None:
    spent = [(point.round, point.epsilon) for point in history if point.epsilon is not None]
    axes.plot(*zip(*spent, strict=True), color=BLUE, linewidth=2.2, label="largest ε released")
    few = [(point.round, point.epsilon_colluding) for point in history if point.epsilon_colluding is not None]
    if few:
        axes.plot(*zip(*few, strict=True), color=ORANGE, linewidth=2.2, label="against few")
        axes.annotate("everyone", spent[-1], xytext=(-4, -10), textcoords="offset points", ha="right", fontsize=SMALL_PT, color=BLUE)  # fmt: skip
        axes.annotate("few", few[-1], xytext=(-4, -10), textcoords="offset points", ha="right", fontsize=SMALL_PT, color=ORANGE)  # fmt: skip
    for budget in budgets:
        axes.axhline(budget, color=VERMILION, linewidth=1.2, linestyle="--", label="_")
        axes.annotate(
            f"budget {words.budget(budget)}", (0, budget), xycoords=("axes fraction", "data"), xytext=(3, -3),
            textcoords="offset points", va="top", fontsize=SMALL_PT, color=VERMILION,
        )  # fmt: skip
    axes.set_ylim(0, 1.08 * max([*budgets, *(value for _, value in spent)]) or 1)
    axes.set_ylabel("ε released")
    axes.grid(axis="y")


def _budgets(report: Report) -> list[float]:
    """Members' budgets without repetition; the smallest and the largest of many."""
    limits = [(member.budget_epsilon, member.budget_epsilon_colluding) for member in report.members]
    found = sorted({limit for pair in limits for limit in pair if limit})
    return found if len(found) <= 3 else [found[0], found[-1]]


def by_member(report: Report) -> Picture | None:
    """Quality by member with intervals, best first; `None` where nobody was measured."""
    measured = [estimate for estimate in rows.members(report) if estimate.value is not None]
    if not measured:
        return None
    ordered = sorted(measured, key=lambda estimate: -(estimate.value or 0.0))
    metric = words.sentence_start(words.metric(report.quality.metric))
    mean = report.quality.mean_over_members
    description = (
        f"Highest {ordered[0].name} with {words.quality(ordered[0].value)}, lowest {ordered[-1].name} with "
        f"{words.quality(ordered[-1].value)}; the mean over members is {words.quality(mean)}."
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dots(axes, ordered, span(ordered), [BLUE] * len(ordered))
        axes.axvline(mean, color=QUIET, linewidth=1, linestyle="--", zorder=1)
        above(axes, mean, f"mean {words.quality(mean)}")

    return picture(
        "by-member",
        f"{metric} by member, 95 % intervals",
        description,
        height([item.name for item in ordered]),
        draw,
    )


def by_group(report: Report, group: rows.Groups, number: int) -> Picture | None:
    """Quality by the values of one attribute, the gap between best and worst shaded; `None` without any value.

    Args:
        report: whose groups they are; all its attributes share one scale.
        group: the attribute.
        number: its position, for ids.
    """
    measured = [estimate for estimate in group.estimates if estimate.value is not None]
    if not measured:
        return None
    metric = words.sentence_start(words.metric(report.quality.metric))
    worst, best = group.worst, group.best
    # one scale for all attributes, so that their pictures can be compared
    scale = span([estimate for other in rows.groups(report.quality) for estimate in other.estimates])

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        ends = (worst, best)
        dots(axes, measured, scale, [BLUE if estimate in ends else SKY for estimate in measured])
        if worst is not None and best is not None and worst.value is not None and best.value is not None:
            axes.axvspan(worst.value, best.value, color=ORANGE, alpha=0.22, linewidth=0, zorder=0)
            above(axes, (worst.value + best.value) / 2, f"gap {group.gap:.3f}")

    title = f"{metric} by {group.attribute}, 95 % intervals"
    return picture(
        f"by-group-{number}", title, rows.gap_in_words(group), height([item.name for item in measured]), draw
    )


def spending(report: Report) -> Picture | None:
    """ε of what was released beside the budget, per member; `None` where no privacy is claimed."""
    known = [member for member in report.members if member.epsilon is not None]
    if not known:
        return None
    most = max(known, key=lambda member: member.epsilon or 0.0)
    of = "" if most.budget_epsilon is None else f" of {words.budget(most.budget_epsilon)}"
    description = f"{most.name} released most: ε = {words.epsilon(most.epsilon)}{of}."
    shared = any(member.epsilon_colluding is not None for member in known)
    if shared:
        description += f" Against few it is {words.epsilon(most.epsilon_colluding)}."

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        positions = range(len(known))
        axes.barh(positions, [m.budget_epsilon or 0.0 for m in known], height=0.55, color=TRACK)
        axes.barh(positions, [m.epsilon or 0.0 for m in known], height=0.55, color=BLUE)
        if shared:
            axes.barh(positions, [m.epsilon_colluding or 0.0 for m in known], height=0.25, color=ORANGE)
        for position, member in enumerate(known):
            if member.budget_epsilon:
                axes.plot(
                    [member.budget_epsilon] * 2,
                    (position - 0.36, position + 0.36),
                    color=VERMILION,
                    linewidth=1.4,
                )
        axes.set_xlim(0, 1.02 * max(max(m.epsilon or 0.0, m.budget_epsilon or 0.0) for m in known) or 1)
        thin = ", against few (thin)" if shared else ""
        axes.set_xlabel(f"ε released (filled){thin} of the member's budget")
        names(axes, [m.name for m in known], [words.epsilon(m.epsilon) for m in known])

    return picture(
        "spending",
        "ε released of budget, by member",
        description,
        height([item.name for item in known]) + 0.2,
        draw,
    )


def attendance(report: Report) -> Picture | None:
    """Who was in which round; `None` if nobody was ever absent."""
    if not rows.absences(report):
        return None
    league = list(
        dict.fromkeys([*(m.name for m in report.members), *(n for e in report.round_log for n in e.absent)])
    )
    missed = {name: [entry.round for entry in report.round_log if name in entry.absent] for name in league}
    present = {name: [entry.round for entry in report.round_log if name in entry.present] for name in league}
    parts = [
        f"{name} missed {words.counted(len(rounds), 'round')}" for name, rounds in missed.items() if rounds
    ]
    everybody = [entry.round for entry in report.round_log]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        width = min(everybody), max(everybody)
        gap = 0.08 if width[1] - width[0] < 60 else 0.0
        for position, name in enumerate(league):
            axes.broken_barh(cells(present[name], gap), (position - 0.3, 0.6), color=BLUE, linewidth=0)
            axes.broken_barh(cells(missed[name], gap), (position - 0.3, 0.6), facecolor="white", edgecolor=VERMILION,
                             hatch="/////", linewidth=0.9)  # fmt: skip
        axes.set_xlim(width[0] - 0.6, width[1] + 0.6)
        whole_numbers(axes, "round")
        names(axes, league, [f"{len(present[name])}/{len(everybody)}" for name in league])

    title = "Rounds present (filled) and absent (hatched)"
    return picture("attendance", title, f"{'; '.join(parts)}.", height(league) + 0.2, draw)


def compared(report: Report) -> Picture | None:
    """This run beside its references, mean over members; `None` without references."""
    if not report.references:
        return None
    quality = report.quality
    this = rows.Estimate(
        "this run", quality.mean_over_members, quality.intervals.mean_over_members, quality.counts.pooled
    )
    comparisons = rows.comparisons(report)
    estimates = [this, *(item.mean for item in comparisons)]
    metric = words.sentence_start(words.metric(quality.metric))
    parts = [f"{item.kind} {words.quality(item.mean.value)}" for item in comparisons]

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        dots(axes, estimates, span(estimates), [BLUE, *[ORANGE] * len(comparisons)])
        axes.axvline(quality.mean_over_members, color=QUIET, linewidth=1, linestyle="--", zorder=1)

    title = f"{metric}, mean over members, beside the references"
    description = f"This run {words.quality(this.value)}; {'; '.join(parts)}."
    return picture("compared", title, description, height([item.name for item in estimates]), draw)


def _thinned(history: Sequence[HistoryPoint]) -> list[HistoryPoint]:
    """At most `MAX_POINTS` points, evenly chosen, the first and the last among them."""
    if len(history) <= MAX_POINTS:
        return list(history)
    step = (len(history) - 1) / (MAX_POINTS - 1)
    return [history[round(i * step)] for i in range(MAX_POINTS)]
