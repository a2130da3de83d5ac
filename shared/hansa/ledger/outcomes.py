"""Entries about what comes of it: aggregates, evaluations, gates, publications, overrides."""

from __future__ import annotations

import base64
import struct
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from hansa.agreement.section import Name, Sha256, Text
from hansa.canonical import sha256_hex
from hansa.ledger.entry import Counter, Names, OfRun, Ordinal, Part, Purpose, Real, Short, real_value
from hansa.privacy.adaptation import model_name

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FileName: TypeAlias = Annotated[
    str,
    StringConstraints(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*(?:/[A-Za-z0-9][A-Za-z0-9_.-]*)*$", max_length=200
    ),
]


def _table(text: str) -> str:
    data = base64.b64decode(text, validate=True)
    if not data or len(data) % 4 or base64.b64encode(data).decode("ascii") != text:
        raise ValueError("is no table of integers of four bytes, in Base64")
    return text


TableText: TypeAlias = Annotated[str, StringConstraints(max_length=60_000), AfterValidator(_table)]


class Aggregate(OfRun):
    """The sum of a round.

    Attributes:
        purpose, round, step: of its manifest.
        manifest_sha256: of the signed manifest.
        record_sha256: of the round's record, from which anyone recomputes the sum.
        aggregate_sha256: of the sum, little-endian int32.
        released: H(y) by member whose vector is in the sum, as each has it in its own log.
        excluded: members that hold a receipt for a vector that is not in the sum.
        model_sha256: of the model that follows, where one does.
    """

    type: Literal["aggregate"] = "aggregate"
    purpose: Purpose
    round: Ordinal
    step: Counter
    manifest_sha256: Sha256
    record_sha256: Sha256
    aggregate_sha256: Sha256
    released: Annotated[dict[Name, Sha256], Field(min_length=1, max_length=100)]
    excluded: Names = ()
    model_sha256: Sha256 | None = None


class Evaluation(OfRun):
    """A private evaluation of one file: its noisy table is the aggregate of a round, and stands here for all to read.

    Attributes:
        number: which of the evaluations that the agreement allows this model, from 1.
        artifact_sha256: of the file that was evaluated, as it would ship.
        reference_sha256: of the file that it was compared with, where there was one.
        round, aggregate_sha256: of the sum.
        table: the sum itself: Base64 of little-endian int32, one for each cell in the agreement's order.
    """

    type: Literal["evaluation"] = "evaluation"
    number: Ordinal
    artifact_sha256: Sha256
    reference_sha256: Sha256 | None
    round: Ordinal
    aggregate_sha256: Sha256
    table: TableText

    @model_validator(mode="after")
    def _coherent(self) -> Evaluation:
        if sha256_hex(base64.b64decode(self.table)) != self.aggregate_sha256:
            raise ValueError("the table is not the sum that is named")
        return self

    @property
    def total(self) -> npt.NDArray[np.int32]:
        """The table, int32 [cells]."""
        import numpy as np  # reading a log needs none

        return np.frombuffer(base64.b64decode(self.table), dtype="<i4").astype(np.int32)


class Adaptation(OfRun):
    """What adapted to the sum of a training round, beside the part of the sum from which it follows, for all to compute anew.

    Attributes:
        round, step: of the sum's manifest.
        aggregate_sha256: of the sum.
        weights_sha256: of the model's weights that follow.
        counted: the last coordinates of the sum, those that are not the model's: Base64 of little-endian int32.
        adapted: the quantities of the next step, first the clipping norm.
    """

    type: Literal["adaptation"] = "adaptation"
    round: Ordinal
    step: Counter
    aggregate_sha256: Sha256
    weights_sha256: Sha256
    counted: TableText
    adapted: Annotated[tuple[Real, ...], Field(min_length=1, max_length=1000)]

    @property
    def model_sha256(self) -> str:
        """What the round's aggregate and the next manifest must name the model by."""
        return model_name(self.weights_sha256, self.quantities)

    @property
    def quantities(self) -> tuple[float, ...]:
        """Those of the next step, as numbers."""
        return tuple(map(real_value, self.adapted))

    @property
    def integers(self) -> tuple[int, ...]:
        """What was counted, in grid units."""
        data = base64.b64decode(self.counted)
        return struct.unpack(f"<{len(data) // 4}i", data)


class Condition(Part):
    """One condition of the agreement and what became of it.

    Attributes:
        name: of the condition, with its group.
        verdict: three-valued.
        exempt: whether the agreement exempts what is inconclusive here.
        override_sha256: of the entry in which a named person says why it may be inconclusive.
        low, high: the interval that was judged.
    """

    name: Short
    verdict: Literal["pass", "fail", "inconclusive"]
    exempt: bool
    override_sha256: Sha256 | None
    low: Real | None
    high: Real | None

    @property
    def holds(self) -> bool:
        """Whether it lets a file through. What fails is never exempt, and nobody overrides it."""
        excused = self.exempt or self.override_sha256 is not None
        return self.verdict == "pass" or (self.verdict == "inconclusive" and excused)


class Gate(OfRun):
    """Whether a file may be published; signed by a quorum of members that recomputed it.

    Attributes:
        artifact_sha256: of the file.
        evaluation_sha256: of the entry of its evaluation.
        conditions: all of the agreement's.
        decision: ``open`` only if every condition holds.
    """

    approved: ClassVar[bool] = True

    type: Literal["gate"] = "gate"
    artifact_sha256: Sha256
    evaluation_sha256: Sha256
    conditions: Annotated[tuple[Condition, ...], Field(min_length=1, max_length=200)]
    decision: Literal["open", "closed"]

    @model_validator(mode="after")
    def _coherent(self) -> Gate:
        if (self.decision == "open") is not all(condition.holds for condition in self.conditions):
            raise ValueError("the decision is not the one that follows from the conditions")
        return self


class Publication(OfRun):
    """A model is published; signed by a quorum of members.

    Attributes:
        artifact_sha256: of the model's file.
        gate_sha256: of the entry of the gate that it went through.
        files: SHA-256 by name, of everything that is published.
        steps: what was done to the final model, in order.
    """

    approved: ClassVar[bool] = True

    type: Literal["publication"] = "publication"
    artifact_sha256: Sha256
    gate_sha256: Sha256
    files: Annotated[dict[FileName, Sha256], Field(min_length=1, max_length=300)]
    steps: Annotated[tuple[Name, ...], Field(max_length=20)] = ()


class Override(OfRun):
    """A named person takes the responsibility for a condition that could not be judged.

    Attributes:
        party: the member, or the coordinator, for whom the person speaks, and whose key signs.
        name, role: of the person.
        condition: which condition.
        artifact_sha256: of which file.
        reason: in words.
    """

    in_turn: ClassVar[bool] = False  # a person decides when it is handed over

    type: Literal["override"] = "override"
    party: Name
    name: Text
    role: Text
    condition: Short
    artifact_sha256: Sha256
    reason: Text

    @property
    def writer(self) -> str:
        return self.party
