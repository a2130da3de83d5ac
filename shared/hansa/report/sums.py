"""What a report says of its secure sums: the promise in a sentence, costs by phase, and who dropped where."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import fsum

from hansa.report import words
from hansa.report.schema import Report, SecureSumTerms, SumReport
from hansa.report.shared_noise import SharedNoiseReport

PHASES = ("keys", "shares", "delivery", "masked", "confirm", "unmask")
_DOES = {
    "keys": "members offer fresh keys",
    "shares": "they share their secrets",
    "delivery": "they get the others' shares",
    "masked": "they train, mask and send",
    "confirm": "they sign who survived",
    "unmask": "they open one share of each",
}


@dataclass(frozen=True)
class PhaseMean:
    """One phase of the secure sum, as the mean over all rounds that have it.

    Attributes:
        name: of the phase.
        does: what happens in it, in words.
        sent_bytes, received_bytes: from and to the coordinator, all members together.
        seconds: wall clock.
    """

    name: str
    does: str
    sent_bytes: float
    received_bytes: float
    seconds: float


@dataclass(frozen=True)
class Drop:
    """How often a member was first missing in a phase.

    Attributes:
        member: who.
        phase: where.
        rounds: in which rounds.
    """

    member: str
    phase: str
    rounds: tuple[int, ...]


def promise(terms: SecureSumTerms) -> str:
    """What the secure sum keeps from whom, in sentences."""
    colluding = terms.members - terms.threshold
    others = (
        "and no other member"
        if colluding == 0
        else f"and up to {words.counted(colluding, 'member')} on its side"
    )
    if terms.threat_model == "malicious":
        against = f"a coordinator that does anything at all, {others}"
    else:
        against = f"a coordinator that follows the protocol and reads all it can, {others}"
    size = (
        f"all {terms.members} members"
        if terms.smallest_sum == terms.members
        else f"at least {terms.smallest_sum} of {terms.members} members, {terms.honest} of them honest"
    )
    keys = "X25519 with ML-KEM-768" if terms.post_quantum else "X25519"
    return (
        f"Updates were added under masks: against {against}, nothing was seen of any member's update but sums over "
        f"{size}. Masks rest on AES-256 under keys from {keys}."
    )


def shares(noise: SharedNoiseReport) -> str:
    """How noise was shared, and what of it no ε counts, in sentences."""
    turned = noise.rotation != "none"
    present = f"{noise.most}" if noise.fewest == noise.most else f"between {noise.fewest} and {noise.most}"
    return (
        f"The noise of each step is the sum of the contributors' shares. It was set so that {noise.honest} of them are enough: "
        f"no sum is over fewer than {noise.smallest_sum}, and {noise.colluding} may be subtracted by those who know them. "
        f"Sums were over {present} members, so that on average {words.plain(noise.surplus)} times the promised variance was "
        f"{'drawn' if noise.in_parts else 'there'}. {_given_back(noise)} "
        + (
            "Sums were rotated by a public randomised Hadamard transform, which changes no ε. "
            if turned
            else ""
        )
        + "A sum leaves the ring's range "
        f"with a probability of at most {noise.wrap_probability:.0e} over the run; it would be refused."
    )


def _given_back(noise: SharedNoiseReport) -> str:
    if not noise.in_parts or noise.remaining is None:
        return "That surplus is the price of tolerating dropouts and collusion; no ε counts it."
    return (
        "Shares were drawn in parts, and members opened what the contributors of a sum need not keep: "
        f"{words.plain(noise.remaining)} times the promised variance was left. The rest may be subtracted by those who collude; no ε counts it."
    )


def checked(report: Report) -> str:
    """Whether the sums were recomputed, by whom, and what became of failed ones."""
    sums = _sums(report)
    finished = [one for _, one in sums if one.phases]
    verified = Counter(one.verified_by for one in finished if one.verified_by is not None)
    failed = sum(len(one.rounds) for _, one in sums) - len(finished)
    parts = [
        f"{count} of {words.counted(len(finished), 'sum')} recomputed by {name} from the masked vectors and the opened seeds"
        for name, count in sorted(verified.items())
    ] or [f"none of {words.counted(len(finished), 'sum')} recomputed by anyone yet"]
    if failed:
        parts.append(f"{words.counted(failed, 'begun sum')} failed")
    return f"{words.sentence_start('; '.join(parts))}."


def phases(report: Report) -> tuple[PhaseMean, ...]:
    """Mean cost of each phase over the finished rounds, in the order of the protocol."""
    found = []
    for name in PHASES:
        costs = [one.phases[name] for _, one in _sums(report) if name in one.phases]
        if costs:
            count = len(costs)
            found.append(
                PhaseMean(
                    name,
                    _DOES[name],
                    sum(cost.sent_bytes for cost in costs) / count,
                    sum(cost.received_bytes for cost in costs) / count,
                    fsum(cost.seconds for cost in costs) / count,
                )
            )
    return tuple(found)


def drops(report: Report) -> tuple[Drop, ...]:
    """Who was first missing where, members in the agreement's order, phases in the protocol's."""
    rounds: dict[tuple[str, str], list[int]] = {}
    for number, one in _sums(report):
        for member, phase in one.dropped.items():
            rounds.setdefault((member, phase), []).append(number)
    names = [member.name for member in report.members]
    order = {phase: index for index, phase in enumerate(PHASES)}
    listed = sorted(rounds, key=lambda key: (names.index(key[0]), order.get(key[1], len(order)), key[1]))
    return tuple(Drop(member, phase, tuple(rounds[member, phase])) for member, phase in listed)


def blamed(report: Report) -> tuple[str, ...]:
    """Whom signatures prove to have misbehaved, a sentence each."""
    return tuple(
        f"Round {number}: {member} {how}"
        for number, one in _sums(report)
        for member, how in one.blamed.items()
    )


def drop_in_words(drop: Drop) -> str:
    """A drop as a line: ``va: masked, in round 3``."""
    shown = ", ".join(str(number) for number in drop.rounds[:6])
    more = f" and {len(drop.rounds) - 6} more" if len(drop.rounds) > 6 else ""
    return f"{drop.member}: {drop.phase}, in {'round' if len(drop.rounds) == 1 else 'rounds'} {shown}{more}"


def _sums(report: Report) -> list[tuple[int, SumReport]]:
    return [(entry.round, entry.secure_sum) for entry in report.round_log if entry.secure_sum is not None]
