"""What adapted to noisy sums in training: by which rule, at what cost, and how it went."""

from __future__ import annotations

from hansa.privacy.adaptation import Adaptation, NormRule
from hansa.report.part import NonNegative, Part


class AdaptiveClippingReport(Part):
    """A clipping norm that followed a noisy quantile, between bounds.

    Attributes:
        quantile: the share of units whose gradients should be shorter than the norm.
        rate: of the geometric update.
        smallest: bound below which the norm never fell.
        largest: bound above which it never rose.
        noise_share: which part of a unit's squared length its count took.
        norms: of each step that was taken, and last the one that a further step would have.
    """

    quantile: NonNegative
    rate: NonNegative
    smallest: NonNegative
    largest: NonNegative
    noise_share: NonNegative
    norms: tuple[NonNegative, ...]


class AdaptationReport(Part):
    """What adapted. Every number in it follows from public rules and the part of the sums that the log holds.

    Attributes:
        noise_factor: by how much the gradient's noise grew, because of what was counted beside it.
        clipping: the norm.
    """

    noise_factor: NonNegative
    clipping: AdaptiveClippingReport


def rule_told(told: AdaptationReport) -> Adaptation:
    """The rule that a report tells of.

    Raises:
        PrivacyParameterError: no agreement could have it.
    """
    clipping = told.clipping
    start = clipping.norms[0] if clipping.norms else clipping.smallest
    rule = NormRule(clipping.quantile, clipping.rate, clipping.smallest, clipping.largest, start)
    return Adaptation(rule, clipping.noise_share)


def adaptation_told(adapts: Adaptation, quantities: tuple[tuple[float, ...], ...]) -> AdaptationReport:
    """A rule and how it went, as a report tells it.

    Args:
        adapts: as agreed.
        quantities: after each step.
    """
    rule = adapts.norm
    return AdaptationReport(
        noise_factor=1 / adapts.gradient_part,
        clipping=AdaptiveClippingReport(
            quantile=rule.quantile,
            rate=rule.rate,
            smallest=rule.smallest,
            largest=rule.largest,
            noise_share=adapts.norm_share,
            norms=tuple(adapts.norm_of(one) for one in (adapts.first, *quantities)),
        ),
    )
