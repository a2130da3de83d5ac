"""Gradients of the trained weights: one per record by Opacus' hooks, or one sum without privacy."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from opacus.grad_sample import GradSampleHooks
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from hansa.errors import ModelError, TrainingError
from hansa.models import BuiltModel, trim_padding


class GradientEngine:
    """Computes gradients of a built model's trained weights.

    One engine may serve many members in turn: it holds the model and no member's data.

    Raises:
        ModelError: a layer mixes records (batch norm), so that a record has no gradient of its own.
        TrainingError: a trained weight gets no gradient, or an untrained one would get one.
    """

    def __init__(self, built: BuiltModel) -> None:
        self.built = built
        problems = ModuleValidator.validate(built.module, strict=False)
        if problems:
            raise ModelError(
                f"the model has layers in which records mix: {problems[0]}",
                remedy="Replace them, for example batch normalisation by group normalisation.",
            )
        built.module.train()
        self.parameters = built.flat.parameters(built.module)
        self._hooks = GradSampleHooks(built.module, loss_reduction="sum", strict=False)
        self._hooks.disable_hooks()
        self._device = self.parameters[0].device
        trained = {id(p) for p in self.parameters}
        self._untrained = [p for p in built.module.parameters() if id(p) not in trained]
        self._check_connected()

    def per_record(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> list[Tensor]:
        """The gradient of each record's cross-entropy.

        Args:
            inputs: arrays with B records along the first axis.
            labels: int64 [B].

        Returns:
            For each trained tensor, in the order of the flat vector, float32 [B, *shape].
        """
        self._hooks.enable_hooks()
        try:
            self._backward(inputs, labels)
            return self._collected(len(labels))
        finally:
            self._hooks.disable_hooks()
            self._clear()

    def summed(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> list[Tensor]:
        """The sum of the records' gradients, without clipping; for runs that claim no privacy."""
        try:
            self._backward(inputs, labels)
            return [self._gradient(p) for p in self.parameters]
        finally:
            self._clear()

    def _backward(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> None:
        if "attention_mask" in inputs:
            inputs = trim_padding(inputs)
        tensors = {
            name: torch.from_numpy(np.ascontiguousarray(a)).to(self._device) for name, a in inputs.items()
        }
        target = torch.from_numpy(np.ascontiguousarray(labels)).to(self._device)
        with warnings.catch_warnings():
            # inputs are data and need no gradient; torch remarks on that at every hooked first layer
            warnings.filterwarnings("ignore", message="Full backward hook is firing")
            logits = self.built.module(**tensors)
            nn.functional.cross_entropy(logits, target, reduction="sum").backward()

    def _collected(self, records: int) -> list[Tensor]:
        gradients = []
        for name, parameter in zip(self.built.flat.names, self.parameters, strict=True):
            gradient = getattr(parameter, "grad_sample", None)
            if gradient is None:
                # a weight that none of these records reaches: stopping here would tell which records there are
                gradient = torch.zeros((records, *parameter.shape), device=parameter.device)
            if not isinstance(gradient, Tensor) or gradient.shape != (records, *parameter.shape):
                raise TrainingError(f"the trained weight {name!r} has no gradient per record")
            gradients.append(gradient)
        return gradients

    @staticmethod
    def _gradient(parameter: nn.Parameter) -> Tensor:
        if parameter.grad is None:
            raise TrainingError("a trained weight has no gradient")
        return parameter.grad.detach()

    def _clear(self) -> None:
        for parameter in self.parameters:
            parameter.grad = None
            parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus' own attribute

    def _check_connected(self) -> None:
        """Every trained weight gets a gradient on a public probe, and no untrained weight asks for one.

        The known way to spend ε on a model that never learns is an adapter whose hooks hold stale weights
        (meta-pytorch/opacus #820). The probe holds no data, so what it finds may be said aloud.
        """
        if any(p.requires_grad for p in self._untrained):
            raise TrainingError("a weight outside the flat vector would be trained")
        generator = np.random.default_rng(0)
        start = self.built.flat.vector(self.built.module)
        self.built.flat.load(self.built.module, start + generator.normal(0, 0.05, len(start)))
        try:
            gradients = self.per_record(self.built.probe_inputs, np.array([0, 1]))
            for name, gradient in zip(self.built.flat.names, gradients, strict=True):
                if not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
                    raise TrainingError(
                        f"the trained weight {name!r} has no influence on the model's output",
                        remedy="Leave it untrained, or make the adapter after moving the model to its device.",
                    )
        finally:
            self.built.flat.load(self.built.module, start)

    def _writes(self) -> list[int]:
        """How often each untrained weight was written to in place, as autograd counts."""
        return [p._version for p in self._untrained]  # noqa: SLF001  # torch has no public name for it

    @contextmanager
    def untrained_weights_kept(self) -> Iterator[None]:
        """Raise `TrainingError` if an untrained weight was written to inside the block."""
        before = self._writes()
        yield
        if self._writes() != before:
            raise TrainingError("a weight that is not trained was changed")
