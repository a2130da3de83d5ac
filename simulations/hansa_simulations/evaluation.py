"""Quality as the simulator sees it: on test records of its own, outside the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hansa.agreement import Terms
from hansa.models import BuiltModel, trim_padding
from hansa.report import Quality
from hansa_client.data import Dataset
from hansa_simulations.quality import measure

Vector: TypeAlias = npt.NDArray[np.float64]

_BATCH = 256


class Evaluator:
    """Measures weights on every member's test records.

    Args:
        terms: name the metric and the groups.
        built: the model; its trained weights are overwritten.
        tests: test records by member; members without any are left out of the results.
    """

    def __init__(self, terms: Terms, built: BuiltModel, tests: Mapping[str, Dataset]) -> None:
        self._metric = terms.fairness.metric
        self._groups = {group.name: group.values for group in terms.data.groups}
        self._built = built
        self._tests = {name: test for name, test in tests.items() if len(test)}

    def quality(self, weights: Vector) -> Quality:
        """Quality of one model for all members."""
        self._built.flat.load(self._built.module, weights)
        return self._measure({name: self._scores(test) for name, test in self._tests.items()})

    def quality_of_each(self, weights: Mapping[str, Vector]) -> Quality:
        """Quality where every member uses a model of its own."""
        scores = {}
        for name, test in self._tests.items():
            self._built.flat.load(self._built.module, weights[name])
            scores[name] = self._scores(test)
        return self._measure(scores)

    def _scores(self, test: Dataset) -> npt.NDArray[np.float64]:
        module, device = self._built.module, self._built.device
        module.eval()
        try:
            parts = []
            with torch.inference_mode():
                for start in range(0, len(test), _BATCH):
                    inputs = {name: array[start : start + _BATCH] for name, array in test.inputs.items()}
                    if "attention_mask" in inputs:
                        inputs = trim_padding(inputs)
                    tensors = {
                        n: torch.from_numpy(np.ascontiguousarray(a)).to(device) for n, a in inputs.items()
                    }
                    parts.append(module(**tensors).double().log_softmax(1).cpu().numpy())
            return np.concatenate(parts)
        finally:
            module.train()

    def _measure(self, scores: Mapping[str, npt.NDArray[np.float64]]) -> Quality:
        tests = [self._tests[name] for name in scores]
        groups = [
            np.stack([t.groups[g] for g in self._groups], 1) if self._groups else np.empty((len(t), 0))
            for t in tests
        ]
        return measure(
            self._metric,
            np.concatenate([test.labels for test in tests]),
            np.concatenate(list(scores.values())),
            np.concatenate(groups).astype(np.int64),
            np.repeat(list(scores), [len(test) for test in tests]),
            self._groups,
        )
