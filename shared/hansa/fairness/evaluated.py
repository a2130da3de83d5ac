"""One evaluation that took place: what was judged, by whom, and the noisy table that it gave."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from hansa.fairness.agreed import plan_of
from hansa.fairness.errors import EvaluationError
from hansa.fairness.layout import TableLayout
from hansa.fairness.release import EvaluationPlan, NoisyTables
from hansa.wire import array_sha256

if TYPE_CHECKING:
    from hansa.agreement.document import Agreement
    from hansa.ledger import Aggregate, Evaluation

Total = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Evaluated:
    """A private evaluation, as everybody who has the agreement and the federation's log knows it.

    Attributes:
        run: of the federation.
        number: which of the evaluations that the agreement allows, from 1.
        round: of the secure sum.
        artifact_sha256: of the file that was judged.
        reference_sha256: of the file that it was compared with; `None` where there was none.
        plan: the public numbers: layout, noise, caps.
        total: the noisy sum as it was unmasked, in grid units, int32 [plan.layout.size].
        contributors: members whose tables are in it, in the agreement's order.

    Raises:
        EvaluationError: the sum is of another layout, of nobody, or a reference is named where none is counted.

    Guarantees: post-processing of one release of each contributor; whatever is computed from it costs nothing more.
    """

    run: str
    number: int
    round: int
    artifact_sha256: str
    reference_sha256: str | None
    plan: EvaluationPlan
    total: Total
    contributors: tuple[str, ...]

    def __post_init__(self) -> None:
        size = self.plan.layout.size
        if self.total.shape != (size,) or self.total.dtype != np.int32 or not self.contributors:
            raise EvaluationError(
                f"a sum {self.total.dtype} {self.total.shape} over {len(self.contributors)} members is no table of {size} cells"
            )
        if (self.reference_sha256 is None) != (self.plan.layout.compared == "none"):
            raise EvaluationError("a second file is named where its decisions are counted, and only there")

    @classmethod
    def logged(cls, agreement: Agreement, entry: Evaluation, aggregate: Aggregate) -> Evaluated:
        """As two entries of the federation's log tell it.

        Args:
            agreement: frozen, with an `[evaluation]`.
            entry: of the evaluation.
            aggregate: of its round.

        Raises:
            EvaluationError: the two are of different rounds or sums, or the table is of another layout.
        """
        total = entry.total
        if (entry.run, entry.round, entry.aggregate_sha256) != (
            aggregate.run,
            aggregate.round,
            aggregate.aggregate_sha256,
        ):
            raise EvaluationError(f"evaluation {entry.number} names another sum than that of its round")
        if array_sha256(total) != entry.aggregate_sha256:
            raise EvaluationError(f"evaluation {entry.number} holds another table than it names")
        order = [member.name for member in agreement.terms.members]
        return cls(
            entry.run,
            entry.number,
            entry.round,
            entry.artifact_sha256,
            entry.reference_sha256,
            plan_of(agreement),
            total,
            tuple(name for name in order if name in aggregate.released),
        )

    @property
    def layout(self) -> TableLayout:
        """What was counted."""
        return self.plan.layout

    @property
    def noise_variance(self) -> float:
        """Of one cell of the sum, in rows squared; it follows from who contributed."""
        return self.plan.noise_sd(len(self.contributors)) ** 2

    @cached_property
    def tables(self) -> NoisyTables:
        """What metrics and conditions are computed from."""
        return self.plan.read(self.total, len(self.contributors))

    @property
    def total_sha256(self) -> str:
        """Of the sum, as the log's aggregate names it."""
        return array_sha256(self.total)
