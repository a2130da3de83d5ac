"""Agreements derived on the command line: the same task without one of its constraints, under an id of its own."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.agreement import Agreement
from hansa.agreement.terms import SHARED_NOISE_OPTIONS
from hansa.errors import UsageError
from hansa.privacy.adaptation import adaptation_of

_UNSHARED = dict.fromkeys(SHARED_NOISE_OPTIONS)  # taken out of the terms


@dataclass(frozen=True)
class Derivation:
    """What the command line changes in the terms.

    Attributes:
        no_dp: leave out clipping and noise.
        mechanism: another privacy mechanism.
        baseline: ``pooled`` trains on all records in one place, ``local-only`` one model at each member.
        epsilon: another promise, at the same δ.
        learning_rate: another one, of the members' steps.
        no_mitigation: draw all groups at the agreement's one rate, and adapt nothing.
    """

    no_dp: bool = False
    mechanism: str | None = None
    baseline: str | None = None
    epsilon: float | None = None
    learning_rate: float | None = None
    no_mitigation: bool = False

    def changes(self) -> tuple[str, ...]:
        """The changes in words."""
        words = []
        if self.no_dp:
            words.append("no clipping and no noise: no privacy is claimed")
        if self.mechanism is not None:
            alone = ", each step a round of its own" if self.mechanism == "distributed" else ""
            words.append(f"privacy mechanism {self.mechanism}{alone}")
        if self.epsilon is not None:
            words.append(f"ε = {self.epsilon:g}")
        if self.learning_rate is not None:
            words.append(f"learning rate {self.learning_rate:g}")
        if self.no_mitigation:
            words.append("no mitigation: groups are drawn at one rate, and nothing adapts")
        if self.baseline == "pooled":
            words.append("all records in one place")
        if self.baseline == "local-only":
            words.append("every member alone")
        return tuple(words)

    def apply(self, agreement: Agreement) -> Agreement:
        """The derived agreement; the same one if nothing changes.

        Raises:
            AgreementError: the changed terms break a rule.
            UsageError: the changes contradict each other.
        """
        if self.no_dp and self.mechanism is not None:
            raise UsageError("--no-dp and --mechanism contradict each other", remedy="Pass one of them.")
        if self.epsilon is not None and (self.no_dp or not agreement.terms.private):
            raise UsageError(
                "--epsilon is for a run that claims privacy", remedy="Leave it out, or name a mechanism."
            )
        if self.baseline not in (None, "pooled", "local-only"):
            raise UsageError(f"there is no baseline {self.baseline!r}", remedy="Use pooled or local-only.")
        if self.no_mitigation and agreement.terms.mitigation is None:
            raise UsageError("--no-mitigation: the agreement mitigates nothing", remedy="Leave it out.")
        if self.no_mitigation:
            agreement = without_mitigation(agreement)
        self._refuse_adaptation(agreement)
        if self.no_dp:
            agreement = without_privacy(agreement)
        if self.epsilon is not None:
            agreement = agreement.derive(privacy={"epsilon": self.epsilon})
        if self.learning_rate is not None:
            agreement = agreement.derive(training={"learning_rate": self.learning_rate})
        if self.mechanism is not None:
            agreement = under(agreement, self.mechanism)
        if self.baseline == "pooled":
            agreement = pooled(agreement)
        if self.baseline == "local-only":
            agreement = _by_itself(agreement).derive(baseline="local-only")
        return agreement

    def _refuse_adaptation(self, agreement: Agreement) -> None:
        """What adapts to sums of all members cannot be carried over to training that has none."""
        asked = {
            "--no-dp": self.no_dp,
            f"--mechanism {self.mechanism}": self.mechanism not in (None, "distributed"),
            f"--baseline {self.baseline}": self.baseline is not None,
        }
        for option, given in asked.items():
            if given and adaptation_of(agreement.terms) is not None:
                raise UsageError(
                    f"{option}: something adapts to noisy sums under this agreement ([mitigation]), and there are none then",
                    remedy="Pass --no-mitigation beside it.",
                )


def without_privacy(agreement: Agreement) -> Agreement:
    """The same training without clipping and noise, and without evaluations that nothing would hide, and what adapts to noise."""
    return without_adaptation(agreement).derive(
        privacy={"mechanism": "none", "epsilon": None, "delta": None, **_UNSHARED},
        evaluation=None,
        publication=None,
    )


def without_mitigation(agreement: Agreement) -> Agreement:
    """The same training with all groups drawn at the agreement's one rate, and nothing adapted, under the same ε."""
    return agreement.derive(mitigation=None)


def without_adaptation(agreement: Agreement) -> Agreement:
    """The same training with a fixed clipping norm: rates by group stay."""
    mitigation = agreement.terms.mitigation
    if mitigation is None or adaptation_of(agreement.terms) is None:
        return agreement
    kept = mitigation.sampling
    return agreement.derive(mitigation=None if kept is None else {"clipping": None, "weights": None})


def under(agreement: Agreement, mechanism: str) -> Agreement:
    """The same training under another privacy mechanism; under ``distributed`` each step is a round.

    Raises:
        AgreementError: the terms do not allow it, as with fixed batches or weights set by hand under ``distributed``.
    """
    if mechanism != "distributed":
        return without_adaptation(agreement).derive(privacy={"mechanism": mechanism, **_UNSHARED})
    return agreement.derive(
        privacy={"mechanism": mechanism}, training={"rounds": agreement.terms.privacy.steps}
    )


def pooled(agreement: Agreement) -> Agreement:
    """The same training on all records in one place, under one member called ``pooled``."""
    units = sum(member.units for member in agreement.terms.members)
    members = [{"name": "pooled", "units": units}]
    return _by_itself(agreement).derive(baseline="pooled", members=members)


def alone(agreement: Agreement, member: str) -> Agreement:
    """The same training at one member only."""
    kept = next(m for m in agreement.terms.members if m.name == member)
    members = [{"name": kept.name, "units": kept.units}]
    return _by_itself(agreement).derive(baseline="local-only", members=members)


def _by_itself(agreement: Agreement) -> Agreement:
    """Who trains without others shares no noise with them, and has nobody to evaluate with."""
    agreement = without_adaptation(agreement)
    if agreement.terms.evaluation is not None:
        agreement = agreement.derive(evaluation=None, publication=None)
    if agreement.terms.privacy.mechanism != "distributed":
        return agreement
    return agreement.derive(privacy={"mechanism": "local", **_UNSHARED})
