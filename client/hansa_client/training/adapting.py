"""One step under what has adapted: by how much each unit's gradient is bounded, and what is counted beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hansa.errors import TrainingError
from hansa.privacy.adaptation import Adaptation
from hansa_client.data import Dataset

Codes = npt.NDArray[np.int64]
NO_GROUP = -1


@dataclass(frozen=True)
class UnitLosses:
    """What a pass knows of its units beside their gradients.

    Attributes:
        losses: float64 [U], the mean cross-entropy of each unit's records, in nats; perhaps not finite.
        groups: int64 [U], each unit's place among the values of the attribute, `NO_GROUP` for none or several.
    """

    losses: Tensor
    groups: Tensor


class AdaptedStep:
    """Bounds the whole vector of a unit, gradient and counts together, to the norm of the grid.

    Args:
        adapts: as agreed.
        quantities: of this step, as they follow from the sums so far.

    Guarantees: a unit with a gradient of length n stands in the sum with one of length at most `gradient_part`·C·(1 − η), on the scale
        of the step's own norm and no longer by its group's weight, and counts of at most `magnitudes`·C·(1 − η), one for the norm
        and two in one group: together at most C·(1 − η). What it counts for changes no faster with n, and with its loss, than
        its clipped gradient does with n, but for L / 2, so that a float's last digit moves neither further.

    Raises:
        PrivacyParameterError: the quantities are not of this agreement, or outside its bounds.
    """

    def __init__(self, adapts: Adaptation, quantities: Sequence[float]) -> None:
        self._adapts = adapts
        self._norm = adapts.clipping_norm
        self._clip = adapts.norm_of(quantities)
        self._weights = adapts.weights_of(quantities)

    def factors(self, norms: Tensor, margin: float, units: UnitLosses | None = None) -> Tensor:
        """What each unit's gradient is to be multiplied by, float64 [U].

        Args:
            norms: float64 [U], lengths of the units' gradients.
            margin: η.
            units: where groups have weights.

        Raises:
            TrainingError: groups have weights, and units came without theirs.
        """
        most = self._norm * self._adapts.gradient_part * (1 - margin)
        factor = most / norms.clamp(min=self._clip)
        if self._adapts.weights is None:
            return factor
        # the last is found at -1: who is in no group weighs as much as the heaviest
        weights = torch.tensor((*self._weights, 1.0), dtype=factor.dtype, device=factor.device)
        return factor * weights[self._known(units).groups]

    def counted(self, norms: Tensor, sound: Tensor, margin: float, units: UnitLosses | None = None) -> Tensor:
        """What the units count for together, float64 [k], in gradient units; a unit that is not sound counts for nothing.

        Args:
            norms: float64 [U].
            sound: bool [U].
            margin: η.
            units: where groups have weights.

        Raises:
            TrainingError: groups have weights, and units came without theirs.
        """
        room = [self._norm * magnitude * (1 - margin) for magnitude in self._adapts.magnitudes]
        found = []
        norm = self._adapts.norm
        if norm is not None:
            below = (1.5 - norms / self._clip).clamp(0.0, 1.0) - norm.quantile
            found.append(torch.where(sound, below, 0.0).sum().reshape(1) * (room.pop(0) / norm.most))
        rule = self._adapts.weights
        if rule is not None:
            known, groups = self._known(units), len(rule.values)
            cut = torch.nan_to_num(known.losses, nan=rule.largest_loss, posinf=rule.largest_loss)
            centred = 2 * cut.clamp(0.0, rule.largest_loss) / rule.largest_loss - 1
            counts = sound & (known.groups >= 0)
            of = known.groups[counts]
            for each in (centred, torch.ones_like(centred)):
                sums = torch.zeros(groups, dtype=torch.float64, device=norms.device)
                found.append(sums.index_add_(0, of, each[counts].double()) * room[0])
        return torch.cat(found)

    @property
    def by_group(self) -> bool:
        """Whether units must be known by their losses and groups."""
        return self._adapts.weights is not None

    @staticmethod
    def _known(units: UnitLosses | None) -> UnitLosses:
        if units is None:
            raise TrainingError("groups have weights, and a pass does not know its units' groups and losses")
        return units


def unit_groups(dataset: Dataset, adapts: Adaptation | None) -> Codes | None:
    """The group of each unit, int64 [units]; `None` where groups have no weights.

    A unit without a value, or whose records are of several groups, is in none: a function of the unit alone.

    Raises:
        TrainingError: the records lack the attribute.
    """
    if adapts is None or adapts.weights is None:
        return None
    attribute = adapts.weights.attribute
    if attribute not in dataset.groups:
        raise TrainingError(
            f"the records lack the group attribute {attribute!r}, by whose losses the agreement weighs groups",
            remedy="Name its column in node.toml under [columns]; records without a value are counted in no group.",
        )
    codes = dataset.groups[attribute].astype(np.int64)
    least = np.full(dataset.number_of_units, np.iinfo(np.int64).max)
    most = np.full(dataset.number_of_units, NO_GROUP)
    np.minimum.at(least, dataset.units, codes)
    np.maximum.at(most, dataset.units, codes)
    return np.where(least == most, most, NO_GROUP)
