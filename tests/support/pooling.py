"""A league under distributed noise: agreements of three kinds of model, data, and sources of randomness for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.models import BuiltModel
from hansa.privacy.noise import discrete_gaussian
from hansa.privacy.streams import AesStream
from hansa_client.data import Dataset
from hansa_client.training import PooledTrainer, TrainingPlan
from hansa_client.training.gradients import GradientEngine
from support.leagues import frozen_league, tables

STEPS = 4
SHARED = {"mechanism": "distributed", "steps": STEPS}
MODELS: Mapping[str, Mapping[str, Any]] = {
    "logistic": {},
    "tabular-transformer": {"model": {"kind": "tabular-transformer", "width": 8, "layers": 1, "heads": 2}},
    "ffa-lora": {
        "data": {"features": [{"kind": "text", "name": "note"}], "groups": []},
        "model": {
            "kind": "encoder",
            "vocabulary": "admission-notes",
            "max_tokens": 8,
            "config": {
                "model_type": "bert", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
                "intermediate_size": 24, "max_position_embeddings": 16,
            },
        },
        "adapter": {"kind": "ffa-lora", "rank": 2},
    },
}  # fmt: skip


@cache
def pooled_league(model: str = "logistic") -> tuple[Agreement, BuiltModel]:
    """A frozen agreement of three members under distributed noise, and its model."""
    return frozen_league(**MODELS[model], privacy=SHARED, training={"rounds": STEPS})


def league_of(members: int, **changes: Any) -> tuple[Agreement, BuiltModel]:
    """The same of so many members of 40 units each."""
    people = [{"name": f"m{number}", "units": 40} for number in range(members)]
    more = {"training": {"rounds": STEPS}, **changes}
    privacy = {**SHARED, **more.pop("privacy", {})}
    return frozen_league(members=people, privacy=privacy, **more)


def records(model: str, built: BuiltModel) -> dict[str, Dataset]:
    """Each member's records, for a model of that kind; ids differ over members, as they do when all are pooled."""
    found = tables()
    if model == "ffa-lora":
        assert built.tokenize is not None
        words = ("fever", "cough", "pain", "no", "since", "days")
        for name, held in found.items():
            rng = np.random.default_rng(len(held))
            notes = [" ".join(rng.choice(words, 5)) for _ in range(len(held))]
            found[name] = replace(held, inputs=dict(built.tokenize(notes)), groups={})
    return {
        name: replace(held, unit_ids=tuple(f"{place}:{unit}" for unit in held.unit_ids))
        for place, (name, held) in enumerate(found.items())
    }


def contributor(agreement: Agreement, built: BuiltModel, name: str, held: Dataset) -> PooledTrainer:
    """A member's trainer."""
    return PooledTrainer(GradientEngine(built), held, TrainingPlan.of(agreement, name))


class Silent:
    """The same public key for everybody, and no noise: what a step is before the mechanism."""

    def __init__(self, step: int = 0) -> None:
        self._step = step

    def key(self) -> bytes:
        return hashlib.sha256(f"step {self._step}".encode()).digest()

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:  # the port's
        return np.zeros(size, dtype=np.int64)


class Known:
    """Noise of the member's own sampler under a key that a test knows, so that what passes once passes always."""

    def __init__(self, *names: str | int) -> None:
        digest = hashlib.sha256("/".join(map(str, names)).encode()).digest()
        self._key, self._stream = digest, AesStream(digest)

    def key(self) -> bytes:
        return self._key

    def noise(self, sigma: float, size: int) -> npt.NDArray[np.int64]:
        return discrete_gaussian(self._stream, sigma, size)
