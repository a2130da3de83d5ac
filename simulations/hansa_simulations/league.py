"""The members of a simulated federation, ready to answer requests in whatever process needs them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.errors import ModelError, UsageError
from hansa.ledger import LogView, SqliteLogStore, VerifierKey
from hansa.models import BuiltModel, build_model
from hansa.privacy.charges import EVALUATION, Charge
from hansa.privacy.events import Spend
from hansa.privacy.loss import PrivacyLoss
from hansa.privacy.randomness import PublicSampling, Randomness, SecretRandomness
from hansa.privacy.rotation import Rotation
from hansa.protocol import Aggregate, Derivation
from hansa.secagg import FolderStore, Seal
from hansa.secagg import MemoryStore as MemoryBytes
from hansa.secagg.store import Store
from hansa.server_step import ServerState
from hansa.wire import Message
from hansa_client.attack import Attack
from hansa_client.data import Dataset
from hansa_client.evaluation.judging import FileEvaluation, Files
from hansa_client.flower_node import AnswersRequests
from hansa_client.node import GridVector, LocalTraining, Node
from hansa_client.records import NoRecords, Records
from hansa_client.summing import SumIdentity
from hansa_client.training import TrainerFactory, TrainingPlan, engine_for
from hansa_client.training.gradients import GradientEngine
from hansa_simulations.baseline import BaselineNode
from hansa_simulations.baseline import budget_book as baseline_book
from hansa_simulations.baseline.state import FileStore, MemoryStore, StateStore
from hansa_simulations.identities import Identities
from hansa_simulations.ledgers import (
    LEDGER_FILE,
    MemberStores,
    book_of,
    granted_in,
    ledger_in,
    records_in,
    stores_in,
)

Vector: TypeAlias = npt.NDArray[np.float64]


class League(Protocol):
    """Makes the node of a member, once per process; can be sent to another process."""

    def node(self, name: str) -> AnswersRequests:
        """The node of a member."""


@dataclass(frozen=True, repr=False)
class Sums:
    """With what simulated members take part in secure sums.

    Attributes:
        identities: of all of them.
        start: float64 [d], model 0.
        run: the run's name, for the files that belong to it alone.
        federation_log: public key of the federation's log, as text.
        roaming: whether any process may answer for any member, so that everything between two requests lies in
            files; otherwise a member stays in one process and its memory.
    """

    identities: Identities
    start: Vector
    run: str
    federation_log: str
    roaming: bool = False


@dataclass(frozen=True)
class MemberBudget:
    """What a member has spent, as it keeps it itself.

    Attributes:
        spends: everything that counts as spent, against everyone.
        limit: the most that may ever be.
        shared: the same against at most `coalition` other members, where noise is shared; as many events, in the same order.
        coalition: c, where there is a `shared`.
        limit_shared: on that, where one was granted.
    """

    spends: tuple[Spend, ...]
    limit: PrivacyLoss
    shared: tuple[Spend, ...] | None = None
    coalition: int = 0
    limit_shared: PrivacyLoss | None = None


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
        sums: for secure sums; a baseline has none.
        judging: evaluation records by member, where the agreement has evaluations.

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
        sums: Sums | None = None,
        judging: Mapping[str, Dataset | None] | None = None,
    ) -> None:
        if sums is not None and sums.roaming and home is None:
            raise UsageError("members that any process may answer for need a folder for their state")
        self.agreement = agreement
        self._datasets, self._judging = dict(datasets), dict(judging or {})
        self._seed = seed
        self._home = home
        self._timings = timings
        self._engine = engine
        self._factory: TrainerFactory | None = None
        self._sums = sums
        self._derive = None if sums is None else SharedDerivation(agreement, sums.run)
        self._nodes: dict[str, AnswersRequests] = {}
        self._trainers: dict[str, _Timed] = {}
        self._logs: dict[str, MemberStores] = {}
        self._open = ExitStack()

    def __getstate__(self) -> dict[str, Any]:
        # a model and its hooks belong to one process; the other builds its own, to the same bytes
        fresh: dict[str, Any] = {"_engine": None, "_factory": None, "_open": None}
        return {**self.__dict__, **fresh, "_nodes": {}, "_trainers": {}, "_logs": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open=ExitStack())

    def judge_on(self, records: Mapping[str, Dataset | None]) -> None:
        """From now on members evaluate on other records, as after some time; in this process."""
        self._judging.update(records)

    def node(self, name: str) -> AnswersRequests:
        """The node of a member, built at the first call."""
        if self._sums is not None and self._sums.roaming:
            return _Roaming(self, name)
        if name not in self._nodes:
            self._nodes[name] = (
                self._baseline(name) if self._sums is None else self._settled(name, self._sums)
            )
        return self._nodes[name]

    @contextmanager
    def node_from_files(self, name: str) -> Iterator[Node]:
        """The node of a member for one request, from what its files hold, which no other process has meanwhile."""
        if self._sums is None or self._home is None:
            raise UsageError("this league keeps its members' state in memory")
        with ExitStack() as stack:
            stores = stack.enter_context(stores_in(self._home / name, self._sums.run))
            folder = FolderStore(self._home / name / "sums")
            stack.callback(folder.close)
            yield self._node(name, self._sums, stores, folder)

    def evaluation_spent(self, name: str, run: str) -> tuple[Charge, bool] | None:
        """What a member's log says that it reserved for evaluations in a run, and whether of units that never train."""
        with self.log(name) as log:
            for place in range(len(granted_in(log))):
                held = book_of(log, place).reservation(run)
                for charge in () if held is None else held.charges:
                    if charge.kind == EVALUATION:
                        return charge, place > 0
        return None

    def budget(self, name: str) -> MemberBudget | None:
        """What a member has spent of the units that train, as the member itself keeps it; `None` where no privacy is claimed."""
        spend = TrainingPlan.of(self.agreement, name).spend()
        if spend is None:
            return None
        if self._sums is None:
            node = self._nodes.get(name)
            held = node.state() if isinstance(node, BaselineNode) and self._home is None else None
            state = self._state_store(name).load() if held is None else held
            kept = baseline_book(self.agreement.terms.privacy, state)
            return MemberBudget(tuple(kept.spent()), kept.limit())
        with self.log(name) as log:
            book = book_of(log)
        found = MemberBudget(book.spent(), book.grant.everyone.loss)
        if self.agreement.terms.privacy.mechanism != "distributed":
            return found
        coalition, few = self.agreement.terms.privacy.colluding, book.grant.colluding
        limit = few.loss if few is not None and coalition <= book.grant.coalition else None
        return replace(found, shared=book.spent(coalition), coalition=coalition, limit_shared=limit)

    @contextmanager
    def log(self, name: str) -> Iterator[LogView]:
        """A member's own log, to read, after the run."""
        if name in self._logs:
            yield LogView(self._logs[name].log)
        elif self._home is None:
            raise UsageError(f"the log of {name!r} is in another process")
        else:
            with closing(SqliteLogStore(self._home / name / LEDGER_FILE, read_only=True)) as store:
                yield LogView(store)

    def record_attack(self, made: Attack) -> None:
        """Sign what an attack came to into the log of the member whose trainer it was, after the run."""
        sums = self._sums
        if sums is None:
            raise UsageError("a baseline keeps no logs")
        with ExitStack() as stack:
            stores = self._logs.get(made.member)
            if stores is None:
                if self._home is None:
                    raise UsageError(f"the log of {made.member!r} is in another process")
                stores = stack.enter_context(stores_in(self._home / made.member, sums.run))
            ledger = ledger_in(stores, made.member, sums.identities)
            ledger.record_attack(made.entry(self.agreement.agreement_id, ledger.own.now()))
            ledger.checkpoint()

    def close(self) -> None:
        """Give back the files that this process holds, and forget what its trainers kept."""
        if self._factory is not None:
            self._factory.close()
        self._open.close()

    def _settled(self, name: str, sums: Sums) -> Node:
        """A node that stays in this process."""
        if self._home is None or not self.agreement.terms.private:
            self._logs[name] = MemberStores()
        else:
            self._logs[name] = self._open.enter_context(stores_in(self._home / name, sums.run))
        return self._node(name, sums, self._logs[name], MemoryBytes())

    def _node(self, name: str, sums: Sums, stores: MemberStores, state: Store) -> Node:
        identity = SumIdentity(
            signer=sums.identities.signer(name),
            roster=sums.identities.roster,
            start=sums.start,
            store=state,
            seal=Seal(sums.identities.seal_keys[name]),
            max_retries=self.agreement.terms.secure_sum.retries,
            derive=self._derive,
            keep_model=sums.roaming,
        )
        records: Records = NoRecords()
        if self.agreement.terms.private:
            log = VerifierKey.parse(sums.federation_log)
            records = records_in(stores, self.agreement, name, sums.identities, log, fresh=not sums.roaming)
        evaluation = (
            None if self.agreement.terms.evaluation is None else _Judging(self.agreement, self._judging, name)
        )
        return Node(
            self.agreement, name, self._trainer(name), records, self._randomness(name), identity, evaluation
        )

    def _baseline(self, name: str) -> BaselineNode:
        spend = TrainingPlan.of(self.agreement, name).spend()
        store = self._state_store(name)
        return BaselineNode(self.agreement, name, self._trainer(name), spend, store, self._randomness(name))

    def _trainer(self, name: str) -> _Timed:
        if name not in self._trainers:
            if self._factory is None:
                self._factory = TrainerFactory(self._gradients(), self.agreement)
            trainer = self._factory.trainer(name, self._datasets[name])
            self._trainers[name] = _Timed(trainer, None if self._timings is None else self._timings / name)
        return self._trainers[name]

    def train_seconds(self) -> Mapping[str, float]:
        """Seconds that each member has been busy, as the simulator that hosts it sees it."""
        if self._timings is None:
            return {name: timed.seconds for name, timed in self._trainers.items()}
        return {name: _seconds_in(self._timings / name) for name in self._datasets}

    def _gradients(self) -> GradientEngine:
        if self._engine is None:
            performance = self.agreement.performance
            built = build_model(self.agreement.terms, folder=self.agreement.folder, device=performance.device)
            self._engine = engine_for(built, performance)
            self._check(built)
        return self._engine

    def _check(self, built: BuiltModel) -> None:
        agreed = self.agreement.require_frozen().model
        if (built.frozen_sha256, built.tokenizer_sha256) != (agreed.frozen_sha256, agreed.tokenizer_sha256):
            raise ModelError(
                "the model built here is not the one that the agreement was frozen with",
                remedy="Use the same model files and releases in all processes.",
            )

    def _state_store(self, name: str) -> StateStore:
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


