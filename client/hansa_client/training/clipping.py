"""The clipped sum: each unit's gradient bounded, all of them added, and the sum rounded to the grid once."""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from hansa.errors import TrainingError
from hansa.privacy.clipping import Clipping
from hansa.privacy.grid import Grid
from hansa.privacy.rotation import Rotation
from hansa_client.training.adapting import AdaptedStep, UnitLosses
from hansa_client.training.transfer import on_device

# η: gradients are clipped to C · (1 − η), so that what float32 loses in a sum has room within C. That a norm is never
# too small is proven; that a sum errs by less than η·C is measured, on inputs made for it (docs/noise.md).
MARGIN = 2.0**-10
# Under autocast the factors of a gradient are bfloat16. Norms and sums take the same factors and multiply them in float32.
LOW_PRECISION_MARGIN = 2.0**-7
_MOST = 2.0**52  # of a sum, in grid units: with noise below 2^45 it stays where float64 holds every integer


class ClippedSum:
    """A sum of units' clipped gradients on the integer grid.

    Args:
        values: int64 [d], grid units; made read-only.
        grid: says the sensitivity.

    Raises:
        TrainingError: anything but a vector of int64 over the whole grid.

    Guarantees: in exact arithmetic, adding or removing one unit changes `values` by at most `grid.sensitivity` =
        s·C + √d in L2 norm, whatever its gradient was: the sum moves by at most s·C(1 − η), and each of the two
        sums is rounded once, by at most ½ in each coordinate.
    Assumes: the gradients of the other units do not depend on the unit: no layer mixes records, and what the shape of
        a pass changes in a float's last digits the model does not magnify. And that the two sums together err by no
        more than s·C·η: sums within a pass are float32, sums over passes float64. docs/noise.md has the bound for the
        worst case, which η does not cover, and what was measured; `tests/security/test_training_rounding.py` measures it.
    """

    def __init__(self, values: npt.NDArray[np.int64], grid: Grid) -> None:
        if values.dtype != np.int64 or values.shape != (grid.dimension,):
            raise TrainingError("a clipped sum is a vector of int64 over the whole grid")
        values.flags.writeable = False
        self._grid = grid
        self._values: npt.NDArray[np.int64] | None = values
        self._parts: tuple[npt.NDArray[Any], ...] = ()
        self._offsets: tuple[int, ...] = ()

    @classmethod
    def rounded(cls, sums: Sequence[Tensor], grid: Grid, units: int) -> ClippedSum:
        """Round sums of clipped gradients, each entry when it is asked for, and always to the same integer.

        Args:
            sums: for each trained tensor, in the order of the flat vector, in gradient units, at least float32; they
                belong to this object from here on.
            grid: of the sum.
            units: whose gradients were added up.

        Raises:
            TrainingError: the sums do not fill the grid, or so many units that entries would reach 2^53, above which
                float64 does not hold every integer.
        """
        if sum(part.numel() for part in sums) != grid.dimension:
            raise TrainingError("a clipped sum covers the whole grid")
        cls._check_room(grid, units)
        made = cls.__new__(cls)
        made._grid, made._values = grid, None  # noqa: SLF001  # of this class
        parts = tuple(part.detach().to("cpu").reshape(-1).numpy() for part in sums)
        offsets = tuple(itertools.accumulate((len(part) for part in parts), initial=0))[:-1]
        made._parts, made._offsets = parts, offsets  # noqa: SLF001  # the same
        return made

    @classmethod
    def rotated(cls, sums: Sequence[Tensor], grid: Grid, units: int, rotation: Rotation) -> ClippedSum:
        """Rotate sums of clipped gradients as one vector, then round each coordinate once.

        A rotation keeps lengths, so that one unit still moves the sum by at most s·C(1 − η), and rounding still adds at most
        √d. In float64 the two rotated sums err together by at most 4·(log2(d) + 2)·2^-52 of their lengths (`Rotation`), which
        are below 2^52 grid units by far: next to nothing of η·s·C.

        Args:
            sums, grid, units: as of `rounded`.
            rotation: public, fixed without looking at the data.

        Raises:
            TrainingError: as of `rounded`.
        """
        whole = np.empty(grid.dimension)
        for offset, part in cls.rounded(sums, grid, units)._placed():  # noqa: SLF001  # of this class
            np.multiply(part, grid.scale, out=whole[offset : offset + len(part)], dtype=np.float64)
        return cls(np.rint(rotation.forward(whole)).astype(np.int64), grid)

    def _placed(self) -> Iterator[tuple[int, npt.NDArray[Any]]]:
        return zip(self._offsets, self._parts, strict=True)

    @staticmethod
    def _check_room(grid: Grid, units: int) -> None:
        if units * grid.scale * grid.clipping_norm >= _MOST:
            raise TrainingError(
                f"a sum of {units} units does not fit the grid", remedy="Train with fewer units in a step."
            )

    @property
    def grid(self) -> Grid:
        """Says the sensitivity."""
        return self._grid

    @property
    def values(self) -> npt.NDArray[np.int64]:
        """int64 [d], grid units; read-only."""
        if self._values is None:
            whole = np.empty(self._grid.dimension)
            self._write(0, whole)
            values = whole.astype(np.int64)
            values.flags.writeable = False
            self._values = values
        return self._values

    def add_to(
        self, noise: npt.NDArray[np.int64], start: int, out: npt.NDArray[np.float64]
    ) -> npt.NDArray[np.float64]:
        """Noise plus the integers from entry `start` on, added exactly.

        Args:
            noise: int64 [n], below 2^52.
            start: the first entry.
            out: float64 [n], overwritten with the sum.

        Returns:
            `out`.
        """
        if self._values is not None:
            out[...] = noise + self._values[start : start + len(out)]
        else:
            self._write(start, out)
            out += noise
        return out

    def _write(self, start: int, out: npt.NDArray[np.float64]) -> None:
        """Overwrite `out` with the integers from entry `start` on, as float64, which holds them exactly."""
        stop = start + len(out)
        place = bisect.bisect_right(self._offsets, start) - 1
        while place < len(self._parts) and self._offsets[place] < stop:
            offset, part = self._offsets[place], self._parts[place]
            begin, end = max(start, offset), min(stop, offset + len(part))
            np.multiply(
                part[begin - offset : end - offset],
                self._grid.scale,
                out=out[begin - start : end - start],
                dtype=np.float64,
            )
            place += 1
        np.rint(out, out=out)

    @property
    def bound(self) -> float:
        """s·C: what one unit may move before rounding, in grid units."""
        return self._grid.scale * self._grid.clipping_norm

    @property
    def rounding(self) -> float:
        """√d: what rounding two sums may add to their distance, in grid units."""
        return math.sqrt(self._grid.dimension)

    @property
    def sensitivity(self) -> float:
        """Δ: both together."""
        return self._grid.sensitivity


