"""Which weights of an encoder are trained: all, the head, or low-rank updates of some linear layers.

LoRA (Hu et al., arXiv 2106.09685) replaces W by W + (α/r)·BA. FFA-LoRA (Sun et al., arXiv 2403.12313) freezes A,
so that the mean of members' updates is the update of their mean, and noise enters linearly.
"""

from __future__ import annotations

import math
import re

import torch
from torch import nn

from hansa.agreement.terms import Adapter
from hansa.errors import ModelError
from hansa.models.classifier import MODEL_PREFIX, TextClassifier
from hansa.models.flat import clean_name
from hansa.models.public_random import draw

# Query and value maps by model type. Kept here, not taken from peft: what an agreement means must not change with
# the release of a library.
DEFAULT_TARGETS = {
    "albert": ("query", "value"),
    "bert": ("query", "value"),
    "camembert": ("query", "value"),
    "deberta-v2": ("query_proj", "value_proj"),
    "distilbert": ("q_lin", "v_lin"),
    "electra": ("query", "value"),
    "gpt2": ("c_attn",),
    "mpnet": ("q", "v"),
    "roberta": ("query", "value"),
    "xlm-roberta": ("query", "value"),
}
_A, _B = ".lora_A.", ".lora_B."


def attach_adapter(module: TextClassifier, adapter: Adapter, *, family: str, head: frozenset[str]) -> None:
    """Mark in place what is trained, and put low-rank updates into `module` where asked.

    Call it when `module` is on its device: a model moved after its adapter was made trains nothing under Opacus
    while the budget is spent (opacus issue 820).

    Args:
        module: every trainable weight trained, as `load_encoder` leaves it.
        adapter: the agreement's section.
        family: the `model_type`, for the default targets.
        head: clean names of the classification head's weights.

    Raises:
        ModelError: a target names no linear layer, or nothing would be trained.
    """
    if adapter.kind == "none":
        return
    trained_head = adapter.kind == "head" or adapter.train_head
    if adapter.kind in ("lora", "ffa-lora"):
        _inject(module, adapter, family, head)
    for path, parameter in module.named_parameters():
        name = clean_name(path, MODEL_PREFIX)
        if _A in path:
            draw(parameter, adapter.seed, name, 1.0 / math.sqrt(parameter.shape[1]))  # kaiming with a = √5
            parameter.requires_grad = adapter.kind == "lora"
        elif _B in path:
            nn.init.zeros_(parameter)
            parameter.requires_grad = True
        else:
            parameter.requires_grad = trained_head and name in head


def merged_weights(module: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """All weights and persistent buffers by clean name, with low-rank updates added to what they adapt.

    Weights that stand under two names are told once. The module is left as it is.
    """
    found: dict[str, torch.Tensor] = {}
    first: dict[int, str] = {}
    for path, tensor in module.state_dict(keep_vars=True).items():
        if _A not in path and _B not in path and first.setdefault(id(tensor), path) == path:
            found[clean_name(path, prefix)] = tensor.detach()
    for path, layer in module.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            name = clean_name(f"{path}.base_layer.weight", prefix)
            with torch.no_grad():
                found[name] = found[name] + layer.get_delta_weight("default")
    return found


def _inject(module: TextClassifier, adapter: Adapter, family: str, head: frozenset[str]) -> None:
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    linear = {
        name: layer
        for name, layer in module.model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and f"{name}.weight" not in head
    }
    suffixes = adapter.targets or DEFAULT_TARGETS.get(family, ())
    found = sorted(name for name in linear if any(name == s or name.endswith(f".{s}") for s in suffixes))
    missing = [s for s in suffixes if not any(name == s or name.endswith(f".{s}") for name in linear)]
    if missing or not found:
        wrong = f"{family} has no linear layer called {', '.join(missing)}" if missing else (
            f"Hansa has no default targets for {family}"
        )  # fmt: skip
        known = sorted({re.sub(r"^.*\.\d+\.", "", name) for name in linear})
        raise ModelError(f"adapter.targets: {wrong}", remedy=f"Name some of: {', '.join(known)}.")
    transposed = {isinstance(linear[name], Conv1D) for name in found}
    if len(transposed) > 1:
        raise ModelError("adapter.targets: peft cannot adapt nn.Linear and Conv1D layers at once")
    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,  # type: ignore[arg-type]  # peft divides it by the rank; a float serves
        lora_dropout=0.0,
        bias="none",
        target_modules=found,
        fan_in_fan_out=transposed.pop(),
    )
    inject_adapter_in_model(config, module.model)
