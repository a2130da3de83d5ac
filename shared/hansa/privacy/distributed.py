"""Shared noise in public numbers: the grid, the share, the clamp, and what a step is charged as.

Under the ``distributed`` mechanism a step's noise is the sum of the shares of those who contribute. The agreement fixes the
noise multiplier z of the shares of h = max(t, min_members) − c members together: so many are in every sum that is opened and
are not among the c that may subtract what they know. Each member's share is a discrete Gaussian on the grid,

    σ_share = √((z · Δ)² / h + 4),    Δ = s·C + √d,

so that h shares are, each charged as a continuous Gaussian of variance σ_share² − 4 that is rounded at random
(`hansa.privacy.grid`), a Gaussian of multiplier z. With k contributors the variance is k / h of what was promised: a
surplus, shown and never credited.

Source: Bonawitz et al. (CCS 2017) for the sum, Kairouz, Liu, Steinke (arXiv 2102.06387) for discrete shares under it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hansa.errors import PrivacyParameterError
from hansa.privacy.adaptation import adaptation_of, summed_length
from hansa.privacy.grid import Grid
from hansa.privacy.parts import NoiseParts
from hansa.privacy.rotation import largest_part

if TYPE_CHECKING:
    from hansa.agreement.terms import Terms

RING_LIMIT = 2**30  # no honest sum is larger in magnitude: the ring of 32 bits, its sign, and one guard bit
REACH_SD = 12.0  # standard deviations of the summed noise for which the ring keeps room
LARGEST_ROUNDING_SHARE = 2.0**-7  # of the sensitivity, that a coarser grid may add where the ring is narrow
_BATCH_TAIL_SD = 8.0  # a Poisson batch is larger by so much with a probability below 1e-12
_SMALLEST_CLAMP = 8  # whole clipping norms that one coordinate of a member's sum must be able to hold


def share_multiplier(noise_multiplier: float, smallest_sum: int, colluding: int) -> float:
    """Z / √h: the noise multiplier of one member's own share.

    Raises:
        PrivacyParameterError: nobody honest is left in the smallest sum, or the noise is not above 0.
    """
    honest = smallest_sum - colluding
    if honest < 1:
        raise PrivacyParameterError(
            f"a sum over {smallest_sum} members leaves no shares against {colluding} that collude"
        )
    if not (math.isfinite(noise_multiplier) and noise_multiplier > 0):
        raise PrivacyParameterError(f"a noise multiplier of {noise_multiplier:g} is not above 0 and finite")
    return noise_multiplier / math.sqrt(honest)


def largest_batch(sampling_rate: float, units: int) -> int:
    """More units than a Poisson batch of a member of so many public units holds, but for a probability below 1e-12."""
    expected = sampling_rate * units
    return math.ceil(expected + _BATCH_TAIL_SD * (math.sqrt(expected) + 1))


@dataclass(frozen=True)
class SharedNoise:
    """The noise of one step, from public numbers alone.

    Attributes:
        members: n of the agreement.
        smallest_sum: max(t, min_members); no sum over fewer is opened.
        colluding: c of the others that may pool what they know.
        noise_multiplier: z, of the shares of `honest` members together.
        grid: on which members' sums are rounded and noised.
        clamp: the largest magnitude of a coordinate of one member's sum before noise, in grid units.
        rotated: whether sums are rotated before they are rounded (`hansa.privacy.rotation`), which changes no sensitivity.
        in_parts: whether shares are drawn in parts, whose surplus is taken off (`hansa.privacy.parts`).
        gradient_part: how much of C a unit's gradient may hold; less than 1 where something is counted beside it
            (`hansa.privacy.adaptation`), in coordinates of the grid behind the model's.

    Guarantees: clamping a coordinate moves two neighbouring sums no further apart, and nothing is cut after the noise.
    Assumes: a sum that leaves the ring's range is refused whole. That happens with `wrap_probability` at most, whatever the data
        are, and is a failure of correctness.
    """

    members: int
    smallest_sum: int
    colluding: int
    noise_multiplier: float
    grid: Grid
    clamp: int
    rotated: bool = False
    in_parts: bool = False
    gradient_part: float = 1.0

    @classmethod
    def fitted(
        cls,
        *,
        members: int,
        smallest_sum: int,
        colluding: int,
        noise_multiplier: float,
        clipping_norm: float,
        dimension: int,
        batch: int,
        rotated: bool = False,
        in_parts: bool = False,
        gradient_part: float = 1.0,
    ) -> SharedNoise:
        """The finest grid on which n members' sums and their noise fit the ring.

        s·C starts at the power of two of `Grid.of`, where rounding adds at most 0.1 % to the sensitivity, and is halved while
        the ring is too narrow for `batch` whole clipping norms on one coordinate of every member, as long as rounding adds
        less than 1 %. Beyond that the clamp is lowered instead: a coordinate of a large model rarely holds so much.
        Where sums are rotated, a coordinate holds no more than `largest_part` of a sum's length, and room is kept for that.

        Args:
            members, smallest_sum, colluding, noise_multiplier: of the class.
            clipping_norm: C.
            dimension: d.
            batch: more units than one member draws (`largest_batch`).
            rotated, in_parts, gradient_part: of the class.

        Raises:
            PrivacyParameterError: no grid has room, or nobody honest would be left.
        """
        share = share_multiplier(
            noise_multiplier, smallest_sum, colluding
        )  # the whole of it, also where it is in parts
        part = largest_part(dimension) if rotated else 1.0
        grid = Grid.of(clipping_norm, dimension)
        while True:
            units = round(grid.scale * clipping_norm)
            room = (RING_LIMIT - math.ceil(REACH_SD * grid.sigma(share) * math.sqrt(members))) // members
            largest = math.ceil(batch * units * part)
            if room >= largest:
                clamp = largest
                break
            if math.sqrt(dimension) > LARGEST_ROUNDING_SHARE * units / 2 or units == 1:
                if room < _SMALLEST_CLAMP * units * part:
                    raise PrivacyParameterError(
                        f"the sum of {members} members' noise and gradients does not fit the ring of 32 bits: "
                        f"room for {max(room, 0) / units:.3g} clipping norms in a coordinate, "
                        f"{_SMALLEST_CLAMP * part:.3g} are needed",
                        remedy="Train fewer weights (an adapter), or promise less: the noise takes the room.",
                    )
                clamp = room
                break
            grid = Grid(clipping_norm, dimension, grid.scale / 2)
        return cls(
            members, smallest_sum, colluding, noise_multiplier, grid, clamp, rotated, in_parts, gradient_part
        )

    @classmethod
    def of(cls, terms: Terms, dimension: int, noise_multiplier: float) -> SharedNoise:
        """The noise that an agreement's terms fix.

        Args:
            terms: with ``mechanism = "distributed"``.
            dimension: d, trained weights; what is counted beside them comes on top.
            noise_multiplier: the frozen one.

        Raises:
            PrivacyParameterError: as `fitted`.
        """
        privacy = terms.privacy
        batch = largest_batch(privacy.sampling_rate, max(member.units for member in terms.members))
        adapts = adaptation_of(terms)
        return cls.fitted(
            members=len(terms.members),
            smallest_sum=terms.smallest_sum,
            colluding=privacy.colluding,
            noise_multiplier=noise_multiplier,
            clipping_norm=privacy.clipping_norm,
            dimension=summed_length(terms, dimension),
            batch=batch,
            rotated=privacy.rotation != "none",
            in_parts=privacy.noise_in_parts,
            gradient_part=1.0 if adapts is None else adapts.gradient_part,
        )

    @property
    def honest(self) -> int:
        """H = max(t, min_members) − c: shares that are promised in every sum."""
        return self.smallest_sum - self.colluding

    @property
    def share_multiplier(self) -> float:
        """Noise multiplier of what is never taken off one member's own share, which is what holds against everyone."""
        shares = self.members if self.in_parts else self.smallest_sum
        return share_multiplier(self.noise_multiplier, shares, self.colluding)

    @property
    def parts(self) -> NoiseParts | None:
        """Of each share; `None` where it is drawn in one.

        Raises:
            PrivacyParameterError: a part would be below 20 grid units.
        """
        if not self.in_parts:
            return None
        return NoiseParts.of(
            self.grid,
            self.noise_multiplier,
            members=self.members,
            smallest_sum=self.smallest_sum,
            colluding=self.colluding,
        )

    @property
    def share_sigma(self) -> float:
        """Parameter of one member's whole discrete Gaussian share, in grid units; at least 20."""
        if self.parts is not None:
            return self.parts.sigma
        return self.grid.sigma(self.share_multiplier)

    def variance(self, contributors: int, opened: int = 0) -> float:
        """Of the noise in a sum over so many members, in grid units squared.

        Args:
            contributors: k.
            opened: how many of them have opened the surplus of their shares.
        """
        whole = self.share_sigma**2
        if self.parts is None:
            return contributors * whole
        return (contributors - opened) * whole + opened * self.parts.left(contributors)

    def surplus(self, contributors: int) -> float:
        """K / h: how many times the promised variance k members draw. Shown, never credited."""
        return contributors / self.honest

    def remaining(self, contributors: int, opened: int) -> float:
        """How many times the promised variance is left in a sum, after `opened` of k members have opened their surplus.

        Where all have, that is k / (k − c): beside what is promised, what c that collude may subtract. No epsilon counts it.
        """
        return (contributors - opened) / self.honest + opened / (contributors - self.colluding)

    def mean_gradient_sd(self, contributors: int, divisor: float) -> float:
        """Standard deviation of the noise in each coordinate of the mean gradient, in gradient units.

        Where the clipping norm adapts, it is that of the first step, and grows and shrinks with the norm. Where shares are in parts, it is what is left once everybody has opened the surplus.

        Args:
            contributors: k.
            divisor: q · N over all members of the agreement.
        """
        return math.sqrt(self.variance(contributors, contributors)) / (
            self.grid.scale * divisor * self.gradient_part
        )

    def wrap_probability(self, steps: int) -> float:
        """A bound on the probability that noise carries a coordinate of any of so many sums out of the ring's range.

        A discrete Gaussian is sub-Gaussian with its own variance (Canonne, Kamath, Steinke, arXiv 2004.00010), so a coordinate
        goes beyond `REACH_SD` standard deviations with at most 2·exp(−REACH_SD² / 2).
        """
        return min(1.0, steps * self.grid.dimension * 2 * math.exp(-(REACH_SD**2) / 2))


