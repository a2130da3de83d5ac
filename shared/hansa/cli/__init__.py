"""The command line: a static table of sub-commands, each imported only when it is called.

`main` is the entry point behind the script ``hansa``. `hansa.cli.output` holds the one JSON envelope and the
exit statuses; the other modules hold one command or one group of commands each, as Typer functions.
"""

from hansa.cli.app import main

__all__ = ["main"]
