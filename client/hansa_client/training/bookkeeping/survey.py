"""Which rule serves which trained tensor of a model, found out on public inputs before any data are seen."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hansa.errors import TrainingError
from hansa_client.training.bookkeeping.recording import BroadcastTensor, RecordedLayer
from hansa_client.training.bookkeeping.rules import per_record_rule, rule_of


@dataclass(frozen=True)
class Survey:
    """The layers of a model as book-keeping sees them.

    Attributes:
        layers: with trained tensors of their own.
        broadcast: trained tensors [1, …] of other modules.
        by_record: names of the layers whose gradients are computed record by record by Opacus.
        layer_of: for each trained tensor the number of its layer; the groups of per-layer clipping.
    """

    layers: Mapping[nn.Module, RecordedLayer]
    broadcast: tuple[BroadcastTensor, ...]
    by_record: tuple[str, ...]
    layer_of: tuple[int, ...]


def survey(
    module: nn.Module,
    parameters: Sequence[nn.Parameter],
    names: Sequence[str],
    forward: Callable[[int], Tensor],
) -> Survey:
    """Find a rule for every trained tensor.

    Args:
        module: the model.
        parameters, names: its trained tensors.
        forward: runs the model on the first so many of two public records.

    Raises:
        TrainingError: a trained tensor lies where no gradient per record can be computed.
        ModelError: a layer mixes records.
    """
    place_of = {id(p): i for i, p in enumerate(parameters)}
    layers: dict[nn.Module, RecordedLayer] = {}
    broadcast: list[BroadcastTensor] = []
    by_record: list[str] = []
    layer_of = [0] * len(parameters)
    once = _called_once_for_all(module, forward)
    for number, (path, layer) in enumerate(module.named_modules()):
        own = {n: place_of[id(p)] for n, p in layer._parameters.items() if id(p) in place_of}  # noqa: SLF001
        if not own:
            continue
        for place in own.values():
            layer_of[place] = number  # a tied tensor belongs to the last of its layers
        rule = rule_of(layer)
        if rule is None and all(
            len(parameters[place]) == 1 and parameters[place].dim() > 1 for place in own.values()
        ):
            broadcast += [BroadcastTensor(layer, name, place) for name, place in own.items()]
            continue
        if rule is None:
            rule = per_record_rule(layer)
            by_record.append(path)
        if rule is None:
            raise TrainingError(
                f"{type(layer).__name__} has no gradients per record for {names[next(iter(own.values()))]!r}",
                remedy="Leave its weights untrained, or register an Opacus grad sampler for it.",
            )
        needs_input = any(name != "bias" for name in own) or path in by_record
        layers[layer] = RecordedLayer(rule, own, needs_input, once_for_all=layer in once)
    return Survey(layers, tuple(broadcast), tuple(by_record), tuple(layer_of))


def _called_once_for_all(module: nn.Module, forward: Callable[[int], Tensor]) -> set[nn.Module]:
    """Embeddings that are asked for the same shape of indices whether one record comes or two."""
    asked: dict[int, dict[nn.Module, set[tuple[int, ...]]]] = {1: {}, 2: {}}
    records = 0

    def note(layer: nn.Module, arguments: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        index = arguments[0] if arguments else next(iter(named.values()))
        asked[records].setdefault(layer, set()).add(tuple(index.shape))

    tables = [layer for layer in module.modules() if isinstance(layer, nn.Embedding)]
    hooks = [layer.register_forward_pre_hook(note, with_kwargs=True) for layer in tables]
    try:
        with torch.no_grad():
            for records in (1, 2):  # `note` reads it
                forward(records)
    finally:
        for hook in hooks:
            hook.remove()
    return {layer for layer in tables if layer in asked[1] and asked[1][layer] == asked[2].get(layer)}
