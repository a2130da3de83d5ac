"""How the pictures of a report are drawn: palette, rows of dots, and matplotlib's SVG made part of a page.

Neither a display nor the global state of pyplot is used, and the same picture gives the same bytes. Text stays
text, so that a page can set its own typeface, a reader can search it and a screen reader can read it; sizes are
laid out with DejaVu Sans, which is wider than most.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import TYPE_CHECKING, Any, TypeAlias

from hansa.report import words
from hansa.report.part import Interval
from hansa.report.rows import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, which people with any common colour blindness can tell apart
BLUE, ORANGE, VERMILION, SKY = "#0072B2", "#E69F00", "#D55E00", "#56B4E9"
INK, QUIET, LINE, TRACK, THREAD = "#1f2933", "#52606d", "#d5dae1", "#e6eaef", "#aab4c0"

WIDTH_IN = 4.6  # 331 points: text keeps its size on a phone
FONT_PT, SMALL_PT = 9, 8.5
MAX_TALL_ROWS = 30  # with more rows they are drawn closer together, with one line for a name
NAME_LETTERS = 19

_SETTINGS: Any = {  # the keys are a literal type in newer releases of matplotlib and strings in older ones
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": FONT_PT,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": SMALL_PT,
}

Draw: TypeAlias = "Callable[[Figure], None]"


@dataclass(frozen=True)
class Picture:
    """One picture.

    Attributes:
        name: unique on a page, for ids.
        title: of the figure.
        description: what a reader who cannot see it needs to know.
        svg: one ``<svg>`` element without fixed size.
    """

    name: str
    title: str
    description: str
    svg: str


def picture(name: str, title: str, description: str, height_in: float, draw: Draw) -> Picture:
    """Draw on an empty figure of the common width and return it as SVG.

    Args:
        name: of lower-case letters, digits and hyphens, unique on the page.
        title: of the figure.
        description: its text alternative.
        height_in: in inches.
        draw: fills the figure.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    sink = StringIO()
    with mpl.rc_context():
        mpl.rcdefaults()  # a user's own matplotlibrc must not change a report
        mpl.rcParams.update({**_SETTINGS, "svg.hashsalt": name})
        figure = Figure(figsize=(WIDTH_IN, height_in), layout="constrained")
        draw(figure)
        figure.savefig(sink, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Picture(name, title, description, _inline(sink.getvalue(), name, title, description))


def _inline(svg: str, name: str, title: str, description: str) -> str:
    """The SVG file as an element of a page: ids of its own, a text alternative, no size, no global style."""
    size = re.search(r'viewBox="([^"]+)"', svg)
    body = re.search(r"<svg[^>]*>(.*)</svg>", svg, flags=re.DOTALL)
    if size is None or body is None:
        raise ValueError("matplotlib wrote something that is not an SVG file")
    inner = re.sub(
        r"<metadata>.*?</metadata>|<defs>\s*<style[^>]*>.*?</style>\s*</defs>", "", body[1], flags=re.DOTALL
    )
    inner = re.sub(r'(<[^<>]*\s)id="', rf'\1id="{name}-', inner)
    inner = re.sub(r'(url\(#|href="#)', rf"\1{name}-", inner)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" viewBox="{size[1]}" '
        f'role="img" aria-labelledby="{name}-title {name}-description">'
        f'<title id="{name}-title">{escape(title)}</title><desc id="{name}-description">{escape(description)}</desc>'
        f"{inner.strip()}</svg>"
    )


def dots(axes: Axes, estimates: Sequence[Estimate], limits: Interval, colours: Sequence[str]) -> None:
    """One row per estimate: a dot, its interval, its name at the left and its value at the right."""
    for position, (estimate, colour) in enumerate(zip(estimates, colours, strict=True)):
        if estimate.interval is not None:
            axes.plot(
                estimate.interval, (position, position), color=colour, linewidth=2, solid_capstyle="round"
            )
        if estimate.value is not None:
            axes.plot(
                [estimate.value], [position], "o", color=colour, markersize=6.5, markeredgecolor="white"
            )
    axes.set_xlim(*limits)
    axes.locator_params(axis="x", nbins=5, steps=[1, 2, 5, 10])
    axes.grid(axis="x")
    names(
        axes,
        [estimate.name for estimate in estimates],
        [words.quality(estimate.value) for estimate in estimates],
    )


def names(axes: Axes, labels: Sequence[str], values: Sequence[str]) -> None:
    """Names at the left of the rows, values at the right, the first row on top."""
    lines = 2 if len(labels) <= MAX_TALL_ROWS else 1
    axes.set_yticks(range(len(labels)), [wrapped(label, lines) for label in labels], color=INK)
    axes.set_ylim(len(labels) - 0.4, -0.6)
    axes.spines["left"].set_visible(False)
    for position, value in enumerate(values):
        axes.annotate(
            value, (1, position), xycoords=("axes fraction", "data"), xytext=(6, 0), textcoords="offset points",
            va="center", color=INK,
        )  # fmt: skip


def above(axes: Axes, x: float, text: str) -> None:
    """A small text above the axes at a value of x."""
    axes.annotate(
        text, (x, 1), xycoords=("data", "axes fraction"), xytext=(0, 2), textcoords="offset points",
        ha="center", va="bottom", fontsize=SMALL_PT, color=QUIET,
    )  # fmt: skip


def whole_numbers(axes: Axes, label: str) -> None:
    """An x axis with ticks at whole numbers only."""
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins="auto", integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.set_xlabel(label)


def cells(rounds: Sequence[int], gap: float) -> list[tuple[float, float]]:
    """Consecutive rounds as (start, width); single cells where a gap between them can be seen."""
    runs: list[tuple[float, float]] = []
    for number in rounds:
        if gap == 0 and runs and abs(sum(runs[-1]) - (number - 0.5)) < 1e-9:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((number - 0.5 + gap, 1 - 2 * gap))
    return runs


def span(estimates: Sequence[Estimate]) -> Interval:
    """Limits that hold all values and intervals, with a margin."""
    edges = [edge for e in estimates for edge in (e.value, *(e.interval or ())) if edge is not None]
    margin = 0.04 * (max(edges) - min(edges)) or 0.05
    return (min(edges) - margin, max(edges) + margin)


def height(labels: Sequence[str]) -> float:
    """Inches for one row per label, with room for the axis and for labels of two lines."""
    if len(labels) > MAX_TALL_ROWS:
        return 0.62 + 0.2 * len(labels)
    tall = any("\n" in wrapped(label, 2) for label in labels)
    return 0.62 + (0.38 if tall else 0.3) * max(len(labels), 2)


def wrapped(name: str, lines: int) -> str:
    """A name on at most so many lines, broken after punctuation where it has any, cut with an ellipsis.

    The tables have every name whole.
    """
    pieces = re.findall(rf"[^-_., ]{{1,{NAME_LETTERS - 1}}}[-_., ]*|[-_., ]+", name)
    filled = [""]
    for piece in pieces:
        if filled[-1] and len(filled[-1]) + len(piece.rstrip()) > NAME_LETTERS:
            filled.append("")
        filled[-1] += piece
    kept = [line.rstrip() for line in filled[:lines]]
    if len(filled) > lines:
        kept[-1] = kept[-1][: NAME_LETTERS - 1].rstrip("-_.") + "…"
    return "\n".join(kept)
