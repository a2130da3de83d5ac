"""How the trained tensors of a layer got their gradients, by the layer's type."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from opacus import GradSampleModule
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient, prepare_layer
from torch import Tensor, nn

from hansa.errors import ModelError
from hansa_client.training.bookkeeping.uses import Outer, Rows, Use, Whole, batched_product

# From a layer, its input [B, …] and its output's gradient [B, …] to uses of the layer's own tensors by name.
# The input is None where only a bias is trained.
Rule: TypeAlias = Callable[[Any, Tensor | None, Tensor], Iterable[tuple[str, Use]]]


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule for a layer's type, or `None` where only per-record gradients will do.

    A subclass counts as its base if it computes by the same `forward`.

    Raises:
        ModelError: a layer whose option makes one record's gradient depend on another record.
    """
    from transformers.pytorch_utils import Conv1D

    if isinstance(layer, nn.Embedding) and (layer.max_norm is not None or layer.scale_grad_by_freq):
        raise ModelError(
            "an embedding with max_norm or scale_grad_by_freq mixes the records of a batch",
            remedy="Leave these options out.",
        )
    rules: dict[type[nn.Module], Rule] = {
        nn.Linear: _linear,
        Conv1D: _transposed_linear,
        nn.Embedding: _embedding,
        nn.LayerNorm: _layer_norm,
        nn.Conv2d: _convolution,
    }
    for base, rule in rules.items():
        if isinstance(layer, base) and type(layer).forward is base.forward:
            plain = not isinstance(layer, nn.Conv2d) or (layer.groups == 1 and layer.padding_mode == "zeros")
            return rule if plain else None
    return None


def per_record_rule(layer: nn.Module) -> Rule | None:
    """Opacus' gradients per record for a layer that `rule_of` does not know; `None` if it has none either."""
    sampler = GradSampleModule.GRAD_SAMPLERS.get(type(layer))
    if sampler is None:
        if any(True for _ in layer.buffers()):
            return None
        prepare_layer(layer)
        sampler = ft_compute_per_sample_gradient

    def rule(module: nn.Module, inputs: Tensor | None, gradient: Tensor) -> Iterable[tuple[str, Use]]:
        trained = {name: p for name, p in module.named_parameters(recurse=False) if id(p) in wanted}
        for parameter in trained.values():  # a sampler looks at this to see what is trained
            parameter.requires_grad = True
        try:
            found = sampler(module, [inputs], gradient)
        finally:
            for parameter in trained.values():
                parameter.requires_grad = False
        for name, parameter in trained.items():
            yield name, Whole(found[parameter].detach())

    wanted = {id(p) for p in layer.parameters(recurse=False) if p.requires_grad}
    return rule


def outer_or_whole(left: Tensor, right: Tensor) -> Use:
    """The gradient Σ_t left_t right_tᵀ as its factors, or as such where that is the smaller.

    With T places and a matrix m × n the factors hold T(m + n) numbers a record and the Gram matrices cost
    T²(m + n) multiplications; the gradient holds m·n and costs T·m·n. Both comparisons are one.
    """
    places, m, n = left.shape[1], left.shape[2], right.shape[2]
    if places * (m + n) >= m * n:
        return Whole(batched_product(left.transpose(1, 2), right))
    return Outer(left, right)


