"""What a command writes: text for people or one JSON envelope on stdout, errors with their exit status.

The envelope is ``{"schema_version": 1, "status": …, "data": …}`` or the same with ``"error"``. `status` is the
lower-case name of the exit status: ``done``, ``failed``, ``bad_input``, ``refused``, ``verification_failed`` or
``connection``. Progress, logs and errors for people go to stderr, so that stdout holds the result alone.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from enum import StrEnum
from typing import NoReturn

import click

from hansa.errors import (
    ExitStatus,
    HansaError,
    InterruptedRunError,
    MissingExtraError,
    UsageError,
)

ENVELOPE_SCHEMA_VERSION = 1

# The extra that the command being run needs, by the table of commands. Not kept in Click's context, which is
# gone by the time that an error reaches the outermost edge.
needed_extra: ContextVar[str | None] = ContextVar("needed_extra", default=None)

# Third-party modules that the base install lacks, and the smallest extra that brings each.
EXTRA_OF_MODULE: Mapping[str, str] = {
    "flwr": "client",
    "google": "follow",
    "grpc": "follow",
    "grpc_health": "server",
    "grpc_reflection": "server",
    "onnx": "server",
    "onnxruntime": "predict",
    "opacus": "client",
    "pandas": "client",
    "peft": "client",
    "prometheus_client": "metrics",
    "pyarrow": "client",
    "ray": "simulation",
    "safetensors": "client",
    "sklearn": "simulation",
    "tensorboard": "tracking",
    "tokenizers": "predict",
    "torch": "client",
    "transformers": "client",
}


class Format(StrEnum):
    """How a command answers on stdout."""

    TEXT = "text"
    JSON = "json"


def emit(
    data: Mapping[str, object],
    *,
    text: str,
    output_format: Format,
    status: ExitStatus = ExitStatus.DONE,
) -> None:
    """Write a command's result to stdout.

    Args:
        data: the result as JSON values, for the envelope.
        text: the result as a person reads it.
        output_format: which of the two is written.
        status: for the envelope; the caller exits with it.

    Raises:
        ValueError: `data` holds NaN or an infinity, which JSON cannot say.
    """
    if output_format is Format.JSON:
        _write_envelope(status, "data", data)
    else:
        click.echo(text)


@contextmanager
def reported(output_format: Format) -> Iterator[None]:
    """Turn whatever a command raises into a message and the right exit status.

    `HansaError` ends with its own status, Ctrl-C as an interrupted run, a usage error with status 2, a missing
    third-party package by naming the extra to install. Anything else is a bug: one line, status 1, and the
    traceback only where ``HANSA_DEBUG=1``.

    Raises:
        SystemExit: with the status, after the message is written.
    """
    try:
        yield
    except HansaError as error:
        _fail(error, output_format)
    except click.exceptions.Exit:
        raise
    except (KeyboardInterrupt, click.Abort):
        _fail(InterruptedRunError("stopped by the user", remedy=""), output_format)
    except click.ClickException as error:
        _fail_usage(error, output_format)
    except BrokenPipeError:
        # The reader of stdout has left (`hansa … | head`); Python would complain once more when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(ExitStatus.FAILED) from None
    except Exception as error:  # noqa: BLE001  # the outermost edge: what is not told by now is a bug, told as one
        _fail(_missing_extra(error) or _unexpected(error), output_format)


def requested_format(arguments: Sequence[str]) -> Format:
    """The ``--format`` of a command line that may be too broken to parse."""
    for position, argument in enumerate(arguments):
        if argument == "--":
            break
        value = argument.removeprefix("--format=")
        if argument == "--format" and position + 1 < len(arguments):
            value = arguments[position + 1]
        elif value == argument:
            continue
        return Format.JSON if value == Format.JSON else Format.TEXT
    return Format.TEXT


def _write_envelope(status: ExitStatus, member: str, value: Mapping[str, object]) -> None:
    envelope = {"schema_version": ENVELOPE_SCHEMA_VERSION, "status": status.name.lower(), member: value}
    click.echo(json.dumps(envelope, indent=2, allow_nan=False))


def _fail(error: HansaError, output_format: Format) -> NoReturn:
    if output_format is Format.JSON:
        _write_envelope(error.exit_status, "error", error.as_dict())
    else:
        click.echo(error.diagnostics(), err=True)
    raise SystemExit(error.exit_status)


def _fail_usage(error: click.ClickException, output_format: Format) -> NoReturn:
    if output_format is Format.JSON:
        context = getattr(error, "ctx", None)
        remedy = f"See `{context.command_path} --help`." if context is not None else "See `hansa --help`."
        _fail(UsageError(error.format_message(), remedy=remedy), output_format)
    error.show()
    raise SystemExit(ExitStatus.BAD_INPUT)


def _missing_extra(error: Exception) -> MissingExtraError | None:
    """The error for a package that is not installed, or `None` if that is not what happened."""
    if not isinstance(error, ModuleNotFoundError) or error.name is None:
        return None
    module = error.name.partition(".")[0]
    if module not in EXTRA_OF_MODULE:
        return None
    extra = needed_extra.get() or EXTRA_OF_MODULE[module]
    return MissingExtraError(
        f"this command needs {module}, which is not installed",
        remedy=f"Install it with: pip install 'hansa[{extra}]'",
    )


def _unexpected(error: Exception) -> HansaError:
    if os.environ.get("HANSA_DEBUG") == "1":
        traceback.print_exception(error, file=sys.stderr)
    return HansaError(
        f"unexpected {type(error).__name__}: {error}",
        remedy="This is a bug in Hansa. Set HANSA_DEBUG=1 to see where it happened, and report it.",
    )
