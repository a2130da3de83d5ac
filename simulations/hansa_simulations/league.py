"""The members of a simulated federation, ready to answer requests in whatever process needs them."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from hansa.agreement import Agreement
from hansa.errors import ModelError
from hansa.models import BuiltModel, build_model
from hansa.privacy.budget import InMemoryBudgetBook
from hansa.privacy.randomness import PublicSampling, Randomness, SecretRandomness
from hansa.wire import Message
from hansa_client.data import Dataset
from hansa_client.flower_node import AnswersRequests
from hansa_client.node import Node, budget_book
from hansa_client.state import FileStore, MemoryStore, StateStore
from hansa_client.training import Trainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine


class League(Protocol):
    """Makes the node of a member, once per process; can be sent to another process."""

    def node(self, name: str) -> AnswersRequests:
        """The node of a member."""


class TrainingLeague:
    """Members that train on their datasets, sharing one model in each process.

    Args:
        agreement: frozen.
        datasets: training records by member.
        seed: of the public sampling in runs that claim no privacy; where privacy is claimed nothing is drawn
            from it.
        home: folder in which members keep their state; `None` keeps it in memory, for one process only.
        timings: folder for how long members were busy; `None` keeps it in memory.
        engine: for the model, if this process has built it already.

    Raises:
        ModelError: the model that a process built is not the one that the agreement was frozen with.
    """

    def __init__(
        self,
        agreement: Agreement,
        datasets: Mapping[str, Dataset],
        seed: int,
        home: Path | None = None,
        timings: Path | None = None,
        engine: GradientEngine | None = None,
    ) -> None:
        self.agreement = agreement
        self._datasets = dict(datasets)
        self._seed = seed
        self._home = home
        self._timings = timings
        self._engine = engine
        self._nodes: dict[str, _Timed] = {}

    def __getstate__(self) -> dict[str, Any]:
        # a model and its hooks belong to one process; the other builds its own, to the same bytes
        return {**self.__dict__, "_engine": None, "_nodes": {}}

    def node(self, name: str) -> AnswersRequests:
        """The node of a member, built at the first call."""
        if name not in self._nodes:
            plan = TrainingPlan.of(self.agreement, name)
            trainer = Trainer(self._gradients(), self._datasets[name], plan)
            node = Node(
                self.agreement, name, trainer, plan.spend(), self._store(name), self._randomness(name)
            )
            self._nodes[name] = _Timed(node, None if self._timings is None else self._timings / name)
        return self._nodes[name]

    def book(self, name: str) -> InMemoryBudgetBook | None:
        """What a member has spent, as the member itself keeps it; `None` where no privacy is claimed."""
        spend = TrainingPlan.of(self.agreement, name).spend()
        if spend is None:
            return None
        state = self._nodes[name].node.state() if self._home is None else self._store(name).load()
        return budget_book(self.agreement.terms.privacy, state)

    def train_seconds(self) -> Mapping[str, float]:
        """Seconds that each member has been busy, as the simulator that hosts it sees it."""
        if self._timings is None:
            return {name: timed.seconds for name, timed in self._nodes.items()}
        return {name: _seconds_in(self._timings / name) for name in self._datasets}

    def _gradients(self) -> GradientEngine:
        if self._engine is None:
            terms, device = self.agreement.terms, self.agreement.performance.device
            self._engine = GradientEngine(build_model(terms, folder=self.agreement.folder, device=device))
            self._check(self._engine.built)
        return self._engine

    def _check(self, built: BuiltModel) -> None:
        agreed = self.agreement.require_frozen().model
        if (built.frozen_sha256, built.tokenizer_sha256) != (agreed.frozen_sha256, agreed.tokenizer_sha256):
            raise ModelError(
                "the model built here is not the one that the agreement was frozen with",
                remedy="Use the same model files and releases in all processes.",
            )

    def _store(self, name: str) -> StateStore:
        if self._home is None:
            return MemoryStore()
        self._home.mkdir(parents=True, exist_ok=True)
        return FileStore(self._home / f"{name}.json")

    def _randomness(self, name: str) -> _Source:
        return _Source(None if self.agreement.terms.private else (self._seed, name))


class _Source:
    """Fresh randomness for a round: secret where privacy is claimed, reproducible where it is not."""

    def __init__(self, public: tuple[int, str] | None) -> None:
        self._public = public

    def __call__(self, _run: str, number: int) -> Randomness:
        return SecretRandomness() if self._public is None else PublicSampling(*self._public, number)


class _Timed:
    """A node and a stopwatch. The stopwatch is the simulator's: it stands outside the member's door.

    Args:
        node: the member.
        path: where the seconds are kept when the member may be answered for by several processes.
    """

    def __init__(self, node: Node, path: Path | None) -> None:
        self.node = node
        self.seconds = 0.0
        self._path = path

    def handle(self, request: Message) -> Message:
        started = time.monotonic()
        try:
            return self.node.handle(request)
        finally:
            if request.kind == "train":
                busy = time.monotonic() - started
                self.seconds += busy
                if self._path is not None:
                    self._path.write_text(repr(_seconds_in(self._path) + busy))


def _seconds_in(path: Path) -> float:
    return float(path.read_text()) if path.exists() else 0.0
