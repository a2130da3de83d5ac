"""A member's training in public numbers: nothing in here is computed from data."""

from __future__ import annotations

from dataclasses import dataclass

from hansa.agreement import Agreement
from hansa.errors import PrivacyParameterError
from hansa.privacy.adaptation import Adaptation, adaptation_of
from hansa.privacy.clipping import Clipping, ClippingKind
from hansa.privacy.distributed import SharedNoise
from hansa.privacy.events import Spend
from hansa.privacy.grid import Grid
from hansa.privacy.sampling import Sampling, sampling_of

UNMEASURED = 64


@dataclass(frozen=True)
class TrainingPlan:
    """What one member does in every round.

    Attributes:
        sampling: how a step draws its units.
        divisor: q · N_public, what a sum of gradients is divided by; never the realised batch, nor a largest one. N is the
            member's own number of units, or under ``distributed`` that of all members.
        steps_per_round: local steps.
        charged_steps: of the whole run, allowed retries included.
        learning_rate: of local SGD.
        clipping: by which rule a unit's gradient is bounded.
        grid: of the clipped sums; `None` without a privacy mechanism, when nothing is clipped.
        sigma: of the discrete Gaussian on the grid, in grid units; under ``distributed`` of the member's own share. `None`
            without a mechanism.
        physical_batch_size: records in one forward pass; a performance setting. `None` is to be measured, and
            `UNMEASURED` where nobody does.
        clamp: under ``distributed``, the largest magnitude of a coordinate of the sum before noise, in grid units.
        rotated: whether that sum is rotated before it meets the grid.
        lasting: what of `sigma` is never taken off again, in grid units, where shares are drawn in parts; `None` otherwise.
        adapts: under ``distributed``, what adapts to the sums, and is counted in the grid's last coordinates; `None` for nothing.
    """

    sampling: Sampling
    divisor: float
    steps_per_round: int
    charged_steps: int
    learning_rate: float
    clipping: ClippingKind
    grid: Grid | None
    sigma: float | None
    physical_batch_size: int | None
    clamp: int | None = None
    rotated: bool = False
    lasting: float | None = None
    adapts: Adaptation | None = None

    @property
    def sampling_rate(self) -> float:
        """q, the share of the units that a step is expected to draw."""
        return self.sampling.rate

    @classmethod
    def of(cls, agreement: Agreement, member: str) -> TrainingPlan:
        """The plan that the frozen agreement fixes for a member.

        Raises:
            AgreementError: the agreement is not frozen.
            PrivacyParameterError: a mechanism without calibrated noise.
        """
        terms, frozen = agreement.terms, agreement.require_frozen()
        units = next(m.units for m in terms.members if m.name == member)
        privacy = terms.privacy
        grid = sigma = clamp = lasting = None
        if terms.private:
            if frozen.noise_multiplier is None:
                raise PrivacyParameterError("the frozen agreement promises privacy and names no noise")
            if privacy.mechanism == "distributed":
                shared = SharedNoise.of(terms, frozen.model.parameters, frozen.noise_multiplier)
                grid, sigma, clamp = shared.grid, shared.share_sigma, shared.clamp
                lasting = None if shared.parts is None else shared.parts.lasting
                units = sum(m.units for m in terms.members)
            else:
                grid = Grid.of(privacy.clipping_norm, frozen.model.parameters)
                sigma = grid.sigma(frozen.noise_multiplier)
        return cls(
            sampling=sampling_of(terms),
            divisor=privacy.sampling_rate * units,
            steps_per_round=terms.local_steps,
            charged_steps=terms.charged_steps,
            learning_rate=terms.training.learning_rate,
            clipping=privacy.clipping,
            grid=grid,
            sigma=sigma,
            physical_batch_size=agreement.performance.physical_batch_size,
            clamp=clamp,
            rotated=privacy.rotation != "none",
            lasting=lasting,
            adapts=adaptation_of(terms),
        )

    @property
    def counted(self) -> int:
        """How many of the grid's coordinates are not the model's."""
        return 0 if self.adapts is None else self.adapts.coordinates

    def clipping_rule(self) -> Clipping | None:
        """How a unit's gradient is bounded, to the grid's norm; `None` without a mechanism."""
        return None if self.grid is None else Clipping(self.clipping, self.grid.clipping_norm)

    def spend(self) -> Spend | None:
        """What the whole run is charged as against everyone, or `None` when it claims no privacy."""
        if self.grid is None or self.sigma is None:
            return None
        event = self.sampling.event(self.grid.noise_multiplier(self.lasting or self.sigma))
        return Spend(event, self.sampling.events_in(self.charged_steps))

    def round_events(self) -> int:
        """How many of the charged events one round is: steps, or epochs of fixed batches."""
        return self.sampling.events_in(self.steps_per_round)
