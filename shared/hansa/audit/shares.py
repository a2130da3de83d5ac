"""Noise that members count on from each other: whether there were as many shares as a reservation says.

A reservation under shared noise names two events: the member's own share, and what it faces together with others'. The
second may count no more shares than the smallest sum held, less those that may be subtracted; and the members of a run have
one agreement, so that all of them reserve the same. Where shares are drawn in parts, as much stays of each as its sum needs, and
the first event is what stays where all members contribute; that members draw their parts so is theirs to keep.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from hansa.audit.findings import Failure, Notebook
from hansa.audit.integrity import Examined
from hansa.audit.spending import RunSpend
from hansa.ledger.trust import TrustedKeys
from hansa.privacy.charges import Charge
from hansa.privacy.events import numbers_of

RESERVATION = "reservation"
_RELATIVE = 1e-9  # multipliers go through a square root and decimals


def check_shares(
    federation: Examined | None, own: Mapping[str, Examined], keys: TrustedKeys, notebook: Notebook
) -> None:
    """Compare what reservations count on with the sums of the federation's log, and with each other."""
    smallest = _smallest_sums(federation)
    first: dict[tuple[str, str], tuple[str, Charge]] = {}
    for log in (*own.values(), *(() if federation is None else (federation,))):
        for run, kind, charge in _shared(log):
            seen = smallest.get(run.run)
            problem = _too_many(charge, seen, len(keys.members))
            name, other = first.setdefault((run.run, kind), (run.member, charge))
            if not problem and not _same(charge, other):
                problem = f"it counts on other shares of noise than {name!r} does in the same run"
            if problem:
                notebook.failed(Failure(log.log, run.entry, RESERVATION, problem, log.place))
                return
            notebook.passed("reservations that count on no more shares of noise than there were")


def _smallest_sums(federation: Examined | None) -> Mapping[str, int]:
    """How many members the smallest sum of each run is over."""
    found: dict[str, int] = {}
    for _, entry in () if federation is None else federation.facts.aggregates:
        found[entry.run] = min(found.get(entry.run, len(entry.released)), len(entry.released))
    return found


def _shared(log: Examined) -> Iterator[tuple[RunSpend, str, Charge]]:
    for run in log.facts.spending.runs.values():
        for kind, charge in run.charges.items():
            if charge.shared is not None:
                yield run, kind, charge


def _too_many(charge: Charge, summed: int | None, league: int) -> str:
    """What is wrong with how many shares a charge counts on, in the smallest sum of its run, or in the whole league."""
    members = league if summed is None else summed
    if charge.in_parts_of:
        if members <= charge.coalition or charge.in_parts_of > league:
            return (
                f"it counts on noise in parts of {charge.in_parts_of} members, {charge.coalition} of whom may collude; a sum is "
                f"over {members} of {league}"
            )
        # whoever contributes, the parts that stay are the promised noise; against everyone all surplus is gone
        members = charge.in_parts_of
    if charge.shared is None:
        return ""
    honest = members - charge.coalition
    own, together = numbers_of(charge.event).multiplier, numbers_of(charge.shared).multiplier
    if honest >= 1 and together <= own * math.sqrt(honest) * (1 + _RELATIVE):
        return ""
    counted = (together / own) ** 2
    where = "the agreement has" if summed is None else "the smallest sum of its run is over"
    return (
        f"it counts on {counted:.4g} shares of noise against {charge.coalition} that collude, and {where} {members} members, "
        f"which leaves {max(honest, 0)}"
    )


def _same(one: Charge, other: Charge) -> bool:
    """Whether two members of a run charge the same for one release; how many they allow is their own affair."""
    return (one.event, one.shared, one.coalition, one.in_parts_of) == (
        other.event,
        other.shared,
        other.coalition,
        other.in_parts_of,
    )
