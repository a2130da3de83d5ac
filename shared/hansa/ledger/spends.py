"""Entries about what a member spends: budgets, reservations, releases, aborts.

None holds an ε that was computed, a value of anybody's vector, or a hash of anything that a mask covers.
"""

from __future__ import annotations

import secrets
from typing import Annotated, Literal

from pydantic import Field, model_validator

from hansa.agreement.terms import Name, Sha256
from hansa.ledger.entry import (
    Adjacency,
    Counter,
    DatasetId,
    Entry,
    Names,
    OfRun,
    Ordinal,
    PositiveReal,
    Purpose,
    Reason,
    Short,
    Spendings,
    Unit,
    officer_of,
    real_value,
)


def new_dataset_id() -> str:
    """A name for a dataset: 128 random bits, never a hash of what is in it."""
    return secrets.token_hex(16)


class BudgetGranted(Entry):
    """A member's privacy officer allows so much to be spent of one dataset, over its whole life.

    Attributes:
        member: whose data.
        dataset_id: random (`new_dataset_id`).
        sequence: 1 for the first grant of a dataset; a later one takes the place of an earlier.
        unit: what is protected.
        max_records_per_unit: the cap of records that one unit contributes.
        adjacency: of neighbouring datasets.
        epsilon, delta: the most that may ever be spent against everyone.
        colluding, epsilon_colluding: the most against so many members that pool what they know, where distributed
            noise is used.
    """

    type: Literal["budget"] = "budget"
    member: Name
    dataset_id: DatasetId
    sequence: Ordinal
    unit: Unit
    max_records_per_unit: Ordinal
    adjacency: Adjacency
    epsilon: PositiveReal
    delta: PositiveReal
    colluding: Counter | None = None
    epsilon_colluding: PositiveReal | None = None
    reason: Reason = ""

    @model_validator(mode="after")
    def _coherent(self) -> BudgetGranted:
        if not real_value(self.delta) < 1:
            raise ValueError("delta is not below 1")
        if (self.colluding is None) != (self.epsilon_colluding is None):
            raise ValueError("colluding and epsilon_colluding stand together")
        return self

    @property
    def writer(self) -> str:
        return officer_of(self.member)


class Reservation(OfRun):
    """A member sets its worst case aside before work begins; unconfirmed, it stays spent.

    Attributes:
        member, dataset_id: whose data.
        purpose: what for.
        unit, adjacency: what the events are about.
        spends: events with their counts, never an ε.
    """

    type: Literal["reservation"] = "reservation"
    member: Name
    dataset_id: DatasetId
    purpose: Purpose
    unit: Unit
    adjacency: Adjacency
    spends: Annotated[Spendings, Field(min_length=1)]

    @property
    def writer(self) -> str:
        return self.member


class Release(OfRun):
    """A masked vector leaves a member; written before its first byte does.

    Attributes:
        member, dataset_id: whose data.
        purpose: what for.
        round: of the secure sum; never used twice in a run.
        step: what of the purpose is summed.
        unit, adjacency: what the events are about.
        spends: events with their counts, of what was reserved.
        y_sha256: H(y) of the masked vector as it is sent; nothing here tells what is under the mask.
        manifest_sha256: of the signed manifest that asked for it.
        software: version by package.
        lock_sha256: of the file that pins all packages.
        rng: where noise and sampling came from.
    """

    type: Literal["release"] = "release"
    member: Name
    dataset_id: DatasetId
    purpose: Purpose
    round: Ordinal
    step: Counter
    unit: Unit
    adjacency: Adjacency
    spends: Annotated[Spendings, Field(min_length=1)]
    y_sha256: Sha256
    manifest_sha256: Sha256
    software: Annotated[dict[Name, Short], Field(min_length=1, max_length=100)]
    lock_sha256: Sha256
    rng: Short

    @property
    def writer(self) -> str:
        return self.member


class Abort(OfRun):
    """A round ends without a sum, or a member leaves it.

    Attributes:
        party: who says so: a member in its log, or the coordinator.
        round: of the secure sum.
        manifest_sha256: where one was signed.
        code: why, from a public list; never anything that depends on data.
        missing: members that were missing, as far as the party can see.
        dataset_id, spends: what counts as spent although nothing was summed, at a member.
    """

    type: Literal["abort"] = "abort"
    party: Name
    round: Ordinal
    manifest_sha256: Sha256 | None
    code: Name
    missing: Names = ()
    dataset_id: DatasetId | None = None
    spends: Spendings = ()

    @model_validator(mode="after")
    def _coherent(self) -> Abort:
        if self.spends and self.dataset_id is None:
            raise ValueError("what is spent is spent of a dataset")
        return self

    @property
    def writer(self) -> str:
        return self.party
