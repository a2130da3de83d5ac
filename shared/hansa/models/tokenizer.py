"""From text to token ids, the same at every member.

A tokenizer is either that of a pretrained model or one token per word of a public vocabulary. Its serialised
form is hashed, so that the agreement pins it.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from hansa.canonical import canonical_hash
from hansa.errors import ModelError

VOCABULARIES = "hansa.vocabularies"  # entry point group: () -> words, lower-case, without special tokens
SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
_FILES = re.compile(
    r"(tokenizer.*\.json|special_tokens_map\.json|added_tokens\.json|vocab.*\.(txt|json)|merges\.txt|.*\.model)"
)
_WORDS = re.compile(r"tokenizer\.json|vocab.*\.(txt|json)|.*\.model")  # one of these holds the vocabulary

_Inputs = TypeVar("_Inputs", bound=Mapping[str, Any])


@dataclass(frozen=True)
class Tokenizer:
    """Texts to padded token ids.

    Attributes:
        backend: a `tokenizers.Tokenizer` with truncation and padding set once: setting them for each call, as
            `transformers` does, fails when two threads share it.
        max_tokens: length of each encoded text.
        pad_id: id of what fills up short texts, on the right.
        size: ids are below it.
        sha256: of what defines it.
    """

    backend: Any = field(repr=False)
    max_tokens: int
    pad_id: int
    size: int
    sha256: str

    def __post_init__(self) -> None:
        self.backend.enable_truncation(self.max_tokens)
        self.backend.enable_padding(direction="right", pad_id=self.pad_id, length=self.max_tokens)

    def __call__(self, texts: Sequence[str]) -> dict[str, npt.NDArray[Any]]:
        """Encode texts.

        Returns:
            ``input_ids``, int32 of shape ``[len(texts), max_tokens]``, and ``attention_mask``, int8 of that
            shape: 1 for a token, 0 for padding on the right. A text without any token counts as one of padding,
            for attention over nothing is not defined.
        """
        encoded = self.backend.encode_batch(list(texts))
        shape = (len(encoded), self.max_tokens)
        ids = np.array([e.ids for e in encoded], dtype=np.int32).reshape(shape)
        mask = np.array([e.attention_mask for e in encoded], dtype=np.int8).reshape(shape)
        mask[:, :1] = 1
        return {"input_ids": ids, "attention_mask": mask}


def trim_padding(inputs: _Inputs) -> dict[str, Any]:
    """Encoded texts (arrays or tensors) cut to the longest of them.

    Logits stay the same up to rounding, and cost falls with the length; use it on a batch before the model.
    """
    longest = max(1, int(inputs["attention_mask"].sum(1).max())) if len(inputs["attention_mask"]) else 1
    return {name: value[:, :longest] for name, value in inputs.items()}


def pretrained_tokenizer(folder: Path, max_tokens: int) -> Tokenizer:
    """The tokenizer in a model's folder.

    Raises:
        ModelError: there is none, or only one that runs as Python (it would not give the same ids everywhere).
    """
    from transformers import AutoTokenizer

    files = sorted(path for path in folder.iterdir() if path.is_file() and _FILES.fullmatch(path.name))
    if not any(_WORDS.fullmatch(path.name) for path in files):  # transformers would make an empty one
        raise ModelError(
            f"{folder} has no tokenizer",
            remedy="Put the tokenizer.json that belongs to the model into its folder.",
        )
    try:
        loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:  # noqa: BLE001  # one of several parsers fails, each with errors of its own
        raise ModelError(
            f"{folder} has no tokenizer that can be loaded: {(str(error).splitlines() or [''])[0]}",
            remedy="Put the tokenizer.json that belongs to the model into its folder.",
        ) from None
    if not loaded.is_fast:
        raise ModelError(
            f"{folder} has no tokenizer.json", remedy="Save the tokenizer with its fast version."
        )
    pad_id = loaded.pad_token_id if loaded.pad_token_id is not None else loaded.eos_token_id
    if pad_id is None:
        raise ModelError(f"the tokenizer in {folder} has neither a padding nor an end token")
    hashes = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return Tokenizer(loaded.backend_tokenizer, max_tokens, int(pad_id), len(loaded), canonical_hash(hashes))


def word_tokenizer(words: Sequence[str], max_tokens: int) -> Tokenizer:
    """One token per word, ``[CLS]`` in front and ``[SEP]`` at the end; what is not in `words` is ``[UNK]``.

    Words are cut at white space and punctuation, in lower case. Ids 0 to 3 are `SPECIAL_TOKENS`.

    Raises:
        ModelError: a word is empty, repeated, a special token, or one that cutting never gives.
    """
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, normalizers, pre_tokenizers, processors

    tokens = [*SPECIAL_TOKENS, *words]
    if len(set(tokens)) != len(tokens) or not all(tokens):
        raise ModelError("a vocabulary must be of different, non-empty words, special tokens not among them")
    cut, lower = pre_tokenizers.BertPreTokenizer(), normalizers.Lowercase()
    lost = [w for w in words if [piece for piece, _ in cut.pre_tokenize_str(lower.normalize_str(w))] != [w]]
    if lost:
        raise ModelError(
            f"no text would ever give these words of a vocabulary: {', '.join(map(repr, lost[:5]))}",
            remedy="Write them in lower case, cut at white space and punctuation.",
        )
    ids = {token: i for i, token in enumerate(tokens)}
    backend = Backend(models.WordLevel(ids, unk_token="[UNK]"))  # noqa: S106  # no password
    backend.normalizer = lower
    backend.pre_tokenizer = cut
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[(token, ids[token]) for token in ("[CLS]", "[SEP]")]
    )
    return Tokenizer(backend, max_tokens, ids["[PAD]"], len(tokens), canonical_hash({"words": tokens}))


def public_vocabulary(name: str) -> tuple[str, ...]:
    """The words registered as `name` under the entry point group ``hansa.vocabularies``.

    Raises:
        ModelError: none is, or it cannot be loaded.
    """
    points = importlib.metadata.entry_points(group=VOCABULARIES)
    if name not in points.names:
        raise ModelError(
            f"no vocabulary is called {name!r}",
            remedy=f"Installed ones: {', '.join(sorted(points.names)) or 'none'}. "
            f"A package adds one by an entry point in the group {VOCABULARIES!r}.",
        )
    try:
        return tuple(points[name].load()())
    except (ImportError, AttributeError, TypeError) as error:
        raise ModelError(f"the vocabulary {name!r} cannot be loaded: {error}") from error
