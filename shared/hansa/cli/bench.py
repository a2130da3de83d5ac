"""`hansa bench …`: what Hansa costs, beside what a user would pick instead."""

from __future__ import annotations

import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import UsageError

if TYPE_CHECKING:
    from hansa_simulations.bench import Bench


class TrainingPart(StrEnum):
    """What `hansa bench training` measures."""

    CPU = "cpu"
    GPU = "gpu"
    MEMORY = "memory"
    KEPT = "kept"
    NOISE = "noise"
    GROWTH = "growth"


def engine(
    clients: Annotated[
        int, typer.Option("--clients", min=3, max=100, help="Members of the federation.")
    ] = 64,
    floats: Annotated[
        int, typer.Option("--floats", min=1, max=100_000_000, help="Length of the model's vector.")
    ] = 100_000,
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=1, max=1000, help="Rounds that are measured, after one that is not."),
    ] = 10,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Time per client of the local engine and of Flower's own Ray runtime, with clients that do nothing."""
    with reported(output_format):
        from hansa_simulations.bench import measure_engines

        bench = measure_engines(clients, floats, rounds)
        emit(bench.data(), text=bench.table(), output_format=output_format)


def secagg(
    peer: Annotated[
        bool, typer.Option("--peer/--no-peer", help="Also run Flower's SecAgg+, about half a minute.")
    ] = True,
    large: Annotated[
        bool,
        typer.Option(
            "--large/--no-large", help="Also mask 100 million entries: 1.3 GB of memory, 0.4 of disk."
        ),
    ] = True,
    growth: Annotated[
        bool,
        typer.Option("--growth/--no-growth", help="Also measure 3 to 100 members, 10^4 to 10^7 entries."),
    ] = True,
    processes: Annotated[
        int,
        typer.Option("--processes", min=1, max=64, help="For the large vector and the coordinator's round."),
    ] = 2,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=1000, help="Samples of each short figure.")
    ] = 5,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the growth as .png, .svg or .pdf.")
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Time and bytes of the secure sum, of a member and of the coordinator, beside Flower's SecAgg+."""
    with reported(output_format):
        from hansa_simulations.bench import PLOT_SUFFIXES, measure_secagg, plot_growth

        _refuse_plot(plot, PLOT_SUFFIXES, growth=growth)
        bench = measure_secagg(
            peer=peer, large=large, growth=growth, processes=processes, repeats=repeats, progress=_tell
        )
        _emit(bench, plot_growth, plot, output_format)


def _refuse_plot(plot: Path | None, suffixes: tuple[str, ...], *, growth: bool) -> None:
    """Tell before a minute of measuring what could not be drawn after it."""
    if plot is None:
        return
    if not growth:
        raise UsageError(
            "--plot draws the growth, which --no-growth or --only leaves out", remedy="Pass one of them."
        )
    if plot.suffix.lower() not in suffixes:
        raise UsageError(
            f"{plot} is no {', '.join(suffixes)} file", remedy="Name a file that ends in one of them."
        )
    if not plot.parent.is_dir():
        raise UsageError(f"there is no folder {plot.parent}", remedy="Make it first, or name another file.")


def _emit(
    bench: Bench, draw: Callable[[Bench, Path], None], plot: Path | None, output_format: Format
) -> None:
    """Tell what was measured, and draw its growth if that is wanted."""
    text = bench.table()
    if plot is not None:
        try:
            draw(bench, plot)
        except OSError as error:
            raise UsageError(f"cannot write {plot}: {error.strerror}", remedy="Name another file.") from None
        text += f"\nWrote {plot}."
    emit(bench.data(), text=text, output_format=output_format)


def _tell(what: str) -> None:
    """What is measured next, for a person who waits at a terminal."""
    if sys.stderr.isatty():
        typer.echo(f"measuring: {what}", err=True)


def ledger(
    entries: Annotated[
        int, typer.Option("--entries", min=100, max=10_000_000, help="Entries of the log that is verified.")
    ] = 1_000_000,
    processes: Annotated[
        int, typer.Option("--processes", min=1, max=64, help="Cores that verification may use.")
    ] = 2,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=100, help="Samples of each short figure.")
    ] = 5,
    signatures: Annotated[bool, typer.Option(help="Also sign every entry and verify all signatures.")] = True,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="On which disk to measure; by default that of temporary files."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Durable appends beside the disk's own fsync, proofs, and the verification of a whole log."""
    with reported(output_format):
        from hansa_simulations.bench.ledger import measure_ledger

        bench = measure_ledger(
            entries,
            processes=processes,
            repeats=repeats,
            signatures=signatures,
            folder=folder,
            progress=lambda what: typer.echo(what, err=True),
        )
        emit(bench.data(), text=bench.table(), output_format=output_format)


def pooled(
    steps: Annotated[
        int, typer.Option("--steps", min=1, max=10_000, help="Steps of a run that are measured.")
    ] = 10,
    repeats: Annotated[
        int,
        typer.Option(
            "--repeats",
            min=1,
            max=100,
            help="Runs of each kind: on disk side by side and in turn, in memory.",
        ),
    ] = 2,
    growth: Annotated[
        bool,
        typer.Option("--growth/--no-growth", help="Also measure 3 to 20 members, 10^4 to 10^6 weights."),
    ] = True,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="On which disk to measure; by default that of temporary files."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """A step of five members and 75,000 weights under shared noise, without its gradient: total and parts."""
    with reported(output_format):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"there is no folder {folder}", remedy="Make it first, or name another one.")
        from hansa_simulations.bench.pooled import measure_pooled

        bench = measure_pooled(steps=steps, repeats=repeats, growth=growth, folder=folder, progress=_tell)
        emit(bench.data(), text=bench.table(), output_format=output_format)


def training(
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=1000, help="Samples of each figure of time.")
    ] = 9,
    opacus: Annotated[
        bool, typer.Option("--opacus/--no-opacus", help="Also run Opacus' hooks; they need 10 GB of memory.")
    ] = True,
    memory: Annotated[
        bool, typer.Option("--memory/--no-memory", help="Also read peak memory with batches of 256.")
    ] = True,
    growth: Annotated[
        bool, typer.Option("--growth/--no-growth", help="Also vary batch, length and trained weights.")
    ] = True,
    only: Annotated[
        list[TrainingPart] | None, typer.Option("--only", help="Measure this part alone; may be repeated.")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="With tiny models, to see that it runs; the numbers mean nothing.")
    ] = False,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the growth as .png, .svg or .pdf.")
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Time and memory of private training as multiples of plain training's, beside Opacus' hooks."""
    with reported(output_format):
        from hansa_simulations.bench import PLOT_SUFFIXES, measure_training, plot_training_growth

        parts = tuple(only or TrainingPart)
        growth = growth and TrainingPart.GROWTH in parts
        _refuse_plot(plot, PLOT_SUFFIXES, growth=growth)
        bench = measure_training(
            repeats=repeats,
            opacus=opacus,
            memory=memory,
            growth=growth,
            only=parts,
            quick=quick,
            progress=_tell,
        )
        _emit(bench, plot_training_growth, plot, output_format)
