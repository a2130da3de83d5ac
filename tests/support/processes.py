"""A real league in tests: enrolled by the commands that people run, in this process, and run as processes of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from hansa_simulations.processes.league import TRAINS_NOTHING, Commands, ProcessLeague, terms
from support.cli import hansa


@contextmanager
def real_league(
    folder: Path, names: Sequence[str], rounds: int, *, node: str = TRAINS_NOTHING, deadline_s: float = 120.0
) -> Iterator[ProcessLeague]:
    """An enrolled league, none of whose processes runs yet; all of them are ended with the context."""
    agreed = terms(names, rounds, deadline_s=deadline_s)
    made = ProcessLeague(folder, tuple(names), agreed, does=in_this_process, node=node)
    made.enrol()
    try:
        yield made
    finally:
        made.end()


def in_this_process(commands: Commands) -> None:
    """Give commands to `hansa`; each has to succeed."""
    for command in commands:
        called = hansa(*command)
        assert called.status == 0, (command, called)
