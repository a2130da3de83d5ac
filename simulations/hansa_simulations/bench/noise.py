"""How many draws of noise one core makes a second."""

from __future__ import annotations

from hansa.privacy.noise import LARGEST_SIGMA, SMALLEST_SIGMA, discrete_gaussian
from hansa.privacy.streams import SecretStream
from hansa_simulations.bench.figures import Figure
from hansa_simulations.bench.sampling import MILLION, in_turn

GOAL_PER_S = 20e6
SIGMAS = (SMALLEST_SIGMA, 1e3, 1e6, LARGEST_SIGMA)
SIZES = (100_000, MILLION)


def noise_figures(repeats: int) -> list[Figure]:
    """Draws of the discrete Gaussian a second, in one thread.

    Args:
        repeats: samples of each figure.

    Returns:
        ``noise_draws_per_s``, of the σ and size that are slowest, then the others under names of their own.
    """
    stream = SecretStream()
    kinds = [(sigma, size) for sigma in SIGMAS for size in SIZES]
    samples = in_turn(
        repeats,
        *(lambda sigma=sigma, size=size: discrete_gaussian(stream, sigma, size) for sigma, size in kinds),
    )
    figures = [
        Figure(
            f"noise_sigma{sigma:.0f}_d{size}_draws_per_s",
            f"noise: draws, σ = {sigma:.4g}, {size:,} at a time",
            tuple(1e3 * size / sample for sample in each),
        )
        for (sigma, size), each in zip(kinds, samples, strict=True)
    ]
    slowest = min(figures, key=lambda figure: figure.value)
    return [
        Figure(
            "noise_draws_per_s",
            "noise: draws on one core, the slowest of those below",
            slowest.samples,
            goal=GOAL_PER_S,
        ),
        *figures,
    ]
