"""Steps of compression: what each keeps the same, what it refuses, and that nothing private runs unpaid."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from hansa.agreement.publication import Publication
from hansa.agreement.terms import (
    Adapter,
    CategoryFeature,
    Data,
    Encoder,
    LogisticModel,
    Member,
    NumberFeature,
    Privacy,
    TabularTransformer,
    Task,
    Terms,
    TextFeature,
    Training,
)
from hansa.artifact.errors import ExportError, StepError, UnchargedStepError
from hansa.artifact.graph import read_graph
from hansa.errors import BudgetRefusedError
from hansa.models import build_model
from hansa.privacy.events import Spend, gaussian
from hansa_server.publication.compress import (
    Candidate,
    Cost,
    Distil,
    DynamicInt8,
    ExportOnnx,
    MergeAdapter,
    PruneMagnitude,
    PruneStructure,
    PruneVocabulary,
    PublicCorpus,
    agreed_steps,
    compress,
)
from hansa_server.publication.compress.distillation import kept_layers
from hansa_server.publication.compress.onnx_export import run_onnx
from hansa_server.publication.compress.pruning import _layers

BERT = {
    "model_type": "bert",
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
}
TABLE = (
    NumberFeature(kind="number", name="age", range=(0.0, 100.0)),
    CategoryFeature(kind="category", name="ward", values=("a", "b", "c"), baseline="a"),
)


def terms_of(model, adapter=None, **changes) -> Terms:
    features = (TextFeature(kind="text", name="note"),) if isinstance(model, Encoder) else TABLE
    return Terms(
        task=Task(name="fever and cough", labels=("no", "yes", "open")),
        members=tuple(Member(name=f"hospital-{i}", units=100) for i in range(3)),
        data=Data(label="y", features=features),
        model=model,
        adapter=adapter or Adapter(),
        training=Training(rounds=1),
        privacy=Privacy(mechanism="none", clipping_norm=1.0, sampling_rate=0.1, steps=1),
        **changes,
    )


def encoder(**changes) -> Encoder:
    return Encoder(
        kind="encoder", **{"config": BERT, "vocabulary": "admission-notes", "max_tokens": 12, **changes}
    )


def candidate(model, adapter=None) -> Candidate:
    terms = terms_of(model, adapter)
    built = build_model(terms)
    noise = np.random.default_rng(1).normal(0, 0.3, built.flat.size)
    return Candidate.of(terms, built, built.initial_vector() + noise)


MODELS = {
    "logistic": LogisticModel(kind="logistic"),
    "tabular-transformer": TabularTransformer(kind="tabular-transformer", width=16, layers=2, heads=4),
    "encoder": encoder(),
    "encoder-mean": encoder(pooling="mean"),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request) -> Candidate:
    return candidate(MODELS[request.param])


@pytest.fixture(scope="module")
def text_model() -> Candidate:
    return candidate(encoder(pooling="mean"))


@pytest.fixture(scope="module")
def texts(text_model) -> tuple[str, ...]:
    words = [w for w in text_model.tokenizer.backend.get_vocab() if w.isalpha()][:40]
    draw = np.random.default_rng(0)
    return tuple(" ".join(draw.choice(words, 8)) for _ in range(64))


def wide(found: Candidate, texts) -> dict[str, np.ndarray]:
    return {name: value.astype(np.int64) for name, value in found.tokenizer(texts).items()}


# --- exporting -----------------------------------------------------------------------------------------------


def test_each_kind_of_model_exports_and_computes_the_same(model):
    done = compress(model, [ExportOnnx()])
    graph = read_graph(done.onnx)
    assert graph.outputs[0].shape == ("batch", 3)
    assert done.told[0].privacy.startswith("none")


def test_int8_is_smaller_and_close(text_model, texts):
    fp32 = compress(text_model, [ExportOnnx()])
    int8 = compress(fp32, [DynamicInt8()])
    assert len(int8.onnx) < 0.75 * len(fp32.onnx)  # of a model this tiny most is not weights
    found, wanted = run_onnx(int8.onnx, wide(text_model, texts)), text_model.logits(wide(text_model, texts))
    spread = wanted.std()
    assert np.abs(found - wanted).mean() < 0.3 * spread
    assert any("Integer" in name or "QAttention" in name for name in read_graph(int8.onnx).operators)


def test_a_word_with_large_weights_does_not_coarsen_the_others(text_model, texts):
    module = text_model.copied()
    table = module.model.get_input_embeddings().weight
    unused = sorted(
        set(range(len(table))) - {int(i) for i in np.unique(wide(text_model, texts)["input_ids"])}
    )
    with torch.no_grad():
        table[unused[-1]] *= 1000.0
    loud = text_model.with_module(module)
    found, wanted = (
        run_onnx(compress(one, [ExportOnnx(), DynamicInt8()]).onnx, wide(text_model, texts))
        for one in (loud, text_model)
    )
    assert np.array_equal(found, wanted)


def test_embeddings_are_stored_in_eight_bits_and_a_small_head_in_float(text_model):
    shipped = onnx.load_from_string(compress(text_model, [ExportOnnx(), DynamicInt8()]).onnx).graph
    kinds = {tuple(one.dims): one.data_type for one in shipped.initializer}
    size, width = text_model.tokenizer.size, BERT["hidden_size"]
    assert kinds[size, width] == onnx.TensorProto.INT8
    assert kinds[size, 1] == onnx.TensorProto.FLOAT
    assert kinds[width, 3] == onnx.TensorProto.FLOAT  # of three classes


def test_a_model_that_is_all_head_is_quantised():
    shipped = compress(candidate(MODELS["logistic"]), [ExportOnnx(), DynamicInt8()]).onnx
    assert any("MatMulInteger" in name for name in read_graph(shipped).operators)


class Unknown(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(self.linear(table))


class Baked(nn.Module):
    """Takes the number of records for a constant, as a trace does that nobody compares."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, table: torch.Tensor) -> torch.Tensor:
        return self.linear(table) * float(len(table))


