"""Gradients of the trained weights: clipped sums in one pass, one per record, or one sum without privacy."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleHooks
from opacus.validators import ModuleValidator
from torch import Tensor, nn

from hansa.errors import ModelError, TrainingError
from hansa.models import BuiltModel, trim_padding
from hansa_client.training.adapting import UnitLosses
from hansa_client.training.bookkeeping import BookKeeper, survey
from hansa_client.training.clipping import LOW_PRECISION_MARGIN, MARGIN, ClippedSumBuilder
from hansa_client.training.kept import FrozenPart, KeptActivations, KeptRecords, longest
from hansa_client.training.memory import keep_freed_memory
from hansa_client.training.transfer import on_device

_LOG = logging.getLogger("hansa.node")  # the member's own
_AGREEMENT = 1e-3  # of a record's whole gradient: what float32 may change between two ways to it


class GradientEngine:
    """Computes gradients of a built model's trained weights.

    One engine may serve many members in turn: it holds the model and no member's data.

    Args:
        built: the model.
        precision: float32, or bfloat16 for passes under autocast; the weights are float32 in both.

    Attributes:
        by_record: names of the layers whose gradients are computed record by record, by Opacus, because no rule of
            book-keeping serves them: slower, and as exact.
        layer_of: for each trained tensor the number of its layer; the groups of per-layer clipping.

    Raises:
        ModelError: a layer mixes records (batch norm), so that a record has no gradient of its own.
        TrainingError: a trained weight gets no gradient, or an untrained one would get one.
    """

    def __init__(self, built: BuiltModel, *, precision: torch.dtype = torch.float32) -> None:
        if precision not in (torch.float32, torch.bfloat16):
            raise TrainingError(f"training in {precision} is not known", remedy="Use float32 or bfloat16.")
        if torch.get_float32_matmul_precision() != "highest":
            raise TrainingError(
                "torch multiplies float32 with fewer digits than clipping needs",
                remedy='Leave torch.set_float32_matmul_precision at "highest".',
            )
        self.built = built
        problems = ModuleValidator.validate(built.module, strict=False)
        if problems:
            raise ModelError(
                f"the model has layers in which records mix: {problems[0]}",
                remedy="Replace them, for example batch normalisation by group normalisation.",
            )
        built.module.train()
        self.precision = torch.float32
        self.parameters = built.flat.parameters(built.module)
        if self._device.type == "cpu":
            keep_freed_memory()
        trained = {id(p) for p in self.parameters}
        self._untrained = [p for p in built.module.parameters() if id(p) not in trained]
        if any(p.requires_grad for p in self._untrained):
            raise TrainingError("a weight outside the flat vector would be trained")
        found = survey(built.module, self.parameters, built.flat.names, self._on_probe)
        self.by_record = found.by_record
        self.layer_of = found.layer_of
        self._keeper = BookKeeper(self.parameters, found)
        if self.by_record:
            _LOG.info("gradients per record, more slowly, in the layers %s", ", ".join(self.by_record))
        self._check_on_probe()
        self.precision = precision

    @property
    def _device(self) -> torch.device:
        return next(self.built.module.parameters()).device

    def per_record(self, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> list[Tensor]:
        """The gradient of each record's cross-entropy.

        Args:
            inputs: arrays with B records along the first axis.
            labels: int64 [B].

        Returns:
            For each trained tensor, in the order of the flat vector, float32 [B, *shape].
        """
        hooks = GradSampleHooks(self.built.module, loss_reduction="sum", strict=False)
        try:
            with warnings.catch_warnings():
                # inputs are data and need no gradient; torch remarks on that at every hooked first layer
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                self._loss(self._tensors(inputs), self._targets(labels)).backward()
            return self._collected(len(labels))
        finally:
            hooks.cleanup()
            self._clear()

    def add_clipped(
        self,
        builder: ClippedSumBuilder,
        inputs: Mapping[str, np.ndarray],
        labels: np.ndarray,
        unit_of_record: npt.NDArray[np.int64],
        below: KeptRecords | None = None,
        groups: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Add the clipped gradients of a microbatch of whole units, by one forward and one backward pass.

        Args:
            builder: of the step's sum; it says how a unit is bounded.
            inputs: arrays with B records along the first axis.
            labels: int64 [B].
            unit_of_record: int64 [B], which unit of this microbatch a record belongs to, 0 … U−1, each in it.
            below: what `keep` has kept for these records stands in for the frozen layers below the first trained
                one.
            groups: int64 [U], of the units, where the builder asks for them.

        Raises:
            TrainingError: the model did something on the way that would make the norms wrong.

        Guarantees: what is added for a unit has L2 norm at most C(1 − η), as computed from squared norms that
            are never smaller than the true ones by more than float rounding; a unit whose gradient is not finite,
            or too large to be told from infinity, adds nothing and disturbs no other.
        """
        if not len(labels):
            return
        tensors, targets = self._tensors(inputs), self._targets(labels)
        units = int(unit_of_record.max()) + 1
        losses: list[Tensor] | None = [] if builder.by_group else None
        with self._replaced(tensors, below):
            found = self._keeper.gradients(
                lambda: self._loss(tensors, targets, losses), unit_of_record, units
            )
        known = None
        if losses is not None and groups is not None:
            known = self._unit_losses(losses, unit_of_record, groups)
        margin = MARGIN if self.precision == torch.float32 else LOW_PRECISION_MARGIN
        factors = builder.factors(found.squares, found.sound, self.layer_of, margin=margin, units=known)
        counted = builder.counted(found.squares, found.sound, margin=margin, units=known)
        builder.add_sums([*found.weighted(factors), *counted], found.sound)

    @cached_property
    def frozen_part(self) -> FrozenPart | None:
        """What lies below the first trained layer and gives the same for a record each time; `None` without any."""
        probe = self.built.probe_inputs
        length = longest(probe) if "attention_mask" in probe else None
        return FrozenPart.found(self.built.module, lambda: self._on_probe(2), length)

    def keep(self, inputs: Mapping[str, np.ndarray], folder: Path | None = None) -> KeptActivations:
        """A place to keep what the frozen layers below the first trained one give for each record of a data set.

        Args:
            inputs: of the whole data set; only their number and lengths are read here.
            folder: where to keep activations in a file without a name instead of memory.

        Raises:
            ModelError: nothing can be kept.
        """
        if self.frozen_part is None:
            raise ModelError(
                "there are no activations to keep below the first trained layer",
                remedy="Set performance.keep_activations = 'auto', train fewer layers, or switch dropout off.",
            )
        return KeptActivations(self.frozen_part, len(next(iter(inputs.values()))), longest(inputs), folder)

    @contextmanager
    def _replaced(self, tensors: Mapping[str, Tensor], below: KeptRecords | None) -> Iterator[None]:
        """Activations that are kept stand in for the frozen layers, where there are any."""
        if below is None:
            yield
            return
        with self._autocast():
            last = below.kept.of(below.records, tensors, self.built.module)
        with below.kept.part.replaced(last):
            yield

    def summed(
        self, inputs: Mapping[str, np.ndarray], labels: np.ndarray, below: KeptRecords | None = None
    ) -> list[Tensor]:
        """The sum of the records' gradients, without clipping; for runs that claim no privacy."""
        tensors = self._tensors(inputs)
        try:
            with self._replaced(tensors, below):
                self._loss(tensors, self._targets(labels)).backward()
            return [self._gradient(p) for p in self.parameters]
        finally:
            self._clear()

    def _tensors(self, inputs: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
        if "attention_mask" in inputs:
            inputs = trim_padding(inputs)
        return {name: on_device(array, self._device) for name, array in inputs.items()}

    def _targets(self, labels: np.ndarray) -> Tensor:
        return on_device(labels, self._device)

    def _unit_losses(
        self, losses: list[Tensor], unit_of_record: npt.NDArray[np.int64], groups: npt.NDArray[np.int64]
    ) -> UnitLosses:
        """The mean of each unit's losses, from those of the pass's records."""
        (each,), of = losses, on_device(unit_of_record, self._device)
        sums = torch.zeros(len(groups), dtype=torch.float64, device=self._device)
        sizes = torch.zeros_like(sums).index_add_(0, of, torch.ones_like(each, dtype=torch.float64))
        means = sums.index_add_(0, of, each.double()) / sizes
        return UnitLosses(means, on_device(groups, self._device))

    def _loss(
        self, tensors: Mapping[str, Tensor], targets: Tensor, noted: list[Tensor] | None = None
    ) -> Tensor:
        """The sum of the records' cross-entropies; each of them is added to `noted`, where they are wanted."""
        with self._autocast():
            logits = self.built.module(**tensors)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        if noted is not None:
            noted.append(nn.functional.cross_entropy(logits.detach(), targets, reduction="none"))
        return nn.functional.cross_entropy(logits, targets, reduction="sum")

    def _autocast(self) -> AbstractContextManager[object]:
        if self.precision == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self.precision)

    def _on_probe(self, records: int) -> Tensor:
        """The model's output for the first so many of its two public records."""
        inputs = {name: value[:records] for name, value in self.built.probe_inputs.items()}
        output: Tensor = self.built.module(**self._tensors(inputs))
        return output

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

    def _check_on_probe(self) -> None:
        """Book-keeping finds on two public records what each of them gives alone, and every trained weight matters.

        The known way to spend ε on a model that never learns is an adapter whose hooks hold stale weights
        (meta-pytorch/opacus #820); the known way to clip wrongly is a weight that is used behind its layer's back.
        The probe holds no data, so what it finds may be said aloud. Dropout is off meanwhile, and no weight stands
        where it started, so that none looks idle because another is zero.
        """
        flat, module, names = self.built.flat, self.built.module, self.built.flat.names
        start = flat.vector(module)
        modes = {layer: layer.training for layer in module.modules()}
        flat.load(module, start + np.random.default_rng(0).normal(0, 0.05, len(start)))
        module.eval()
        try:
            alone = [self._alone(record) for record in range(2)]
            for name, *gradients in zip(names, *alone, strict=True):
                if not all(bool(torch.isfinite(g).all()) for g in gradients) or not any(
                    bool(g.any()) for g in gradients
                ):
                    raise TrainingError(
                        f"the trained weight {name!r} has no influence on the model's output",
                        remedy="Leave it untrained, or make the adapter after moving the model to its device.",
                    )
            tensors, targets = self._tensors(self.built.probe_inputs), self._targets(np.array([0, 1]))
            found = self._keeper.gradients(lambda: self._loss(tensors, targets), np.arange(2), 2)
            sums = found.weighted([torch.ones(2, dtype=torch.float64, device=self._device)] * len(names))
            whole = float(sum(g.double().square().sum() for record in alone for g in record)) ** 0.5
            for place, name in enumerate(names):
                expected = torch.stack([record[place].double().norm() for record in alone])
                off = (found.squares[:, place].sqrt() - expected).abs().max()
                off = max(off, (sums[place] - alone[0][place] - alone[1][place]).double().norm())
                if not bool(found.sound.all()) or not float(off) <= _AGREEMENT * whole:
                    raise TrainingError(
                        f"the gradient per record of the trained weight {name!r} cannot be told",
                        remedy="Use the weight through its layer alone, or leave it untrained.",
                    )
        finally:
            for layer, mode in modes.items():
                layer.training = mode
            flat.load(module, start)
            self._clear()

    def _alone(self, record: int) -> list[Tensor]:
        """The gradient of one public record from a pass of its own; zeros where nothing was used."""
        inputs = {name: value[record : record + 1] for name, value in self.built.probe_inputs.items()}
        loss = self._loss(self._tensors(inputs), self._targets(np.array([record])))
        found = torch.autograd.grad(loss, self.parameters, allow_unused=True)
        # with allow_unused a gradient may be None, which torch's annotation leaves out
        maybe: list[Tensor | None] = list(found)
        return [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, maybe, strict=True)]

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
