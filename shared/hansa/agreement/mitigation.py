"""`[mitigation]`: what training does for groups that a model would serve badly, and the rules of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from hansa.agreement.conditions import AttackTerm, walked
from hansa.agreement.section import Name, Positive, Section
from hansa.canonical import Json
from hansa.errors import Problem
from hansa.privacy.clipping import LARGEST_SHARE, LEAST_NORM, MOST_NORM, SMALLEST_CUT

if TYPE_CHECKING:
    from hansa.agreement.publication import Publication
    from hansa.agreement.terms import Data, Privacy

RelativeRate = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class GroupRates(Section):
    """`[mitigation.sampling]`: each group's units are drawn at a public rate of their own.

    Attributes:
        attribute: of `Data.groups`.
        rates: for every value of the attribute, its rate as a part of `Privacy.sampling_rate`: the largest is 1, so that the
            agreement's rate is the largest, by which everything is accounted. A unit without a value is drawn at the
            largest; a unit with records of several groups at the largest of theirs.
    """

    attribute: Name
    rates: Mapping[str, RelativeRate]

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, with the rates in the order of their names: how a file orders them is no term."""
        return {**super().tree(), "rates": {value: self.rates[value] for value in sorted(self.rates)}}


class AdaptiveClipping(Section):
    """`[mitigation.clipping]`: the clipping norm follows a noisy quantile of the units' gradient norms, between bounds.

    It starts at `Privacy.clipping_norm`; see `hansa.privacy.adaptation`.

    Attributes:
        smallest, largest: between which the norm stays, in gradient units. The smallest is what protects a group with long
            gradients from being clipped to nothing.
        quantile: the share of units whose gradients shall be shorter than the norm.
        rate: of the geometric update.
        noise_share: which part of a unit's squared length its count takes. The gradient's noise grows by 1 / √(1 − this).
    """

    smallest: Positive
    largest: Positive
    quantile: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.5
    rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.2
    noise_share: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.01


class GroupWeights(Section):
    """`[mitigation.weights]`: group DRO. Groups with larger losses weigh more; see `hansa.privacy.following.WeightRule`.

    A unit without a value of the attribute, or with records of several groups, is counted in no group and weighs 1.

    Attributes:
        attribute: of `Data.groups`.
        rate: of the exponentiated gradient.
        smallest: below which no weight falls; the largest is 1.
        largest_loss: in nats; losses are cut to it. Not below 0.1: a float's last digits would be magnified.
        memory: what part of the losses so far stays at each step.
        smallest_group: as a part of an expected batch. Public: the group that noisy counts call smaller is taken to be as large.
        noise_share: which part of a unit's squared length its loss and its count take. The gradient's noise grows by 1 / √(1 − this).
    """

    attribute: Name
    rate: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.5
    smallest: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = 0.1
    largest_loss: Annotated[float, Field(ge=SMALLEST_CUT, le=1e6, allow_inf_nan=False)] = 2.0
    memory: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] = 0.8
    smallest_group: Annotated[float, Field(gt=0, lt=1, allow_inf_nan=False)] = 0.05
    noise_share: Annotated[float, Field(gt=0, le=0.5, allow_inf_nan=False)] = 0.05


class Mitigation(Section):
    """What training does about differences between groups. Nothing of it is on by itself.

    Attributes:
        sampling: rates of drawing by group.
        clipping: a norm that adapts.
        weights: weights of groups that follow their losses.
    """

    sampling: GroupRates | None = None
    clipping: AdaptiveClipping | None = None
    weights: GroupWeights | None = None

    def tree(self) -> dict[str, Json]:
        """As `Section.tree`, without what is not taken: an agreement keeps its id when there is more to take."""
        return {name: value for name, value in super().tree().items() if value is not None}


