"""Overrides: a named person takes the responsibility for a condition that could not be decided.

A gate that the log shows closed is decided again once overrides are signed for what was inconclusive. Each is an entry of
the log, signed by the member or the coordinator for whom the person speaks; until it is logged it travels as a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from hansa.gate.errors import OverrideError
from hansa.identity import Roster
from hansa.ledger import Condition, Gate, Override, SignedEntry
from hansa.ledger.entry import PURPOSE
from hansa.ledger.files import read_entry
from hansa.ledger.kinds import Kind

SUFFIX = ".override"


@dataclass(frozen=True)
class Person:
    """Who speaks, and why.

    Attributes:
        name, role: of the person.
        reason: in words.
    """

    name: str
    role: str
    reason: str

    def __post_init__(self) -> None:
        if not (self.name.strip() and self.role.strip() and self.reason.strip()):
            raise OverrideError(
                "an override names a person, a role and a reason",
                remedy="Give all three: 'NAME, ROLE', and a reason in words.",
            )

    @classmethod
    def of(cls, by: str, reason: str) -> Person:
        """From ``NAME, ROLE`` and a reason.

        Raises:
            OverrideError: one of the three is missing.
        """
        name, _, role = (part.strip() for part in by.partition(","))
        return cls(name, role, reason.strip())


def newest_gate(entries: Iterable[Kind], agreement_id: str, run: str | None = None) -> Gate:
    """The newest gate that a log shows.

    Args:
        entries: of the federation's log.
        agreement_id: of it.
        run: its name; by default whichever came to a gate last.

    Raises:
        OverrideError: there is none.
    """
    found = [
        entry
        for entry in entries
        if isinstance(entry, Gate) and entry.agreement_id == agreement_id and run in (None, entry.run)
    ]
    if not found:
        raise OverrideError(
            "the log shows no gate of this run",
            remedy="A run comes to its gate after training and evaluation; then overrides are possible.",
        )
    return found[-1]


def undecided(conditions: Iterable[Condition]) -> tuple[str, ...]:
    """Names of those that are inconclusive and that nobody has excused yet, in their order."""
    return tuple(one.name for one in conditions if one.verdict == "inconclusive" and not one.holds)


def failing(conditions: Iterable[Condition]) -> tuple[str, ...]:
    """Names of those that fail, in their order: nobody overrides them."""
    return tuple(one.name for one in conditions if one.verdict == "fail")


def require_inconclusive(name: str, conditions: Sequence[Condition]) -> None:
    """Check that a condition is one that a person may excuse.

    Args:
        name: as the gate names it.
        conditions: all of the gate's.

    Raises:
        OverrideError: it is none of them, or passes or fails.
    """
    verdicts = {one.name: one.verdict for one in conditions}
    if verdicts.get(name) == "inconclusive":
        return
    told = {"pass": "passes", "fail": "fails", None: "is no condition of this gate"}[verdicts.get(name)]
    found = sorted(name for name, verdict in verdicts.items() if verdict == "inconclusive")
    raise OverrideError(
        f"{name!r} {told}",
        remedy=f"Inconclusive are: {'; '.join(found) or 'none'}. What fails is never overridden.",
    )


def override_of(gate: Gate, condition: str, party: str, person: Person, at: str) -> Override:
    """The entry by which a person excuses a condition.

    Args:
        gate: as the log shows it.
        condition: as the gate names it.
        party: member or coordinator for whom the person speaks, and whose key is to sign.
        person: who it is, and why.
        at: the time, as entries hold it.

    Raises:
        OverrideError: the condition is none of this gate, passes, or fails.
    """
    require_inconclusive(condition, gate.conditions)
    return Override(
        at=at,
        agreement_id=gate.agreement_id,
        run=gate.run,
        party=party,
        name=person.name,
        role=person.role,
        condition=condition,
        artifact_sha256=gate.artifact_sha256,
        reason=person.reason,
    )


def require_override(signed: SignedEntry, gate: Gate) -> Override:
    """Check that an entry excuses a condition of a gate and is signed by the party for whom its person speaks.

    Signatures are verified by whoever logs it.

    Raises:
        OverrideError: it does not; says why.
    """
    entry = signed.entry
    if not isinstance(entry, Override):
        raise OverrideError(f"an entry of type {entry.type!r} excuses nothing")
    about = (entry.agreement_id, entry.run, entry.artifact_sha256)
    if about != (gate.agreement_id, gate.run, gate.artifact_sha256):
        raise OverrideError(
            "the override is about another run or another file than was refused",
            remedy="Have it signed anew, for the gate that the log shows now.",
        )
    if [statement.signer for statement in signed.statements] != [entry.party]:
        raise OverrideError(f"the override is not signed by {entry.party!r} alone, for whom it speaks")
    require_inconclusive(entry.condition, gate.conditions)
    return entry


def read_override(path: Path, gate: Gate, roster: Roster) -> SignedEntry:
    """Read the file of an override that belongs to a gate, and verify it.

    Args:
        path: of the file.
        gate: as the log shows it.
        roster: the keys in force.

    Raises:
        OverrideError: see `require_override`.
        UnknownSignerError, RevokedError, SignatureError: the signature does not count.
        EntryError, UsageError: the file cannot be read.
    """
    signed = read_entry(path)
    try:
        require_override(signed, gate)
    except OverrideError as error:
        raise OverrideError(f"{path}: {error.cause}", remedy=error.remedy) from None
    signed.statements[0].verify(roster, PURPOSE + signed.entry.type)
    return signed
