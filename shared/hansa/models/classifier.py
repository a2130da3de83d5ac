"""A Hugging Face model as a function from token ids to logits, ready for per-sample gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

MODEL_PREFIX = "model."


class TextClassifier(nn.Module):
    """Logits from token ids, by the architecture's own head or by the mean of the last hidden states.

    Args:
        model: a sequence classifier, or with `pooled_width` a bare encoder.
        pooled_width: size of a hidden state; a linear head is put on their mean over the tokens that are not
            padding (Reimers & Gurevych, arXiv 1908.10084, there called mean pooling). It starts at zero: model 0
            prefers no class and owes nothing to a seed, and the first clipped gradients carry classes alone
            instead of a random projection of them.
        classes: outputs of that head.
        explicit_positions: hand the model ``position_ids`` of shape ``[batch, length]``. Left to itself a model
            of the BERT or GPT-2 family makes them of shape ``[1, length]``, and Opacus then takes the position
            embedding's gradient for that of a batch of one record (opacus issue 841).
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        pooled_width: int | None = None,
        classes: int = 0,
        explicit_positions: bool = False,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.explicit_positions = explicit_positions
        self.head: nn.Linear | None = None
        if pooled_width is not None:
            self.head = nn.Linear(pooled_width, classes)
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits ``[batch, classes]``, at least float32, for integer ids and a 0/1 mask ``[batch, length]``."""
        ids = input_ids.long()  # Opacus' sampler for embeddings indexes with int64 only
        mask = attention_mask.long()
        extra: dict[str, Tensor] = {}
        if self.explicit_positions:
            extra["position_ids"] = torch.arange(ids.shape[1], device=ids.device).repeat(ids.shape[0], 1)
        output = self.model(input_ids=ids, attention_mask=mask, **extra)
        if self.head is None:
            logits: Tensor = output.logits
        else:
            logits = self.head(masked_mean(output.last_hidden_state, mask))
        return logits.float() if logits.dtype in (torch.bfloat16, torch.float16) else logits


def masked_mean(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of `hidden` ``[batch, length, width]`` over the positions where `mask` is 1."""
    weights = mask.unsqueeze(2).to(hidden.dtype)
    return (hidden * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
