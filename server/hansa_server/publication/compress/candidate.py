"""A model on its way to publication."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hansa.agreement.terms import Terms
from hansa.artifact.contents import StepTold
from hansa.models import BuiltModel
from hansa.models.adapters import merged_weights
from hansa.models.flat import Vector
from hansa.models.tokenizer import Tokenizer


@dataclass(frozen=True)
class Candidate:
    """What a step takes and gives.

    Attributes:
        terms: the agreement's.
        module: on the CPU in evaluation mode; a step that changes it changes a copy.
        probe: two different public records, encoded.
        tokenizer: for texts.
        prefix: of names of weights, as in `BuiltModel`.
        onnx: the model as an ONNX file, once there is one.
        told: the steps that were taken.
    """

    terms: Terms
    module: torch.nn.Module = field(repr=False)
    probe: Mapping[str, npt.NDArray[Any]] = field(repr=False)
    tokenizer: Tokenizer | None = None
    prefix: str = ""
    onnx: bytes | None = field(default=None, repr=False)
    told: tuple[StepTold, ...] = ()

    @classmethod
    def of(cls, terms: Terms, built: BuiltModel, vector: Vector) -> Candidate:
        """The final model of a run.

        Args:
            terms: the agreement's.
            built: model 0; its module is left as it is.
            vector: trained weights.

        Raises:
            ModelError: `vector` does not fit.
        """
        module = copy.deepcopy(built.module).to("cpu")
        built.flat.load(module, vector)
        probe = {name: np.asarray(value) for name, value in built.probe_inputs.items()}
        return cls(terms, module.eval(), probe, built.tokenizer, built.prefix)

    def with_module(self, module: torch.nn.Module) -> Candidate:
        """The candidate with another model, in evaluation mode."""
        return replace(self, module=module.eval())

    def copied(self) -> torch.nn.Module:
        """A copy of the model, to be changed."""
        return copy.deepcopy(self.module)

    @property
    def parameters(self) -> int:
        """Weights of the model."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def tensors(self) -> dict[str, torch.Tensor]:
        """Inputs of the probe as the module takes them."""
        return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in self.probe.items()}

    def logits(self, inputs: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """What the torch model says: float32 [rows, classes]."""
        with torch.inference_mode():
            found = self.module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        scores: npt.NDArray[np.float32] = found.numpy()
        return scores

    @property
    def tokenizer_json(self) -> str | None:
        """``tokenizer.json`` with truncation and padding set, as a package carries it; absent for tables."""
        return None if self.tokenizer is None else str(self.tokenizer.backend.to_str())

    def safetensors(self, metadata: Mapping[str, str]) -> bytes:
        """The weights as a safetensors file, adapters merged, names as `transformers` knows them."""
        from safetensors.numpy import save

        arrays = {
            name: np.ascontiguousarray(tensor.cpu().numpy())
            for name, tensor in merged_weights(self.module, self.prefix).items()
        }
        return save(arrays, metadata={**metadata, "format": "pt"})
