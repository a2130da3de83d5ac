"""From texts to token ids."""

from __future__ import annotations

import shutil
import string
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer

from hansa.errors import ModelError
from hansa.models import trim_padding
from hansa.models.tokenizer import SPECIAL_TOKENS, pretrained_tokenizer, public_vocabulary, word_tokenizer

FEVER, COUGH, DOT = 4, 5, 6


def test_words_become_their_ids_between_the_special_tokens() -> None:
    encoded = word_tokenizer(["fever", "cough", "."], 8)(["Fever  and COUGH.", "cough", ""])
    assert encoded["input_ids"].dtype == np.int32
    assert encoded["attention_mask"].dtype == np.int8
    assert encoded["input_ids"].tolist() == [
        [2, FEVER, 1, COUGH, DOT, 3, 0, 0],
        [2, COUGH, 3, 0, 0, 0, 0, 0],
        [2, 3, 0, 0, 0, 0, 0, 0],
    ]
    assert encoded["attention_mask"].tolist() == [[1] * 6 + [0] * 2, [1] * 3 + [0] * 5, [1] * 2 + [0] * 6]


def test_a_long_text_is_cut_and_keeps_its_end_token() -> None:
    encoded = word_tokenizer(["fever"], 5)([" ".join(["fever"] * 50)])
    assert encoded["input_ids"].tolist() == [[2, FEVER, FEVER, FEVER, 3]]
    assert encoded["attention_mask"].tolist() == [[1] * 5]


def test_no_texts_give_empty_arrays() -> None:
    encoded = word_tokenizer(["fever"], 5)([])
    assert encoded["input_ids"].shape == (0, 5)
    assert encoded["attention_mask"].shape == (0, 5)


@given(st.lists(st.text(st.sampled_from(string.printable + "é€\u200b𝄞"), max_size=40), max_size=5))
def test_any_text_gives_known_ids_and_a_mask_of_ones_then_zeros(texts: list[str]) -> None:
    tokenizer = word_tokenizer(["fever", "a", "b"], 12)
    encoded = tokenizer(texts)
    ids, mask = encoded["input_ids"], encoded["attention_mask"]
    assert ids.shape == mask.shape == (len(texts), 12)
    assert ((ids >= 0) & (ids < tokenizer.size)).all()
    assert (np.diff(mask, axis=1) <= 0).all()
    assert (ids[mask == 0] == 0).all()
    assert (ids[:, 0] == SPECIAL_TOKENS.index("[CLS]")).all()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fever", "fever"], "different, non-empty words"),
        (["fever", ""], "different, non-empty words"),
        (["[CLS]"], "different, non-empty words"),
        (["fever", "Cough"], "no text would ever give these words of a vocabulary: 'Cough'"),
        (["x-ray", "two words"], "'x-ray', 'two words'"),
    ],
)
def test_a_vocabulary_that_cannot_be_used(words: list[str], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        word_tokenizer(words, 8)


def test_the_hash_is_of_the_words_in_their_order() -> None:
    hashes = {word_tokenizer(words, 8).sha256 for words in (["a", "b"], ["b", "a"], ["a"], ["a", "b", "c"])}
    assert len(hashes) == 4
    assert word_tokenizer(["a", "b"], 8).sha256 == word_tokenizer(["a", "b"], 16).sha256


@pytest.mark.usefixtures("vocabulary")
def test_a_public_vocabulary_comes_from_an_entry_point(words: tuple[str, ...]) -> None:
    assert public_vocabulary("ward-words") == words


@pytest.mark.usefixtures("vocabulary")
def test_a_vocabulary_that_nobody_registered() -> None:
    with pytest.raises(ModelError, match="no vocabulary is called 'absent'") as caught:
        public_vocabulary("absent")
    assert "ward-words" in caught.value.what_to_do
    assert "hansa.vocabularies" in caught.value.what_to_do


@pytest.mark.usefixtures("vocabulary")
@pytest.mark.parametrize("name", ["broken", "wrong"])
def test_a_vocabulary_that_cannot_be_loaded(name: str) -> None:
    with pytest.raises(ModelError, match=f"the vocabulary '{name}' cannot be loaded"):
        public_vocabulary(name)


def test_a_pretrained_tokenizer_gives_what_transformers_gives(minilm_folder: Path) -> None:
    texts = ["What are the symptoms of Ehlers-Danlos syndrome?", "", "naïve — 37.5 °C", "fever " * 100]
    encoded = pretrained_tokenizer(minilm_folder, 16)(texts)
    reference = AutoTokenizer.from_pretrained(str(minilm_folder))(
        texts, padding="max_length", truncation=True, max_length=16, return_tensors="np"
    )
    assert encoded["input_ids"].tolist() == reference["input_ids"].tolist()
    assert encoded["attention_mask"].tolist() == reference["attention_mask"].tolist()


def test_a_pretrained_tokenizer_is_hashed_by_its_files(minilm_folder: Path, tmp_path: Path) -> None:
    for path in minilm_folder.iterdir():
        if path.suffix in (".json", ".txt"):
            shutil.copy(path, tmp_path)
    first = pretrained_tokenizer(tmp_path, 16).sha256
    assert first == pretrained_tokenizer(minilm_folder, 32).sha256
    (tmp_path / "README.md").write_text("no part of the tokenizer")
    (tmp_path / "config.json").write_text((tmp_path / "config.json").read_text() + " ")
    assert pretrained_tokenizer(tmp_path, 16).sha256 == first
    (tmp_path / "tokenizer_config.json").write_text((tmp_path / "tokenizer_config.json").read_text() + " ")
    assert pretrained_tokenizer(tmp_path, 16).sha256 != first


def test_a_folder_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer"}')
    with pytest.raises(ModelError, match="has no tokenizer") as caught:
        pretrained_tokenizer(tmp_path, 8)
    assert "tokenizer.json" in caught.value.what_to_do


@pytest.mark.parametrize("content", ["{", '{"model": {"type": "Unheard"}}'])
def test_a_folder_with_a_broken_tokenizer(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match="no tokenizer that can be loaded") as caught:
        pretrained_tokenizer(tmp_path, 8)
    assert "tokenizer.json" in caught.value.what_to_do


def test_threads_may_share_a_tokenizer(minilm_folder: Path) -> None:
    tokenizer = pretrained_tokenizer(minilm_folder, 32)
    texts = [f"note {i} of ward {i % 7}" for i in range(400)]
    expected = tokenizer(texts)["input_ids"]
    with ThreadPoolExecutor(4) as pool:
        for encoded in pool.map(lambda _: tokenizer(texts), range(8)):
            assert np.array_equal(encoded["input_ids"], expected)


def test_padding_is_trimmed_to_the_longest_of_a_batch() -> None:
    encoded = word_tokenizer(["fever", "cough"], 32)(["fever", "fever cough cough"])
    for inputs in (encoded, {name: torch.from_numpy(value) for name, value in encoded.items()}):
        trimmed = trim_padding(inputs)
        assert trimmed["input_ids"].tolist() == [[2, 4, 3, 0, 0], [2, 4, 5, 5, 3]]
        assert trimmed["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1] * 5]


def test_trimming_an_empty_batch_leaves_a_column() -> None:
    encoded = word_tokenizer(["fever"], 32)([])
    assert trim_padding(encoded)["input_ids"].shape == (0, 1)
