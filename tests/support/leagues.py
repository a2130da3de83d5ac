"""A small league of three members on generated tables: an agreement, datasets, nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement, parse_agreement
from hansa.agreement.freezing import freeze_with
from hansa.models import BuiltModel, build_model
from hansa_client.data import Dataset

TERMS = """
[task]
name = "Three members"
labels = ["no", "yes"]

[[members]]
name = "a"
units = 60
[[members]]
name = "b"
units = 40
[[members]]
name = "c"
units = 20

[data]
label = "outcome"
[[data.features]]
kind = "number"
name = "x"
range = [-1, 1]
[[data.features]]
kind = "number"
name = "y"
range = [-1, 1]
[[data.groups]]
kind = "category"
name = "side"
values = ["left", "right"]

[model]
kind = "logistic"

[training]
rounds = 4
learning_rate = 0.5

[privacy]
mechanism = "local"
epsilon = 5.0
delta = 1e-3
clipping_norm = 1.0
sampling_rate = 0.5
steps = 8
"""


def terms_of(**changes: Any) -> Agreement:
    """The small league's agreement, with sections changed as by `Agreement.derive`."""
    agreement = parse_agreement(TERMS)
    return agreement.derive(**changes) if changes else agreement


def frozen_league(**changes: Any) -> tuple[Agreement, BuiltModel]:
    """The agreement frozen with its model 0."""
    agreement = terms_of(**changes)
    built = build_model(agreement.terms)
    return freeze_with(agreement, built, built.initial_vector()), built


def table(records: int, seed: int, units: npt.NDArray[np.int64] | None = None) -> Dataset:
    """Records whose label is the sign of x + y, with some noise."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(-1, 1, (records, 2)).astype(np.float32)
    labels = (points.sum(1) + rng.normal(0, 0.2, records) > 0).astype(np.int64)
    units = np.arange(records, dtype=np.int64) if units is None else units
    return Dataset(
        inputs={"table": points},
        labels=labels,
        units=units,
        unit_ids=tuple(str(i) for i in range(int(units.max()) + 1 if records else 0)),
        groups={"side": (points[:, 0] > 0).astype(np.int16)},
    )


def tables() -> dict[str, Dataset]:
    """Training records of the three members."""
    return {"a": table(61, 1), "b": table(38, 2), "c": table(20, 3)}


class DoesNothing:
    """A trainer that returns what a function makes of the weights."""

    def __init__(self, update: Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]) -> None:
        self._update = update
        self.calls = 0

    def train(
        self,
        weights: npt.NDArray[np.float64],
        randomness: object,
        rotation: object = None,
        adapted: object = None,
    ) -> npt.NDArray[np.float64]:
        self.calls += 1
        return self._update(weights)
