"""Figures, ratios and the table in which every bench shows them."""

from __future__ import annotations

import io
import os
import platform
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

RATE = "per_s"
TIMES = "times"  # of a name with ``_over_`` or ``_speedup_`` in it: one rate, time or size divided by another
MORE_IS_BETTER = {RATE, TIMES}
UNITS = ("s", "ms", "us", "ns", "bytes", "mib", "epsilon", "accuracy", "points", "count", RATE, TIMES)
_SIZE = re.compile(r"_(\d+x)?\d+[km]?$")  # of a vector, or members and rows of each
_TABLE_WIDTH = 110
_MET = {None: "", True: "yes", False: "no"}
_PACKAGES = ("hansa", "numpy", "flwr", "ray", "torch", "opacus", "transformers", "onnxruntime")


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, several times if it can be.

    Attributes:
        name: ends in its unit, or in its unit ``_per_`` something: ``ray_start_s``, ``local_ms_per_client``; a rate
            ends in ``_per_s``; one thing divided by another of its unit has ``_over_`` or ``_speedup_`` in its name;
            ``points`` are hundredths of an accuracy. How large what was measured is may stand last: ``evaluation_s_5x10k``, ``round_s_10m``.
        what: the name in words.
        samples: every value that was measured; `value` is their median.
        goal: the most that `value` is meant to be, or the least for a rate or its multiple, if there is such a goal.
        cost: of a multiple, that it is one of times or sizes, so that less is better and `goal` is the most.

    Raises:
        ValueError: no samples, or a name that does not say its unit.
    """

    name: str
    what: str
    samples: tuple[float, ...]
    goal: float | None = None
    cost: bool = False

    def __post_init__(self) -> None:
        if not self.samples:
            raise ValueError(f"{self.name} was not measured")
        if self.unit not in UNITS:
            raise ValueError(f"{self.name!r} does not say its unit; known are {', '.join(UNITS)}")

    @property
    def unit(self) -> str:
        """The unit that the name says."""
        if self.name.endswith(f"_{RATE}"):
            return RATE
        if "_over_" in self.name or "_speedup_" in self.name:
            return TIMES
        return _SIZE.sub("", self.name).partition("_per_")[0].rpartition("_")[2]

    @property
    def value(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        if self.goal is None:
            return None
        return self.value >= self.goal if self.more_is_better else self.value <= self.goal

    @property
    def more_is_better(self) -> bool:
        """Whether the goal is the least that is wanted."""
        return self.unit in MORE_IS_BETTER and not self.cost


@dataclass(frozen=True)
class Ratio:
    """How many times a peer's figure is Hansa's: above 1, Hansa needs less.

    Attributes:
        name, what: as a figure's; without a unit.
        peer, ours: the two figures.
        goal: the least that `value` is meant to be, if there is such a goal.

    Raises:
        ValueError: the two are measured in different units, or Hansa's is not above 0.
    """

    name: str
    what: str
    peer: Figure
    ours: Figure
    goal: float | None = None

    def __post_init__(self) -> None:
        if self.peer.unit != self.ours.unit:
            raise ValueError(f"{self.peer.name} and {self.ours.name} cannot be compared")
        if not self.ours.value > 0:
            raise ValueError(f"{self.ours.name} is {self.ours.value:g} and divides nothing")

    @property
    def value(self) -> float:
        """The peer's median divided by Hansa's."""
        return self.peer.value / self.ours.value

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without a goal."""
        return None if self.goal is None else self.value >= self.goal


@dataclass(frozen=True)
class Grid:
    """Figures of one unit that differ in two sizes, shown as a table of their own instead of as rows.

    Attributes:
        title: one line, with the unit.
        corner: what the rows and the columns are.
        cells: a figure for each pair of row and column.
    """

    title: str
    corner: str
    cells: Mapping[tuple[int, int], Figure]

    def table(self) -> Table:
        """The grid as a person reads it."""
        rows = list(dict.fromkeys(row for row, _ in self.cells))
        columns = list(dict.fromkeys(column for _, column in self.cells))
        table = Table(title=self.title, title_justify="left")
        for heading in (self.corner, *(f"{column:,}" for column in columns)):
            table.add_column(heading, justify="right")
        for row in rows:
            there = [self.cells.get((row, column)) for column in columns]
            table.add_row(str(row), *("" if cell is None else _shown(cell.value) for cell in there))
        return table


