"""From the terms of an agreement to model 0."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hansa.agreement.terms import CustomModel, Encoder, LogisticModel, TabularTransformer, Terms, TextFeature
from hansa.errors import ModelError
from hansa.models.adapters import attach_adapter
from hansa.models.built import BuiltModel
from hansa.models.classifier import MODEL_PREFIX
from hansa.models.custom import load_custom
from hansa.models.encoder import load_encoder
from hansa.models.probe import check_per_record
from hansa.models.tables import FeatureTransformer, LogisticRegression
from hansa.models.tokenizer import Tokenizer, trim_padding


def build_model(terms: Terms, *, folder: Path = Path(), device: str = "cpu") -> BuiltModel:
    """Build model 0: the same bytes for the same terms, in every process and on every machine.

    What starts at random comes from the terms' public seeds by name (`hansa.models.public_random`); torch's
    generators are left as they were found.

    Args:
        terms: what the parties agreed on.
        folder: where relative paths start: the folder of the agreement.
        device: ``cpu``, ``cuda``, ``cuda:N``, or ``auto`` for a GPU if there is one.

    Raises:
        ModelError: the model cannot be built, does not fit the task, or cannot be trained record by record.
    """
    where = _device(device)
    module: nn.Module
    with torch.random.fork_rng(devices=[where] if where.type == "cuda" else []):
        if isinstance(terms.model, Encoder):
            loaded = load_encoder(terms.model, terms.task.labels, folder)
            # On its device before it gets an adapter: hooks hold on to the weights they saw (opacus issue 820).
            module = loaded.module.to(where)
            attach_adapter(loaded.module, terms.adapter, family=loaded.family, head=loaded.head)
            texts = [" ".join(terms.task.labels), terms.task.name]
            return checked_model(
                module, terms, trim_padding(loaded.tokenizer(texts)), loaded.tokenizer, MODEL_PREFIX
            )
        module = _table_model(terms, len(terms.task.labels)).train().to(where)
        return checked_model(module, terms, table_probe(terms))


def checked_model(
    module: nn.Module,
    terms: Terms,
    probe_inputs: Mapping[str, npt.NDArray[Any]],
    tokenizer: Tokenizer | None = None,
    prefix: str = "",
) -> BuiltModel:
    """Take a finished module on its device as model 0, once two public records have gone through it and back.

    Raises:
        ModelError: it cannot be trained record by record.
    """
    device = next(module.parameters()).device
    built = BuiltModel.of(
        module, device=str(device), probe_inputs=probe_inputs, tokenizer=tokenizer, prefix=prefix
    )
    inputs = {name: torch.from_numpy(value).to(device) for name, value in probe_inputs.items()}
    check_per_record(module, built.flat, inputs, len(terms.task.labels))
    return built


def table_width(terms: Terms) -> int:
    """Inputs of an encoded row.

    Raises:
        ModelError: a feature is a text.
    """
    texts = [feature.name for feature in terms.data.features if isinstance(feature, TextFeature)]
    if texts:
        raise ModelError(
            f"a {terms.model.kind} model cannot read the text {texts[0]!r}", remedy="Use an encoder."
        )
    return sum(_widths(terms))


def _widths(terms: Terms) -> list[int]:
    return [feature.width for feature in terms.data.features if not isinstance(feature, TextFeature)]


def _table_model(terms: Terms, classes: int) -> nn.Module:
    width = table_width(terms)
    if terms.adapter.kind != "none":
        raise ModelError(
            f"adapter.kind: {terms.adapter.kind} needs an encoder", remedy="Leave the section [adapter] out."
        )
    model = terms.model
    if isinstance(model, LogisticModel):
        return LogisticRegression(width, classes)
    if isinstance(model, TabularTransformer):
        return FeatureTransformer(
            _widths(terms),
            width=model.width,
            layers=model.layers,
            heads=model.heads,
            classes=classes,
            seed=model.seed,
        )
    if isinstance(model, CustomModel):
        return load_custom(model, terms)
    raise TypeError(f"no builder for {type(model).__name__}")


def table_probe(terms: Terms) -> dict[str, npt.NDArray[np.float32]]:
    """Two different rows within [-1, 1], where encoded features lie."""
    width = table_width(terms)
    return {"table": np.stack([np.linspace(-1, 1, width), np.linspace(1, 0.5, width)]).astype(np.float32)}


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ModelError(
            f"there is no device called {name!r}", remedy="Use auto, cpu, cuda or cuda:N."
        ) from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise ModelError(
            f"{name}: this machine has {torch.cuda.device_count()} GPUs that torch can use",
            remedy="Use device = 'auto'.",
        )
    if device.type not in ("cpu", "cuda"):
        raise ModelError(f"models run on cpu or cuda, not on {name!r}")
    return device
