"""The pictures of an audit report: budget over time, cumulative ε by round, who took part.

A picture that would show nothing is not drawn: no grant, no release, no round.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, NamedTuple

from hansa.audit.report import words as said
from hansa.audit.report.evidence import Curve, History
from hansa.audit.report.promises import RoundTold
from hansa.audit.report.schema import AuditReport
from hansa.report import words
from hansa.report.drawing import (
    BLUE,
    INK,
    ORANGE,
    SKY,
    SMALL_PT,
    THREAD,
    TRACK,
    VERMILION,
    Picture,
    cells,
    height,
    names,
    picture,
    whole_numbers,
    wrapped,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_PANELS = 12  # budgets drawn one by one
MAX_RUNS = 3  # the newest ones
MARGIN = 0.08  # of the time that is drawn, before the first change of a budget and after the last
MIN_MARGIN = timedelta(seconds=2)
_HATCH = "/////"
# years, months, days, hours, minutes, seconds: how a tick is written where they are the smallest that ticks differ in
_CLOCK = ["%Y", "%b %Y", "%d %b", "%H:%M", "%H:%M", "%H:%M:%S"]
_DAY = ["", "", "%Y", "%d %b %Y", "%d %b %Y", "%d %b %Y"]


def budgets_over_time(report: AuditReport) -> Picture | None:
    """What counts as spent of each budget, over time; `None` without a budget that anything was spent of."""
    told = [_steps(history, report.composition.histories) for history in report.composition.histories]
    spent = sorted((one for one in told if len(one.points) > 1), key=lambda one: -one.share)
    if not spent:
        return None
    shown = sorted(spent[:MAX_PANELS], key=lambda one: one.name)
    most = spent[0]
    description = f"{most.name} has spent most of its budget: {words.percent(most.share)} of ε = {words.plain(most.limit)}."
    if len(spent) > len(shown):
        description += f" Of {len(spent)} budgets the {len(shown)} of which most is spent are drawn."

    def draw(figure: Figure) -> None:
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter, date2num

        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)
        begin, end = (float(date2num(at)) for at in _window(shown))
        for (axes,), one in zip(panels, shown, strict=True):
            _panel(axes, one, date2num, end)
        bottom = panels[-1][0]
        bottom.set_xlim(begin, end)
        locator = AutoDateLocator(minticks=2, maxticks=5)
        bottom.xaxis.set_major_locator(locator)
        bottom.xaxis.set_major_formatter(
            ConciseDateFormatter(locator, formats=_CLOCK, zero_formats=_CLOCK, offset_formats=_DAY)
        )
        bottom.set_xlabel("time, UTC")

    title = "ε that counts as spent (filled) and what a run has released (line), over time"
    return picture("budgets", title, description, 0.55 + 0.62 * len(shown), draw)


def _window(shown: Sequence[_Steps]) -> tuple[datetime, datetime]:
    """From before the first of these budgets changed, which may be long after it was granted, to after the last did."""
    begin = min(next((at for at, spent in one.points if spent), one.points[-1][0]) for one in shown)
    end = max(at for one in shown for at, _ in (*one.points, *(step for run in one.released for step in run)))
    margin = max(MARGIN * (end - begin), MIN_MARGIN)
    return begin - margin, end + margin


class _Steps(NamedTuple):
    name: str
    limit: float
    points: tuple[tuple[datetime, float], ...]
    released: tuple[tuple[tuple[datetime, float], ...], ...]

    @property
    def share(self) -> float:
        return self.points[-1][1] / self.limit


def _steps(history: History, every: Sequence[History]) -> _Steps:
    """When ε changed and to what; a clock that went back stands still here, since order is that of the log."""
    times = accumulate((datetime.fromisoformat(line.at) for line in history.lines), max)
    timed = list(zip(times, history.lines, strict=True))
    points = tuple((at, line.spent) for at, line in timed if line.spent is not None)
    made: dict[str | None, list[tuple[datetime, float | None]]] = {}
    for at, line in timed:
        if line.what == "released":
            made.setdefault(line.run, []).append((at, line.released))
    released = [_never_below(run, hidden=history.left_out > 0) for run in made.values()]
    several = sum(one.member == history.member for one in every) > 1
    name = f"{history.member} {history.dataset[:8]}" if several else history.member
    return _Steps(name, history.limit, points, tuple(run for run in released if run))


def _never_below(
    releases: Sequence[tuple[datetime, float | None]], *, hidden: bool
) -> tuple[tuple[datetime, float], ...]:
    """What may have been released from each moment on, where ε was computed after some releases only.

    A release without ε has at most the next one that was computed; so has what was released after one that was, if
    releases between them are hidden. After the last that was computed nothing is drawn.
    """
    drawn: list[tuple[datetime, float]] = []
    after: float | None = None
    for at, own in reversed(releases):
        value = after if own is None or (hidden and after is not None) else own
        if value is not None:
            drawn.append((at, value))
        after = own if own is not None else after
    return tuple(reversed(drawn))


def _panel(axes: Axes, one: _Steps, number: Callable[[datetime], float], end: float) -> None:
    x, y = [number(at) for at, _ in one.points], [value for _, value in one.points]
    axes.fill_between([*x, end], [*y, y[-1]], step="post", color=SKY, alpha=0.45, linewidth=0)
    axes.plot([*x, end], [*y, y[-1]], drawstyle="steps-post", color=SKY, linewidth=1.4)
    for run in one.released:
        begun = [(run[0][0], 0.0), *run]  # nothing is released between two releases
        axes.plot(
            [number(at) for at, _ in begun], [value for _, value in begun],
            drawstyle="steps-post", color=BLUE, linewidth=1.8,
        )  # fmt: skip
    axes.axhline(one.limit, color=VERMILION, linewidth=1.2, linestyle="--")
    axes.set_ylim(0, 1.18 * max(one.limit, *y))
    axes.set_yticks([one.limit / 2], [wrapped(one.name, 2)], color=INK)
    axes.spines["left"].set_visible(False)
    axes.annotate(
        f"{words.epsilon(y[-1])}\nof {words.plain(one.limit)}", (1, 0.5), xycoords="axes fraction", xytext=(6, 0),
        textcoords="offset points", va="center", fontsize=SMALL_PT,
    )  # fmt: skip


def epsilon_by_round(report: AuditReport) -> tuple[Picture, ...]:
    """ε of all that was released by then, by round, for each of the newest runs."""
    runs = list(dict.fromkeys(curve.run for curve in report.composition.curves if curve.points))
    limits = {(one.member, one.dataset): one.limit for one in report.composition.histories}
    drawn = []
    for number, run in enumerate(runs[-MAX_RUNS:]):
        curves = [one for one in report.composition.curves if one.run == run and one.points]
        drawn.append(_curves(number, run, curves, min(limits[one.member, one.dataset] for one in curves)))
    return tuple(drawn)


def _curves(number: int, run: str, curves: Sequence[Curve], limit: float) -> Picture:
    def last(curve: Curve) -> float:
        return curve.points[-1][1] or 0.0

    most = max(curves, key=last)
    description = (
        f"Largest at {most.member}: ε = {words.epsilon(most.points[-1][1])} at δ = {words.plain(most.delta)} after round "
        f"{most.points[-1][0]}. The smallest limit is {words.plain(limit)}."
    )

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        for place, curve in enumerate([*(one for one in curves if one is not most), most]):
            known = [(0, 0.0), *((x, y) for x, y in curve.points if y is not None)]
            top = curve is most
            axes.plot(
                *zip(*known, strict=True),
                color=BLUE if top else THREAD,
                drawstyle="steps-pre",  # between two rounds of which ε was computed it is at most the later one
                linewidth=2.2 if top else 0.8,
                label="largest" if top else ("each member" if place == 0 else "_"),
            )
        axes.axhline(limit, color=VERMILION, linewidth=1.2, linestyle="--", label="_")
        axes.annotate(
            f"limit {words.plain(limit)}", (0, limit), xycoords=("axes fraction", "data"), xytext=(3, -3),
            textcoords="offset points", va="top", fontsize=SMALL_PT, color=VERMILION,
        )  # fmt: skip
        axes.set_ylim(0, 1.08 * max(limit, last(most)))
        axes.set_ylabel("ε released")
        axes.grid(axis="y")
        whole_numbers(axes, "round")
        figure.legend(loc="outside upper left", ncols=2, handlelength=1.4, columnspacing=1.0)

    return picture(
        f"epsilon-{number}", f"Cumulative ε by round, run {words.short_id(run)}", description, 2.6, draw
    )


def participation(report: AuditReport) -> tuple[Picture, ...]:
    """Who was in which sum, for each of the newest runs."""
    runs = list(dict.fromkeys(one.run for one in report.coverage.rounds))
    league = [party.name for party in report.identity.parties if party.role == "member"]
    return tuple(
        _attendance(number, run, [one for one in report.coverage.rounds if one.run == run], league)
        for number, run in enumerate(runs[-MAX_RUNS:])
    )


def _attendance(number: int, run: str, rounds: Sequence[RoundTold], league: Sequence[str]) -> Picture:
    sums = sum(bool(one.summed) for one in rounds)
    summed = {name: [one.round for one in rounds if name in one.summed] for name in league}
    left_out = {name: [one.round for one in rounds if name in one.left_out] for name in league}
    missed = [f"{name} is in {len(summed[name])} of {sums}" for name in league if len(summed[name]) < sums]
    description = said.attendance(sums, len(rounds), sum(one.failed for one in rounds), missed)

    def draw(figure: Figure) -> None:
        axes = figure.subplots()
        numbers = [one.round for one in rounds]
        low, high = min(numbers), max(numbers)
        gap = 0.08 if high - low < 60 else 0.0
        for one in rounds:
            if one.failed:
                axes.axvspan(one.round - 0.5, one.round + 0.5, color=TRACK, linewidth=0)
        for position, name in enumerate(league):
            axes.broken_barh(cells(summed[name], gap), (position - 0.3, 0.6), color=BLUE, linewidth=0)
            axes.broken_barh(
                cells(left_out[name], gap), (position - 0.3, 0.6), facecolor="white", edgecolor=ORANGE,
                hatch=_HATCH, linewidth=0.9,
            )  # fmt: skip
        axes.set_xlim(low - 0.6, high + 0.6)
        whole_numbers(axes, "round")
        names(axes, league, [f"{len(summed[name])}/{sums}" for name in league])

    title = f"In a sum (filled), released and in no sum of this log (hatched), run {words.short_id(run)}"
    return picture(f"participation-{number}", title, description, height(league) + 0.2, draw)
