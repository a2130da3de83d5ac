"""Entries about what a member spends: budgets, reservations, releases, aborts, runs that end.

`hansa.ledger.budgets` reads from them the records that a budget book is made of. None holds an ε that was computed, a value of anybody's vector, or a hash of anything that a mask covers.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from hansa.agreement.section import Name, Sha256
from hansa.errors import PrivacyParameterError
from hansa.ledger.entry import (
    Adjacency,
    Counter,
    DatasetId,
    Entry,
    EventText,
    LogKey,
    Names,
    OfRun,
    Ordinal,
    Part,
    PositiveReal,
    Purpose,
    Reason,
    Short,
    Spendings,
    Unit,
    event_text,
    event_value,
    officer_of,
    real_value,
)
from hansa.privacy.charges import Charge
from hansa.privacy.composition import rule_from_json


def _rule(value: dict[str, JsonValue]) -> dict[str, JsonValue]:
    try:
        rule_from_json(value)
    except PrivacyParameterError as error:
        raise ValueError(error.cause) from None
    return value


RuleJson: TypeAlias = Annotated[dict[str, JsonValue], AfterValidator(_rule)]


class BudgetGranted(Entry):
    """A member's privacy officer allows so much to be spent of one dataset, over its whole life, once.

    To allow more is to grant for another dataset id, over the same units: the two then add up.

    Attributes:
        member: whose data.
        dataset_id: random (`new_dataset_id`).
        unit: what is protected.
        max_records_per_unit: the cap of records that one unit contributes.
        adjacency: of neighbouring datasets.
        epsilon, delta: the most that may ever be spent against everyone.
        colluding, epsilon_colluding: the most, at the same delta, against so many other members that pool what they
            know, where distributed noise is used.
        rule: by which runs add up (`hansa.privacy.composition`), the same for both limits.
        disjoint_from: ids of the member's datasets that share no unit with this one, decided by each unit alone.
        reason: in words.
    """

    type: Literal["budget"] = "budget"
    member: Name
    dataset_id: DatasetId
    unit: Unit
    max_records_per_unit: Ordinal
    adjacency: Adjacency
    epsilon: PositiveReal
    delta: PositiveReal
    colluding: Ordinal | None = None
    epsilon_colluding: PositiveReal | None = None
    rule: RuleJson
    disjoint_from: Annotated[tuple[DatasetId, ...], Field(max_length=100)] = ()
    reason: Reason = ""

    @model_validator(mode="after")
    def _coherent(self) -> BudgetGranted:
        if not real_value(self.delta) < 1:
            raise ValueError("delta is not below 1")
        if (self.colluding is None) != (self.epsilon_colluding is None):
            raise ValueError("colluding and epsilon_colluding stand together")
        if len({*self.disjoint_from} - {self.dataset_id}) != len(self.disjoint_from):
            raise ValueError("disjoint_from names other datasets, each once")
        return self

    @property
    def writer(self) -> str:
        return officer_of(self.member)


class Charging(Part):
    """Releases of one kind that a run may make: `hansa.privacy.charges.Charge` with its numbers as text.

    Attributes:
        kind: what for.
        event: of one release, against everyone.
        count: how many there may be, retries included.
        shared: of one release, against `coalition` other members; null where all noise is the member's own.
        coalition: 0 where there is no `shared`.
        in_parts_of: members of a league whose shares are drawn in parts; left out where they are drawn in one.
    """

    kind: Purpose
    event: EventText
    count: Ordinal
    shared: EventText | None = None
    coalition: Counter = 0
    in_parts_of: Counter = 0

    @model_serializer(mode="wrap")
    def _without_parts(self, tree: SerializerFunctionWrapHandler) -> dict[str, object]:
        """An entry of shares that are drawn in one is what it was before there were parts."""
        found: dict[str, object] = tree(self)
        if not self.in_parts_of:
            del found["in_parts_of"]
        return found

    @model_validator(mode="after")
    def _coherent(self) -> Charging:
        if (self.shared is None) != (self.coalition == 0):
            raise ValueError("shared noise and a coalition of at least 1 stand together")
        return self

    @classmethod
    def of(cls, charge: Charge) -> Charging:
        """As an entry holds it."""
        return cls.model_validate(
            {
                "kind": charge.kind,
                "event": event_text(charge.event),
                "count": charge.count,
                "shared": None if charge.shared is None else event_text(charge.shared),
                "coalition": charge.coalition,
                "in_parts_of": charge.in_parts_of,
            }
        )

    @property
    def charge(self) -> Charge:
        """As the budget takes it.

        Raises:
            PrivacyParameterError: its events are not known, or mean nothing together.
        """
        shared = None if self.shared is None else event_value(self.shared)
        return Charge(
            self.kind, event_value(self.event), self.count, shared, self.coalition, self.in_parts_of
        )


class Reservation(OfRun):
    """A member sets the worst case of a whole run aside before work begins; until the run is closed, all of it is spent.

    Attributes:
        member, dataset_id: whose data.
        unit, adjacency: what the events are about.
        charges: events with their counts, one for each kind of release; never an ε.
        federation_log: key of the log that has to show what the run releases; `None` for the one log of the agreement.
    """

    type: Literal["reservation"] = "reservation"
    member: Name
    dataset_id: DatasetId
    unit: Unit
    adjacency: Adjacency
    charges: Annotated[tuple[Charging, ...], Field(min_length=1, max_length=10)]
    federation_log: LogKey | None = None

    @model_validator(mode="after")
    def _coherent(self) -> Reservation:
        if len({charge.kind for charge in self.charges}) != len(self.charges):
            raise ValueError("the charges of a reservation are each of another kind")
        return self

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
        spends: the event that was reserved for this purpose, against everyone, with its count.
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
        dataset_id, purpose, spends: what counts as spent although nothing was summed, at a member.
    """

    type: Literal["abort"] = "abort"
    party: Name
    round: Ordinal
    manifest_sha256: Sha256 | None
    code: Name
    missing: Names = ()
    dataset_id: DatasetId | None = None
    purpose: Purpose | None = None
    spends: Spendings = ()

    @model_validator(mode="after")
    def _coherent(self) -> Abort:
        if self.spends and (self.dataset_id is None or self.purpose is None):
            raise ValueError("what is spent is spent of a dataset, for a purpose")
        return self

    @property
    def writer(self) -> str:
        return self.party


class RunClosed(OfRun):
    """A member ends a run: what it reserved and did not release is free again, as far as the budget's rule allows.

    Attributes:
        member, dataset_id: whose data.
        released: releases by purpose, all that there were; nothing more is released in this run.
    """

    type: Literal["closed"] = "closed"
    member: Name
    dataset_id: DatasetId
    released: Annotated[dict[Purpose, Counter], Field(max_length=10)]

    @property
    def writer(self) -> str:
        return self.member
