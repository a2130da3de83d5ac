"""Learned position embeddings of an encoder, found by what they are asked for rather than by their names."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hansa.errors import ModelError
from hansa.models.tokenizer import Tokenizer

_LENGTH = 4


@dataclass(frozen=True)
class Positions:
    """What is known about a model's position embeddings.

    Attributes:
        names: of the embeddings that are looked up by position; none for rotary or relative positions.
        need_batch: whether the model looks them up once for the whole batch unless it is handed ``position_ids``.
    """

    names: tuple[str, ...]
    need_batch: bool


def find_positions(model: nn.Module, tokenizer: Tokenizer) -> Positions:
    """Run the model on two texts of one repeated word and look at what its embeddings are asked for.

    Raises:
        ModelError: texts of `max_tokens` are longer than the model's positions, or it cannot run.
    """
    word = max(i for i in range(tokenizer.size) if i != tokenizer.pad_id)
    length = min(_LENGTH, tokenizer.max_tokens)
    inputs = {
        "input_ids": torch.full((2, length), word),
        "attention_mask": torch.ones(2, length, dtype=torch.long),
    }
    asked = _lookups(model, inputs)
    names = tuple(name for name, index in asked.items() if bool((index.diff(dim=1) == 1).all()))
    for name in names:
        available = model.get_submodule(name).num_embeddings
        needed = int(asked[name].max()) + 1 + tokenizer.max_tokens - length
        if needed > int(available):  # type: ignore[arg-type]  # an nn.Embedding's attribute
            most = tokenizer.max_tokens - (needed - int(available))  # type: ignore[arg-type]
            raise ModelError(
                f"model.max_tokens = {tokenizer.max_tokens}, and the model has positions for {most}",
                remedy=f"Set max_tokens to {most} or less.",
            )
    need_batch = any(len(index) == 1 for index in asked.values())
    if need_batch:
        if "position_ids" not in inspect.signature(model.forward).parameters:
            raise ModelError(
                f"{type(model).__name__} takes no position_ids, so records share their positions"
            )
        explicit = {**inputs, "position_ids": torch.arange(length).repeat(2, 1)}
        for name, index in _lookups(model, explicit).items():
            if len(index) != 2 or not torch.equal(index, asked[name].expand_as(index)):
                raise ModelError(f"{type(model).__name__} counts positions in a way that Hansa does not know")
    return Positions(names, need_batch)


def _lookups(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """What each `nn.Embedding` is asked for: indices of shape ``[1 or batch, length]`` by module name."""
    asked: dict[str, Tensor] = {}
    with torch.no_grad(), _watching(model, asked):
        try:
            model(**inputs)
        except Exception as error:  # whatever an architecture raises, the reader needs the model's name
            raise ModelError(f"{type(model).__name__} cannot read token ids: {error}") from error
    return asked


@contextmanager
def _watching(model: nn.Module, asked: dict[str, Tensor]) -> Iterator[None]:
    def remember(name: str, _module: nn.Module, arguments: tuple[Any, ...]) -> None:
        index = arguments[0]
        asked[name] = (index if index.dim() == 2 else index.reshape(1, -1)).clone()

    hooks = [
        module.register_forward_pre_hook(partial(remember, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Embedding)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
