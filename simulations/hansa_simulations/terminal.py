"""Progress of a simulation on a terminal, on stderr so that stdout holds the result alone."""

from __future__ import annotations

import logging
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import (
    Progress as Bars,
)

from hansa.errors import BudgetRefusedError
from hansa_simulations.settings import Progress


class TerminalProgress(Progress):
    """A line for each part of the work, with a bar where it has steps; silent where stderr is no terminal.

    Who refused, and why, is told at the end, terminal or not.
    """

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars = Bars(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._refusals: dict[str, None] = {}  # in order, each once

    def part(self, name: str) -> None:
        self._finish()
        self._task = self._bars.add_task(name, total=None)

    def steps(self, done: int, total: int) -> None:
        if self._task is not None:
            self._bars.update(self._task, completed=done, total=total)

    def refused(self, member: str, why: BudgetRefusedError) -> None:
        self._refusals[f"{member} refuses: {why.diagnostics()}"] = None

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._task]
            total = task.total or 1
            self._bars.update(self._task, completed=total, total=total)

    def __enter__(self) -> Self:
        logger = logging.getLogger("hansa")
        self._level = logger.level
        logger.setLevel(logging.ERROR)  # what members log is theirs; errors of a run are told
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()
        for line in self._refusals:
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
        logging.getLogger("hansa").setLevel(self._level)
