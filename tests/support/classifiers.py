"""Small classifiers as Hugging Face ships them, unmodified, and gradients by the longest way round."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from hansa.models import BuiltModel

FAMILIES = ("bert", "roberta", "distilbert", "gpt2", "vit", "albert")
WIDTH, LENGTH, WORDS = 16, 7, 40


class Logits(nn.Module):
    """A Hugging Face classifier as a function from named inputs to logits, and nothing else."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**inputs).logits
        return logits


def hugging_face(family: str, **changes: Any) -> nn.Module:
    """A tiny classifier of three classes with random weights; dropout off, positions left to itself."""
    import transformers as hf

    bert = {
        "vocab_size": WORDS, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 24, "max_position_embeddings": 16, "num_labels": 3,
        "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        "attn_implementation": "eager",
    }  # fmt: skip
    torch.manual_seed(0)
    made: nn.Module
    if family == "distilbert":
        config = hf.DistilBertConfig(
            vocab_size=WORDS, dim=WIDTH, n_layers=2, n_heads=2, hidden_dim=24, max_position_embeddings=16,
            num_labels=3, dropout=0.0, attention_dropout=0.0, seq_classif_dropout=0.0,
            attn_implementation="eager", **changes,
        )  # fmt: skip
        made = hf.DistilBertForSequenceClassification(config)
    elif family == "gpt2":
        gpt2 = hf.GPT2Config(
            vocab_size=WORDS, n_embd=WIDTH, n_layer=2, n_head=2, n_positions=16, num_labels=3, resid_pdrop=0.0,
            embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=0, use_cache=False, attn_implementation="eager",
            **changes,
        )  # fmt: skip
        made = hf.GPT2ForSequenceClassification(gpt2)
    elif family == "vit":
        vit = hf.ViTConfig(**{**bert, **changes}, image_size=12, patch_size=4, num_channels=3)
        made = hf.ViTForImageClassification(vit)
    else:
        classes = {
            "bert": (hf.BertConfig, hf.BertForSequenceClassification),
            "roberta": (hf.RobertaConfig, hf.RobertaForSequenceClassification),
            "albert": (hf.AlbertConfig, hf.AlbertForSequenceClassification),
        }
        make_config, make = classes[family]
        extra = {"embedding_size": 8, "classifier_dropout_prob": 0.0} if family == "albert" else {}
        made = make(make_config(**{**bert, **extra, **changes}))
    return Logits(made).train()


def batch(family: str, records: int, seed: int = 0, length: int = LENGTH) -> dict[str, np.ndarray]:
    """Random public records."""
    rng = np.random.default_rng(seed)
    if family == "vit":
        return {"pixel_values": rng.normal(size=(records, 3, 12, 12)).astype(np.float32)}
    ids = rng.integers(3, WORDS, (records, length))
    mask = np.ones_like(ids)
    for i in range(records):  # records of different lengths, so that padding is in play
        mask[i, length - i % 3 :] = 0
    return {"input_ids": np.where(mask == 1, ids, 0 if family == "gpt2" else 1), "attention_mask": mask}


def answers(records: int) -> np.ndarray:
    """Labels of a batch."""
    return np.arange(records, dtype=np.int64) % 3


def moved(module: nn.Module, size: float = 0.1) -> nn.Module:
    """Every weight away from its start, so that no gradient is zero because a factor is."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(size * torch.randn(parameter.shape, generator=generator, dtype=torch.float32))
    return module


def built_of(module: nn.Module, inputs: Mapping[str, np.ndarray]) -> BuiltModel:
    """The module as model 0; its probe is the first two records."""
    return BuiltModel.of(module, device="cpu", probe_inputs={name: v[:2] for name, v in inputs.items()})


def one_by_one(built: BuiltModel, inputs: Mapping[str, np.ndarray], labels: np.ndarray) -> list[Tensor]:
    """Each record's gradient from a pass of its own: for each trained tensor [B, *shape]."""
    parameters = built.flat.parameters(built.module)
    rows = []
    for i in range(len(labels)):
        one = {name: torch.from_numpy(value[i : i + 1]) for name, value in inputs.items()}
        dtype = parameters[0].dtype
        one = {name: v.to(dtype) if v.is_floating_point() else v for name, v in one.items()}
        loss = nn.functional.cross_entropy(built.module(**one), torch.from_numpy(labels[i : i + 1]))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        rows.append([torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)])
    return [torch.stack(column) for column in zip(*rows, strict=True)]
