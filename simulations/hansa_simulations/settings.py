"""How a simulation is run, whom it tells about it, and how long its parts take."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hansa.errors import BudgetRefusedError
from hansa_client.data import Dataset
from hansa_server.publication.compress import PublicCorpus


class Progress:
    """What a simulation tells while it works; this one is silent. Subclass it to show something."""

    def part(self, name: str) -> None:
        """A part of the work begins."""

    def steps(self, done: int, total: int) -> None:
        """Steps of the current part."""

    def refused(self, member: str, why: BudgetRefusedError) -> None:
        """A member has refused for lack of budget."""


@dataclass(frozen=True)
class OverrideAsked:
    """A person's word about a condition of the gate that may turn out inconclusive; the coordinator signs it.

    Attributes:
        condition: as the gate names it.
        name, role, reason: of the person.
    """

    condition: str
    name: str
    role: str
    reason: str


@dataclass(frozen=True)
class Settings:
    """How a simulation is run; nothing here changes the terms.

    Attributes:
        engine: ``local`` or ``ray``.
        seed: of the split, of public sampling in runs without privacy, and of nothing that privacy rests on.
        home: folder in which members keep their state between runs.
        attack: whether the trainer is attacked once the run is done.
        ledgers: folder for the logs of the run, as an auditor gets them; `None` keeps none.
        published: folder of the run's output, for a package or a refusal where the agreement asks for a publication;
            `None` ends with the gate.
        overrides: of conditions that turn out inconclusive.
        corpus: public texts, for steps of compression that read texts.
        concluding: whether anything follows training at all.
        later: records by member on which a published model is evaluated once more, as after some time in use.
        progress: told what is done.
        stop: once it is set, the run ends after the round in hand and reports what was done.
    """

    engine: str = "local"
    seed: int = 0
    home: Path | None = None
    ledgers: Path | None = None
    attack: bool = False
    published: Path | None = None
    overrides: tuple[OverrideAsked, ...] = ()
    corpus: PublicCorpus | None = None
    concluding: bool = True
    later: Mapping[str, Dataset] | None = None
    progress: Progress = field(default_factory=Progress)
    stop: threading.Event = field(default_factory=threading.Event)


class Clock:
    """Seconds by part of the work."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._started = time.monotonic()
        self.seconds: dict[str, float] = {}

    def total(self) -> float:
        """Since the clock was made."""
        return time.monotonic() - self._started

    @contextmanager
    def part(self, name: str, *, told: bool = True) -> Iterator[None]:
        """Measure a part of the work, and say that it begins."""
        if told:
            self._progress.part(name)
        started = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.monotonic() - started