def tabular(module: nn.Module) -> Candidate:
    return replace(candidate(MODELS["logistic"]), module=module.eval())


def test_a_model_that_does_not_export_is_told_by_its_operator(capfd):
    with pytest.raises(ExportError, match="special_bessel_j0"):
        compress(tabular(Unknown()), [ExportOnnx()])
    assert capfd.readouterr() == ("", "")  # torch prints the graph, and with it folders of this machine


def test_a_trace_that_fixed_a_size_is_found():
    with pytest.raises(ExportError, match="computes something else"):
        compress(tabular(Baked()), [ExportOnnx()])


def test_int8_for_a_gpu_is_refused_and_int8_needs_an_export(text_model):
    with pytest.raises(StepError, match="GPU"):
        compress(text_model, [DynamicInt8(target="gpu")])
    with pytest.raises(StepError, match="needs an exported model"):
        compress(text_model, [DynamicInt8()])


# --- merging and pruning ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "ffa-lora"])
def test_a_merged_adapter_computes_the_same(kind):
    adapted = candidate(encoder(pooling="mean"), Adapter(kind=kind, rank=2, alpha=4.0))
    merged = compress(adapted, [MergeAdapter()])
    assert not any("lora" in name for name, _ in merged.module.named_parameters())
    inputs = {name: value.astype(np.int64) for name, value in adapted.probe.items()}
    assert np.allclose(merged.logits(inputs), adapted.logits(inputs), atol=1e-5)
    assert "2" in merged.told[0].did or "4" in merged.told[0].did


