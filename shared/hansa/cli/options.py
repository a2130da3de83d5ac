"""Options that several commands share, so that they are spelled and explained once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from hansa.cli.output import Format

FormatOption: TypeAlias = Annotated[
    Format, typer.Option("--format", help="How to answer on stdout: text for people, or one JSON envelope.")
]
ForceOption: TypeAlias = Annotated[bool, typer.Option("--force", help="Replace what is already there.")]
HomeOption: TypeAlias = Annotated[
    Path, typer.Option("--home", metavar="DIR", help="The folder that `hansa node init` made.")
]
AmendmentsOption: TypeAlias = Annotated[
    list[Path] | None,
    typer.Option(
        "--amendments", metavar="PATH", help="A file of an amendment, or a folder of them; repeat it."
    ),
]
TrackOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--track",
        metavar="WHERE",
        help="Also write the run's figures to tensorboard:DIR or mlflow:URL when it ends; repeat it.",
    ),
]