def mitigation_problems(sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule of the section, for sections by their names; those that cannot be read are `None`."""
    mitigation: Mitigation = sections["mitigation"]
    privacy: Privacy | None = sections.get("privacy")
    data: Data | None = sections.get("data")
    if not mitigation.tree():
        yield Problem("mitigation", "takes nothing", "leave the section out, or name what is to be done")
    if mitigation.sampling is not None:
        yield from _sampling(mitigation.sampling, privacy, data)
    if mitigation.clipping is not None:
        yield from _clipping(mitigation.clipping, privacy)
        yield from _in_steps_of_all("mitigation.clipping", sections)
    if mitigation.weights is not None:
        yield from _weights(mitigation.weights, mitigation, data)
        yield from _in_steps_of_all("mitigation.weights", sections)


def _sampling(sampling: GroupRates, privacy: Privacy | None, data: Data | None) -> Iterator[Problem]:
    place = "mitigation.sampling"
    if privacy is not None and privacy.sampling != "poisson":
        yield Problem(
            place,
            f"does not go with privacy.sampling = {privacy.sampling!r}: only units that are drawn one by one have rates of their own",
            "write privacy.sampling = 'poisson'",
        )
    if sampling.rates and max(sampling.rates.values()) != 1:
        yield Problem(
            f"{place}.rates",
            f"has {max(sampling.rates.values()):g} as its largest, and all are accounted at privacy.sampling_rate",
            "divide all of them by the largest, and multiply privacy.sampling_rate by it",
        )
    if data is None:
        return
    group = next((one for one in data.groups if one.name == sampling.attribute), None)
    if group is None:
        yield _unknown(place, sampling.attribute, data)
        return
    for value in group.values:
        if value not in sampling.rates:
            yield Problem(
                f"{place}.rates", f"says nothing of {value!r}", "name every value; 1.0 changes nothing"
            )
    for value in sampling.rates:
        if value not in group.values:
            yield Problem(
                f"{place}.rates.{value}",
                f"is no value of {group.name!r}",
                f"known are {', '.join(group.values)}",
            )


def _unknown(place: str, attribute: str, data: Data) -> Problem:
    known = ", ".join(one.name for one in data.groups)
    return Problem(
        f"{place}.attribute",
        f"{attribute!r} is no declared group",
        f"known are {known}" if known else "declare it under [[data.groups]]",
    )


def _weights(weights: GroupWeights, mitigation: Mitigation, data: Data | None) -> Iterator[Problem]:
    place = "mitigation.weights"
    if data is not None and all(one.name != weights.attribute for one in data.groups):
        yield _unknown(place, weights.attribute, data)
    if mitigation.sampling is not None:
        yield Problem(
            place,
            "does not go with [mitigation.sampling]: weights would undo what rates do",
            "leave one of the two out",
        )
    shares = weights.noise_share + (0 if mitigation.clipping is None else mitigation.clipping.noise_share)
    if shares > LARGEST_SHARE:
        yield Problem(
            f"{place}.noise_share",
            f"makes {shares:g} with that of [mitigation.clipping], and the gradient must keep half",
            f"at most {LARGEST_SHARE:g} together",
        )


def _clipping(clipping: AdaptiveClipping, privacy: Privacy | None) -> Iterator[Problem]:
    place = "mitigation.clipping"
    if clipping.smallest > clipping.largest:
        yield Problem(
            f"{place}.smallest",
            f"{clipping.smallest:g} is above largest = {clipping.largest:g}",
            "write the bounds the other way round",
        )
        return
    if privacy is None:
        return
    for name in ("smallest", "largest"):
        norm = getattr(clipping, name)
        if not LEAST_NORM <= norm <= MOST_NORM:
            yield Problem(
                f"{place}.{name}", f"{norm:g} is outside [{LEAST_NORM:g}, {MOST_NORM:g}]", "scale the inputs"
            )
    if not clipping.smallest <= privacy.clipping_norm <= clipping.largest:
        yield Problem(
            "privacy.clipping_norm",
            f"{privacy.clipping_norm:g}, at which the norm starts, is not between {clipping.smallest:g} and {clipping.largest:g}",
            "start between the bounds of [mitigation.clipping]",
        )


def _in_steps_of_all(place: str, sections: Mapping[str, Any]) -> Iterator[Problem]:
    """What is counted beside gradients needs steps that are sums of all members, and units that are drawn one by one."""
    privacy: Privacy | None = sections.get("privacy")
    if sections.get("baseline") is not None:
        yield Problem(
            place,
            "follows from sums of all members, and a baseline has none",
            "run the federation, or leave the section out for the baseline",
        )
    elif privacy is not None and privacy.mechanism != "distributed":
        why = "nothing is clipped" if privacy.mechanism == "none" else "members take steps of their own"
        yield Problem(
            place,
            f"does not go with privacy.mechanism = {privacy.mechanism!r}: {why}",
            "write privacy.mechanism = 'distributed'",
        )
    if privacy is None:
        return
    if privacy.sampling != "poisson":
        yield Problem(
            place,
            f"does not go with privacy.sampling = {privacy.sampling!r}: a batch that is cut counts other units than were drawn",
            "write privacy.sampling = 'poisson'",
        )
    if privacy.clipping != "flat":
        yield Problem(
            place,
            f"does not go with privacy.clipping = {privacy.clipping!r}: what is counted needs room beside one norm of the whole gradient",
            "write privacy.clipping = 'flat'",
        )
    if privacy.rotation != "none":
        yield Problem(
            place,
            f"does not go with privacy.rotation = {privacy.rotation!r}, under which no log could show what was counted",
            "write privacy.rotation = 'none'",
        )
    publication: Publication | None = sections.get("publication")
    if publication is not None and any(
        isinstance(term, AttackTerm) for _, _, term in walked(publication.conditions)
    ):
        yield Problem(
            place,
            "does not go with a condition on attacks: they know nothing of what adapts",
            "leave the condition out, or the section",
        )
