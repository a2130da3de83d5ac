"""Merging an adapter: W + (α/r)·BA becomes one weight again, and the layers of LoRA are gone."""

from __future__ import annotations

from typing import Any

import torch

from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.step import POST_PROCESSING, Cost


class MergeAdapter:
    """Add low-rank updates to what they adapt. A model without any is left as it is."""

    name = "merge"
    cost: Cost = POST_PROCESSING

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        module = candidate.copied()
        adapted = [
            (name, layer)
            for name, layer in module.named_modules()
            if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight")
        ]
        for name, layer in adapted:
            low_rank: Any = layer
            base = low_rank.get_base_layer()
            with torch.no_grad():
                base.weight += low_rank.get_delta_weight("default")
            module.set_submodule(name, base)
        did = (
            f"added the adapters of {len(adapted)} layers to their weights."
            if adapted
            else "found no adapter."
        )
        return candidate.with_module(module), did
