"""An attack in sentences: what came of it, and what an attack of its size can and cannot tell."""

from __future__ import annotations

import math
from collections.abc import Iterator

from hansa.privacy.attack import Verdict

_CANARIES = {
    "gradients": "gradients of known directions, in a model made for the attack",
    "units": "generated records, in a training of the agreement's model",
}
CANNOT = {
    "gradients": (
        "what happens outside the trainer: how the agreement's own model makes gradients, which records are read as one "
        "unit, what else leaves the member",
        "randomness that its maker can predict: the attacker here cannot",
        "a trainer that behaves otherwise while it is attacked",
    ),
    "units": (
        "most of what a run gives away: the last model alone is looked at, and all canaries share it, so that a small bound "
        "says little",
        "what only real records would show: canaries are generated, and some real record may stand out more",
        "randomness that its maker can predict: the attacker here cannot",
    ),
}


def told(kind: str, verdict: Verdict) -> Iterator[str]:
    """Lines for people: outcome, bound beside claim, ceiling, and limits.

    Args:
        kind: what the canaries were: ``gradients`` or ``units``.
        verdict: what came of it.
    """
    design = verdict.design
    claimed = design.claim.epsilon
    yield (
        f"{design.canaries} canaries ({_CANARIES[kind]}), each in or out by a fair coin of its own. Fixed beforehand: "
        f"{design.guessed_in} guesses of in, {design.guessed_out} of out. Right: {verdict.correct} of {design.guesses}."
    )
    limit = f"ε ≤ {claimed:.3g}" if math.isfinite(claimed) else "nothing, for its ε has no bound"
    yield (
        f"Lower bound: ε ≥ {verdict.epsilon:.3g} at δ = {design.claim.delta:g}, with {100 * design.confidence:.4g} % "
        f"confidence. Claimed: {limit}."
    )
    yield (
        f"  whatever the mechanism: {verdict.epsilon_any_mechanism:.3g}; for the stated mechanism with unknown noise: "
        f"{verdict.epsilon_stated_mechanism:.3g}"
    )
    yield f"Ceiling: with all {design.guesses} guesses right the bound would be {design.ceiling:.3g}."
    if verdict.contradicts:
        yield f"CONTRADICTED: {design.needed_text} right guesses refute the claim."
    else:
        yield (
            f"Not contradicted: that takes {design.needed_text} right guesses. It is no proof of the claim: the accounting "
            "is, as far as the code does what it says."
        )
    yield f"An attack of this size can find {_can(kind, verdict)}."
    yield f"It cannot find {'; '.join(CANNOT[kind])}."


def _can(kind: str, verdict: Verdict) -> str:
    share = verdict.design.detectable_noise
    if verdict.design.needed is None:
        return "nothing against this claim, however broken the trainer: take more canaries"
    if kind != "gradients":
        return "faults that let single records show in the last model, such as no clipping, or no noise and many steps"
    if share is None:
        return "gross faults only: at the stated rate and steps not even a trainer without noise is sure to be found"
    if share == 0:
        return "a trainer without any noise, 19 times of 20"
    return (
        f"noise of {share:.0%} of what is stated or less, or sums that are as much too sensitive, 19 times of 20; more "
        "noise than that passes"
    )
