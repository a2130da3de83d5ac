"""One forward and one backward pass, and from them the norms and the clipped sum of its units' gradients."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from hansa_client.training.bookkeeping.recording import Recording
from hansa_client.training.bookkeeping.survey import Survey
from hansa_client.training.bookkeeping.uses import Memory, Noted, Units, squared_norms, weighted_sum


class PassGradients:
    """The gradients of one pass, kept as what they are made of.

    Attributes:
        sound: bool [U]; false for units whose gradients are not finite, or too large to be told from infinity.
        squares: float64 [U, P]: squared norms by unit and trained tensor; garbage where not sound.
    """

    def __init__(self, noted: list[list[Noted]], shapes: Sequence[torch.Size], units: Units) -> None:
        self._noted = noted
        self._shapes = shapes
        self._units = units
        device = units.of_record.device
        nothing = torch.zeros(units.count, dtype=torch.float64, device=device)
        columns = [squared_norms(of_one, units) if of_one else None for of_one in noted]
        self.squares = torch.stack([nothing if c is None else c.values for c in columns], dim=1)
        every = [c.sound for c in columns if c is not None]
        self.sound = (
            torch.stack(every).all(0) if every else torch.ones(units.count, dtype=torch.bool, device=device)
        )

    def weighted(self, factors: Sequence[Tensor]) -> list[Tensor]:
        """For each trained tensor the sum over units of factor times gradient; unsound units enter nowhere.

        What the gradients are made of is let go on the way, so this is asked once.

        Args:
            factors: for each tensor float64 [U]; one object where they are the same.
        """
        told: dict[int, Tensor] = {}
        for column in factors:
            told.setdefault(id(column), self._units.of_records(column))
        bad: Tensor | None = ~self._units.of_records(self.sound)
        # elsewhere asking would wait for the device
        if bad is not None and bad.device.type == "cpu" and not bool(bad.any()):
            bad = None
        sums, memory = [], Memory()
        for place, shape in enumerate(self._shapes):
            weights = told[id(factors[place])]
            sums.append(weighted_sum([n.use for n in self._noted[place]], shape, weights, bad, memory))
            self._noted[place] = []
        return sums


class BookKeeper:
    """Computes gradients per unit of a model's trained tensors by book-keeping.

    Args:
        parameters: the trained tensors, in the order in which results are told.
        found: what a survey found.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], found: Survey) -> None:
        self._recording = Recording(found.layers, found.broadcast, tuple(parameters))
        self._shapes = [p.shape for p in parameters]
        self._parameters = tuple(parameters)

    def gradients(
        self, loss: Callable[[], Tensor], unit_of_record: npt.NDArray[np.int64], units: int
    ) -> PassGradients:
        """Run a batch forward and backward.

        Args:
            loss: runs the model and gives the sum of the records' losses.
            unit_of_record: int64 [B].
            units: in the batch; each has a record.

        Raises:
            TrainingError: the model did something on the way that would make the norms wrong.
        """
        device = self._parameters[0].device
        grouped = Units(unit_of_record, units, device)
        anchor = torch.empty(0, device=device, requires_grad=True)
        with self._recording.of(grouped, anchor) as noted:
            total = loss()
            self._recording.close()
            if total.requires_grad:
                torch.autograd.backward(total)
            with torch.no_grad():
                return PassGradients(noted, self._shapes, grouped)
