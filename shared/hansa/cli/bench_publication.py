"""`hansa bench publication`: what the file that ships is worth beside the model that it was made from."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported


def publication(
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="DIR", help="Where medquad_xml.tar.gz and medical_tc_test.csv are."),
    ] = None,
    records: Annotated[
        int,
        typer.Option(
            "--records", min=32, max=20_000, help="Answers to train the head on, and as many to test."
        ),
    ] = 1000,
    student_steps: Annotated[
        int,
        typer.Option(
            "--student-steps", min=0, max=100_000, help="Of distillation; 0 leaves the student out."
        ),
    ] = 900,
    repeats: Annotated[
        int, typer.Option("--repeats", min=1, max=1000, help="Samples of each figure of time.")
    ] = 9,
    quick: Annotated[
        bool, typer.Option("--quick", help="With a tiny model and generated notes; the numbers mean nothing.")
    ] = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Size, latency on one thread and accuracy of int8 ONNX and of a student, beside float32 PyTorch."""
    with reported(output_format):
        from hansa_simulations.bench.publication import measure_publication

        def tell(what: str) -> None:
            if sys.stderr.isatty():
                typer.echo(f"measuring: {what}", err=True)

        bench = measure_publication(
            data, records=records, student_steps=student_steps, repeats=repeats, quick=quick, progress=tell
        )
        emit(bench.data(), text=bench.table(), output_format=output_format)
