"""How a member's mask phase grows with members and entries: linear in n * d, in numbers and as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hansa_simulations.bench.drawing import COLOURS, LINE, QUIET, drawing
from hansa_simulations.bench.figures import Bench, Figure, Grid
from hansa_simulations.bench.sampling import MILLION, in_turn
from hansa_simulations.bench.secagg_member import mask_phase

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GROWTH_MEMBERS = (3, 10, 30, 100)
GROWTH_LENGTHS = (10_000, 100_000, 1_000_000, 10_000_000)


def growth_grids(members: Sequence[int], lengths: Sequence[int]) -> tuple[Grid, Grid]:
    """A member's mask phase for each n and d, in one process: milliseconds, and nanoseconds for each of n * d words."""
    times: dict[tuple[int, int], Figure] = {}
    for (
        length
    ) in lengths:  # all n of one length in turn: a long vector would put a short one out of the cache
        measured = in_turn(1, *(mask_phase(n, length) for n in members))
        for n, samples in zip(members, measured, strict=True):
            words = f"member: mask phase, n = {n}, {length:,} entries"
            times[n, length] = Figure(f"growth_n{n}_d{length}_ms", words, samples)
    each = {
        (n, length): Figure(
            f"growth_n{n}_d{length}_ns_per_word",
            f"{figure.what}, for each of n * d words",
            tuple(1e6 * ms / (n * length) for ms in figure.samples),
        )
        for (n, length), figure in times.items()
    }
    corner = "n \\ entries"
    return (
        Grid("member: mask phase, ms", corner, times),
        Grid("member: mask phase / (n * d), ns for each word of its masks", corner, each),
    )


def plot_growth(bench: Bench, path: Path) -> None:
    """Draw the growth of a bench over entries with a line for each n: time, and time / (n * d).

    Args:
        bench: whose first grid is that of `growth_grids`.
        path: ends in one of `PLOT_SUFFIXES`.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure as Plot

    with drawing():
        plot = Plot(figsize=(8.4, 3.6), layout="constrained", dpi=160)
        times, each = plot.subplots(1, 2)
        _draw(times, each, bench.grids[0].cells)
        plain = {figure.name: figure.value for figure in bench.figures}.get("aes_256_ctr_n10_1m_ms")
        if plain is not None:
            ns = 1e6 * plain / (10 * MILLION)
            each.axhline(ns, color=QUIET, linestyle=(0, (4, 3)), linewidth=1)
            each.annotate(
                "plain AES-256-CTR", (0.02, ns), xycoords=("axes fraction", "data"), xytext=(0, -4),
                textcoords="offset points", va="top", color=QUIET,
            )  # fmt: skip
        plot.savefig(path)


def _draw(times: Axes, each: Axes, cells: Mapping[tuple[int, int], Figure]) -> None:
    for n, colour in zip(dict.fromkeys(n for n, _ in cells), cycle(COLOURS)):
        line = [(d, figure.value) for (members, d), figure in cells.items() if members == n]
        entries, spent = [d for d, _ in line], [ms for _, ms in line]
        style: dict[str, Any] = {
            "color": colour,
            "marker": "o",
            "markersize": 4.5,
            "linewidth": 1.6,
            "clip_on": False,
        }
        times.plot(entries, spent, **style)
        label = f"n = {n}"
        times.annotate(
            label,
            (entries[-1], spent[-1]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            color=colour,
        )
        each.plot(entries, [1e6 * ms / (n * d) for d, ms in line], **style, label=label)
    times.set_title("Mask phase of one member, ms", loc="left")
    each.set_title("The same divided by n · d, ns", loc="left")
    each.legend(frameon=False, loc="upper right")
    for axes in (times, each):
        axes.set(xscale="log", yscale="log", xlabel="entries d")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.grid(visible=True, color=LINE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.minorticks_off()
    each.set_yticks([0.1, 0.3, 1, 3, 10])
    each.set_ylim(top=20)
