"""A member's table of one evaluation: files run behind walls, rows counted, counts clamped, noised and handed to the sum."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.artifact import Limits
from hansa.errors import DataError, Problem
from hansa.fairness.agreed import plan_of
from hansa.fairness.counting import ScoredRows, count
from hansa.privacy.randomness import Randomness
from hansa_client.data import Dataset
from hansa_client.evaluation.artifact import score_artifact

Files: TypeAlias = Mapping[str, bytes]
GridVector: TypeAlias = npt.NDArray[np.int64]

_LOG = logging.getLogger("hansa.node")


class LocalEvaluation(Protocol):
    """What a node asks to evaluate with: `FileEvaluation`, or one that does nothing in a bench."""

    def evaluate(self, files: Files, order: tuple[str, ...], randomness: Randomness) -> GridVector:
        """The noisy table of one evaluation.

        Args:
            files: bytes by SHA-256.
            order: of the file that is judged, and of the one that it is compared with where there is one.
            randomness: secret; for the noise.

        Returns:
            int64 [cells], on the evaluation's grid.
        """


class FileEvaluation:
    """Evaluates model files on a member's own records.

    Args:
        agreement: frozen, with an `[evaluation]`.
        records: the member's evaluation records, also none; `None` where it has no file of them.
        limits: of a run of a file.
        allow_unprotected: whether files are run where the machine cannot put up every wall; the member's own policy.

    Guarantees: what `evaluate` returns is one Gaussian release on the counted rows with the event of
        `EvaluationPlan.charge`, and nothing else of the records leaves; its length is the agreement's, however many
        rows there are. A row whose group value is outside the agreement's counts as "no value".
    Leaks: time, by how many rows a file is run on.

    Raises:
        DataError: the records lack an attribute by which the agreement tells groups apart. It is told here alone.
    """

    def __init__(
        self,
        agreement: Agreement,
        records: Dataset | None,
        *,
        limits: Limits | None = None,
        allow_unprotected: bool = True,
    ) -> None:
        self._plan, self._terms = plan_of(agreement), agreement.terms
        self._limits, self._allow = limits, allow_unprotected
        if records is None:
            raise DataError(
                "there are no records to evaluate on",
                [Problem("evaluation", "names no data", "say where they are, in node.toml")],
            )
        missing = [name for name in self._plan.layout.attributes if name not in records.groups]
        if missing:
            raise DataError(
                "the evaluation's records do not tell all groups apart",
                [
                    Problem(f"data.groups.{name}", "is missing from these records", "add its column")
                    for name in missing
                ],
            )
        self._records = records
        self.seconds_scoring = self.seconds_beyond = 0.0

    def evaluate(self, files: Files, order: tuple[str, ...], randomness: Randomness) -> GridVector:
        """See `LocalEvaluation`."""
        started = time.monotonic()
        probabilities = [self._probabilities(files[name], name) for name in order]
        scored = time.monotonic()
        tables = count(self._plan.layout, self._rows(probabilities))
        released = self._plan.release(tables, randomness)
        self.seconds_scoring, self.seconds_beyond = scored - started, time.monotonic() - scored
        return released

    def _probabilities(self, model: bytes, sha256: str) -> npt.NDArray[np.float64]:
        classes = len(self._terms.task.labels)
        if not len(self._records):
            return np.zeros((0, classes))
        logits = score_artifact(
            model,
            sha256,
            self._records,
            classes=classes,
            limits=self._limits,
            allow_unprotected=self._allow,
        ).astype(np.float64)
        shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))

    def _rows(self, probabilities: list[npt.NDArray[np.float64]]) -> ScoredRows:
        records, names = self._records, list(self._plan.layout.attributes)
        groups = (
            np.stack([records.groups[name] for name in names], axis=1)
            if names
            else np.zeros((len(records), 0))
        )
        return ScoredRows(
            labels=records.labels,
            scores=probabilities[0],
            groups=groups.astype(np.int64),
            units=records.units,
            reference=probabilities[1] if len(probabilities) > 1 else None,
        )