def test_magnitude_pruning_takes_the_smallest(model):
    pruned = compress(model, [PruneMagnitude(0.5)])
    before = [m for m in model.module.modules() if isinstance(m, nn.Linear)]
    after = [m for m in pruned.module.modules() if isinstance(m, nn.Linear)]
    assert before
    for old, new in zip(before, after, strict=True):
        gone = new.weight == 0
        assert abs(int(gone.sum()) - old.weight.numel() // 2) <= 1
        assert old.weight[gone].abs().max() <= old.weight[~gone].abs().min()


@pytest.mark.parametrize("kind", ["tabular-transformer", "encoder", "encoder-mean"])
def test_heads_and_units_without_weight_go_and_nothing_changes(kind):
    found = candidate(MODELS[kind])
    module = found.copied()
    for layer in _layers(module):
        rows = slice(1 * layer.width, 2 * layer.width)  # the second head, and every fourth unit
        with torch.no_grad():
            for part in (layer.attention.query, layer.attention.key, layer.attention.value):
                part.weight[rows], part.bias[rows] = 0, 0
            layer.output.weight[:, rows] = 0
            layer.widen.weight[::4], layer.widen.bias[::4] = 0, 0
            layer.narrow.weight[:, ::4] = 0
    found = found.with_module(module)
    pruned = compress(found, [PruneStructure(heads=0.25, units=0.25)])
    assert pruned.parameters < found.parameters
    inputs = {n: v.astype(np.int64 if v.dtype != np.float32 else np.float32) for n, v in found.probe.items()}
    assert np.allclose(pruned.logits(inputs), found.logits(inputs), atol=1e-5)
    if kind == "encoder-mean":  # fewer heads than the config says: exported and quantised all the same
        compress(pruned, [ExportOnnx(), DynamicInt8()])


def test_structured_pruning_of_an_unknown_model_is_refused():
    with pytest.raises(StepError, match="does not know the layers"):
        compress(candidate(MODELS["logistic"]), [PruneStructure()])
    with pytest.raises(StepError, match="share"):
        PruneMagnitude(1.0)


# --- students --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["tabular-transformer", "encoder-mean"])
def test_a_student_has_half_the_layers_and_learns(kind, texts):
    found = candidate(MODELS[kind])
    corpus = None if kind == "tabular-transformer" else PublicCorpus("public notes", texts)
    first = compress(found, [Distil(corpus, steps=1, batch=16, learning_rate=1e-2)])
    last = compress(found, [Distil(corpus, steps=20, batch=16, learning_rate=1e-2)])
    told = [float(done.told[0].did.rsplit(" ", 1)[1].rstrip(".")) for done in (first, last)]
    assert told[1] < 0.8 * told[0]
    assert "1 of 2 layers" in last.told[0].did
    assert last.parameters < found.parameters
    assert not Distil(corpus).cost.private


@pytest.mark.parametrize(
    ("layers", "count", "kept"),
    [(6, 3, [0, 3, 5]), (12, 6, [0, 2, 4, 7, 9, 11]), (2, 1, [1]), (5, 5, [0, 1, 2, 3, 4])],
)
def test_a_student_begins_as_the_first_and_the_last_layer_and_some_between(layers, count, kept):
    assert kept_layers(layers, count) == kept


def test_a_student_keeps_embeddings_and_head(text_model, texts):
    student = compress(text_model, [Distil(PublicCorpus("public notes", texts), steps=3, batch=8)])
    of_model, of_student = (dict(one.module.named_parameters()) for one in (text_model, student))
    kept = [name for name in of_student if ".layer." not in name]
    assert any("embeddings" in name for name in kept)
    assert any("head" in name for name in kept)
    assert all(torch.equal(of_model[name], of_student[name]) for name in kept)


@pytest.mark.parametrize("kind", ["tabular-transformer", "encoder-mean"])
def test_a_student_can_do_without_a_part_of_its_units(kind, texts):
    found = candidate(MODELS[kind])
    corpus = None if kind == "tabular-transformer" else PublicCorpus("public notes", texts)
    whole = compress(found, [Distil(corpus, steps=2, batch=8, units=0.0)])
    small = compress(found, [Distil(corpus, steps=2, batch=8, units=0.5), ExportOnnx()])

    linear = [one for one in found.module.modules() if isinstance(one, torch.nn.Linear)]
    widest = max(linear, key=lambda one: one.out_features)
    units = widest.out_features // 2  # of the one layer that the student has
    assert f"without {units} of their units" in small.told[0].did
    assert whole.parameters - small.parameters == units * (2 * widest.in_features + 1)
    with pytest.raises(StepError, match="share"):
        compress(found, [Distil(corpus, steps=1, units=1.0)])


def test_texts_are_needed_and_are_named(text_model):
    with pytest.raises(StepError, match="public corpus"):
        compress(text_model, [Distil(None, steps=1)])
    with pytest.raises(StepError, match="name of their source"):
        PublicCorpus(" ", ("a",))


def test_a_smaller_vocabulary_reads_the_words_that_it_kept_alike(text_model, texts):
    step = PruneVocabulary(PublicCorpus("public notes", texts), at_least=1)
    smaller = compress(text_model, [step])
    assert smaller.tokenizer.size < text_model.tokenizer.size
    assert smaller.tokenizer.sha256 != text_model.tokenizer.sha256
    assert np.allclose(
        smaller.logits(wide(smaller, texts)), text_model.logits(wide(text_model, texts)), atol=1e-6
    )
    assert smaller.tokenizer(["unheard-of words"])["input_ids"].max() < smaller.tokenizer.size
    compress(smaller, [ExportOnnx()])


# --- what it costs ---------------------------------------------------------------------------------------------


@dataclass
class Private:
    """A step that reads records of members, as static calibration would."""

    spends: tuple[Spend, ...] = (Spend(gaussian(2.0), 1),)
    ran: bool = False
    name = "calibrate"

    @property
    def cost(self) -> Cost:
        return Cost("one Gaussian release", private=True, spends=self.spends)

    def run(self, found: Candidate) -> tuple[Candidate, str]:
        self.ran = True
        return found, "calibrated."


def test_a_private_step_does_not_run_unpaid():
    found, step = candidate(MODELS["logistic"]), Private()
    with pytest.raises(UnchargedStepError, match="calibrate"):
        compress(found, [step])
    nameless = Private(spends=())
    with pytest.raises(UnchargedStepError):
        compress(found, [nameless], charge=lambda *_: None)

    def empty(_name: str, _spends: tuple[Spend, ...]) -> None:
        raise BudgetRefusedError("the budget is gone")

    with pytest.raises(BudgetRefusedError):
        compress(found, [step], charge=empty)
    assert not step.ran
    assert not nameless.ran


def test_a_private_step_is_charged_before_it_runs():
    found, step, paid = candidate(MODELS["logistic"]), Private(), []

    def charge(name: str, spends: tuple[Spend, ...]) -> None:
        assert not step.ran
        paid.append((name, spends))

    done = compress(found, [step], charge)
    assert paid == [("calibrate", step.spends)]
    assert done.told[0].privacy == "one Gaussian release"


# --- the agreement's steps ---------------------------------------------------------------------------------------


def publishing(*names: str) -> Terms:
    return terms_of(MODELS["encoder"], publication=Publication(compress=names))


def test_the_steps_of_an_agreement_in_order():
    corpus = PublicCorpus("public notes", ("a",))
    steps = agreed_steps(publishing("merge", "prune", "distil", "vocabulary", "onnx", "int8"), corpus)
    assert [step.name for step in steps] == ["merge", "prune", "distil", "vocabulary", "onnx", "int8"]
    assert not any(step.cost.private for step in steps)


@pytest.mark.parametrize(
    ("names", "words"),
    [(("int8", "onnx"), "not in order"), (("merge", "merge"), "twice"), (("int8",), "needs 'onnx'")],
)
def test_steps_that_make_no_sense_are_refused(names, words):
    with pytest.raises(StepError, match=words):
        agreed_steps(publishing(*names))


def test_a_vocabulary_without_texts_is_refused():
    with pytest.raises(StepError, match="public texts"):
        agreed_steps(publishing("vocabulary"))


def test_nothing_is_changed_after_the_export():
    exported = compress(candidate(MODELS["logistic"]), [ExportOnnx()])
    with pytest.raises(StepError, match="after the model was exported"):
        compress(exported, [MergeAdapter()])
