"""Leaving out words that public texts do not use: fewer rows of the embedding, which is half of a small encoder.

A word that is left out falls apart into pieces that stay, at worst single letters, so that no text loses its meaning
for good. Which words stay follows from public texts alone.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from hansa.artifact.errors import StepError
from hansa.canonical import canonical_hash
from hansa.models.tokenizer import Tokenizer
from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.corpus import PublicCorpus
from hansa_server.publication.compress.step import Cost, public_data


@dataclass(frozen=True)
class PruneVocabulary:
    """Keep the tokens that public texts use, special tokens and single characters.

    Attributes:
        corpus: the public texts.
        at_least: how often a token must occur to stay.
    """

    corpus: PublicCorpus
    at_least: int = 2
    name = "vocabulary"

    @property
    def cost(self) -> Cost:
        return public_data(self.corpus.source)

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        tokenizer = candidate.tokenizer
        if tokenizer is None:
            raise StepError("a model of tables has no vocabulary", remedy="Leave the step 'vocabulary' out.")
        tree = json.loads(tokenizer.backend.to_str())
        kind = tree["model"].get("type")
        if kind not in ("WordPiece", "WordLevel"):
            raise StepError(
                f"a vocabulary of the kind {kind} cannot be pruned",
                remedy="WordPiece and whole words can. Leave the step 'vocabulary' out.",
            )
        kept = self._kept(tokenizer, tree)
        module = candidate.copied()
        embedding = _embedding(module, tokenizer.size)
        with torch.no_grad():
            rows = embedding.weight.detach()[torch.tensor(kept)].clone()
        before = embedding.num_embeddings
        embedding.weight = nn.Parameter(rows, requires_grad=False)
        embedding.num_embeddings = len(kept)
        config = getattr(getattr(module, "model", None), "config", None)
        if config is not None:
            config.vocab_size = len(kept)
        smaller = _renumbered(tokenizer, tree, kept)
        probe = smaller([" ".join(candidate.terms.task.labels), candidate.terms.task.name])
        changed = replace(candidate.with_module(module), tokenizer=smaller, probe=probe)
        return changed, f"kept {len(kept):,} of {before:,} tokens, those that {self.corpus.source} uses."

    def _kept(self, tokenizer: Tokenizer, tree: dict[str, Any]) -> list[int]:
        """Ids that stay, in ascending order."""
        counts: Counter[int] = Counter()
        for encoded in tokenizer.backend.encode_batch(list(self.corpus.texts)):
            counts.update(i for i, real in zip(encoded.ids, encoded.attention_mask, strict=True) if real)
        vocabulary: dict[str, int] = tree["model"]["vocab"]
        prefix = tree["model"].get("continuing_subword_prefix", "##")
        special = {token["id"] for token in tree["added_tokens"]}
        special |= {vocabulary[tree["model"]["unk_token"]], tokenizer.pad_id}
        special |= {
            vocabulary[token] for token in ("[PAD]", "[UNK]", "[CLS]", "[SEP]") if token in vocabulary
        }
        letters = {i for token, i in vocabulary.items() if len(token.removeprefix(prefix)) == 1}
        used = {i for i, count in counts.items() if count >= self.at_least}
        return sorted(special | letters | used)


def _embedding(module: nn.Module, size: int) -> nn.Embedding:
    """The embedding of tokens: the only one with a row for each."""
    found = [e for e in module.modules() if isinstance(e, nn.Embedding) and e.num_embeddings >= size]
    if len(found) != 1:
        raise StepError("the embedding of tokens cannot be told", remedy="Leave the step 'vocabulary' out.")
    return found[0]


def _renumbered(tokenizer: Tokenizer, tree: dict[str, Any], kept: list[int]) -> Tokenizer:
    from tokenizers import Tokenizer as Backend

    new = {old: place for place, old in enumerate(kept)}
    vocabulary = tree["model"]["vocab"]
    tree["model"]["vocab"] = {token: new[i] for token, i in vocabulary.items() if i in new}
    for token in tree["added_tokens"]:
        token["id"] = new[token["id"]]
    processor = tree.get("post_processor") or {}
    for name in ("sep", "cls"):
        if name in processor:
            processor[name][1] = new[processor[name][1]]
    for token in (processor.get("special_tokens") or {}).values():
        token["ids"] = [new[i] for i in token["ids"]]
    for setting in (tree.get("padding"),):
        if setting is not None:
            setting["pad_id"] = new[setting["pad_id"]]
    backend = Backend.from_str(json.dumps(tree))
    return Tokenizer(
        backend,
        tokenizer.max_tokens,
        new[tokenizer.pad_id],
        len(kept),
        canonical_hash({"pruned_from": tokenizer.sha256, "kept": kept}),
    )
