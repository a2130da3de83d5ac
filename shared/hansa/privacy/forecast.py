"""What an agreement would cost a member, before it signs: how many rounds its budget affords."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.canonical import Json
from hansa.privacy.book import BudgetBook
from hansa.privacy.charges import charges_of
from hansa.privacy.distributed import agreed_noise
from hansa.privacy.quote import Quote
from hansa.privacy.words import rule_words

if TYPE_CHECKING:
    from hansa.agreement.terms import Terms


@dataclass(frozen=True)
class Forecast:
    """What the budget affords of a run.

    Attributes:
        rounds: of the agreement.
        affordable: how many of them fit, retries included; never more than `rounds`.
        retries: rounds that may be repeated, each charged anew.
        noise_multiplier: of the agreement.
        noise_multiplier_needed: with which all rounds would fit; `None` if none is enough.
        quotes: what the whole run would mean for each limit.
    """

    rounds: int
    affordable: int
    retries: int
    noise_multiplier: float
    noise_multiplier_needed: float | None
    quotes: tuple[Quote, ...]

    @property
    def fits(self) -> bool:
        """Whether the whole run could be reserved."""
        return all(quote.fits for quote in self.quotes)

    def as_dict(self) -> dict[str, Json]:
        """As plain JSON values; an ε without a bound is `null`."""
        return {
            "rounds": self.rounds,
            "affordable_rounds": self.affordable,
            "retries": self.retries,
            "fits": self.fits,
            "noise_multiplier": self.noise_multiplier,
            "noise_multiplier_needed": self.noise_multiplier_needed,
            "limits": [_quote(quote) for quote in self.quotes],
        }

    def text(self) -> str:
        """As a person reads it."""
        retries = f", {self.retries} retries included" if self.retries else ""
        lines = [
            f"{self.affordable} of {self.rounds} rounds fit "
            f"(noise multiplier {self.noise_multiplier:.4g}{retries})."
        ]
        for quote in self.quotes:
            verdict = "fits" if quote.fits else "does not fit"
            used = f"  against {quote.against}: ε = {quote.used:.4g} used of {quote.limit.epsilon:.4g} at δ = {quote.limit.delta:g}; "
            if quote.run_admitted:
                lines.append(f"{used}{quote.together:.4g} with the whole run, which {verdict}.")
            else:
                words = rule_words(quote.rule).replace("\n", "\n    ")
                lines.append(f"{used}no further run is admitted, whatever it costs.\n    {words}")
        if not self.fits and all(quote.run_admitted for quote in self.quotes):
            needed = self.noise_multiplier_needed
            lines.append(
                "  No noise would let all rounds fit."
                if needed is None
                else f"  All rounds would fit with a noise multiplier of {needed:.4g}."
            )
        return "\n".join(lines)


def forecast(
    terms: Terms, book: BudgetBook, noise_multiplier: float | None = None, *, retries: int | None = None
) -> Forecast:
    """How many rounds of an agreement a member can afford.

    Args:
        terms: of an agreement, frozen or not.
        book: the member's own; nothing in it changes.
        noise_multiplier: the frozen one; by default what freezing would calibrate.
        retries: rounds that the member would let be repeated; by default those that the agreement allows.

    Raises:
        PrivacyParameterError: the agreement claims no privacy, or no noise keeps its own promise.
    """
    noise_multiplier = agreed_noise(terms, noise_multiplier)
    retries = terms.secure_sum.retries if retries is None else retries
    rounds = terms.training.rounds
    whole = charges_of(terms, noise_multiplier, retries=retries)
    quotes = book.quotes(whole)
    low, high = 0, rounds + 1
    if all(quote.fits for quote in quotes):
        low = rounds
    while high - low > 1:
        middle = (low + high) // 2
        fits = book.fits(charges_of(terms, noise_multiplier, rounds=middle, retries=retries))
        low, high = (middle, high) if fits else (low, middle)
    factor = 1.0 if low == rounds else book.noise_that_fits(whole)
    return Forecast(
        rounds=rounds,
        affordable=low,
        retries=retries,
        noise_multiplier=noise_multiplier,
        noise_multiplier_needed=None if factor is None else noise_multiplier * factor,
        quotes=quotes,
    )


def _quote(quote: Quote) -> Mapping[str, Json]:
    return {
        "against": quote.against,
        "limit": quote.limit.as_dict(),
        "epsilon_used": _plain(quote.used),
        "epsilon_with_run": _plain(quote.together),
        "run_admitted": quote.run_admitted,
        "fits": quote.fits,
    }


def _plain(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
