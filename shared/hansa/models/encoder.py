"""An encoder for text: pretrained, or built from a config with public random weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hansa.agreement.terms import Encoder
from hansa.errors import ModelError
from hansa.models.classifier import TextClassifier
from hansa.models.configs import has_labels, prepare, pretrained_config, stated_config
from hansa.models.positions import find_positions
from hansa.models.public_random import draw
from hansa.models.sources import model_folder
from hansa.models.tokenizer import Tokenizer, pretrained_tokenizer, public_vocabulary, word_tokenizer

# Plain matmul and softmax: the same bits from run to run on a GPU too, where the backward pass of fused kernels
# adds up in no fixed order.
ATTENTION = "eager"
_HEAD = "head."


@dataclass(frozen=True)
class LoadedEncoder:
    """A text classifier and what else is known about it.

    Attributes:
        module: in training mode (without dropout that is the same function), on the CPU, every weight trained
            but frozen positions.
        tokenizer: of its texts.
        family: the `model_type` of its config.
        head: clean names of the classification head's weights; a pooler that the checkpoint lacks is part of it.
    """

    module: TextClassifier
    tokenizer: Tokenizer
    family: str
    head: frozenset[str]


def load_encoder(spec: Encoder, labels: Sequence[str], folder: Path) -> LoadedEncoder:
    """Build what the agreement's model section describes.

    Args:
        spec: the section.
        labels: the classes, in the order of the outputs.
        folder: where relative paths start.

    Raises:
        ModelError: it cannot be found, read or used as a classifier; the remedy says what to change.
    """
    with _quiet():
        if spec.source is not None:
            path = model_folder(spec.source, folder)
            tokenizer = pretrained_tokenizer(path, spec.max_tokens)
            config = pretrained_config(path, tokenizer)
            keep_head = has_labels(config, labels)
            prepare(config, labels)
            model, new = _pretrained(path, config, spec, keep_head=keep_head)
        else:
            if spec.vocabulary is None:
                raise ModelError(
                    "model.vocabulary is missing", remedy="A model from a config needs a vocabulary."
                )
            tokenizer = word_tokenizer(public_vocabulary(spec.vocabulary), spec.max_tokens)
            config = stated_config(spec, tokenizer)
            prepare(config, labels)
            model = _from_config(config, spec)
            new = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
    std = float(getattr(config, "initializer_range", 0.02))
    for name in sorted(new):
        _draw(model, name, spec.seed, std)
    if spec.pooling == "mean" and getattr(model, "pooler", None) is not None:
        model.pooler = None  # nothing would read it, and a weight without a gradient cannot be trained
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0  # for a probability that is written into the architecture, not the config
        if isinstance(module, nn.Embedding):
            module.padding_idx = (
                None  # autograd leaves that row out, Opacus' sampler does not; now they agree
            )
    positions = find_positions(model, tokenizer)
    if spec.freeze_positions:
        for name in positions.names:
            model.get_submodule(name).requires_grad_(requires_grad=False)
    width = int(config.hidden_size) if spec.pooling == "mean" else None
    module = TextClassifier(
        model, pooled_width=width, classes=len(labels), explicit_positions=positions.need_batch
    )
    names = {name for name, _ in model.named_parameters()}
    head = {n for n in names if _in_head(model, n)} | {n for n in new & names if _in_pooler(n)}
    if spec.pooling == "mean":
        head = {_HEAD + name for name in ("weight", "bias")}
    return LoadedEncoder(module.train(), tokenizer, str(config.model_type), frozenset(head))


def _pretrained(path: Path, config: Any, spec: Encoder, *, keep_head: bool) -> tuple[Any, frozenset[str]]:
    """The pretrained model, and the names of the weights that it did not bring."""
    auto = _auto_class(config, spec)
    try:
        model, told = auto.from_pretrained(
            str(path),
            config=config,
            dtype=torch.float32,
            attn_implementation=ATTENTION,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # judged below, where the name says whether it matters
            output_loading_info=True,
        )
    except Exception as error:  # safetensors and transformers raise many kinds for a broken file or config
        raise ModelError(
            f"the weights in {path} cannot be loaded: {' '.join(str(error).split())[:300]}",
            remedy="Complete the folder (a Git LFS pointer is not the file), or save the model anew.",
        ) from error
    new = set(told["missing_keys"]) | {entry[0] for entry in told["mismatched_keys"]}
    parameters = dict(model.named_parameters())
    if not keep_head:
        new |= {name for name in parameters if _in_head(model, name)}
    absent = sorted(name for name in new if not _in_head(model, name) and not _in_pooler(name))
    if absent:
        shown = ", ".join(absent[:3]) + (f" and {len(absent) - 3} more" if len(absent) > 3 else "")
        raise ModelError(
            f"the weights in {path} are incomplete or of other shapes: {shown}",
            remedy="Use the config.json that belongs to the weights, or save the model anew.",
        )
    broken = sorted(n for n, p in parameters.items() if n not in new and not bool(torch.isfinite(p).all()))
    if broken:
        raise ModelError(f"the weights in {path} are not finite: {', '.join(broken[:3])}")
    return model, frozenset(new & set(parameters))


def _from_config(config: Any, spec: Encoder) -> Any:
    auto = _auto_class(config, spec)
    try:
        return auto.from_config(
            config, dtype=torch.float32, attn_implementation=ATTENTION, trust_remote_code=False
        )
    except Exception as error:  # noqa: BLE001  # an architecture meets odd values with any kind of error
        raise ModelError(
            f"model.config does not fit {config.model_type}: {' '.join(str(error).split())}"
        ) from None


def _auto_class(config: Any, spec: Encoder) -> Any:
    from transformers import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
        MODEL_MAPPING,
        AutoModel,
        AutoModelForSequenceClassification,
    )

    if spec.pooling == "native":
        auto: Any = AutoModelForSequenceClassification
        mapping, what = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING, "a sequence classification head"
    else:
        auto, mapping, what = AutoModel, MODEL_MAPPING, "an encoder"
    if type(config) not in mapping:
        raise ModelError(
            f"transformers has no {config.model_type} with {what}",
            remedy="Choose another architecture, or pooling = 'mean' to put a linear head on its hidden states.",
        )
    return auto


def _in_head(model: Any, name: str) -> bool:
    """Whether a weight lies outside the base model: what the classification class adds to it."""
    prefix = model.base_model_prefix
    return bool(prefix) and hasattr(model, prefix) and not name.startswith(f"{prefix}.")


def _in_pooler(name: str) -> bool:
    return "pooler" in name.split(".")


def _draw(model: Any, name: str, seed: int, std: float) -> None:
    """Give one weight its public initial value: BERT's rules, uniform of the same variance for normal."""
    from transformers.pytorch_utils import Conv1D

    parameter = model.get_parameter(name)
    owner_name, _, leaf = name.rpartition(".")
    owner = model.get_submodule(owner_name)
    if leaf == "weight" and isinstance(owner, nn.Linear | nn.Embedding | Conv1D):
        draw(parameter, seed, name, std * math.sqrt(3.0))
    elif leaf == "bias":
        nn.init.zeros_(parameter)
    elif leaf == "weight" and "norm" in type(owner).__name__.lower():
        nn.init.ones_(parameter)
    elif bool((parameter != parameter.flatten()[0]).any()):
        raise ModelError(
            f"Hansa has no public initial value for {name} ({type(owner).__name__})",
            remedy="Start from a pretrained model that brings this weight.",
        )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and load reports of `transformers`: what they tell is judged, or told, here."""
    from transformers.utils import logging as module

    logging: Any = module  # untyped
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
