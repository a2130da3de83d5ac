"""Pruning by the size of weights: single ones to zero, or whole attention heads and feed-forward units out.

Both look at weights alone (Han et al., arXiv 1506.02626; Michel et al., arXiv 1905.10650, with norms in place of their
gradient scores, which would read private data). How the removed parts hurt which group is judged by the evaluation of
the file that ships.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from hansa.artifact.errors import StepError
from hansa.models.tables import FeatureTransformer
from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.step import POST_PROCESSING, Cost


@dataclass(frozen=True)
class PruneMagnitude:
    """Set the smallest weights of each linear layer to zero. The file gets no smaller unless it is packed.

    Attributes:
        share: of each layer's weights.
    """

    share: float = 0.3
    name = "prune"
    cost: Cost = POST_PROCESSING

    def __post_init__(self) -> None:
        _check_share(self.share)

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        module = candidate.copied()
        layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
        for layer in layers:
            size = layer.weight.detach().abs()
            cut = int(self.share * size.numel())
            if cut:
                with torch.no_grad():
                    layer.weight[size <= size.flatten().kthvalue(cut).values] = 0.0
        return candidate.with_module(module), (
            f"set the smallest {100 * self.share:.0f} % of the weights of {len(layers)} linear layers to zero."
        )


@dataclass(frozen=True)
class PruneStructure:
    """Take out the attention heads and feed-forward units with the smallest weights, the same number in every layer.

    Attributes:
        heads: share of the heads of a layer that go; rounded down.
        units: share of the feed-forward units of a layer that go; rounded down.
    """

    heads: float = 0.25
    units: float = 0.25
    name = "prune"
    cost: Cost = POST_PROCESSING

    def __post_init__(self) -> None:
        _check_share(self.heads)
        _check_share(self.units)

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        module = candidate.copied()
        layers = list(_layers(module))
        if not layers:
            raise StepError(
                f"structured pruning does not know the layers of {_kind(module)}",
                remedy="It knows BERT-like encoders and the tabular transformer. Leave the step 'prune' out.",
            )
        heads = units = 0
        for layer in layers:
            heads += layer.drop_heads(self.heads)
            units += layer.drop_units(self.units)
        before, after = candidate.parameters, sum(p.numel() for p in module.parameters())
        return candidate.with_module(module), (
            f"took out {heads} attention heads and {units} feed-forward units, {before:,} weights to {after:,}."
        )


@dataclass(frozen=True)
class _Layer:
    """One transformer layer: its four attention maps and its feed-forward pair."""

    attention: Any
    output: nn.Linear
    widen: nn.Linear
    narrow: nn.Linear
    heads: int
    width: int
    count_name: str

    def drop_heads(self, share: float) -> int:
        drop = int(share * self.heads)
        if not drop:
            return 0
        query, key, value = self.attention.query, self.attention.key, self.attention.value
        scores = sum(_blocks(layer.weight, self.heads, dim=0) for layer in (query, key, value)) + _blocks(
            self.output.weight, self.heads, dim=1
        )
        kept = _largest(scores, self.heads - drop)
        rows = torch.cat([torch.arange(h * self.width, (h + 1) * self.width) for h in kept.tolist()])
        for layer in (query, key, value):
            _keep_rows(layer, rows)
        _keep_columns(self.output, rows)
        setattr(self.attention, self.count_name, self.heads - drop)
        if hasattr(self.attention, "all_head_size"):
            self.attention.all_head_size = len(rows)
        return drop

    def drop_units(self, share: float) -> int:
        size = self.widen.out_features
        drop = int(share * size)
        if not drop:
            return 0
        scores = self.widen.weight.norm(dim=1) * self.narrow.weight.norm(dim=0)
        kept = _largest(scores, size - drop)
        _keep_rows(self.widen, kept)
        _keep_columns(self.narrow, kept)
        return drop


def drop_units(module: nn.Module, share: float) -> int:
    """Take the feed-forward units with the smallest weights out of a model of a known kind, in place; how many.

    Args:
        module: of another kind it stays as it is.
        share: of each layer's units; rounded down.

    Raises:
        StepError: a share that is none.
    """
    _check_share(share)
    return sum(layer.drop_units(share) for layer in _layers(module))


def _layers(module: nn.Module) -> Iterator[_Layer]:
    if isinstance(module, FeatureTransformer):
        for block in cast("Any", module.blocks):
            mixing = block.attention
            yield _Layer(
                mixing, mixing.output, block.widen, block.narrow, mixing.heads, mixing.head_width, "heads"
            )
        return
    for found in module.modules():
        layer: Any = found
        inner: Any = getattr(getattr(layer, "attention", None), "self", None)
        parts = [getattr(inner, name, None) for name in ("query", "key", "value")]
        if all(isinstance(part, nn.Linear) for part in parts) and hasattr(layer, "intermediate"):
            yield _Layer(
                inner,
                layer.attention.output.dense,
                layer.intermediate.dense,
                layer.output.dense,
                inner.num_attention_heads,
                inner.attention_head_size,
                "num_attention_heads",
            )


def _blocks(weight: Tensor, heads: int, *, dim: int) -> Tensor:
    """Squared norm of each head's part of a weight."""
    parts = weight.detach().chunk(heads, dim=dim)
    return torch.stack([part.square().sum() for part in parts])


def _largest(scores: Tensor, count: int) -> Tensor:
    return scores.detach().argsort(descending=True, stable=True)[:count].sort().values


def _keep_rows(layer: nn.Linear, rows: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[rows].clone(), requires_grad=False)
    if layer.bias is not None:
        layer.bias = nn.Parameter(layer.bias.detach()[rows].clone(), requires_grad=False)
    layer.out_features = len(rows)


def _keep_columns(layer: nn.Linear, columns: Tensor) -> None:
    layer.weight = nn.Parameter(layer.weight.detach()[:, columns].clone(), requires_grad=False)
    layer.in_features = len(columns)


def _kind(module: nn.Module) -> str:
    return type(getattr(module, "model", module)).__name__


def _check_share(share: float) -> None:
    if not 0 <= share < 1:
        raise StepError(f"a share of {share:g} cannot be pruned: it is from 0 to below 1")
