"""`[mitigation]`: what training does for groups that a model would serve badly, and the rules of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from hansa.agreement.section import Name, Section
from hansa.canonical import Json
from hansa.errors import Problem

if TYPE_CHECKING:
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


class Mitigation(Section):
    """What training does about differences between groups. Nothing of it is on by itself.

    Attributes:
        sampling: rates of drawing by group.
    """

    sampling: GroupRates


def mitigation_problems(sections: Mapping[str, Any]) -> Iterator[Problem]:
    """Every broken rule of the section, for sections by their names; those that cannot be read are `None`."""
    mitigation: Mitigation = sections["mitigation"]
    privacy: Privacy | None = sections.get("privacy")
    data: Data | None = sections.get("data")
    sampling, place = mitigation.sampling, "mitigation.sampling"
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
        known = ", ".join(one.name for one in data.groups)
        yield Problem(
            f"{place}.attribute",
            f"{sampling.attribute!r} is no declared group",
            f"known are {known}" if known else "declare it under [[data.groups]]",
        )
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
