"""The clipped sum: each unit's gradient bounded, rounded to the grid, and added exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hansa.errors import TrainingError
from hansa.privacy.grid import Grid

# The norm is computed in float32 from up to some 10^8 squares summed pairwise; its relative error stays below
# this, so that a vector clipped to C · (1 − margin) is within C.
NORM_MARGIN = 2.0**-12


@dataclass(frozen=True)
class ClippedSum:
    """A sum of units' clipped gradients on the integer grid.

    Attributes:
        values: int64 [d], grid units; read-only.
        grid: says the sensitivity.

    Guarantees: adding or removing one unit changes `values` by at most `grid.sensitivity` in L2 norm, whatever
        its gradient was: each unit is clipped to C, rounded by itself (so at most s·C + √d / 2), and integers
        are added exactly, in any order.
    Assumes: the gradients of the other units do not depend on the unit: no layer mixes records, and what the
        size of a batch changes in their last float32 digits moves no sum by more than the √d / 2 grid units by
        which the stated sensitivity exceeds the bound above.
    """

    values: npt.NDArray[np.int64]
    grid: Grid

    def __post_init__(self) -> None:
        if self.values.dtype != np.int64 or self.values.shape != (self.grid.dimension,):
            raise TrainingError("a clipped sum is a vector of int64 over the whole grid")
        self.values.flags.writeable = False


class ClippedSumBuilder:
    """Adds microbatches of per-record gradients into one `ClippedSum`.

    Attributes:
        non_finite_units: units whose gradient held NaN or infinity and counted as zero. Local knowledge: it
            never leaves the member.
    """

    def __init__(self, grid: Grid) -> None:
        self._grid = grid
        self._total = np.zeros(grid.dimension, dtype=np.int64)
        self.non_finite_units = 0

    def add(self, gradients: Sequence[Tensor], unit_of_record: npt.NDArray[np.int64]) -> None:
        """Add whole units.

        Args:
            gradients: for each trained tensor, float32 [B, *shape], one row per record; they are overwritten.
            unit_of_record: int64 [B], which unit of this microbatch a record belongs to, 0 … U−1, each in it.
        """
        units = int(unit_of_record.max()) + 1
        if units != len(unit_of_record):
            gradients = [
                _summed_by_unit(g, torch.from_numpy(unit_of_record).to(g.device), units) for g in gradients
            ]
        squares = torch.zeros(units, dtype=torch.float64, device=gradients[0].device)
        for gradient in gradients:
            squares += gradient.flatten(1).square().sum(1).double()
        norms = squares.sqrt()
        finite = torch.isfinite(norms)
        bound = self._grid.clipping_norm * (1 - NORM_MARGIN)
        factors = (bound / norms.clamp(min=bound)).mul(self._grid.scale)
        # a norm that overflowed is not a gradient that can be bounded by scaling: it counts as zero
        factors = torch.where(finite, factors, 0.0).float()
        everything_finite = bool(finite.all())
        self.non_finite_units += int(units - finite.sum())
        offset = 0
        for gradient in gradients:
            if not everything_finite:
                gradient[~finite] = 0.0
            gradient.mul_(factors.view(-1, *[1] * (gradient.dim() - 1))).round_()
            part = gradient.sum(0, dtype=torch.float64).flatten().cpu().numpy()  # exact: integers below 2^53
            self._total[offset : offset + part.size] += part.astype(np.int64)
            offset += part.size

    def finish(self) -> ClippedSum:
        """The sum of all that was added; zeros if nothing was."""
        return ClippedSum(self._total.copy(), self._grid)


def _summed_by_unit(gradient: Tensor, unit_of_record: Tensor, units: int) -> Tensor:
    summed = torch.zeros((units, *gradient.shape[1:]), dtype=gradient.dtype, device=gradient.device)
    return summed.index_add_(0, unit_of_record, gradient)
