"""Refuses, before anything is spent, a model whose per-sample gradients would be wrong.

DP-SGD bounds what one record does by clipping its gradient. That means something only if each record's loss
depends on that record alone, and if every trained weight shows its gradient record by record.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hansa.errors import ModelError
from hansa.models.flat import FlatParameters

_NO_BATCH_NORM = "Replace batch norm by group or layer norm."


def check_per_record(
    module: nn.Module, flat: FlatParameters, inputs: Mapping[str, Tensor], classes: int
) -> None:
    """Run two records through the model and back.

    Args:
        module: in training mode.
        flat: its trained parameters.
        inputs: two different records, on the module's device.
        classes: outputs that the task asks for.

    Raises:
        ModelError: the logits have another shape or are not finite; a record's logits depend on another record;
            a trained weight gets no gradient, or lies in a layer that is not called with the batch first. All
            such weights are named. Or no gradient goes through the model at all.
    """
    batches: dict[nn.Module, int | None] = {}

    def remember(layer: nn.Module, arguments: tuple[Any, ...]) -> None:
        shapes = [a.shape[0] for a in arguments if isinstance(a, Tensor) and a.dim() > 0]
        if batches.get(layer, 2) == 2:  # a layer may be called several times; one bad call is enough
            batches[layer] = shapes[0] if shapes else None

    owners = {name: module.get_submodule(path.rpartition(".")[0]) for name, path in _paths(flat)}
    hooks = [layer.register_forward_pre_hook(remember) for layer in set(owners.values())]
    try:
        logits = module(**inputs)
    except Exception as error:  # an architecture may raise anything; its name has to be in the message
        raise ModelError(f"{type(module).__name__} cannot run on the agreement's inputs: {error}") from error
    finally:
        for hook in hooks:
            hook.remove()
    if (
        not isinstance(logits, Tensor)
        or tuple(logits.shape) != (2, classes)
        or not logits.dtype.is_floating_point
    ):
        shown = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(f"{type(module).__name__} gives {shown} for 2 records and {classes} classes")
    if not bool(torch.isfinite(logits).all()):
        raise ModelError(f"{type(module).__name__} gives logits that are not finite")
    with torch.no_grad():
        try:
            alone = module(**{name: value[:1] for name, value in inputs.items()})
        except Exception as error:  # as above
            raise ModelError(
                f"{type(module).__name__} cannot run on a record alone: {error}", remedy=_NO_BATCH_NORM
            ) from error
    if not torch.allclose(alone[0], logits[0], rtol=1e-3, atol=1e-4):
        raise ModelError(
            f"{type(module).__name__} mixes the records of a batch, so one record's gradient cannot be bounded",
            remedy=_NO_BATCH_NORM,
        )
    parameters = flat.parameters(module)
    target = torch.arange(2, device=logits.device) % classes
    loss = nn.functional.cross_entropy(logits.float(), target, reduction="sum")
    try:
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
    except RuntimeError as error:  # an operator that has no derivative, or that cuts the graph
        raise ModelError(
            f"{type(module).__name__} cannot be trained: {str(error).splitlines()[0]}",
            remedy="Replace the operator through which no gradient goes.",
        ) from error
    # With allow_unused a gradient may be None, which torch's annotation leaves out.
    found: dict[str, Tensor | None] = dict(zip(flat.names, gradients, strict=True))
    wrong = [f"{n} is not used" for n, g in found.items() if g is None]
    used = [n for n, g in found.items() if g is not None]
    wrong += [f"the layer of {n} is not called" for n in used if owners[n] not in batches]
    wrong += [f"the layer of {n} does not see the batch" for n in used if batches.get(owners[n], 2) != 2]
    if wrong:
        shown = "; ".join(wrong[:5]) + (f"; and {len(wrong) - 5} more" if len(wrong) > 5 else "")
        raise ModelError(
            f"{type(module).__name__} has weights without a gradient per record: {shown}",
            remedy="Train less of the model: an adapter, or freeze_positions = true.",
        )


def _paths(flat: FlatParameters) -> list[tuple[str, str]]:
    return list(zip(flat.names, flat.paths, strict=True))
