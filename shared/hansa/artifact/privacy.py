"""The privacy statement: the agreement and the events of a run as answers to the questions of NIST SP 800-226.

The publication (Near, Darais, Lefkovitz, Howarth: Guidelines for Evaluating Differential Privacy Guarantees, NIST SP
800-226, 2025) orders them as a pyramid: the guarantee on top; under it what can undermine it; at the base how data are
collected and who can reach them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hansa.agreement import Agreement
from hansa.artifact.contents import Answer, Events, Loss, PrivacyStatement, StepTold
from hansa.errors import Problem
from hansa.gate.errors import NotPublishedError
from hansa.gate.record import MemberSpent
from hansa.privacy.adaptation import adaptation_of
from hansa.privacy.events import Spend
from hansa.privacy.sampling import GroupSampling, sampling_of
from hansa.report.statement import unprotected

_NOTHING = "Nothing is promised: updates left the members without noise."


def privacy_statement(
    agreement: Agreement, spent: Mapping[str, MemberSpent], steps: Sequence[StepTold]
) -> PrivacyStatement:
    """Say what is promised.

    Args:
        agreement: frozen.
        spent: all DP events that each member has released in the run, evaluations included.
        steps: of compression.

    Guarantees: ε is recomputed from the events with the accountant of record, never taken from anyone.

    Raises:
        NotPublishedError: a member's ε has no bound, or cannot be told; nothing can be promised to its people.
    """
    terms = agreement.terms
    delta = terms.privacy.delta
    losses: list[Loss] = []
    if terms.private and delta is not None:
        epsilons = {member: one.epsilon(delta) for member, one in spent.items()}
        if untold := [member for member, epsilon in epsilons.items() if not math.isfinite(epsilon)]:
            raise NotPublishedError(
                f"nothing is published: ε cannot be told at {', '.join(untold)}",
                [Problem(member, "its own entries give no ε that could be promised") for member in untold],
            )
        losses = [
            Loss(
                member=member,
                epsilon=epsilons[member],
                events=_events(one.together),
                apart=_events(one.apart),
            )
            for member, one in spent.items()
        ]
    claimed = bool(losses)
    return PrivacyStatement(
        agreement_id=agreement.agreement_id,
        claimed=claimed,
        epsilon=max(loss.epsilon for loss in losses) if claimed else None,
        delta=delta if claimed else None,
        unit=terms.privacy.unit,
        max_records_per_unit=terms.privacy.max_records_per_unit,
        mechanism=terms.privacy.mechanism,
        losses=losses,
        answers=_answers(agreement, losses, steps),
        unprotected=list(unprotected(terms.privacy.unit)),
    )


def _events(spends: Sequence[Spend]) -> Events:
    return [(dict(spend.event), spend.count) for spend in spends]


def _answers(agreement: Agreement, losses: Sequence[Loss], steps: Sequence[StepTold]) -> list[Answer]:
    privacy = agreement.terms.privacy
    guarantee = _NOTHING
    if losses:
        guarantee = (
            f"(ε, δ)-differential privacy with ε = {max(loss.epsilon for loss in losses):.4g} and "
            f"δ = {privacy.delta:g}, for every {privacy.unit} at every member, for all that was released together."
        )
    unit = "one record" if privacy.unit == "record" else "all records of one patient"
    trust = {
        "local": "Each member trusts itself alone: its own noise is full before anything leaves it. Coordinator, other "
        "members and readers of the model are not trusted.",
        "distributed": "Members trust that more than a third of them neither fail nor pool what they know: the noise "
        "is the sum of their shares. The coordinator is not trusted.",
        "none": "Everybody who sees the model is trusted with what it may reveal.",
    }[privacy.mechanism]
    paid = "; ".join(f"{step.name}: {step.privacy}" for step in steps) or "no step was taken"
    return [
        Answer(question="What is the guarantee, and how large are ε and δ?", answer=guarantee),
        Answer(
            question="What is the unit of privacy?",
            answer=f"{unit.capitalize()}; a unit brings at most {privacy.max_records_per_unit} records.",
        ),
        Answer(
            question="When are two data sets neighbours?",
            answer=f"When one has {unit} that the other has not (add or remove one).",
        ),
        Answer(
            question="Which mechanism is used?",
            answer="None."
            if privacy.mechanism == "none"
            else f"DP-SGD: gradients clipped to {privacy.clipping_norm:g}{_adapts(agreement)}, sampled at the public rate "
            f"{privacy.sampling_rate:g} ({privacy.sampling}{_by_group(agreement)}), discrete Gaussian noise on an integer grid "
            f"({privacy.mechanism}).",
        ),
        Answer(
            question="Who is trusted, and with what?",
            answer=trust,
        ),
        Answer(
            question="How is the loss composed over releases?",
            answer="By privacy loss distributions over every event listed in this statement; whoever verifies the "
            "package recomputes ε from them.",
        ),
        Answer(
            question="Does measuring the model's quality cost privacy?",
            answer="Yes. The quality by group is a release too: counts with noise, summed over members. Its events are in "
            "this statement; "
            + (
                "they are of units that a public rule keeps out of training, so a unit loses the larger of the two."
                if any(loss.apart for loss in losses)
                else "they add to those of training."
            ),
        ),
        Answer(
            question="Does what was done to the model after training cost privacy?",
            answer=f"{paid[0].upper()}{paid[1:]}.",
        ),
        Answer(
            question="Could the implementation undermine the guarantee?",
            answer="Noise comes from a cryptographic generator on an integer grid, never from floating point; "
            "divisors and rates are public; timing of a member's work is not hidden.",
        ),
        Answer(
            question="Are releases secured on their way, and recorded?",
            answer="Updates travel masked in a secure sum and signed; every release is an entry in its member's ledger "
            "and in the federation's log, which members cosign. The proof of this publication is in the package.",
        ),
        Answer(
            question="How were the data collected, and who can reach them?",
            answer="They stay with each member, under its own consent and access rules, on which this statement "
            "says nothing.",
        ),
    ]


def _adapts(agreement: Agreement) -> str:
    """Between which bounds the clipping norm moved and groups were weighed, where that adapted."""
    adapts, told = adaptation_of(agreement.terms), ""
    if adapts is not None and adapts.norm is not None:
        rule = adapts.norm
        told += f" at first, then to a norm between {rule.smallest:g} and {rule.largest:g} that follows from the noisy sums"
    if adapts is not None and adapts.weights is not None:
        told += f", weighed by {adapts.weights.attribute} between {adapts.weights.smallest:g} and 1 as noisy losses say"
    return told


def _by_group(agreement: Agreement) -> str:
    """Rates of groups, where each has its own."""
    sampling = sampling_of(agreement.terms)
    if not isinstance(sampling, GroupSampling):
        return ""
    told = ", ".join(f"{value} {rate:g}" for value, rate in sampling.rates.items())
    return f", the largest; by {sampling.attribute}: {told}"


def statement_text(statement: PrivacyStatement) -> str:
    """`privacy_statement.md`."""
    lines = ["# Privacy statement", ""]
    for item in statement.answers:
        lines += [f"**{item.question}** {item.answer}", ""]
    if statement.losses:
        lines += ["| member | ε | δ |", "| --- | --- | --- |"]
        lines += [
            f"| {loss.member} | {loss.epsilon:.4g} | {statement.delta:g} |" for loss in statement.losses
        ]
        lines += [""]
    lines += ["## What is not protected", "", *(f"- {line}" for line in statement.unprotected), ""]
    lines += [f"Agreement `{statement.agreement_id}`.", ""]
    return "\n".join(lines)