class SharedDerivation:
    """`hansa.protocol.Derivation` that remembers its last step: simulated members share one model, and derive it once.

    Args:
        agreement: frozen.
        run: as of `Derivation`.
    """

    def __init__(self, agreement: Agreement, run: str = "") -> None:
        self._derive = Derivation(agreement, run)
        self._last: tuple[tuple[str, str, tuple[str, ...], int], ServerState] | None = None

    def __call__(self, state: ServerState, aggregate: Aggregate) -> ServerState:
        """The state after a step; the same object where it was asked for before."""
        key = state.digest(), aggregate.sha256, aggregate.survivors, aggregate.round
        if self._last is None or self._last[0] != key:
            self._last = key, self._derive(state, aggregate)
        return self._last[1]


class _Roaming:
    """A member that any process may answer for: each request meets a node made from its files."""

    def __init__(self, league: TrainingLeague, name: str) -> None:
        self._league, self._name = league, name

    def handle(self, request: Message) -> Message:
        with self._league.node_from_files(self._name) as node:
            return node.handle(request)


class _Judging:
    """A member's evaluation, made when it is asked for: what is wrong with its records is told then, in its own log."""

    def __init__(self, agreement: Agreement, records: Mapping[str, Dataset | None], name: str) -> None:
        self._agreement, self._records, self._name = agreement, records, name

    def evaluate(self, files: Files, order: tuple[str, ...], randomness: Randomness) -> GridVector:
        """See `LocalEvaluation`."""
        return FileEvaluation(self._agreement, self._records.get(self._name)).evaluate(
            files, order, randomness
        )


class _Timed:
    """A trainer and a stopwatch. The stopwatch is the simulator's: nothing of it is in any message.

    Args:
        training: of the member.
        path: where the seconds are kept when the member may be answered for by several processes.
    """

    def __init__(self, training: LocalTraining, path: Path | None) -> None:
        self._training = training
        self.seconds = 0.0
        self._path = path

    def train(
        self,
        weights: Vector,
        randomness: Randomness,
        rotation: Rotation | None = None,
        adapted: Vector | None = None,
    ) -> Vector | GridVector:
        """See `LocalTraining`."""
        started = time.monotonic()
        try:
            return self._training.train(weights, randomness, rotation, adapted)
        finally:
            busy = time.monotonic() - started
            self.seconds += busy
            if self._path is not None:
                self._path.write_text(repr(_seconds_in(self._path) + busy))


def _seconds_in(path: Path) -> float:
    return float(path.read_text()) if path.exists() else 0.0
