"""What a budget allows, in words: for who grants it, and for who reads it."""

from __future__ import annotations

from collections.abc import Collection

from hansa.privacy.composition import Adding, AnyOf, FixedInAdvance, RenyiFilter, Rule


def rule_words(rule: Rule) -> str:
    """How runs add up by a rule, and what more runs mean, in sentences."""
    match rule:
        case FixedInAdvance():
            return (
                "All runs were planned before the first one: their events compose exactly (PLD), as one run would. "
                "Not for runs that are chosen after seeing what came out of others."
            )
        case Adding(reservations=1):
            return (
                "One run, at its exact ε (PLD). Any further run is refused, whatever is left: "
                "grant with --reservations for more."
            )
        case Adding(reservations=number):
            return (
                f"At most {number} runs: each takes its exact ε at one part in {number} of δ, these add up, and a run "
                "that ends early costs as much as planned."
            )
        case RenyiFilter(order=order):
            return (
                f"Any number of runs while their Rényi loss of order {order} fits: releases count one by one, and a run "
                "that ends early gives back what it did not release."
            )
        case AnyOf(rules=rules):
            ways = "\n".join(f"  - {rule_words(one)}" for one in rules)
            return f"A run is admitted if one of these admits it, each with an equal part of δ:\n{ways}"
    return f"By the rule {rule.as_dict()['rule']}."


def no_total_words(units: Collection[str]) -> str:
    """Why budgets for several units have no total."""
    each = ", ".join(sorted(set(units)))
    return (
        f"Its budgets are for different units ({each}), and have no total: a person may be in all of the datasets, with "
        "more than one record, and may lose more than any one of these budgets says"
    )


def loss_words(epsilon: float, delta: float) -> str:
    """An (ε, δ) in short."""
    return f"ε = {epsilon:.4g} at δ = {delta:g}"
