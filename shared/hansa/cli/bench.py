"""`hansa bench …`: what Hansa costs, beside what a user would pick instead."""

from __future__ import annotations

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
