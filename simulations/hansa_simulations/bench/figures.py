"""Figures, ratios and the table in which every bench shows them."""

from __future__ import annotations

import io
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from rich.console import Console
from rich.table import Table

RATE = "per_s"  # the one unit of which more is better
UNITS = ("s", "ms", "bytes", "mib", "epsilon", "accuracy", "count", RATE)
_TABLE_WIDTH = 110
_PACKAGES = ("hansa", "numpy", "flwr", "ray", "torch", "opacus")


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, several times if it can be.

    Attributes:
        name: ends in its unit, or in its unit ``_per_`` something: ``ray_start_s``, ``local_ms_per_client``; a rate
            ends in ``_per_s``.
        what: the name in words.
        samples: every value that was measured; `value` is their median.
        goal: the most that `value` is meant to be, or the least for a rate, if there is such a goal.

    Raises:
        ValueError: no samples, or a name that does not say its unit.
    """

    name: str
    what: str
    samples: tuple[float, ...]
    goal: float | None = None

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
        return self.name.partition("_per_")[0].rpartition("_")[2]

    @property
    def value(self) -> float:
        """The median of the samples."""
        return statistics.median(self.samples)


@dataclass(frozen=True)
class Ratio:
    """How many times a peer's figure is Hansa's: above 1, Hansa needs less.

    Raises:
        ValueError: the two are measured in different units, or Hansa's is not above 0.
    """

    name: str
    what: str
    peer: Figure
    ours: Figure

    def __post_init__(self) -> None:
        if self.peer.unit != self.ours.unit:
            raise ValueError(f"{self.peer.name} and {self.ours.name} cannot be compared")
        if not self.ours.value > 0:
            raise ValueError(f"{self.ours.name} is {self.ours.value:g} and divides nothing")

    @property
    def value(self) -> float:
        """The peer's median divided by Hansa's."""
        return self.peer.value / self.ours.value


@dataclass(frozen=True)
class Bench:
    """What one bench measured.

    Attributes:
        title: one line.
        settings: what it was asked to do.
        figures, ratios: in the order in which they are shown.
        notes: what a reader must know to read them rightly.
        machine: where it was measured.
    """

    title: str
    settings: Mapping[str, int | float | str]
    figures: Sequence[Figure]
    ratios: Sequence[Ratio]
    notes: Sequence[str]
    machine: Mapping[str, int | str]

    def data(self) -> dict[str, object]:
        """The bench as JSON values: `figures` and `ratios` by name, and what stands behind them."""
        return {
            "title": self.title,
            "settings": dict(self.settings),
            "figures": {figure.name: figure.value for figure in self.figures},
            "ratios": {ratio.name: ratio.value for ratio in self.ratios},
            "spread": {
                figure.name: {
                    "lowest": min(figure.samples),
                    "highest": max(figure.samples),
                    "samples": len(figure.samples),
                }
                for figure in self.figures
            },
            "goals": {figure.name: figure.goal for figure in self.figures if figure.goal is not None},
            "notes": list(self.notes),
            "machine": dict(self.machine),
        }

    def table(self) -> str:
        """The bench as a person reads it."""
        figures = Table(title=self.title, title_justify="left", caption_justify="left")
        for heading in ("figure", "median", "lowest", "highest", "samples", "goal"):
            figures.add_column(heading, justify="left" if heading == "figure" else "right")
        for figure in self.figures:
            bound = "≥" if figure.unit == RATE else "≤"
            goal = "" if figure.goal is None else f"{bound} {_shown(figure.goal)} {figure.unit}"
            values = (figure.value, min(figure.samples), max(figure.samples))
            shown = [f"{_shown(value)} {figure.unit}" for value in values]
            figures.add_row(figure.what, *shown, str(len(figure.samples)), goal)
        ratios = Table(title="peer ÷ Hansa", title_justify="left")
        ratios.add_column("ratio")
        ratios.add_column("", justify="right")
        for ratio in self.ratios:
            ratios.add_row(ratio.what, f"{_shown(ratio.value)} ×")
        page = io.StringIO()
        console = Console(file=page, width=_TABLE_WIDTH, color_system=None, legacy_windows=False)
        console.print(figures)
        if self.ratios:
            console.print(ratios)
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


def _shown(value: float) -> str:
    """Three significant digits, without an exponent where it is readable."""
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
        return f"{value:,.{digits}f}"
    return f"{value:.3g}"
