"""Canaries that are units: generated records in the data of a training of the agreement's own model.

Rows are corners of the cube in which encoded features lie, texts are words of random letters, labels are drawn at random: a model
learns nothing from them but themselves. The score of a canary is by how much its loss has fallen. That sees the last model
alone, and all canaries share one model, so that much less comes of it than of gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hansa.models import BuiltModel, trim_padding
from hansa.privacy.randomness import Randomness
from hansa_client.attack.guessing import Coins
from hansa_client.data import Dataset
from hansa_client.training import Trainer
from hansa_client.training.gradients import GradientEngine

_WORDS = 12  # of a generated text
_PASS = 256


def unit_scores(
    engine: GradientEngine,
    classes: int,
    trainer_of: Callable[[Dataset], Trainer],
    coins: Coins,
    rounds: int,
    records_per_unit: int,
    randomness: Callable[[], Randomness],
    progress: Callable[[int, int], None],
) -> npt.NDArray[np.float64]:
    """Train the model on the canaries that are in, alone, and score all of them.

    Args:
        engine: over model 0 of the agreement; a model has one engine.
        classes: labels of its task.
        trainer_of: makes the member's trainer, as it is.
        coins, rounds, records_per_unit, randomness, progress: see `hansa_client.attack.gradients`.

    Returns:
        float64 [canaries]: by how much the loss of each has fallen.
    """
    built = engine.built
    generator = np.random.default_rng(len(coins.inside))
    inputs = _inputs(built, len(coins.inside), generator)
    labels = generator.integers(0, classes, len(coins.inside), dtype=np.int64)
    inside = np.repeat(np.flatnonzero(coins.inside), records_per_unit)
    data = Dataset(
        inputs={name: array[inside] for name, array in inputs.items()},
        labels=labels[inside],
        units=np.repeat(np.arange(int(coins.inside.sum()), dtype=np.int64), records_per_unit),
        unit_ids=tuple(f"canary-{row}" for row in np.flatnonzero(coins.inside)),
        groups={},
    )
    trainer = trainer_of(data)
    weights = built.initial_vector()
    before = _losses(built, weights, inputs, labels)
    for number in range(rounds):
        weights = weights + trainer.train(weights, randomness())
        progress(number + 1, rounds)
    return before - _losses(built, weights, inputs, labels)


def _inputs(built: BuiltModel, count: int, generator: np.random.Generator) -> dict[str, npt.NDArray[Any]]:
    if built.tokenize is not None:
        letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
        words = generator.integers(0, len(letters), (count, _WORDS, 6))
        return dict(built.tokenize([" ".join("".join(letters[word]) for word in text) for text in words]))
    width = built.probe_inputs["table"].shape[1]
    return {"table": generator.choice(np.array([-1, 1], dtype=np.float32), (count, width))}


def _losses(
    built: BuiltModel,
    weights: npt.NDArray[np.float64],
    inputs: Mapping[str, npt.NDArray[Any]],
    labels: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Cross-entropy of each record, float64 [n]."""
    built.flat.load(built.module, weights)
    found = []
    with torch.no_grad():
        for start in range(0, len(labels), _PASS):
            part = {name: array[start : start + _PASS] for name, array in inputs.items()}
            if "attention_mask" in part:
                part = trim_padding(part)
            tensors = {
                name: torch.from_numpy(np.ascontiguousarray(array)).to(built.device)
                for name, array in part.items()
            }
            target = torch.from_numpy(labels[start : start + _PASS]).to(built.device)
            losses = nn.functional.cross_entropy(built.module(**tensors), target, reduction="none")
            found.append(losses.double().cpu().numpy())
    return np.concatenate(found)
