"""Entries about attacks: what a member found when it attacked its own trainer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from hansa.agreement.section import Name
from hansa.ledger.entry import Counter, OfAgreement, Ordinal, PositiveReal, Spending, real_value


class AttackMade(OfAgreement):
    """A member attacked its trainer with canaries that are nobody's data, in one run (`hansa.privacy.attack`).

    No bound stands here: whoever reads it computes the bounds from the counts.

    Attributes:
        member: whose trainer, and whose word.
        kind: what the canaries were.
        canaries: how many, each in by a fair coin.
        guessed_in, guessed_out: how many guesses; fixed before the attack.
        correct: guesses that were right.
        confidence: one minus the probability that a true claim is contradicted.
        delta: at which ε is told.
        spends: what the attacked run is charged as; nothing of it is charged here.
        seed: of the coins; null where they were secret.
    """

    type: Literal["attack"] = "attack"
    member: Name
    kind: Literal["gradients", "units"]
    canaries: Ordinal
    guessed_in: Counter
    guessed_out: Counter
    correct: Counter
    confidence: PositiveReal
    delta: PositiveReal
    spends: Annotated[tuple[Spending, ...], Field(min_length=1, max_length=100)]
    seed: Counter | None = None

    @model_validator(mode="after")
    def _coherent(self) -> AttackMade:
        if not real_value(self.delta) < 1 or not real_value(self.confidence) < 1:
            raise ValueError("delta and confidence are below 1")
        guesses = self.guessed_in + self.guessed_out
        if guesses < 1 or not self.correct <= guesses <= self.canaries:
            raise ValueError(
                "there are more right guesses than guesses, or more of them than canaries, or none"
            )
        return self

    @property
    def writer(self) -> str:
        return self.member
