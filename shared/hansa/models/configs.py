"""The `transformers` config of an encoder: from the agreement or from a model's folder, and what Hansa sets in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hansa.agreement.terms import Encoder
from hansa.errors import ModelError
from hansa.models.tokenizer import Tokenizer

_FROM_THE_TASK = {"num_labels", "id2label", "label2id", "problem_type"}
_SPECIAL_IDS = ("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id", "decoder_start_token_id")


def stated_config(spec: Encoder, tokenizer: Tokenizer) -> Any:
    """The config that the agreement spells out, for a model from random weights.

    Raises:
        ModelError: `transformers` has no such model type, a key is unknown to it or not Hansa's to set, or the
            values do not fit together.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING, AutoConfig

    keys = dict(spec.config or {})
    family = str(keys.pop("model_type"))
    if family not in CONFIG_MAPPING:
        raise ModelError(f"model.config.model_type: transformers has no {family!r}")
    default = AutoConfig.for_model(family)
    known = {*default.to_dict(), *default.attribute_map}
    wrong = [f"{key} is unknown to {family}" for key in keys if key not in known]
    wrong += [f"{key} follows from task.labels" for key in keys if key in _FROM_THE_TASK]
    wrong += [f"{key} must be 0: dropout is off" for key, value in keys.items() if _drops(key, value)]
    vocabulary = keys.setdefault("vocab_size", tokenizer.size)
    if not isinstance(vocabulary, int) or vocabulary < tokenizer.size:
        wrong.append(
            f"vocab_size must be at least the vocabulary's {tokenizer.size}, special tokens included"
        )
    if wrong:
        raise ModelError(
            f"model.config: {'; '.join(wrong)}", remedy="Correct [model.config] in the agreement."
        )
    special = {name: None for name in _SPECIAL_IDS if name in known}
    try:
        config = AutoConfig.for_model(family, **{**special, **keys, "pad_token_id": tokenizer.pad_id})
    except (ValueError, TypeError, StrictDataclassError) as error:
        raise ModelError(f"model.config does not fit {family}: {' '.join(str(error).split())}") from None
    return config


def pretrained_config(folder: Path, tokenizer: Tokenizer) -> Any:
    """The config in a model's folder.

    Raises:
        ModelError: its model type needs code that `transformers` does not bring, or it is of a kind that Hansa
            does not train.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except (ValueError, TypeError, KeyError, OSError, StrictDataclassError) as error:
        raise ModelError(
            f"{folder / 'config.json'}: {' '.join(str(error).split())[:300]}",
            remedy="Hansa loads architectures of `transformers` itself, and runs no code from a model's folder.",
        ) from None
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{folder} holds quantised weights", remedy="Train the model that they were made from."
        )
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_id
    elif config.pad_token_id != tokenizer.pad_id:
        raise ModelError(
            f"{folder}: the config pads with id {config.pad_token_id}, the tokenizer with {tokenizer.pad_id}",
            remedy="Make pad_token_id the same in config.json and in the tokenizer.",
        )
    if config.vocab_size < tokenizer.size:
        raise ModelError(
            f"{folder}: the tokenizer has {tokenizer.size} ids, and the model embeds {config.vocab_size}"
        )
    return config


def prepare(config: Any, labels: Sequence[str]) -> None:
    """Set in place what is the same for every encoder: the task's classes, and no dropout.

    Dropout is off because a member's step must be a function of its batch alone, the same in any split into
    physical batches, processes and machines; the noise of DP-SGD regularises in its stead.

    Raises:
        ModelError: the architecture is no encoder.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise ModelError(
            f"{config.model_type} is an encoder with a decoder",
            remedy="Choose a model of the BERT or GPT-2 kind.",
        )
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    config.problem_type = "single_label_classification"
    config.use_cache = False
    config.return_dict = True
    config.output_hidden_states = False
    config.output_attentions = False
    for key, value in config.to_dict().items():
        if _drops(key, value):
            setattr(config, key, 0.0)


def has_labels(config: Any, labels: Sequence[str]) -> bool:
    """Whether a checkpoint's head is for these classes: by name, or by number where it has no names."""
    names = [config.id2label[i] for i in range(config.num_labels)]
    return names == list(labels) or (
        len(names) == len(labels) and names == [f"LABEL_{i}" for i in range(len(names))]
    )


def _drops(key: str, value: object) -> bool:
    return "drop" in key and isinstance(value, int | float) and value != 0
