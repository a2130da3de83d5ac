"""How a private step's time grows with the batch, the length of texts and the number of trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hansa_client.training.gradients import GradientEngine
from hansa_simulations.bench.drawing import COLOURS, LINE, QUIET, drawing
from hansa_simulations.bench.figures import Bench, Figure, Grid
from hansa_simulations.bench.sampling import alternating
from hansa_simulations.bench.training_models import Shape, bert, dataset
from hansa_simulations.bench.training_ratios import over
from hansa_simulations.bench.training_steps import dp_round, plain_round

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hansa.models import BuiltModel

BATCHES = (8, 16, 32, 64)
LENGTHS = (16, 32, 64, 128)
STEPS = 2  # in the round of one sample


def training_grids(
    shape: Shape, batches: Sequence[int], lengths: Sequence[int], repeats: int
) -> tuple[Grid, Grid, Grid, Grid]:
    """Milliseconds of a step on the CPU and multiples of plain training's, by batch and length, then by trained weights.

    Args:
        shape: of the model; its batch and length stand where they do not vary.
        batches, lengths: full fine-tuning with each pair of them.
        repeats: samples.

    Returns:
        Full fine-tuning by batch and length: time, multiple; then with the head alone, with more and more of the
        upper layers, and with all weights: time, multiple.
    """
    times: dict[tuple[int, int], Figure] = {}
    multiples: dict[tuple[int, int], Figure] = {}
    engine, plain = GradientEngine(bert(shape)), bert(shape)
    for batch in batches:
        for length in lengths:
            name, what = f"b{batch}_l{length}", f"full, batch {batch}, length {length}"
            sized = replace(shape, batch=batch, length=length)
            times[batch, length], multiples[batch, length] = _measured(
                engine, plain, sized, repeats, name, what
            )
    by_weights: dict[tuple[int, int], Figure] = {}
    by_weights_multiples: dict[tuple[int, int], Figure] = {}
    for layers in (*range(shape.layers + 1), None):
        engine = GradientEngine(bert(shape, upper_layers=layers))
        weights = engine.built.flat.size
        key, what = (shape.batch, weights), f"{weights:,} trained weights"
        by_weights[key], by_weights_multiples[key] = _measured(
            engine, bert(shape, upper_layers=layers), shape, repeats, f"w{weights}", what
        )
    sizes, weighed = "batch \\ length", "batch \\ trained weights"
    return (
        Grid("Hansa's step, full fine-tuning on the CPU, ms", sizes, times),
        Grid("the same ÷ plain training's step", sizes, multiples),
        Grid(f"Hansa's step by trained weights, length {shape.length}, ms", weighed, by_weights),
        Grid("the same ÷ plain training's step with the same weights", weighed, by_weights_multiples),
    )


def _measured(
    engine: GradientEngine, plain: BuiltModel, shape: Shape, repeats: int, name: str, what: str
) -> tuple[Figure, Figure]:
    data = dataset(shape.batch, shape.length, shape.words)
    beside, ours = alternating(repeats, plain_round(plain, data, STEPS), dp_round(engine, data, STEPS))
    return (
        Figure(f"growth_{name}_ms", f"Hansa's step, {what}", tuple(ms / STEPS for ms in ours)),
        over(f"growth_dp_over_plain_{name}", f"Hansa ÷ plain, {what}", ours, beside),
    )


def plot_training_growth(bench: Bench, path: Path) -> None:
    """Draw the growth of a bench: a step's time over the batch, over the length, and over the trained weights.

    Args:
        bench: whose grids are those of `training_grids`.
        path: ends in one of `PLOT_SUFFIXES`.

    Raises:
        OSError: the file cannot be written.
    """
    from matplotlib.figure import Figure as Plot
    from matplotlib.ticker import LogLocator

    times, multiples, by_weights, by_weights_multiples = (grid.cells for grid in bench.grids)
    with drawing():
        plot = Plot(figsize=(11.5, 3.6), layout="constrained", dpi=160)
        batch, length, weights = plot.subplots(1, 3)
        _lines(batch, {(length, batch): cell for (batch, length), cell in times.items()}, "length")
        _lines(length, times, "batch")
        spent = [cell.value for cell in by_weights.values()]
        plain = [
            ms / multiple.value for ms, multiple in zip(spent, by_weights_multiples.values(), strict=True)
        ]
        trained = [count for _, count in by_weights]
        weights.plot(trained, spent, color=COLOURS[3], marker="o", markersize=4.5, label="Hansa")
        weights.plot(
            trained, plain, color=QUIET, marker="o", markersize=3, linestyle=(0, (4, 3)), label="plain"
        )
        for axes, title, label in (
            (batch, "Hansa's step by batch, ms", "records in a batch"),
            (length, "Hansa's step by length, ms", "tokens in a record"),
            (weights, "A step by trained weights, ms", "trained weights"),
        ):
            axes.set_title(title, loc="left")
            axes.set(xscale="log", xlabel=label)
            axes.grid(visible=True, color=LINE, linewidth=0.6)
            axes.set_axisbelow(True)
            axes.legend(frameon=False, loc="upper left")
        for axes, cells in ((batch, [b for b, _ in multiples]), (length, [n for _, n in multiples])):
            axes.set(yscale="log")
            axes.set_xticks(sorted(set(cells)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.minorticks_off()
        weights.set_ylim(bottom=0)
        plot.savefig(path)


def _lines(axes: Axes, cells: Mapping[tuple[int, int], Figure], of: str) -> None:
    """A line for each row of cells over their columns."""
    for row, colour in zip(sorted({row for row, _ in cells}), cycle(COLOURS)):
        line = sorted((column, cell.value) for (r, column), cell in cells.items() if r == row)
        style: dict[str, Any] = {"color": colour, "marker": "o", "markersize": 4.5, "linewidth": 1.6}
        axes.plot([size for size, _ in line], [ms for _, ms in line], **style, label=f"{of} {row}")
