"""`hansa bench league|chaos`: leagues of real processes on this machine, timed and killed."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import UsageError

FolderOption: TypeAlias = Annotated[
    Path | None,
    typer.Option("--folder", help="On which disk to measure; by default that of temporary files."),
]


class Size(StrEnum):
    """About how many weights a model has."""

    TINY = "10k"
    SMALL = "100k"
    LARGE = "10m"
    LARGER = "25m"
    LARGEST = "100m"


def league(
    size: Annotated[
        list[Size] | None,
        typer.Option("--size", help="Weights of the models whose rounds are timed; may be repeated."),
    ] = None,
    memory: Annotated[
        Size | None, typer.Option("--memory", help="Weights of the model whose peak memory is read.")
    ] = None,
    rounds: Annotated[
        int, typer.Option("--rounds", min=2, max=1000, help="Of a run that is timed; the first is left out.")
    ] = 4,
    recovery: Annotated[
        bool, typer.Option("--recovery/--no-recovery", help="Also kill a coordinator, and time its return.")
    ] = True,
    soak: Annotated[
        int,
        typer.Option(
            "--soak", min=0, max=100_000, help="Also follow memory, threads and files over so many rounds."
        ),
    ] = 0,
    folder: FolderOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Rounds of five nodes over TLS beside exchanges that do nothing; recovery; memory, which takes --memory.

    Without --size models of 100k and of 10m weights are timed. The memory of 100m weights needs 24 GB for the members.
    """
    with reported(output_format):
        _require(folder)
        from hansa_simulations.bench.league import measure_league

        bench = measure_league(
            sizes=[one.value for one in size or (Size.SMALL, Size.LARGE)],
            memory=None if memory is None else memory.value,
            recovery=recovery,
            soak_rounds=soak,
            rounds=rounds,
            folder=folder,
            progress=_tell,
        )
        emit(bench.data(), text=bench.table(), output_format=output_format)


def chaos(
    kills: Annotated[
        int,
        typer.Option("--kills", min=1, max=100_000, help="Of members, the run's process and the SuperLink."),
    ] = 200,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**31, help="Of who is killed when.")] = 0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, max=1000, help="Of each run.")] = 40,
    folder: FolderOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Kill processes of a league at random instants, see each run to its end, and judge what they left.

    Status 1 where a member was charged twice, a log lacks something, or a model is not the replay of its run's journal.
    """
    with reported(output_format):
        _require(folder)
        from hansa_simulations.bench.chaos import measure_chaos

        bench = measure_chaos(kills, seed=seed, rounds=rounds, folder=folder, progress=_always)
        emit(bench.data(), text=bench.table(), output_format=output_format)


def _require(folder: Path | None) -> None:
    if folder is not None and not folder.is_dir():
        raise UsageError(f"there is no folder {folder}", remedy="Make it first, or name another one.")


def _tell(what: str) -> None:
    if sys.stderr.isatty():
        typer.echo(f"measuring: {what}", err=True)


def _always(what: str) -> None:
    """A line for each kill: it takes hours, and whoever looks for a fault wants to know when."""
    typer.echo(what, err=True)
