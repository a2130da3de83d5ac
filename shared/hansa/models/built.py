"""A model as the agreement describes it: module, flat layout, tokenizer and hashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hansa.models.adapters import merged_weights
from hansa.models.flat import FlatParameters, Vector, clean_name, tensors_sha256
from hansa.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class BuiltModel:
    """Model 0, and the way between its trained weights and one flat vector.

    Attributes:
        module: in training mode on its device; ``module(**inputs)`` gives float32 logits ``[batch, classes]``,
            for a table from ``{"table": float32 [batch, width]}``, for texts from what `tokenize` returns.
        flat: layout of the trained parameters.
        device: where the module is.
        frozen_sha256: of the weights that are not trained; of no bytes where there are none.
        tokenizer: for texts.
        probe_inputs: two different public records, encoded; whatever is learned from them may be said aloud.
    """

    module: torch.nn.Module
    flat: FlatParameters
    device: str
    frozen_sha256: str
    tokenizer: Tokenizer | None = None
    probe_inputs: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict, repr=False)
    prefix: str = field(default="", repr=False)
    _initial: npt.NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32), repr=False)

    @classmethod
    def of(
        cls,
        module: torch.nn.Module,
        *,
        device: str,
        probe_inputs: Mapping[str, npt.NDArray[Any]],
        tokenizer: Tokenizer | None = None,
        prefix: str = "",
    ) -> BuiltModel:
        """Take stock of a finished module.

        Raises:
            ModelError: its trained parameters have no flat layout.
        """
        flat = FlatParameters.of(module, prefix=prefix)
        trained = {id(p) for p in flat.parameters(module)}
        rest = {
            clean_name(path, prefix): tensor
            for path, tensor in module.state_dict(keep_vars=True).items()
            if id(tensor) not in trained
        }
        return cls(
            module=module,
            flat=flat,
            device=device,
            frozen_sha256=tensors_sha256(rest),
            tokenizer=tokenizer,
            probe_inputs=dict(probe_inputs),
            prefix=prefix,
            _initial=flat.vector(module).astype(np.float32),  # exact: the parameters are float32
        )

    @property
    def tokenize(self) -> Callable[[Sequence[str]], dict[str, npt.NDArray[Any]]] | None:
        """Texts to ``input_ids`` (int32) and ``attention_mask`` (int8), both ``[n, max_tokens]``; see `Tokenizer`."""
        return self.tokenizer

    @property
    def tokenizer_sha256(self) -> str | None:
        """Hash of what defines the tokenizer; absent for tables."""
        return None if self.tokenizer is None else self.tokenizer.sha256

    def initial_vector(self) -> Vector:
        """Model 0's trained weights: a new little-endian float64 vector of shape ``[flat.size]``."""
        return self._initial.astype("<f8")

    def trainable_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trained parameters by clean name, in the vector's order."""
        return dict(zip(self.flat.names, self.flat.parameters(self.module), strict=True))

    def save(self, path: Path, vector: Vector, metadata: Mapping[str, str], *, merged: bool = False) -> None:
        """Write weights as a safetensors file, all of it or nothing.

        Args:
            path: of the file; replaced if it exists.
            vector: trained weights; the module is not touched unless `merged`, which leaves it holding them.
            metadata: goes into the file's header.
            merged: write the whole model with the adapter merged, under names that `transformers` loads, rather
                than the trained weights alone.

        Raises:
            ModelError: `vector` does not fit.
        """
        from safetensors.numpy import save_file

        arrays: dict[str, npt.NDArray[Any]]
        if merged:
            self.flat.load(self.module, vector)
            weights = merged_weights(self.module, self.prefix)
            arrays = {name: np.ascontiguousarray(tensor.cpu().numpy()) for name, tensor in weights.items()}
        else:
            arrays = dict(self.flat.arrays(vector))
        part = path.with_name(path.name + ".part")
        save_file(arrays, part, metadata={**metadata, "format": "pt"})  # a format, for transformers
        part.replace(path)
