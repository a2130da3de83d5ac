"""A run on record: what four hospitals released, one evaluation with a table of our making, and the gate that follows."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from hansa.agreement import Agreement
from hansa.canonical import sha256_hex
from hansa.fairness.agreed import plan_of
from hansa.gate.approving import check_gate, evaluation_of
from hansa.gate.deciding import GateDecision, Grounds, decide
from hansa.gate.record import RunRecord, read_run
from hansa.identity import COORDINATOR
from hansa.ledger import (
    Aggregate,
    Charging,
    Condition,
    Evaluation,
    Gate,
    Override,
    Reservation,
    SignedEntry,
    Spending,
)
from hansa.ledger.kinds import Kind
from hansa.privacy.charges import EVALUATION, Charge
from hansa.privacy.events import Spend, gaussian, poisson_gaussian
from hansa.secagg.messages import Manifest
from support.ledgers import AT, DATASET, HASH, MEMBERS, OTHER, SIGNERS, release

RUN = "run-1"
HELD_OUT = "f" * 32  # dataset of the units that evaluate
TRAINED = Spend(poisson_gaussian(0.1, 2.0), 10)
MODEL = sha256_hex(b"a model's file")
HOLDS = Condition(name="c", verdict="pass", exempt=False, override_sha256=None, low=None, high=None)

# true positives, misses, false positives, true negatives of each group: of the judged file, and on how many of the true
# positives and true negatives the reference was wrong, or was right where the judged file is wrong
FAIR: Mapping[str, tuple[int, int, int, int]] = {"f": (850, 150, 150, 850), "m": (860, 140, 140, 860)}
UNFAIR: Mapping[str, tuple[int, int, int, int]] = {"f": (500, 500, 500, 500), "m": (860, 140, 140, 860)}


def total_of(
    agreement: Agreement,
    cells: Mapping[str, tuple[int, int, int, int]],
    lost: Mapping[str, int] | None = None,
) -> np.ndarray:
    """A sum in grid units, without noise in it; nobody can see that there is none.

    Args:
        agreement: frozen; one attribute.
        cells: of the judged file, by group.
        lost: by group, on how many records of each label the reference decided rightly and the judged file did not.
    """
    plan = plan_of(agreement)
    table = plan.layout.tables[0]
    (attribute,) = table.attributes
    counts = np.zeros(plan.layout.shape(table))
    for value, (hit, missed, false, right) in cells.items():
        at = counts[plan.layout.attributes[attribute].index(value)]
        gone = (lost or {}).get(value, 0)
        at[1, 0, -1, -1] += hit
        at[0, 0, 0, 0] += right
        at[1, 0, 0, 0] += missed - gone
        at[1, 0, 0, -1] += gone
        at[0, 0, -1, -1] += false - gone
        at[0, 0, -1, 0] += gone
    return np.round(counts.ravel() * plan.scale).astype(np.int32)


@dataclass
class RunStory:
    """One run in the federation's log.

    Attributes:
        agreement: frozen.
        total: noisy sum of the evaluation.
        artifact: hash of the file that was evaluated.
        contributors: of every sum.
        evaluations: how many there were; all of the same sum.
        overrides: entries, signed by their party.
        spent: what each member's training released.
    """

    agreement: Agreement
    total: np.ndarray
    artifact: str = MODEL
    contributors: Sequence[str] = MEMBERS
    evaluations: int = 1
    overrides: Sequence[Override] = ()
    spent: Spend = TRAINED
    more: Sequence[SignedEntry] = field(default_factory=tuple)

    def manifest(self, number: int = 1) -> bytes:
        """What asked for an evaluation."""
        compared = plan_of(self.agreement).layout.compared
        said = Manifest(
            terms=HASH,
            arrays={},
            run=RUN,
            round=10 + number,
            transcript=HASH,
            contributors=tuple(self.contributors),
            purpose="evaluation",
            step=self.agreement.terms.training.rounds + number - 1,
            model_sha256=HASH,
            artifacts=(self.artifact,) if compared == "none" else (self.artifact, OTHER),
            previous_round=0,
            previous_manifest_sha256=None,
            previous_aggregate_sha256=None,
            checkpoint="",
        )
        return said.model_dump_json().encode()

    @property
    def base(self) -> dict[str, Any]:
        return {"at": AT, "agreement_id": self.agreement.agreement_id, "run": RUN}

    def evaluated(self) -> Spend:
        """What an evaluation costs each member."""
        return Spend(gaussian(plan_of(self.agreement).noise_multiplier), 1)

    def evaluation(self, number: int = 1) -> Evaluation:
        """The entry of an evaluation."""
        data = self.total.astype("<i4").tobytes()
        compared = plan_of(self.agreement).layout.compared
        return Evaluation(
            **self.base,
            number=number,
            artifact_sha256=self.artifact,
            reference_sha256=None if compared == "none" else OTHER,
            round=10 + number,
            aggregate_sha256=sha256_hex(data),
            table=b64encode(data).decode(),
        )

    def entries(self) -> list[SignedEntry]:
        """The log, in order."""
        plan, found = plan_of(self.agreement), list[SignedEntry]()
        for name in MEMBERS:
            of_member = {"member": name, "unit": "record", "adjacency": "add-or-remove-one"}
            for dataset, charge in (
                (DATASET, Charge("training", self.spent.event, self.spent.count)),
                (HELD_OUT, Charge(EVALUATION, gaussian(plan.noise_multiplier), plan.evaluations)),
            ):
                found.append(
                    signed_by(
                        Reservation(
                            **self.base, **of_member, dataset_id=dataset, charges=(Charging.of(charge),)
                        ),
                        name,
                    )
                )
        for name in self.contributors:
            found.append(self._release(name, 1, "training", DATASET, self.spent))
        found.append(self._aggregate("training", 1, HASH))
        for number in range(1, self.evaluations + 1):
            for name in self.contributors:
                found.append(
                    self._release(
                        name,
                        10 + number,
                        EVALUATION,
                        HELD_OUT,
                        self.evaluated(),
                        manifest_sha256=sha256_hex(self.manifest(number)),
                    )
                )
            entry = self.evaluation(number)
            asked = sha256_hex(self.manifest(number))
            found.append(self._aggregate(EVALUATION, entry.round, entry.aggregate_sha256, asked))
            found.append(signed_by(entry, COORDINATOR))
        found += [signed_by(one, one.party) for one in self.overrides]
        return [*found, *self.more]

    def record(self) -> RunRecord:
        """As a member reads it."""
        return read_run(
            (one.entry for one in self.entries()), self.agreement.terms, self.agreement.agreement_id, RUN
        )

    def decision(self) -> GateDecision:
        """What follows."""
        record = self.record()
        entry = next(reversed(record.evaluations.values()))
        probe = Gate(
            **self.base,
            artifact_sha256=self.artifact,
            evaluation_sha256=entry.sha256,
            conditions=(HOLDS,),
            decision="open",
        )
        evaluated = evaluation_of(probe, record, self.agreement, self.manifest(entry.number))
        return decide(self.agreement.terms, Grounds.of(record, self.agreement.terms, evaluated))

    def gate(self, **changes: Any) -> Gate:
        """The gate that an honest coordinator proposes; changed by one that is not."""
        entry = next(reversed(self.record().evaluations.values()))
        honest = self.decision().entry(AT, self.agreement.agreement_id, RUN, self.artifact, entry.sha256)
        return Gate.model_validate({**honest.model_dump(), **changes})

    def check(self, gate: Gate) -> GateDecision:
        """As a member does."""
        return check_gate(gate, self.agreement, self.record(), self.manifest(self.evaluations))

    def _release(
        self, name: str, number: int, purpose: str, dataset: str, spend: Spend, **changes: str
    ) -> SignedEntry:
        entry = release(
            number,
            name,
            agreement_id=self.agreement.agreement_id,
            purpose=purpose,
            dataset_id=dataset,
            unit="record",
            spends=(Spending.of(spend),),
            **changes,
        )
        return signed_by(entry, name)

    def _aggregate(self, purpose: str, number: int, digest: str, asked: str = OTHER) -> SignedEntry:
        entry = Aggregate(
            **self.base,
            purpose=purpose,
            round=number,
            step=0,
            manifest_sha256=asked,
            record_sha256=HASH,
            aggregate_sha256=digest,
            released=dict.fromkeys(self.contributors, HASH),
            model_sha256=HASH if purpose == "training" else None,
        )
        return signed_by(entry, COORDINATOR)


def signed_by(entry: Kind, *names: str) -> SignedEntry:
    """An entry with these signatures."""
    return SignedEntry.sign(entry, *(SIGNERS[name] for name in sorted(names)))


def approved(entry: Kind, approving: Sequence[str] = MEMBERS[:3]) -> SignedEntry:
    """An entry of the coordinator's that members approved."""
    return signed_by(entry, COORDINATOR, *approving)
