"""One attack from its design to its verdict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from hansa.agreement import Agreement
from hansa.canonical import Json
from hansa.errors import PrivacyParameterError
from hansa.ledger import AttackMade, Spending, real
from hansa.privacy.attack import CONFIDENCE, Claim, Design, Verdict
from hansa.privacy.events import Spend
from hansa.privacy.randomness import Randomness, SecretRandomness
from hansa.privacy.sampling import PoissonSampling
from hansa_client.attack.gradients import gradient_scores
from hansa_client.attack.guessing import Coins, right_guesses
from hansa_client.attack.trainers import of_no_group, seen_alone
from hansa_client.attack.units import unit_scores
from hansa_client.training import TrainerFactory, TrainingPlan
from hansa_client.training.gradients import GradientEngine

Progress = Callable[[int, int], None]


def _silent(_done: int, _total: int) -> None:
    return None


@dataclass(frozen=True)
class Attack:
    """An attack that was made.

    Attributes:
        member: whose plan was attacked.
        canaries: what they were: ``gradients`` or ``units``.
        verdict: what came of it.
        seed: of the coins; `None` where they were secret.
    """

    member: str
    canaries: Literal["gradients", "units"]
    verdict: Verdict
    seed: int | None

    def as_dict(self) -> Mapping[str, Json]:
        """As plain JSON values."""
        told = {"member": self.member, "kind": self.canaries, "seed": self.seed, **self.verdict.as_dict()}
        if self.canaries != "gradients":
            told["detectable_noise"] = None  # that is computed for scores that see every step
        return told

    def entry(self, agreement_id: str, at: str) -> AttackMade:
        """What goes into a ledger: counts and events, from which anybody computes the bounds anew.

        Args:
            agreement_id: of the frozen agreement.
            at: the time, as entries hold it.
        """
        design = self.verdict.design
        return AttackMade(
            at=at,
            agreement_id=agreement_id,
            member=self.member,
            kind=self.canaries,
            canaries=design.canaries,
            guessed_in=design.guessed_in,
            guessed_out=design.guessed_out,
            correct=self.verdict.correct,
            confidence=real(design.confidence),
            delta=real(design.claim.delta),
            spends=tuple(Spending.of(spend) for spend in design.claim.spends),
            seed=self.seed,
        )


def claim_of(agreement: Agreement, member: str) -> Claim:
    """What one run of a frozen agreement, without retries, is charged as.

    Raises:
        PrivacyParameterError: it claims no privacy, or draws in a way of which attacks know nothing.
    """
    plan = TrainingPlan.of(agreement, member)
    if plan.adapts is not None:
        raise PrivacyParameterError(
            "attacks know nothing of what adapts to the sums",
            remedy="Attack the agreement without [mitigation.clipping] and [mitigation.weights]; its events are the same.",
        )
    spend = plan.spend()
    delta = agreement.terms.privacy.delta
    if spend is None or delta is None:
        raise PrivacyParameterError(
            "a run without privacy claims nothing that could be attacked",
            remedy="Attack an agreement with a mechanism.",
        )
    if not isinstance(plan.sampling, PoissonSampling):
        raise PrivacyParameterError(
            f"attacks know nothing of batches that are drawn as {agreement.terms.privacy.sampling!r}",
            remedy="Attack an agreement with sampling = 'poisson'.",
        )
    steps = agreement.terms.training.rounds * plan.steps_per_round
    return Claim((Spend(spend.event, steps),), delta)


def attack_gradients(
    agreement: Agreement,
    member: str,
    canaries: int,
    *,
    confidence: float = CONFIDENCE,
    seed: int | None = None,
    randomness: Callable[[], Randomness] = SecretRandomness,
    progress: Progress = _silent,
) -> Attack:
    """Attack the trainer of a member with gradients as canaries.

    Args:
        agreement: frozen.
        member: whose plan.
        canaries: how many.
        confidence: one minus the probability that a trainer that keeps its word is accused.
        seed: of the coins, for an attack in public; secret without one.
        randomness: makes the secret numbers of one round.
        progress: told how many rounds of how many are done.
    """
    design = Design.best(claim_of(agreement, member), canaries, confidence)
    coins = Coins.thrown(canaries, seed)
    scores = gradient_scores(
        TrainingPlan.of(agreement, member),
        coins,
        agreement.terms.training.rounds,
        agreement.terms.privacy.max_records_per_unit,
        randomness,
        progress,
    )
    return Attack(member, "gradients", design.judge(right_guesses(scores, coins, design)), seed)


def attack_units(
    agreement: Agreement,
    engine: GradientEngine,
    member: str,
    canaries: int,
    *,
    confidence: float = CONFIDENCE,
    seed: int | None = None,
    randomness: Callable[[], Randomness] = SecretRandomness,
    progress: Progress = _silent,
) -> Attack:
    """Attack a training of the agreement's model, which `engine` holds, with generated units; see `attack_gradients`."""
    design = Design.best(claim_of(agreement, member), canaries, confidence)
    coins = Coins.thrown(canaries, seed)
    plan = TrainingPlan.of(agreement, member)
    with closing(TrainerFactory(engine, agreement)) as factory:
        scores = unit_scores(
            engine,
            len(agreement.terms.task.labels),
            lambda data: seen_alone(factory.trainer(member, of_no_group(data, plan)), plan),
            coins,
            agreement.terms.training.rounds,
            agreement.terms.privacy.max_records_per_unit,
            randomness,
            progress,
        )
    return Attack(member, "units", design.judge(right_guesses(scores, coins, design)), seed)
