"""Freezing: what only the built model and the accountant can say, added to the terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from hansa.agreement.document import Agreement, Frozen, FrozenModel

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


class FrozenParts(Protocol):
    """What of a model is the same for the whole run (`hansa.models.BuiltModel` has it)."""

    @property
    def frozen_sha256(self) -> str:
        """SHA-256 of the weights that are not trained."""

    @property
    def tokenizer_sha256(self) -> str | None:
        """SHA-256 of the tokenizer's files; `None` for tables."""


def freeze_with(agreement: Agreement, parts: FrozenParts, start: npt.NDArray[np.float64]) -> Agreement:
    """The agreement with the hashes of model 0 and the noise multiplier that its privacy section needs.

    Args:
        agreement: frozen or not; what was frozen before is replaced.
        parts: of the model that was built from `agreement.terms`.
        start: float64 [d], the trained weights before the first round, a public warm start included.

    Raises:
        PrivacyParameterError: no noise multiplier reaches the agreement's ε and δ.
    """
    from hansa.wire import array_sha256  # numpy, which checking an agreement does not need

    vector = start.astype("<f8")
    frozen = Frozen(
        terms_id=agreement.terms_id,
        model=FrozenModel(
            parameters=vector.size,
            initial_sha256=array_sha256(vector),
            frozen_sha256=parts.frozen_sha256,
            tokenizer_sha256=parts.tokenizer_sha256,
        ),
        noise_multiplier=_noise_multiplier(agreement),
        evaluation_noise_multiplier=_evaluation_noise(agreement),
    )
    return agreement.freeze(frozen)


def _noise_multiplier(agreement: Agreement) -> float | None:
    privacy = agreement.terms.privacy
    if privacy.epsilon is None or privacy.delta is None or not agreement.terms.private:
        return None
    from hansa.privacy.calibration import calibrated_noise_multiplier  # the accountant: scipy
    from hansa.privacy.sampling import sampling_of

    return calibrated_noise_multiplier(
        privacy.epsilon, privacy.delta, sampling_of(agreement.terms), agreement.terms.charged_steps
    )


def _evaluation_noise(agreement: Agreement) -> float | None:
    terms = agreement.terms
    if terms.evaluation is None or terms.privacy.delta is None:
        return None
    from hansa.fairness.beforehand import require_decidable
    from hansa.fairness.release import evaluation_noise  # numpy and the accountant

    require_decidable(terms)

    return evaluation_noise(terms.evaluation.epsilon, terms.privacy.delta, terms.charged_evaluations)
