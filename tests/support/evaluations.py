"""A small league whose members judge a file, with a file that is none: what runs it is put in its place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.agreement.document import Frozen, FrozenModel
from hansa.canonical import sha256_hex
from hansa.fairness.agreed import plan_of
from hansa.fairness.counting import ScoredRows, count
from hansa.fairness.evaluated import Evaluated
from hansa.models import BuiltModel, build_model
from hansa.privacy.randomness import Randomness
from hansa.server_step import ServerState
from hansa.wire import array_sha256
from hansa_client.data import Dataset
from hansa_client.evaluation.judging import Files
from hansa_server.evaluating import Evaluations
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from hansa_server.summation import SecureSummation
from support.federations import Federation
from support.leagues import table, terms_of

JUDGED, REFERENCE = b"the file that would ship", b"the uncompressed model"
EVALUATION: Mapping[str, Any] = {"max_rows_per_cell": 300, "epsilon": 4.0, "share": 0.4}
COMPARED: Mapping[str, Any] = {  # with the file before the last step
    "evaluation": {**EVALUATION, "compared": "decisions"},
    "publication": {"compress": ["onnx", "int8"], "min_quality": 0.5},
}
WHOLE = {
    "sampling_rate": 1.0
}  # without a gain from sampling, and without the time that it takes to account for one
TRAINING: Mapping[str, Any] = {"training": {"rounds": 1}, "privacy": {"steps": 2, **WHOLE}}


def scores_of(data: bytes, records: Dataset) -> npt.NDArray[np.float64]:
    """What a "file" says of records: it decides by the sum of both numbers, the reference by the first alone."""
    table = records.inputs["table"].astype(np.float64)
    raw = table.sum(1) if data == JUDGED else 2 * table[:, 0]
    second = 1 / (1 + np.exp(-3 * raw))
    return np.stack([1 - second, second], axis=1)


class ScoredHere:
    """`hansa_client.evaluation.judging.FileEvaluation` without the process that runs a file.

    Attributes:
        calls: the files that were asked about.
        tables: what was counted, before noise. A member keeps that to itself.
    """

    def __init__(self, agreement: Agreement, records: Dataset) -> None:
        self.plan, self.records = plan_of(agreement), records
        self.calls: list[tuple[str, ...]] = []
        self.tables: list[npt.NDArray[np.int64]] = []

    def evaluate(self, files: Files, order: tuple[str, ...], randomness: Randomness) -> npt.NDArray[np.int64]:
        """See `LocalEvaluation`."""
        self.calls.append(order)
        judged, *more = (scores_of(files[name], self.records) for name in order)
        groups = np.stack([self.records.groups[g] for g in self.plan.layout.attributes], 1).astype(np.int64)
        rows = ScoredRows(self.records.labels, judged, groups, self.records.units, next(iter(more), None))
        self.tables.append(count(self.plan.layout, rows))
        return self.plan.release(self.tables[-1], randomness)


def frozen(**changes: Any) -> tuple[Agreement, BuiltModel]:
    """The small league's agreement with noise that nobody had to search for, and its model 0."""
    agreement = terms_of(**changes)
    built = build_model(agreement.terms)
    model = FrozenModel(
        parameters=built.flat.size,
        initial_sha256=array_sha256(built.initial_vector().astype("<f8")),
        frozen_sha256=built.frozen_sha256,
        tokenizer_sha256=built.tokenizer_sha256,
    )
    noise = Frozen(
        terms_id=agreement.terms_id, model=model, noise_multiplier=2.0, evaluation_noise_multiplier=6.0
    )
    return agreement.freeze(noise), built


class Judging:
    """A federation that trains one round and is then judged.

    Args:
        records: evaluation records by member; by default some for each.
        changes: of the small league's agreement.
    """

    def __init__(self, records: Mapping[str, Dataset] | None = None, **changes: Any) -> None:
        terms: dict[str, Any] = {**TRAINING, "evaluation": EVALUATION, **changes}
        self.agreement, built = frozen(**terms)
        names = [member.name for member in self.agreement.terms.members]
        self.records = records or {name: table(200 + 50 * i, i) for i, name in enumerate(names)}
        self.evaluators = {name: ScoredHere(self.agreement, held) for name, held in self.records.items()}
        self.league = Federation(
            self.agreement,
            built.initial_vector(),
            dict.fromkeys(names, self._update),
            evaluations=self.evaluators,
        )
        self.evaluated: list[Evaluated] = []
        self.wrong: list[Exception] = []
        self.summation: SecureSummation | None = None

    def _update(self, weights: npt.NDArray[np.float64]) -> Any:
        pooled = self.agreement.terms.privacy.mechanism == "distributed"
        return np.zeros(weights.shape, np.int64) if pooled else np.full(weights.shape, 0.01)

    def run(self, times: int = 1, judged: bytes = JUDGED, run: str = "r") -> Outcome:
        """Train, and have the file judged so many times."""
        journal = InMemoryJournal()
        self.summation = SecureSummation(self.agreement, self.league, journal, run, self.league.house)
        evaluations = Evaluations(self.agreement, run, self.summation)
        compared = self.agreement.terms.evaluation is not None and self.agreement.terms.evaluation.compared

        def conclude(outcome: Outcome) -> None:
            for _ in range(times):
                reference = None if compared == "none" else REFERENCE
                self.evaluated.append(evaluations.evaluate(outcome.state, judged, reference))

        return run_federation(
            self.agreement,
            self.league.start,
            self.league,
            journal,
            run=run,
            summation=self.summation,
            conclude=conclude,
        )


def asked_for(
    judging: Judging, state: ServerState, number: int, data: bytes, named: str | None = None
) -> Any:
    """What a coordinator gets that asks for whatever evaluation it likes, with a file under whatever name."""
    assert judging.summation is not None
    judging.summation._machine._preparing = True  # rounds are prepared as long as it likes
    files = {named or sha256_hex(data): np.frombuffer(data, dtype=np.uint8)}
    return judging.summation.judge(state.model_sha256, number, files, lambda _: None, last=False)
