"""The records of a budget, in the order in which they were made: all that a book is rebuilt from.

    grant → (reservation → (confirmation | abort)* → close?)*

Every prefix is a valid book. What a prefix leaves open counts as spent, so a crash between any two records forgets
nothing. Records hold events and counts, never an ε; dataset ids are random and run ids public.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from hansa.errors import PrivacyParameterError
from hansa.privacy.charges import Charge
from hansa.privacy.composition import Rule
from hansa.privacy.loss import PrivacyLoss

_DATASET = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Limit:
    """The most that may ever be lost, and the rule by which runs add up to it.

    Attributes:
        loss: (ε, δ).
        rule: fixed with the limit, never chosen afterwards.
    """

    loss: PrivacyLoss
    rule: Rule


@dataclass(frozen=True)
class Grant:
    """What a member allows for the units of one dataset, for the dataset's whole life. The first record, once.

    To allow more later is to grant for another dataset id over the same units: the two then add up
    (`hansa.privacy.datasets`), which is what they cost.

    Attributes:
        dataset: 32 random hexadecimal digits, never a hash of content.
        everyone: the limit against everyone outside the member.
        colluding: the limit against at most `coalition` of the other members together with everyone outside.
        coalition: c ≥ 1 where there is such a limit.
        disjoint_from: ids of the member's datasets that share no unit with this one, decided by each unit alone
            (a public split), never by looking at the data.
    """

    dataset: str
    everyone: Limit
    colluding: Limit | None = None
    coalition: int = 0
    disjoint_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for dataset in (self.dataset, *self.disjoint_from):
            if not _DATASET.fullmatch(dataset):
                raise PrivacyParameterError(f"{dataset!r} is no dataset id: 32 random hexadecimal digits")
        if self.dataset in self.disjoint_from:
            raise PrivacyParameterError("a dataset is not disjoint from itself")
        if type(self.coalition) is not int or (self.colluding is None) != (self.coalition == 0):
            raise PrivacyParameterError("a limit against colluding members needs their number, at least 1")
        if self.coalition < 0:
            raise PrivacyParameterError(f"{self.coalition} members cannot collude")

    def limits(self) -> tuple[tuple[str, int | None, Limit], ...]:
        """Whom each limit holds against, in words and as `Charge.against` takes it, and the limit."""
        everyone = ("everyone", None, self.everyone)
        if self.colluding is None:
            return (everyone,)
        words = f"any {self.coalition} other member{'s' if self.coalition > 1 else ''} and all outside"
        return everyone, (words, self.coalition, self.colluding)


@dataclass(frozen=True)
class Reservation:
    """A run's worst case, fixed before any of it happens.

    Attributes:
        run: its public id.
        agreement: id of the agreement that it belongs to.
        charges: what it may release, of distinct kinds.
    """

    run: str
    agreement: str
    charges: tuple[Charge, ...]

    def __post_init__(self) -> None:
        kinds = [charge.kind for charge in self.charges]
        if not kinds or len(set(kinds)) != len(kinds):
            raise PrivacyParameterError("a reservation needs charges, each of its own kind")


@dataclass(frozen=True)
class Confirmation:
    """Releases that are about to leave, or have left. Recorded before noise is drawn.

    Attributes:
        run: under which reservation.
        step: a name that is unique in the run.
        kind: of the charge.
        count: releases.
    """

    run: str
    step: str
    kind: str
    count: int


@dataclass(frozen=True)
class Abort:
    """A step that was begun and came to nothing. It costs what a confirmed one costs: something may have left.

    Attributes: as of `Confirmation`; the step may have been confirmed before.
    """

    run: str
    step: str
    kind: str
    count: int


@dataclass(frozen=True)
class Close:
    """The member ends a run and says what it released; the rest is free again, and nothing more is released.

    Attributes:
        run: which.
        released: releases by kind, at least those on record.
    """

    run: str
    released: Mapping[str, int]


Record: TypeAlias = Grant | Reservation | Confirmation | Abort | Close


def new_dataset_id() -> str:
    """A name for a dataset: 128 random bits, never a hash of what is in it."""
    return secrets.token_hex(16)
