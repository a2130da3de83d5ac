"""Non-private training on public generated data, before anything private: model 0 of a generated task.

From random weights DP learns nothing at the size of a demonstration, so the encoder is first shown public text. The
report labels it as such, and the frozen agreement holds the hash of what comes out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hansa.agreement import Agreement
from hansa.agreement.terms import Encoder
from hansa.errors import AgreementError, Problem
from hansa.models import BuiltModel, trim_padding
from hansa_simulations.notes import public_notes

Vector: TypeAlias = npt.NDArray[np.float64]

PUBLIC_RECORDS = 3000
_BATCH = 64
_LEARNING_RATE = 1e-3
_SEED = 1  # of the public split; the order of batches follows it


def warm_start(
    agreement: Agreement, built: BuiltModel, progress: Callable[[int, int], None] | None = None
) -> Vector:
    """Model 0: the built model, after `Encoder.warm_start` steps of Adam on the generator's public split.

    Args:
        agreement: says how many steps; 0 leaves the model as it was built.
        built: its module is trained in place and left with the result.
        progress: called with steps done and in all.

    Returns:
        float64 [d].

    Raises:
        AgreementError: a warm start is asked for and the data come from no generator with a public split.
    """
    model = agreement.terms.model
    if not isinstance(model, Encoder) or model.warm_start == 0:
        return built.initial_vector()
    source = agreement.simulation.source if agreement.simulation is not None else None
    if source is None or source.generator != "admission-notes" or built.tokenize is None:
        raise AgreementError(
            "a warm start needs generated data",
            [Problem("model.warm_start", "there is no public split to train on", "leave it out")],
        )
    notes = public_notes(PUBLIC_RECORDS, _SEED)
    classes = agreement.terms.task.labels
    inputs = built.tokenize(notes.texts)
    labels = torch.tensor([classes.index(name) for name in notes.classes])
    parameters = built.flat.parameters(built.module)
    optimiser = torch.optim.Adam(parameters, _LEARNING_RATE)
    order = np.random.default_rng(_SEED)
    built.module.train()
    for step in range(model.warm_start):
        chosen = order.integers(0, len(labels), _BATCH)
        batch = trim_padding(
            {name: torch.from_numpy(a[chosen]).to(built.device) for name, a in inputs.items()}
        )
        loss = nn.functional.cross_entropy(built.module(**batch), labels[chosen].to(built.device))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if progress is not None:
            progress(step + 1, model.warm_start)
    for parameter in parameters:
        parameter.grad = None
    return built.flat.vector(built.module)
