"""What a run's report says of its mechanism, against the events that members reserved."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import cast

from hansa.audit.findings import REPORT, Notebook
from hansa.audit.rounds import OpenedNoise
from hansa.audit.spending import RunSpend
from hansa.errors import HansaError
from hansa.privacy.charges import TRAINING, Charge
from hansa.privacy.events import EventJson, Spend, rate_and_multiplier
from hansa.privacy.group_rates import epsilon_at_rate
from hansa.report.mitigation import MitigationReport
from hansa.report.schema import Report

RELATIVE = 1e-6  # a multiplier goes through the grid and back, and is the same but for its last digits
_RATE = "sampling_probability"
_NOT_IN_LOGS = "the clipping norm, whether sums were rotated, where randomness came from, how many rounds were planned, bytes, times and versions of software"


def contradiction(report: Report, runs: Sequence[RunSpend], notebook: Notebook) -> tuple[str, str] | None:
    """The first member of the report that the events contradict, and how.

    Args:
        report: what was published.
        runs: of all members under the agreement.
        notebook: learns what was compared, and what could not be.
    """
    notebook.not_checked(f"what {REPORT} says of {_NOT_IN_LOGS}", "logs do not hold it")
    charges = [charge for run in runs for kind, charge in run.charges.items() if kind == TRAINING]
    if not charges:
        if report.mechanism != "none":
            notebook.not_checked(
                f"the mechanism that {REPORT} names", "the logs reserve nothing for training"
            )
        return None
    if report.mechanism == "none":
        return "mechanism", "is none, and members reserved events of one"
    for charge in charges:
        found = _of_charge(report, charge)
        if found is not None:
            return found
    notebook.passed("claims: the mechanism")
    if report.mitigation is None:
        return None
    notebook.not_checked(
        "which groups are drawn at which rates",
        "the terms say so, and logs hold their hash and the largest rate alone",
    )
    found = _of_mitigation(report, report.mitigation)
    if found is None:
        notebook.passed("claims: rates by group, none above the one that is charged")
    return found


def _of_charge(report: Report, charge: Charge) -> tuple[str, str] | None:
    shared = charge.shared is not None
    if shared != (report.mechanism == "distributed"):
        return (
            "mechanism",
            f"is {report.mechanism}, and members reserved {'shared' if shared else 'their own'} noise",
        )
    events = [event for event in (charge.event, charge.shared) if event is not None]
    for event in events:
        rate, _ = rate_and_multiplier(event)
        if _RATE in event and not math.isclose(report.sampling_rate, rate, rel_tol=RELATIVE):
            return "sampling_rate", f"is {report.sampling_rate:g}, and events were reserved at {rate:g}"
    # under shared noise the report's number is that of the promised shares together
    multipliers = [rate_and_multiplier(events[-1])[1]]
    said = report.noise_multiplier
    if said is None or not any(math.isclose(said, one, rel_tol=RELATIVE) for one in multipliers):
        shown = " and ".join(f"{one:g}" for one in multipliers)
        return (
            "noise_multiplier",
            f"is {'missing' if said is None else f'{said:g}'}, and events were reserved at {shown}",
        )
    return _of_shares(report, charge) if shared else None


def _of_mitigation(report: Report, told: MitigationReport) -> tuple[str, str] | None:
    """What a report says of rates by group, against the rate and the events that are charged."""
    if told.accounted_rate != report.sampling_rate:
        return (
            "mitigation.accounted_rate",
            f"is {told.accounted_rate:g}, and events were reserved at {report.sampling_rate:g}",
        )
    deltas = {member.name: member.delta for member in report.members}
    spends: dict[str, list[Spend]] = {}
    for one in report.events:
        spends.setdefault(one.member, []).append(Spend(cast("EventJson", one.event), one.count))
    for group in told.groups:
        place = f"mitigation.groups.{group.value}"
        if not 0 < group.rate <= told.accounted_rate:
            return (
                f"{place}.rate",
                f"is {group.rate:g}, and no unit may be drawn at more than {told.accounted_rate:g}",
            )
        try:
            losses = [
                epsilon_at_rate(each, delta, group.rate)
                for name, each in spends.items()
                if (delta := deltas[name]) is not None
            ]
        except HansaError as error:
            return f"{place}.epsilon", f"cannot be recomputed: {error.cause}"
        most = max(losses, default=0.0)
        if group.epsilon is None or not math.isclose(group.epsilon, most, rel_tol=RELATIVE):
            return f"{place}.epsilon", f"is {group.epsilon}, and {most:.6g} follows from the events"
    return None


def _of_shares(report: Report, charge: Charge) -> tuple[str, str] | None:
    """What a report says of how noise was shared, against the two events of a reservation."""
    told = report.shared_noise
    if told is None or charge.shared is None:
        return "shared_noise", "is missing, and members reserved shared noise"
    own, together = rate_and_multiplier(charge.event)[1], rate_and_multiplier(charge.shared)[1]
    sums = [len(one.present) for one in report.round_log if one.present]
    mean = sum(sums) / (len(sums) * told.honest) if sums and told.honest else 0.0
    facts: list[tuple[str, float, float]] = [
        ("colluding", told.colluding, charge.coalition),
        ("in_parts", told.in_parts, bool(charge.in_parts_of)),
        (
            "honest",
            told.honest,
            told.smallest_sum - charge.coalition if charge.in_parts_of else (together / own) ** 2,
        ),
        ("smallest_sum", told.smallest_sum, told.honest + charge.coalition),
        ("share_multiplier", told.share_multiplier, own),
        ("fewest", told.fewest, min(sums, default=0)),
        ("most", told.most, max(sums, default=0)),
        ("surplus", told.surplus, mean),
    ]
    if told.remaining is not None:
        facts.append(("remaining", told.remaining, _remaining(report, told.honest, charge.coalition)))
    for name, said, is_so in facts:
        if not math.isclose(said, is_so, rel_tol=RELATIVE):
            return f"shared_noise.{name}", f"is {said:g}, and {is_so:g} follows from events and sums"
    if sums and told.fewest < told.smallest_sum:
        return "shared_noise.fewest", f"is {told.fewest}, and no sum is over fewer than {told.smallest_sum}"
    return None


def of_opened(
    report: Report, proven: Mapping[int, OpenedNoise | None], notebook: Notebook
) -> tuple[str, str] | None:
    """The first thing that a report says of opened noise and the rounds' records contradict, and how.

    Args:
        report: what was published.
        proven: of each sum of its run, by the secure sum's round; `None` where its record was not given or does not hold.
        notebook: learns what was compared, and what could not be.
    """
    told = report.shared_noise
    unproven = 0
    for one in report.round_log:
        if one.secure_sum is None or not one.present or not one.secure_sum.rounds:
            continue
        found = proven.get(one.secure_sum.rounds[-1])
        if found is None:
            unproven += 1
            continue
        if one.secure_sum.opened != found.opened:
            return (
                f"round_log.{one.round}.secure_sum.opened",
                f"is {one.secure_sum.opened}, and the record of the round holds {found.opened} seeds of noise",
            )
        if found.smallest_sum is not None and (told is None or told.smallest_sum != found.smallest_sum):
            said = "missing" if told is None else f"{told.smallest_sum}"
            return (
                "shared_noise.smallest_sum",
                f"is {said}, and members opened noise as for {found.smallest_sum}",
            )
        if told is not None and told.in_parts:
            notebook.passed("claims: how much noise was opened")
    if told is not None and told.in_parts and unproven:
        notebook.not_checked(
            f"how much noise was opened in {unproven} sums", "records of these rounds were not given"
        )
    return None


def _remaining(report: Report, honest: int, colluding: int) -> float:
    """What was left in the sums over what was promised, from how many contributed and how many opened their surplus."""
    found = []
    for one in report.round_log:
        members, opened = len(one.present), 0 if one.secure_sum is None else one.secure_sum.opened
        if members and honest and members > colluding:
            found.append((members - opened) / honest + opened / (members - colluding))
    return math.fsum(found) / max(len(found), 1)
