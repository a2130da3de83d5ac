"""Models of encoded tables: logistic regression, and a transformer with one token per feature.

Both are made of layers whose per-sample gradients Opacus knows (`nn.Linear`, `nn.LayerNorm`, `nn.Embedding`) and
of functions that treat each record alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from hansa.models.public_random import draw, draw_linear


class LogisticRegression(nn.Module):
    """Multinomial logistic regression; zeros at the start, so model 0 needs no seed."""

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, classes)
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, table: Tensor) -> Tensor:
        """Logits of shape ``[batch, classes]`` for an encoded table of shape ``[batch, width]``."""
        logits: Tensor = self.linear(table)
        return logits


class _Attention(nn.Module):
    """Multi-head self-attention from four linear maps (`nn.MultiheadAttention` hides its weights from hooks)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.head_width = width // heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        batch, length, _ = tokens.shape
        query, key, value = (
            layer(tokens).view(batch, length, self.heads, self.head_width).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(self.head_width)
        mixed = (scores.softmax(dim=3) @ value).transpose(1, 2).flatten(2)
        out: Tensor = self.output(mixed)
        return out


class _Block(nn.Module):
    """A pre-norm transformer layer; the first of a stack has no norm before attention (arXiv 2106.11959, 3.3)."""

    def __init__(self, width: int, heads: int, *, first: bool) -> None:
        super().__init__()
        self.attention_norm = nn.Identity() if first else nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.feed_forward_norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        widened = functional.relu(self.widen(self.feed_forward_norm(tokens)))
        out: Tensor = tokens + self.narrow(widened)
        return out


class FeatureTransformer(nn.Module):
    """FT-Transformer (Gorishniy et al., arXiv 2106.11959) over an encoded table.

    A feature's slice of the row becomes one token by a linear map of its own, whose bias is the feature's learned
    bias token; a learned [CLS] token is read out at the end. The last layer starts at zero: model 0 predicts all
    classes alike and owes nothing to its seed, and noise meets no random projection of the classes.

    Args:
        widths: inputs of each feature, in the order of the encoded row.
        width: of a token.
        layers, heads: of the transformer; `heads` divides `width`.
        classes: outputs.
        seed: public seed of the initial weights.
    """

    def __init__(
        self, widths: Sequence[int], *, width: int, layers: int, heads: int, classes: int, seed: int
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        self.tokens = nn.ModuleList(nn.Linear(inputs, width) for inputs in widths)
        self.cls = nn.Embedding(1, width)
        self.blocks = nn.ModuleList(_Block(width, heads, first=i == 0) for i in range(layers))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, classes)
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                draw_linear(module, seed, name)
        draw(self.cls.weight, seed, "cls.weight", 1.0 / math.sqrt(width))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, table: Tensor) -> Tensor:
        """Logits of shape ``[batch, classes]`` for an encoded table of shape ``[batch, sum(widths)]``."""
        parts = torch.split(table, list(self.widths), dim=1)
        index = torch.zeros(table.shape[0], 1, dtype=torch.long, device=table.device)
        tokens = [layer(part) for layer, part in zip(self.tokens, parts, strict=True)]
        sequence = torch.cat([self.cls(index), torch.stack(tokens, dim=1)], dim=1)
        for block in self.blocks:
            sequence = block(sequence)
        logits: Tensor = self.head(functional.relu(self.norm(sequence[:, 0])))
        return logits
