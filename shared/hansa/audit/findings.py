"""What an audit found: what holds, what is wrong and where, what could not be looked at, and what was spent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from hansa.canonical import Json

FEDERATION = "federation"
RECORDS = "rounds.jsonl"
REPORT = "report.json"
CHECKPOINT = "checkpoint"  # the type of what is wrong where it is no entry


def log_name(member: str | None) -> str:
    """How findings call a log: the federation's (`None`), or a member's own."""
    return FEDERATION if member is None else f"members/{member}"


@dataclass(frozen=True)
class Place:
    """An entry of a log.

    Attributes:
        log: as `log_name` calls it.
        entry: its place in the log, from 0.
    """

    log: str
    entry: int

    def __str__(self) -> str:
        return f"{self.log}, entry {self.entry}"


@dataclass(frozen=True)
class Failure:
    """Something that is wrong.

    Attributes:
        log: as `log_name` calls it, `RECORDS` or `REPORT`.
        entry: the first place that is broken, from 0: of an entry, or of a line of `RECORDS`. `None` where it is no
            entry, or where the copy does not tell which.
        type: of the entry, ``checkpoint``, ``record`` or ``claim``; empty where the entry cannot be read.
        what: in a person's words.
        copy: where the copy lies.
        beside: the entry that it contradicts.
    """

    log: str
    entry: int | None
    type: str
    what: str
    copy: str = ""
    beside: Place | None = None

    @property
    def where(self) -> str:
        """In words."""
        if self.entry is None:
            return f"{self.log}, {self.type}" if self.type else self.log
        unit = "line" if self.log == RECORDS else "entry"
        return f"{self.log}, {unit} {self.entry}" + (f" ({self.type})" if self.type else "")

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        beside: Json = None if self.beside is None else {"log": self.beside.log, "entry": self.beside.entry}
        return {
            "log": self.log,
            "copy": self.copy,
            "entry": self.entry,
            "type": self.type,
            "what": self.what,
            "beside": beside,
        }


@dataclass(frozen=True)
class NotChecked:
    """Something that nobody could tell from what was given.

    Attributes:
        what: would have been checked.
        why: it was not.
    """

    what: str
    why: str

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {"what": self.what, "why": self.why}


@dataclass(frozen=True)
class Remark:
    """Something that is no proof of anything and that a reader should know.

    Attributes:
        log: as `log_name` calls it.
        entry: which one, if it is one.
        what: in a person's words.
    """

    log: str
    entry: int | None
    what: str

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {"log": self.log, "entry": self.entry, "what": self.what}


@dataclass(frozen=True)
class LogSeen:
    """A copy of a log that was read.

    Attributes:
        log: as `log_name` calls it.
        copy: where it lies.
        entries: how many were read and found good, from the first on.
        sealed: how many of them the newest checkpoint covers.
        cosigned: by whom that checkpoint is cosigned.
    """

    log: str
    copy: str
    entries: int
    sealed: int
    cosigned: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {
            "log": self.log,
            "copy": self.copy,
            "entries": self.entries,
            "sealed": self.sealed,
            "cosigned": list(self.cosigned),
        }


@dataclass(frozen=True)
class Spent:
    """What one run, or all runs together, took of one dataset of a member.

    Attributes:
        member, dataset: whose data.
        run: which; empty for all of them by the rule of the limit.
        against: whom the number holds against, in words.
        epsilon, delta: recomputed from events.
        limit: ε of the grant, where one was seen.
        releases: events that count.
        checks: accountants that agree.
    """

    member: str
    dataset: str
    run: str
    against: str
    epsilon: float
    delta: float
    limit: float | None
    releases: int
    checks: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values; an infinite ε is `null`."""
        return {
            "member": self.member,
            "dataset": self.dataset,
            "run": self.run,
            "against": self.against,
            "epsilon": self.epsilon if math.isfinite(self.epsilon) else None,
            "delta": self.delta,
            "limit": self.limit,
            "releases": self.releases,
            "checks": list(self.checks),
        }


@dataclass(frozen=True)
class Findings:
    """The outcome of an audit.

    Attributes:
        passed: how often each check was made and held.
        failures: the first broken entry of each log, and each log's first checkpoint that is wrong.
        not_checked: what could not be looked at.
        remarks: what a reader should know.
        logs: the copies that were read.
        spent: ε by member, dataset and run.
        keys: fingerprint of the keys that all of it rests on.
    """

    passed: Mapping[str, int]
    failures: tuple[Failure, ...]
    not_checked: tuple[NotChecked, ...]
    remarks: tuple[Remark, ...]
    logs: tuple[LogSeen, ...]
    spent: tuple[Spent, ...]
    keys: str

    @property
    def verified(self) -> bool:
        """Whether nothing that was checked is wrong. What was not checked is in `not_checked`."""
        return not self.failures

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values."""
        return {
            "verified": self.verified,
            "keys": self.keys,
            "failures": [failure.as_dict() for failure in self.failures],
            "passed": dict(self.passed),
            "not_checked": [one.as_dict() for one in self.not_checked],
            "remarks": [remark.as_dict() for remark in self.remarks],
            "logs": [seen.as_dict() for seen in self.logs],
            "spent": [spent.as_dict() for spent in self.spent],
        }


@dataclass
class Notebook:
    """Findings while they are made."""

    counts: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    unchecked: list[NotChecked] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    logs: list[LogSeen] = field(default_factory=list)
    spent: list[Spent] = field(default_factory=list)

    def passed(self, check: str, count: int = 1) -> None:
        """A check was made and held."""
        self.counts[check] += count

    def failed(self, failure: Failure) -> None:
        """A check was made and did not hold."""
        self.failures.append(failure)

    def not_checked(self, what: str, why: str) -> None:
        """A check could not be made."""
        self.unchecked.append(NotChecked(what, why))

    def remark(self, log: str, entry: int | None, what: str) -> None:
        """Something to know."""
        self.remarks.append(Remark(log, entry, what))

    def findings(self, keys: str) -> Findings:
        """What was found; of each copy of a log the first broken entry and the first wrong checkpoint."""
        return Findings(
            dict(self.counts),
            tuple(_first_of_each(self.failures)),
            tuple(dict.fromkeys(self.unchecked)),
            tuple(self.remarks),
            tuple(self.logs),
            tuple(self.spent),
            keys,
        )


def _first_of_each(failures: list[Failure]) -> list[Failure]:
    """Entries before checkpoints, each log once; where an entry is not known, the first that was told is kept."""
    first: dict[tuple[str, str, bool], Failure] = {}
    for failure in failures:
        key = (failure.log, failure.copy, failure.type == CHECKPOINT)
        known = first.get(key)
        if known is None or _rank(failure) < _rank(known):
            first[key] = failure
    return sorted(first.values(), key=lambda failure: (failure.type == CHECKPOINT, failure.entry is None))


def _rank(failure: Failure) -> float:
    return math.inf if failure.entry is None else failure.entry