@dataclass(frozen=True)
class Bench:
    """What one bench measured.

    Attributes:
        title: one line.
        settings: what it was asked to do.
        figures, ratios: in the order in which they are shown.
        grids: tables of their own; their figures are among the data too.
        notes: what a reader must know to read them rightly.
        machine: where it was measured.
    """

    title: str
    settings: Mapping[str, int | float | str]
    figures: Sequence[Figure]
    ratios: Sequence[Ratio]
    notes: Sequence[str]
    machine: Mapping[str, int | str]
    grids: Sequence[Grid] = field(default_factory=tuple)

    @property
    def all_figures(self) -> tuple[Figure, ...]:
        """Every figure, those in grids last."""
        return (*self.figures, *(cell for grid in self.grids for cell in grid.cells.values()))

    def data(self) -> dict[str, object]:
        """The bench as JSON values: `figures` and `ratios` are numbers by name; what stands behind them follows.

        A figure's name ends in its unit; `goals` holds the most that it is meant to be, for a ratio the least, and
        `met` whether it is.
        """
        both: tuple[Figure | Ratio, ...] = (*self.all_figures, *self.ratios)
        judged = [one for one in both if one.goal is not None]
        return {
            "title": self.title,
            "settings": dict(self.settings),
            "figures": {figure.name: figure.value for figure in self.all_figures},
            "ratios": {ratio.name: ratio.value for ratio in self.ratios},
            "spread": {
                figure.name: {
                    "lowest": min(figure.samples),
                    "highest": max(figure.samples),
                    "samples": len(figure.samples),
                }
                for figure in self.all_figures
            },
            "goals": {one.name: one.goal for one in judged},
            "met": {one.name: one.met for one in judged},
            "notes": list(self.notes),
            "machine": dict(self.machine),
        }

    def table(self) -> str:
        """The bench as a person reads it."""
        figures = Table(title=self.title, title_justify="left", caption_justify="left")
        for heading in ("figure", "median", "lowest", "highest", "samples", "goal", "met"):
            figures.add_column(heading, justify="left" if heading == "figure" else "right")
        for figure in self.figures:
            bound = "≥" if figure.more_is_better else "≤"
            goal = "" if figure.goal is None else f"{bound} {_with_unit(figure.goal, figure.unit)}"
            values = (figure.value, min(figure.samples), max(figure.samples))
            shown = [_with_unit(value, figure.unit) for value in values]
            figures.add_row(figure.what, *shown, str(len(figure.samples)), goal, _MET[figure.met])
        ratios = Table(title="peer ÷ Hansa", title_justify="left")
        for heading in ("ratio", "", "goal", "met"):
            ratios.add_column(heading, justify="left" if heading == "ratio" else "right")
        for ratio in self.ratios:
            goal = "" if ratio.goal is None else f"≥ {_shown(ratio.goal)} ×"
            ratios.add_row(ratio.what, f"{_shown(ratio.value)} ×", goal, _MET[ratio.met])
        page = io.StringIO()
        console = Console(file=page, width=_TABLE_WIDTH, color_system=None, legacy_windows=False)
        for table in (figures, *([ratios] if self.ratios else []), *(grid.table() for grid in self.grids)):
            console.print(table)
        for line in (*self.notes, ", ".join(f"{key} {value}" for key, value in self.machine.items())):
            console.print(line, highlight=False, markup=False)
        return "\n".join(line.rstrip() for line in page.getvalue().splitlines()).rstrip()


def describe_machine() -> dict[str, int | str]:
    """Cores that this process may use, the processor, and the versions that matter."""
    facts: dict[str, int | str] = {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "processor": platform.machine(),
        "system": platform.system(),
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            continue  # an extra that this bench does not need
    return facts


def _with_unit(value: float, unit: str) -> str:
    """A value and its unit; many bytes as MB and GB of powers of ten."""
    if unit == "bytes" and value >= 1e6:
        return f"{_shown(value / 1e9)} GB" if value >= 1e9 else f"{_shown(value / 1e6)} MB"
    return f"{_shown(value)} {'µs' if unit == 'us' else unit}"


def _shown(value: float) -> str:
    """Three significant digits, without an exponent where it is readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:.3g}"
