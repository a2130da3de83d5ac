"""What layers see on one way through the model and back, noted by hooks that are gone afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from hansa.errors import TrainingError
from hansa_client.training.bookkeeping.rules import Rule
from hansa_client.training.bookkeeping.uses import Memory, Noted, Units, Whole


@dataclass(frozen=True)
class RecordedLayer:
    """A layer with trained tensors of its own.

    Attributes:
        rule: how their gradients arise.
        places: for each trained tensor, by its name in the layer, its place among the trained tensors.
        needs_input: whether more than a bias is trained.
        once_for_all: whether the layer is called once for the whole batch instead of once per record, as
            Hugging Face models look up positions: indices [1, L], or [L].
    """

    rule: Rule
    places: Mapping[str, int]
    needs_input: bool
    once_for_all: bool = False


@dataclass(frozen=True)
class BroadcastTensor:
    """A trained tensor [1, …] that a module adds to, or puts beside, every record: ViT's positions and [CLS].

    Attributes:
        owner: the module.
        name: its attribute.
        place: among the trained tensors.
    """

    owner: nn.Module
    name: str
    place: int


@dataclass
class Recording:
    """Runs a model under hooks and collects the uses of every trained tensor.

    Autograd is asked for gradients of activations alone: the weights' own are switched off for the while, so what
    lies below the first trained layer is computed without any bookkeeping, and no weight gradient is computed
    twice. The graph starts at the outputs of the first trained layers.

    Attributes:
        layers: the layers with trained tensors.
        broadcast: trained tensors outside such layers.
        parameters: all trained tensors, by place.
    """

    layers: Mapping[nn.Module, RecordedLayer]
    broadcast: tuple[BroadcastTensor, ...]
    parameters: tuple[nn.Parameter, ...]
    _noted: list[list[Noted]] = field(default_factory=list)
    _memory: Memory = field(default_factory=Memory)
    _open: bool = False

    @contextmanager
    def of(self, units: Units, anchor: Tensor) -> Iterator[list[list[Noted]]]:
        """Within the block calls of the model are noted until `close`; the uses by place are complete after backward.

        Args:
            units: of the pass' records.
            anchor: an empty tensor that requires a gradient: where the graph starts.

        Raises:
            TrainingError: a trained layer ran without autograd, or its input was overwritten after it ran.
        """
        self._noted = [[] for _ in self.parameters]
        self._open = True
        with ExitStack() as undo:
            for parameter in self.parameters:
                parameter.requires_grad = False
                undo.callback(setattr, parameter, "requires_grad", True)  # noqa: FBT003
            for layer, recorded in self.layers.items():
                hook = self._hook(recorded, units, anchor)
                undo.callback(layer.register_forward_hook(hook, with_kwargs=True).remove)
            for tensor in self.broadcast:
                self._stand_in(tensor, units, anchor, undo)
            try:
                yield self._noted
            finally:
                self._open = False
                self._noted = []
                self._memory.forget()

    def close(self) -> None:
        """The forward pass is over: what runs from here on is recomputed for checkpoints, and noted already."""
        self._open = False

    def _hook(self, recorded: RecordedLayer, units: Units, anchor: Tensor) -> Any:
        noted, memory, records = self._noted, self._memory, len(units.of_record)

        def hook(
            layer: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any], output: Tensor
        ) -> Tensor:
            if not torch.is_grad_enabled():
                raise TrainingError(
                    f"a trained {type(layer).__name__} runs without autograd",
                    remedy="Use checkpoints with use_reentrant=False, and no torch.no_grad in the model.",
                )
            given: Tensor = arguments[0] if arguments else next(iter(named.values()))
            inputs = given.detach()
            if recorded.once_for_all and records > 1:
                inputs = _for_each(inputs, records, 2)
                output = _for_each(output, records, 3)
            if not output.requires_grad:
                output = _start(anchor, output)
            if self._open:
                if len(inputs) != records or len(output) != records:
                    raise TrainingError(
                        f"a trained {type(layer).__name__} does not see the batch record by record"
                    )
                kept = inputs if recorded.needs_input else None
                version = given._version  # noqa: SLF001  # torch has no public name for it

                def receive(gradient: Tensor) -> None:
                    if kept is not None and given_version() != version:
                        raise TrainingError(
                            f"the input of a trained {type(layer).__name__} was overwritten after it was used",
                            remedy="Leave out inplace=True behind it.",
                        )
                    for name, use in recorded.rule(layer, kept, gradient.detach()):
                        place = recorded.places.get(name)
                        if place is not None:
                            noted[place].append(Noted.of(use, units, memory))

                def given_version() -> int:
                    return inputs._version  # noqa: SLF001  # shared with what it was detached from

                output.register_hook(receive)
            return output

        return hook

    def _stand_in(self, tensor: BroadcastTensor, units: Units, anchor: Tensor, undo: ExitStack) -> None:
        """Let the module find a copy for each record where its parameter was; an instance's attribute comes first."""
        noted, records = self._noted[tensor.place], len(units.of_record)
        parameter = self.parameters[tensor.place]
        copies = _start(anchor, parameter.detach().expand(records, *parameter.shape[1:]))
        copies.register_hook(lambda gradient: noted.append(Noted(Whole(gradient.detach()), None)))
        tensor.owner.__dict__[tensor.name] = copies
        undo.callback(tensor.owner.__dict__.pop, tensor.name)


class _Start(torch.autograd.Function):
    """The identity at which a graph starts: its output requires a gradient though nothing behind it does.

    The copy lets the model write to the result in place, which it could not do to a leaf.
    """

    @staticmethod
    def forward(_ctx: Any, _anchor: Tensor, output: Tensor) -> Tensor:
        return output.clone()

    @staticmethod
    def backward(_ctx: Any, *_gradients: Tensor) -> tuple[None, None]:
        return None, None


def _start(anchor: Tensor, output: Tensor) -> Tensor:
    started: Tensor = _Start.apply(anchor, output)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return started


def _for_each(shared: Tensor, records: int, dimensions: int) -> Tensor:
    """[1, L, …] or [L, …] to [B, L, …]."""
    if shared.dim() < dimensions:
        shared = shared.unsqueeze(0)
    return shared.expand(records, *shared.shape[1:])
