"""`hansa bench …`: what Hansa costs, beside what a user would pick instead."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported


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
