"""Label noise that an experimenter plants in one group."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hansa.agreement import Terms
from hansa.agreement.local import PlantedNoise
from hansa_client.data import Dataset


def planted(
    records: Dataset, terms: Terms, noise: PlantedNoise | None, seed: tuple[int, ...], *, trains: bool
) -> Dataset:
    """The records with some of one group's labels turned into others.

    Args:
        records: of one member.
        terms: name the group and the labels.
        noise: what to plant; `None` leaves the records as they are.
        seed: public, another one for each member and side.
        trains: whether these are what a member trains on, after those that judge were taken out; otherwise all that there is.
    """
    if noise is None or (noise.where == "training") is not trains:
        return records
    values = next(group.values for group in terms.data.groups if group.name == noise.attribute)
    rng = np.random.default_rng((noise.seed, *seed))
    of_group = records.groups[noise.attribute] == values.index(noise.value)
    turned = of_group & (rng.random(len(records)) < noise.share)
    labels = len(terms.task.labels)
    other = (records.labels + rng.integers(1, labels, len(records))) % labels
    return replace(records, labels=np.where(turned, other, records.labels))