class ClippedSumBuilder:
    """Adds microbatches into one `ClippedSum`.

    Args:
        grid: of the sum.
        clipping: how a unit is bounded; flat clipping to the grid's norm unless said otherwise.
        adapted: of a step whose norm adapts, and which counts something beside the gradients, in the grid's last coordinates.

    Raises:
        TrainingError: the rule's norm is another than the grid's, or not flat where it adapts.
    """

    def __init__(
        self, grid: Grid, clipping: Clipping | None = None, adapted: AdaptedStep | None = None
    ) -> None:
        self.grid = grid
        self.clipping = clipping or Clipping("flat", grid.clipping_norm)
        if self.clipping.norm != grid.clipping_norm:
            raise TrainingError("the clipping rule has another norm than the grid")
        if adapted is not None and self.clipping.kind != "flat":
            raise TrainingError("a norm adapts where gradients are clipped flat")
        self._adapted = adapted
        self._parts: list[Tensor] = []
        self._passes = 0
        self._units = 0
        self._finished: ClippedSum | None = None
        self._unsound: Tensor | None = None

    @property
    def non_finite_units(self) -> int:
        """Units whose gradient was not finite and counted as zero. Local knowledge: it never leaves the member."""
        return 0 if self._unsound is None else int(self._unsound)

    def factors(
        self,
        squares: Tensor,
        sound: Tensor,
        layer_of: Sequence[int],
        *,
        margin: float = MARGIN,
        units: UnitLosses | None = None,
    ) -> list[Tensor]:
        """What each unit's gradient is to be multiplied by.

        Args:
            squares: float64 [U, P], squared norms by unit and trained tensor.
            sound: bool [U]; the others count as zero.
            layer_of: for each of the P tensors the number of its layer.
            margin: η.
            units: their losses and groups, where `by_group` asks for them.

        Returns:
            For each tensor float64 [U], in gradient units; one object where all are the same. What is not sound
            has the factor 0, which alone does not keep it out of a sum: 0 · ∞ is not 0.
        """
        rule, norm = self.clipping, self.clipping.norm * (1 - margin)
        if rule.kind != "per-layer":
            norms = squares.sum(1).clamp(min=0.0).sqrt()
            automatic = rule.kind == "automatic"
            if self._adapted is not None:
                factor = self._adapted.factors(norms, margin, units)
            else:
                factor = norm / (norms + rule.gamma if automatic else norms.clamp(min=norm))
            return [torch.where(sound, factor, 0.0)] * squares.shape[1]
        layers = {layer: i for i, layer in enumerate(dict.fromkeys(layer_of))}
        group = on_device(np.array([layers[layer] for layer in layer_of], dtype=np.int64), squares.device)
        sums = torch.zeros((len(squares), len(layers)), dtype=squares.dtype, device=squares.device)
        norms = sums.index_add_(1, group, squares).clamp(min=0.0).sqrt()
        each = rule.group_norm(len(layers)) * (1 - margin)
        columns = torch.where(sound.unsqueeze(1), each / norms.clamp(min=each), 0.0).unbind(1)
        return [columns[layers[layer]] for layer in layer_of]

    @property
    def by_group(self) -> bool:
        """Whether units must come with their losses and groups."""
        return self._adapted is not None and self._adapted.by_group

    def counted(
        self, squares: Tensor, sound: Tensor, *, margin: float = MARGIN, units: UnitLosses | None = None
    ) -> tuple[Tensor, ...]:
        """What is counted beside the gradients of a microbatch, as the sums that come behind theirs; none by default.

        Args:
            squares, sound, margin, units: as of `factors`.
        """
        if self._adapted is None:
            return ()
        return (self._adapted.counted(squares.sum(1).clamp(min=0.0).sqrt(), sound, margin, units),)

    def add_sums(self, sums: Sequence[Tensor], sound: Tensor) -> None:
        """Add a microbatch whose units are bounded and added up already.

        Args:
            sums: for each trained tensor, in the order of the flat vector, then what `counted` gives, in gradient units; they
                are kept.
            sound: bool [U], which of the units entered.
        """
        if sum(part.numel() for part in sums) != self.grid.dimension:
            raise TrainingError("the sums of a microbatch do not fill the grid")
        if self._finished is not None:
            raise TrainingError("a sum that was finished takes no further microbatch")
        self._units += len(sound)
        missing = (~sound).sum()
        self._unsound = missing if self._unsound is None else self._unsound + missing
        if self._passes == 0:
            self._parts = list(sums)
        else:
            # a lone microbatch needs no wider sums; from the second on they are exact but for the last digits
            if self._passes == 1:
                self._parts = [part.double() for part in self._parts]
            for total, part in zip(self._parts, sums, strict=True):
                total.add_(part)
        self._passes += 1

    def add(
        self,
        gradients: Sequence[Tensor],
        unit_of_record: npt.NDArray[np.int64],
        layer_of: Sequence[int] | None = None,
    ) -> None:
        """Add whole units from gradients per record.

        Args:
            gradients: for each trained tensor, [B, *shape], one row per record.
            unit_of_record: int64 [B], which unit of this microbatch a record belongs to, 0 … U−1, each in it.
            layer_of: as of `factors`; each tensor a layer by itself unless said otherwise.
        """
        units = int(unit_of_record.max()) + 1
        if units != len(unit_of_record):
            of_record = torch.from_numpy(unit_of_record).to(gradients[0].device)
            gradients = [_summed_by_unit(g, of_record, units) for g in gradients]
        squares = torch.stack([g.flatten(1).double().square().sum(1) for g in gradients], dim=1)
        # what overflows float32 was finite by luck: it counts as the infinity it would be in a sum
        largest = torch.stack([g.flatten(1).abs().amax(1).double() for g in gradients]).amax(0)
        sound = torch.isfinite(squares).all(1) & (largest < 2.0**100)
        factors = self.factors(squares, sound, layer_of or range(len(gradients)))
        sums = [
            torch.tensordot(factor, torch.where(_column(sound, g), g, 0.0).double(), dims=1)
            for factor, g in zip(factors, gradients, strict=True)
        ]
        self.add_sums([*sums, *self.counted(squares, sound)], sound)

    def finish(self, rotation: Rotation | None = None) -> ClippedSum:
        """The sum of all that was added, scaled and rounded once; zeros if nothing was. Nothing is added afterwards.

        Args:
            rotation: of the sum before it is rounded.
        """
        if self._finished is None:
            if self._parts and rotation is not None:
                self._finished = ClippedSum.rotated(self._parts, self.grid, self._units, rotation)
            elif self._parts:
                self._finished = ClippedSum.rounded(self._parts, self.grid, self._units)
            else:
                self._finished = ClippedSum(np.zeros(self.grid.dimension, dtype=np.int64), self.grid)
            self._parts = []
        return self._finished


def _summed_by_unit(gradient: Tensor, unit_of_record: Tensor, units: int) -> Tensor:
    summed = torch.zeros((units, *gradient.shape[1:]), dtype=gradient.dtype, device=gradient.device)
    return summed.index_add_(0, unit_of_record, gradient)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
