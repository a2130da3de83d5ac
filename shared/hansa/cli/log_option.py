"""The option of processes that run for long: how they write events."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated, TypeAlias

import typer

from hansa.observing.logs import VARIABLE, LogFormat, log_to

LogFormatOption: TypeAlias = Annotated[
    LogFormat,
    typer.Option(
        "--log-format",
        envvar=VARIABLE,
        help="How events are written to stderr: lines for people, or one JSON object each.",
    ),
]


def log_to_stderr(log_format: LogFormat) -> None:
    """Write this process's events to stderr; processes that it starts write theirs in the same format."""
    os.environ[VARIABLE] = log_format.value
    log_to(logging.StreamHandler(sys.stderr), log_format)
