"""How the noise of a run was shared: what was promised, and what was there."""

from __future__ import annotations

from typing import Literal

from hansa.report.part import NonNegative, NonNegativeInt, Part


class SharedNoiseReport(Part):
    """Noise that is the sum of members' shares. All of it follows from the agreement, but who contributed.

    Attributes:
        smallest_sum: members whose shares are in every sum that is opened: max(t, min_members).
        colluding: c of the others that may pool what they know without breaking `members[].epsilon_colluding`.
        honest: shares that were promised: smallest_sum - c. `noise_multiplier` is that of so many.
        share_multiplier: noise multiplier of what always stays of one member's own share, from which `members[].epsilon` follows.
        share_sigma: parameter of one share's discrete Gaussian, in grid units; at least 20.
        scale: grid units per gradient unit.
        clamp: largest magnitude of a coordinate of one member's sum before noise, in grid units.
        fewest: members in the smallest sum of this run; 0 where none was finished.
        most: members in the largest sum of this run.
        surplus: mean over rounds of what was in a sum over what was promised, k / honest, in variance: the price of tolerating
            dropouts and collusion. No epsilon counts it.
        rotation: ``randomized-hadamard`` where sums were rotated before they met the grid; ``none`` otherwise.
        in_parts: whether shares were drawn in parts whose surplus is opened and taken off.
        remaining: mean over rounds of what was left in a sum over what was promised, in variance: `surplus`, less what was opened.
        wrap_probability: bound on the probability that any sum of the run left the ring, which is a failure of correctness.
    """

    smallest_sum: NonNegativeInt
    colluding: NonNegativeInt
    honest: NonNegativeInt
    share_multiplier: NonNegative
    share_sigma: NonNegative
    scale: NonNegative
    clamp: NonNegativeInt
    fewest: NonNegativeInt
    most: NonNegativeInt
    surplus: NonNegative
    wrap_probability: NonNegative
    rotation: Literal["none", "randomized-hadamard"] = "none"
    in_parts: bool = False
    remaining: NonNegative | None = None