def reached(gradient: Tensor, inputs: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The places of [B, T, ·] that some record's output gradient reaches, of both.

    A model that reads its answer off one place, as BERT and ViT do, sends gradients to that place alone through
    the maps of its last layer: what is left there is 1/T of the work and of what is kept. Places that are left
    out hold zeros in every record, so that norms and sums are the same; NaN is not zero. The first record says
    where to look and all of them are counted. On a GPU the answer would have to be waited for.
    """
    length = gradient.shape[1]
    if gradient.device.type != "cpu" or length == 1 or not len(gradient):
        return gradient, inputs
    some = (gradient[0] != 0).any(1).nonzero().flatten()
    if not 0 < 2 * len(some) <= length:
        return gradient, inputs
    fewer = gradient.index_select(1, some)
    if int(torch.count_nonzero(fewer)) != int(torch.count_nonzero(gradient)):
        return gradient, inputs
    return fewer, None if inputs is None else inputs.index_select(1, some)


def _linear(layer: nn.Linear, inputs: Tensor | None, gradient: Tensor) -> Iterable[tuple[str, Use]]:
    places, given = reached(_sequence(gradient), None if inputs is None else _sequence(inputs))
    if given is not None:
        yield "weight", outer_or_whole(places, given.to(gradient.dtype))
    if layer.bias is not None:
        yield "bias", Whole(_over_places(places))


def _transposed_linear(
    _layer: nn.Module, inputs: Tensor | None, gradient: Tensor
) -> Iterable[tuple[str, Use]]:
    places, given = reached(_sequence(gradient), None if inputs is None else _sequence(inputs))
    if given is not None:
        yield "weight", outer_or_whole(given.to(gradient.dtype), places)
    yield "bias", Whole(_over_places(places))


def _embedding(layer: nn.Embedding, inputs: Tensor | None, gradient: Tensor) -> Iterable[tuple[str, Use]]:
    if inputs is None:
        return
    index = inputs.reshape(len(inputs), -1).long()
    places = gradient.reshape(len(gradient), -1, gradient.shape[-1])
    if layer.padding_idx is not None:  # autograd leaves that row alone
        places = torch.where((index == layer.padding_idx).unsqueeze(2), 0.0, places)
    if index.shape[1] >= layer.num_embeddings:  # kinds of tokens: few rows, each looked up again and again
        asked = torch.zeros((len(index), layer.num_embeddings, index.shape[1]), device=index.device)
        asked = asked.scatter_(1, index.unsqueeze(1), 1.0).to(places.dtype)
        yield "weight", Whole(batched_product(asked, places))
    else:
        yield "weight", Outer(Rows(index, layer.num_embeddings), places)


def _layer_norm(layer: nn.LayerNorm, inputs: Tensor | None, gradient: Tensor) -> Iterable[tuple[str, Use]]:
    shape = tuple(layer.normalized_shape)
    if gradient.dtype in (torch.bfloat16, torch.float16):
        gradient = gradient.float()
    if inputs is not None:
        normalised = nn.functional.layer_norm(inputs.to(gradient.dtype), shape, None, None, layer.eps)
        yield "weight", Whole((gradient * normalised).reshape(len(gradient), -1, *shape).sum(1))
    if layer.bias is not None:
        yield "bias", Whole(gradient.reshape(len(gradient), -1, *shape).sum(1))


def _convolution(layer: nn.Conv2d, inputs: Tensor | None, gradient: Tensor) -> Iterable[tuple[str, Use]]:
    places = gradient.flatten(2).transpose(1, 2)
    if inputs is not None:
        yield "weight", outer_or_whole(places, _patches(layer, inputs.to(gradient.dtype)))
    if layer.bias is not None:
        yield "bias", Whole(_over_places(places))


def _patches(layer: nn.Conv2d, images: Tensor) -> Tensor:
    """What the kernel sees at each place of the output: [B, T, channels · height · width]."""
    if isinstance(layer.padding, str):
        sides = layer._reversed_padding_repeated_twice  # noqa: SLF001  # torch works "same" out nowhere else
        images = nn.functional.pad(images, list(sides))
        padding: tuple[int, ...] = (0, 0)
    else:
        padding = layer.padding
    patches = nn.functional.unfold(images, layer.kernel_size, layer.dilation, padding, layer.stride)
    return patches.transpose(1, 2)


def _sequence(values: Tensor) -> Tensor:
    return values.reshape(len(values), -1, values.shape[-1])


def _over_places(gradient: Tensor) -> Tensor:
    dtype = torch.float32 if gradient.dtype in (torch.bfloat16, torch.float16) else gradient.dtype
    return gradient.sum(1, dtype=dtype)
