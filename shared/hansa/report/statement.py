"""What a report promises about privacy, to whom, and what it does not: plain sentences, one place for both forms."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.report import words
from hansa.report.schema import Report

_QUALITY_IS_NOT_PRIVATE = (
    "The quality numbers were measured by the simulator on test records of its own, outside the protocol; they are "
    "not private. A real member releases a metric only with noise and out of its budget."
)


@dataclass(frozen=True)
class Statement:
    """The privacy of a run in words.

    Attributes:
        headline: the promise in one line.
        meaning: what it means, as paragraphs.
        unprotected: what it does not cover, as a list.
    """

    headline: str
    meaning: tuple[str, ...]
    unprotected: tuple[str, ...]


@dataclass(frozen=True)
class Loss:
    """ε of what was released at δ, and the budget that it counts against, if there is one.

    Attributes:
        epsilon, budget: against everyone.
        delta: at which all hold.
        few: the same against at most a few members, where noise is shared: ε, and its budget.
    """

    epsilon: float
    delta: float
    budget: float | None
    few: tuple[float, float | None] | None = None

    @property
    def share(self) -> float | None:
        """What part of the budget that is; `None` without one."""
        return self.epsilon / self.budget if self.budget else None


def statement(report: Report) -> Statement:
    """Say what the numbers in `report.members` promise and what they do not."""
    largest = largest_loss(report)
    return _no_promise() if largest is None else _promise(report, largest)


def largest_loss(report: Report) -> Loss | None:
    """The loss at the member that released most, or `None` where no privacy is claimed."""
    losses = [
        Loss(
            member.epsilon,
            member.delta,
            member.budget_epsilon,
            None
            if member.epsilon_colluding is None
            else (member.epsilon_colluding, member.budget_epsilon_colluding),
        )
        for member in report.members
        if member.epsilon is not None and member.delta is not None and report.mechanism != "none"
    ]
    return max(losses, key=lambda loss: loss.epsilon, default=None)


def still_reserved(report: Report) -> str:
    """What a run that ended early may have left reserved, beside what it released; empty where that cannot be."""
    if report.status != "partial" or largest_loss(report) is None:
        return ""
    return (
        "ε is that of what was released. The run ended early: a member's budget counts all that it reserved as spent, which "
        "is more, while it is open, and for good where the grant adds up whole runs (hansa node budget shows it)."
    )


def unprotected(unit: str) -> tuple[str, ...]:
    """What no ε of a run says anything about, whatever the run.

    Args:
        unit: that is protected, ``record`` or ``patient``.
    """
    other = "patient" if unit == "patient" else "person"
    records = "The unit is a record: a person with k records has up to k times the ε, and a larger δ."
    return (
        "That a member took part, in which rounds, and its public weight are visible.",
        f"A {other} with records at k members has up to k times the ε.",
        *((records,) if unit == "record" else ()),
        "What is true of people in general can be learned, also about somebody who is in no data set.",
        "Another run or agreement on the same records adds its own ε to this one.",
        "A member that lies or fails can shift the sum by a bounded amount without being detected.",
    )


def _promise(report: Report, largest: Loss) -> Statement:
    unit = report.unit
    shared = report.shared_noise
    if largest.few is not None and shared is not None:
        others = words.counted(shared.colluding, "other member")
        headline = (
            f"Every {unit} at every member: ε ≤ {words.epsilon(largest.few[0])} against the coordinator, everyone outside and "
            f"up to {others} together; ε ≤ {words.epsilon(largest.epsilon)} against everyone. Both at "
            f"δ = {words.plain(largest.delta)}, {report.adjacency} adjacency."
        )
    else:
        headline = (
            f"Every {unit} at every member: ε ≤ {words.epsilon(largest.epsilon)} at δ = {words.plain(largest.delta)}, "
            f"{report.adjacency} adjacency."
        )
    neighbours = "all records of one patient" if unit == "patient" else "one record"
    definition = (
        f"Two data sets are neighbours if they differ by {neighbours} being in or out ({report.adjacency}). "
        "Whatever an observer may look for in what left a member, its probability on one of them is at most e^ε "
        "times its probability on the other, plus δ. The ε counts all that this run released, over all rounds; it "
        "is recomputed from the charged events with privacy loss distributions and shown rounded up."
    )
    if report.mechanism == "local":
        against = (
            "It holds against everyone outside the member: the coordinator, all other members together, and whoever "
            "receives the model. It rests on the member's own noise alone, and on nobody else being honest."
        )
    else:
        against = (
            "The smaller ε holds against those who see sums of the members' gradients and not single ones: the coordinator, "
            "whoever receives the model, and as many members as are named, pooling all they know. The noise is the "
            "members' together, so it also rests on the others adding their shares and keeping them to themselves. The larger ε "
            "is the member's own share alone, and rests on nobody: it holds also if all others work together, or if "
            "the masks are broken one day."
        )
    return Statement(headline, (definition, against), (*unprotected(unit), _QUALITY_IS_NOT_PRIVATE))


def _no_promise() -> Statement:
    meaning = (
        "The run was made to compare with. Updates left the members without noise; from such updates, and from the "
        "model, single records can sometimes be reconstructed."
    )
    nothing = "Nothing that left a member, the model included, is differentially private."
    return Statement("No privacy is claimed for this run.", (meaning,), (nothing, _QUALITY_IS_NOT_PRIVATE))