@dataclass(frozen=True)
class Losses:
    """What an agreement's whole run costs one unit, retries included, at the agreement's δ.

    Attributes:
        epsilon_any: against everyone: from the member's own noise alone.
        epsilon_colluding: against at most `colluding` other members together with all outside; `None` where noise is local and
            both are the same.
        colluding: c, where noise is shared.
        delta: at which both hold.
    """

    epsilon_any: float
    epsilon_colluding: float | None
    colluding: int | None
    delta: float


def agreed_noise(terms: Terms, frozen: float | None = None) -> float:
    """The noise multiplier of an agreement: the frozen one, or what freezing would calibrate.

    Raises:
        PrivacyParameterError: the agreement claims no privacy, or no noise keeps its promise.
    """
    if frozen is not None:
        return frozen
    privacy = terms.privacy
    if privacy.epsilon is None or privacy.delta is None or not terms.private:
        raise PrivacyParameterError("an agreement without privacy has no price")
    from hansa.privacy.calibration import calibrated_noise_multiplier
    from hansa.privacy.sampling import sampling_of

    return calibrated_noise_multiplier(
        privacy.epsilon, privacy.delta, sampling_of(terms), terms.charged_steps
    )


def losses(terms: Terms, noise_multiplier: float) -> Losses:
    """Both ε of an agreement, recomputed from its terms and the frozen noise by the accountant of record (PLD).

    Raises:
        PrivacyParameterError: the agreement claims no privacy.
    """
    from hansa.privacy.accountant import epsilon_spent
    from hansa.privacy.charges import charges_of

    delta = terms.privacy.delta
    if delta is None:
        raise PrivacyParameterError("an agreement without privacy has no price")
    charges = charges_of(terms, noise_multiplier)
    everyone = epsilon_spent([charge.against(None) for charge in charges], delta)
    coalition = max(charge.coalition for charge in charges)
    if not coalition:
        return Losses(everyone, None, None, delta)
    return Losses(
        everyone, epsilon_spent([charge.against(coalition) for charge in charges], delta), coalition, delta
    )
