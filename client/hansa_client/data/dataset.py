"""A member's records, encoded and ready for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Dataset:
    """Encoded records. Nothing in it ever leaves the member.

    Attributes:
        inputs: by name, first axis = records. Tables: ``table`` float32 [n, width]. Text: ``input_ids`` int32
            [n, tokens] and ``attention_mask`` int8 [n, tokens].
        labels: int64 [n], the place in `Task.labels`.
        units: int64 [n], 0 to `number_of_units` - 1 without gaps; records of one privacy unit share one.
        unit_ids: one id per unit, all different; the record's row in its source where the unit is the record.
        groups: group attribute to int16 [n], the place in the group's values, -1 for none of them.
        left_out: why records of the source are not here, and how many each reason concerns.
    """

    inputs: Mapping[str, Array]
    labels: npt.NDArray[np.int64]
    units: npt.NDArray[np.int64]
    unit_ids: tuple[str, ...]
    groups: Mapping[str, npt.NDArray[np.int16]]
    left_out: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.labels)
        if any(len(a) != n for a in (self.units, *self.inputs.values(), *self.groups.values())):
            raise ValueError("the arrays of a dataset have different lengths")
        if len(set(self.unit_ids)) != len(self.unit_ids):
            raise ValueError("two units have the same id")
        used = np.zeros(len(self.unit_ids), dtype=np.bool_)
        if n and (self.units.min() < 0 or self.units.max() >= len(used)):
            raise ValueError("a record belongs to a unit without an id")
        used[self.units] = True
        if not used.all():
            raise ValueError("a unit has no record")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def number_of_units(self) -> int:
        """Privacy units that have at least one record; never the public number of the agreement."""
        return len(self.unit_ids)

    def take(self, record_indices: npt.NDArray[np.integer[Any]]) -> Dataset:
        """Some of the records, by index; units without a record are gone and the others counted anew."""
        kept, units = np.unique(self.units[record_indices], return_inverse=True)
        return Dataset(
            inputs={name: array[record_indices] for name, array in self.inputs.items()},
            labels=self.labels[record_indices],
            units=units.astype(np.int64),
            unit_ids=tuple(self.unit_ids[i] for i in kept),
            groups={name: array[record_indices] for name, array in self.groups.items()},
        )

    @staticmethod
    def concat(parts: Sequence[Dataset]) -> Dataset:
        """The records of several members in order; a patient of two members is two units, with two ids.

        Texts cut to different lengths are padded with zeros on the right, where the attention mask is zero.

        Raises:
            ValueError: no parts, or parts with different inputs or groups.
        """
        if not parts:
            raise ValueError("nothing to put together")
        if len({(tuple(part.inputs), tuple(part.groups)) for part in parts}) > 1:
            raise ValueError("the parts have different inputs or groups")
        offsets = np.cumsum([0, *(part.number_of_units for part in parts)])
        reasons = {reason for part in parts for reason in part.left_out}
        return Dataset(
            inputs={name: _stacked(name, [part.inputs[name] for part in parts]) for name in parts[0].inputs},
            labels=np.concatenate([part.labels for part in parts]),
            units=np.concatenate([part.units + offset for part, offset in zip(parts, offsets, strict=False)]),
            unit_ids=tuple(f"{place}:{unit}" for place, part in enumerate(parts) for unit in part.unit_ids),
            groups={name: np.concatenate([part.groups[name] for part in parts]) for name in parts[0].groups},
            left_out={reason: sum(p.left_out.get(reason, 0) for p in parts) for reason in sorted(reasons)},
        )


def _stacked(name: str, arrays: Sequence[Array]) -> Array:
    widths = {array.shape[1:] for array in arrays}
    if len(widths) == 1:
        return np.concatenate(arrays)
    if name == "table" or any(array.ndim != 2 for array in arrays):
        raise ValueError(f"input {name!r} has different shapes")
    width = max(array.shape[1] for array in arrays)
    return np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays])
