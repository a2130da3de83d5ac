"""In what a member takes part: its own rules, beside those that it has signed, checked before anything else.

Nothing of it is part of an agreement. What may be spent is not here: that is the signed grant in the ledger.
"""

from __future__ import annotations

import re
from datetime import datetime, time
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, StringConstraints, model_validator

from hansa.agreement import Agreement
from hansa.agreement.section import Section
from hansa.errors import Problem

_HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


class Policy(Section):
    """`[policy]` of `node.toml`.

    Attributes:
        mechanisms: privacy mechanisms that an agreement may have; ``none`` promises nothing.
        smallest_league: members that an agreement must have at least.
        hours: ``HH:MM-HH:MM`` by the local clock, in which requests are answered; absent for always.
        charged_aborts: rounds of one run that were charged and came to nothing, after which the member leaves it.
        threads: processors that training may use; absent for all.
        memory_gib: limit of the process; absent for none.
        gpu_memory_share: of the device's memory; absent for all.
    """

    mechanisms: Annotated[
        tuple[Literal["local", "distributed", "none"], ...], BeforeValidator(_as_tuple), Field(min_length=1)
    ] = ("local", "distributed")
    smallest_league: Annotated[int, Field(ge=3, le=100)] = 3
    hours: Annotated[str, StringConstraints(max_length=11)] | None = None
    charged_aborts: Annotated[int, Field(ge=0, le=100)] = 2
    threads: Annotated[int, Field(ge=1, le=4096)] | None = None
    memory_gib: Annotated[float, Field(gt=0)] | None = None
    gpu_memory_share: Annotated[float, Field(gt=0, le=1)] | None = None

    @model_validator(mode="after")
    def _hours_are_hours(self) -> Policy:
        if self.hours is not None and _HOURS.fullmatch(self.hours) is None:
            raise ValueError("hours: as in 22:00-06:00")
        return self

    def open_at(self, at: datetime) -> bool:
        """Whether requests are answered at a moment of the local clock."""
        if self.hours is None:
            return True
        found = _HOURS.fullmatch(self.hours)
        if found is None:
            return False
        first, last = time(int(found[1]), int(found[2])), time(int(found[3]), int(found[4]))
        now = at.time()
        return first <= now < last if first <= last else now >= first or now < last

    def problems(self, agreement: Agreement) -> list[Problem]:
        """Why the member takes no part in an agreement; empty where it does."""
        terms, found = agreement.terms, []
        if terms.privacy.mechanism not in self.mechanisms:
            allowed = ", ".join(self.mechanisms)
            found.append(
                Problem(
                    "policy.mechanisms",
                    f"{terms.privacy.mechanism!r} is not among them",
                    f"allowed are {allowed}",
                )
            )
        if len(terms.members) < self.smallest_league:
            found.append(
                Problem(
                    "policy.smallest_league",
                    f"the agreement has {len(terms.members)} members",
                    f"{self.smallest_league} are the least",
                )
            )
        if terms.baseline is not None:
            found.append(Problem("baseline", "is for comparison, and no federation"))
        return found
