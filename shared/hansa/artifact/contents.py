"""What a package holds, and the values from which its documents are written."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hansa.gate.record import MemberSpent
from hansa.privacy.events import Spend

MODEL = "model.onnx"
WEIGHTS = "model.safetensors"
TOKENIZER = "tokenizer.json"
CARD = "MODEL_CARD.md"
PRIVACY_JSON = "privacy_statement.json"
PRIVACY_TEXT = "privacy_statement.md"
FAIRNESS = "fairness.json"
GATE = "gate.json"
REPORT = "report.html"
BOM = "ml-bom.cdx.json"
AGREEMENT = "agreement.toml"
KEYS = "keys.json"
ENTRY = "publication.entry"
PROOF = "publication.tlog-proof"

DRAFTED = (MODEL, WEIGHTS, CARD, PRIVACY_JSON, PRIVACY_TEXT, FAIRNESS, GATE, REPORT, BOM, AGREEMENT, KEYS)
SEALED = (ENTRY, PROOF)

Share: TypeAlias = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Finite: TypeAlias = Annotated[float, Field(allow_inf_nan=False)]


class Part(BaseModel):
    """A part of a document: frozen, strict, closed."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Measured(Part):
    """A quality and its interval.

    Attributes:
        value: the estimate.
        low, high: the interval, which holds sampling and noise.
    """

    value: Finite
    low: Finite
    high: Finite


class GroupRow(Part):
    """One group.

    Attributes:
        attribute, group: which; the attribute is empty for everybody together.
        records: the noisy count.
        published, uncompressed: the quality of the file that ships, and of the model before compression; absent where
            the group is too small to be assessed.
        flipped: the share of records on which the two decide differently.
    """

    attribute: str
    group: str
    records: int
    published: Measured | None = None
    uncompressed: Measured | None = None
    flipped: Share | None = None


class Verdict(Part):
    """A condition of the agreement and what became of it.

    Attributes:
        name: of the condition.
        verdict: three-valued.
        low, high: the interval that was judged.
        excused: by whom and why an inconclusive one did not block; empty where nothing was excused.
        sentence: what was found, with numbers.
    """

    name: str
    verdict: Literal["pass", "fail", "inconclusive"]
    low: Finite | None = None
    high: Finite | None = None
    excused: str = ""
    sentence: str = ""

    @property
    def holds(self) -> bool:
        """Whether it stands in nobody's way."""
        return self.verdict == "pass" or (self.verdict == "inconclusive" and bool(self.excused))


class FairnessTable(Part):
    """`fairness.json`: quality by group of the very file that ships.

    Attributes:
        schema_version: of this form.
        artifact_sha256: the file that was evaluated.
        metric: of the qualities.
        rows: everybody first, then group by group.
        verdicts: of the conditions.
        private: whether the numbers came from a private evaluation; false where a simulator measured them itself.
    """

    schema_version: Literal[1] = 1
    artifact_sha256: str
    metric: str
    rows: Annotated[list[GroupRow], Field(min_length=1)]
    verdicts: list[Verdict]
    private: bool


class GateEvidence(Part):
    """`gate.json`: from what anyone recomputes the gate.

    Attributes:
        schema_version: of this form.
        entries: of the federation's log, each with its signatures, in the log's order: members' releases and sums of
            evaluations, the evaluations with their noisy tables, attacks, overrides, the gate.
        manifest: that asked members to evaluate: it names the files by hash.
        smallest_sum: members in the smallest sum that the model was trained on.
    """

    schema_version: Literal[1] = 1
    entries: Annotated[list[str], Field(min_length=1, max_length=1000)]
    manifest: str
    smallest_sum: Annotated[int, Field(ge=0)]


Events: TypeAlias = list[tuple[dict[str, object], int]]


class Loss(Part):
    """What one member's people have lost.

    Attributes:
        member: its name.
        epsilon: at the statement's δ: of `events` together, or of `apart` together where that is more. Nobody is in both.
        events: serialised DP events, each with how often it was released.
        apart: the same, of evaluations on units that a public rule keeps out of training.
    """

    member: str
    epsilon: Annotated[float, Field(ge=0, allow_inf_nan=False)]
    events: Events
    apart: Events = []

    @property
    def spent(self) -> MemberSpent:
        """The events as the accountant takes them."""
        return MemberSpent(_spends(self.events), _spends(self.apart))


def _spends(events: Events) -> tuple[Spend, ...]:
    return tuple(Spend(event, count) for event, count in events)  # type: ignore[arg-type]  # JSON, by its reader


class Answer(Part):
    """One question and its answer."""

    question: str
    answer: str


class PrivacyStatement(Part):
    """`privacy_statement.json`: what is promised to the people in the data.

    Attributes:
        schema_version: of this form.
        agreement_id: under which.
        claimed: whether anything is promised.
        epsilon, delta: the largest loss of any member's unit; absent where nothing is claimed.
        unit, max_records_per_unit, adjacency: of the promise.
        mechanism: how noise was added.
        losses: by member, with the events from which anyone recomputes ε.
        answers: to the questions of NIST SP 800-226.
        unprotected: what no ε says anything about.
    """

    schema_version: Literal[1] = 1
    agreement_id: str
    claimed: bool
    epsilon: float | None
    delta: float | None
    unit: Literal["record", "patient"]
    max_records_per_unit: Annotated[int, Field(ge=1)]
    adjacency: Literal["add-or-remove-one"] = "add-or-remove-one"
    mechanism: Literal["local", "distributed", "none"]
    losses: list[Loss]
    answers: list[Answer]
    unprotected: list[str]

    @model_validator(mode="after")
    def _coherent(self) -> PrivacyStatement:
        if self.claimed:
            if self.epsilon is None or self.delta is None or not self.losses:
                raise ValueError("claims privacy without ε, δ and losses")
            if not math.isclose(self.epsilon, max(loss.epsilon for loss in self.losses), rel_tol=1e-9):
                raise ValueError("the stated ε is not the largest of the members'")
        elif self.epsilon is not None:
            raise ValueError("states an ε and claims nothing")
        return self


class StepTold(Part):
    """A step of compression as documents tell it.

    Attributes:
        name: of the step.
        did: what it did, with numbers.
        privacy: what it cost.
    """

    name: str
    did: str
    privacy: str


class Release(Part):
    """What a publication knows beside the agreement.

    Attributes:
        name: of the model, for people and for the signature.
        version: of it.
        created: UTC, ``2026-01-31T12:00:00Z``.
        licence: SPDX id of the weights' licence.
        base_model: what it started from; empty for a model from the agreement alone.
        steps: of compression.
        software: versions by package.
        sizes: bytes of the model's file in fp32 and as it ships.
        intended, limits: uses that it is for, and those that it is not for.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
    version: str
    created: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z$")]
    licence: str
    base_model: str
    steps: list[StepTold]
    software: dict[str, str]
    sizes: tuple[int, int]
    intended: str
    limits: list[str]


def part_bytes(part: Part) -> bytes:
    """A document's JSON file: keys sorted, indented by two, ending in a newline."""
    tree = part.model_dump(mode="json")
    return (json.dumps(tree, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def file_names(*, texts: bool) -> tuple[str, ...]:
    """The files of a package before it is sealed, for a model of texts or of tables."""
    return (*DRAFTED, *((TOKENIZER,) if texts else ()))


Files: TypeAlias = Mapping[str, bytes]
