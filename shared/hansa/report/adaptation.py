"""What adapted to noisy sums in training: by which rule, at what cost, and how it went."""

from __future__ import annotations

from collections.abc import Sequence

from hansa.privacy.adaptation import Adaptation
from hansa.privacy.following import NormRule, WeightRule
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


class GroupWeightReport(Part):
    """One group whose weight followed its losses.

    Attributes:
        value: of the attribute.
        weights: at each step that was taken, and last the one that a further step would have.
        loss: the mean loss, in nats, that the kept noisy sums tell at the end. As noisy as they are.
    """

    value: str
    weights: tuple[NonNegative, ...]
    loss: NonNegative


class GroupWeightsReport(Part):
    """Group DRO: weights of groups on their clipped gradients. That they were used is no sign that a model is fair.

    Attributes:
        attribute: whose groups have weights.
        rate: of the exponentiated gradient.
        smallest: bound below which no weight fell.
        largest_loss: to which losses were cut.
        memory: what part of the losses so far stayed at each step.
        smallest_group: as a part of an expected batch, which no group was taken to be below.
        noise_share: which part of a unit's squared length its loss and its count took.
        groups: in the agreement's order.
    """

    attribute: str
    rate: NonNegative
    smallest: NonNegative
    largest_loss: NonNegative
    memory: NonNegative
    smallest_group: NonNegative
    noise_share: NonNegative
    groups: tuple[GroupWeightReport, ...]


class AdaptationReport(Part):
    """What adapted. Every number in it follows from public rules and the part of the sums that the log holds.

    Attributes:
        noise_factor: by how much the gradient's noise grew, because of what was counted beside it.
        clipping: the norm; null where it was fixed.
        weights: of groups; null where all weighed the same.
    """

    noise_factor: NonNegative
    clipping: AdaptiveClippingReport | None = None
    weights: GroupWeightsReport | None = None


def rule_told(told: AdaptationReport, clipping_norm: float) -> Adaptation:
    """The rules that a report tells of.

    Args:
        told: by a report.
        clipping_norm: of the first step.

    Raises:
        PrivacyParameterError: no agreement could have them.
    """
    clipping, weights = told.clipping, told.weights
    norm = None
    if clipping is not None:
        norm = NormRule(clipping.quantile, clipping.rate, clipping.smallest, clipping.largest, clipping_norm)
    rule = None
    if weights is not None:
        rule = WeightRule(
            weights.attribute,
            tuple(group.value for group in weights.groups),
            weights.rate,
            weights.smallest,
            weights.largest_loss,
            weights.memory,
            weights.smallest_group,
        )
    return Adaptation(
        clipping_norm,
        norm,
        0.0 if clipping is None else clipping.noise_share,
        rule,
        0.0 if weights is None else weights.noise_share,
    )


def adaptation_told(adapts: Adaptation, quantities: Sequence[tuple[float, ...]]) -> AdaptationReport:
    """Rules and how it went, as a report tells it.

    Args:
        adapts: as agreed.
        quantities: after each step.
    """
    every = (adapts.first, *quantities)
    return AdaptationReport(
        noise_factor=1 / adapts.gradient_part,
        clipping=None if adapts.norm is None else _clipping(adapts, adapts.norm, every),
        weights=None if adapts.weights is None else _weights(adapts, adapts.weights, every),
    )


def _clipping(
    adapts: Adaptation, rule: NormRule, every: Sequence[tuple[float, ...]]
) -> AdaptiveClippingReport:
    return AdaptiveClippingReport(
        quantile=rule.quantile,
        rate=rule.rate,
        smallest=rule.smallest,
        largest=rule.largest,
        noise_share=adapts.norm_share,
        norms=tuple(adapts.norm_of(one) for one in every),
    )


def _weights(adapts: Adaptation, rule: WeightRule, every: Sequence[tuple[float, ...]]) -> GroupWeightsReport:
    steps, losses = [adapts.weights_of(one) for one in every], rule.losses_of(adapts.of_weights(every[-1]))
    return GroupWeightsReport(
        attribute=rule.attribute,
        rate=rule.rate,
        smallest=rule.smallest,
        largest_loss=rule.largest_loss,
        memory=rule.memory,
        smallest_group=rule.smallest_group,
        noise_share=adapts.weights_share,
        groups=tuple(
            GroupWeightReport(value=value, weights=tuple(step[place] for step in steps), loss=losses[place])
            for place, value in enumerate(rule.values)
        ),
    )
