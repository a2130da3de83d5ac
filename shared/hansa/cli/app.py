"""The entry point: the table of commands as a Click group whose members load themselves when called."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NoReturn

import click

from hansa.cli.commands import COMMANDS, Row, Table
from hansa.cli.output import needed_extra, reported, requested_format
from hansa.errors import ExitStatus


class LazyCommand(click.Command):
    """A row of the table; the Typer function behind it is imported when a command line is parsed for it."""

    def __init__(self, name: str, row: Row) -> None:
        super().__init__(name, help=row.help, short_help=row.help)
        self.row = row

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the real command, which Click then invokes in this one's place."""
        needed_extra.set(self.row.extra)
        return load(self.name or "", self.row).make_context(info_name, args, parent=parent, **extra)


def load(name: str, row: Row) -> click.Command:
    """Import a row's module and make its Typer function a command."""
    function = getattr(import_module(row.module), row.function)
    import typer  # listing help needs Click alone
    import typer.core
    from typer.main import get_command

    # Markup "rich" would import rich to draw help pages; plain ones show the same and start faster. Where rich is
    # installed Typer also escapes brackets for it, whatever the markup, so that plain pages would show `\\[required]`.
    typer.core.HAS_RICH = False
    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command(name, short_help=row.help)(function)
    return get_command(app)


def group(name: str, text: str, table: Mapping[str, Row | Table], **settings: Any) -> click.Group:
    """A Click group from a table, without importing any command."""
    commands: dict[str, click.Command] = {}
    for key, entry in table.items():
        commands[key] = (
            LazyCommand(key, entry) if isinstance(entry, Row) else group(key, entry.help, entry.rows)
        )
    return click.Group(name, commands, help=text, short_help=text, **settings)


def _print_version(context: click.Context, _parameter: click.Parameter, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        from importlib.metadata import version  # 30 ms that other commands need not wait

        click.echo(f"hansa {version('hansa')}")
        context.exit()


ROOT = group(
    "hansa",
    "Federated fine-tuning in which every member keeps its own walls.",
    COMMANDS,
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_print_version,
            help="Show the version and exit.",
        )
    ],
)


def run(arguments: Sequence[str]) -> int:
    """Run one command line.

    Raises:
        SystemExit: the command failed; its status is the exit status.
    """
    before = needed_extra.set(None)
    try:
        with reported(requested_format(arguments)):
            result = ROOT.main(list(arguments), prog_name="hansa", standalone_mode=False)
            return result if isinstance(result, int) else ExitStatus.DONE
    finally:
        needed_extra.reset(before)


def main() -> NoReturn:
    """The script ``hansa``."""
    # Looking for plugins makes pydantic read the metadata of every installed distribution: 40 ms at each start,
    # and code of others inside the checks of an agreement. Hansa uses none.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # OpenMP threads that wait by spinning take the processor from whatever else runs: a training of small models
    # beside one busy process was measured 5 times slower than with threads that sleep. Read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # gRPC's C core writes lines of its own to stderr where a port is taken or a certificate refused; Hansa says it itself.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show ε shows \u03b5 instead of failing
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))
