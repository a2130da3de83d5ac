"""Whole runs of a small league on tables, whose model is published or refused; files are run in this process."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hansa.agreement import Agreement
from hansa.agreement.publication import Evaluation, Fairness, Publication
from hansa.agreement.terms import (
    CategoryGroup,
    Data,
    LogisticModel,
    Member,
    NumberFeature,
    Privacy,
    SecureSum,
    Task,
    Terms,
    Training,
)
from hansa_client.data import Dataset
from hansa_client.evaluation import judging
from hansa_server.publication.compress.onnx_export import run_onnx
from hansa_simulations.simulation import MemberData

NAMES = ("north", "south", "east")
ROWS = 4000

TERMS = Terms(
    task=Task(name="Readmission", purpose="Planning of beds.", labels=("no", "yes")),
    members=tuple(Member(name=name, units=ROWS) for name in NAMES),
    data=Data(
        label="y",
        features=tuple(
            NumberFeature(kind="number", name=name, range=(-3.0, 3.0)) for name in ("signal", "other")
        ),
        groups=(CategoryGroup(kind="category", name="sex", values=("f", "m")),),
    ),
    model=LogisticModel(kind="logistic"),
    training=Training(rounds=2, learning_rate=1.0),
    privacy=Privacy(
        mechanism="local", epsilon=8.0, delta=1e-5, clipping_norm=1.0, sampling_rate=0.2, steps=20
    ),
    secure_sum=SecureSum(min_members=3),
    fairness=Fairness(max_gap=0.1, min_worst_group=0.6, min_group_size=100),
    publication=Publication(compress=("onnx", "int8"), min_quality=0.6, max_quality_loss=0.05),
    evaluation=Evaluation(bins=2, compared="decisions", max_rows_per_cell=ROWS, epsilon=4.0, share=0.3),
)


def league(*, wrong: float = 0.0, women: float = 0.5, seed: int = 0) -> dict[str, MemberData]:
    """Members' records; of the women's labels a share is turned round, in training and in evaluation.

    The second feature tells women from men.
    """
    rng = np.random.default_rng(seed)
    return {
        name: MemberData(_records(rng, ROWS, wrong, women), _records(rng, 500, wrong, women))
        for name in NAMES
    }


def _records(rng: np.random.Generator, n: int, wrong: float, women: float) -> Dataset:
    sex = (rng.random(n) >= women).astype(np.int16)
    labels = rng.integers(0, 2, n)
    signal = np.clip(rng.normal(2.0 * labels - 1.0, 1.0) / 3, -1, 1)
    turned = (sex == 0) & (rng.random(n) < wrong)
    return Dataset(
        {"table": np.stack([signal, np.where(sex == 0, 1.0, -1.0)], axis=1).astype(np.float32)},
        np.where(turned, 1 - labels, labels),
        np.arange(n),
        tuple(f"row {i}" for i in range(n)),
        {"sex": sex},
    )


def agreement_of(**changes: object) -> Agreement:
    """The league's agreement with some sections changed."""
    return Agreement(TERMS.model_copy(update=changes))


def in_process(monkeypatch) -> None:
    """Run model files here: the walls around them have tests of their own, and take a second each."""

    def score(model: bytes, _sha256: str, dataset: Dataset, **_: object) -> np.ndarray:
        return run_onnx(model, dataset.inputs)

    monkeypatch.setattr(judging, "score_artifact", score)


def package_in(out: Path) -> Path:
    """Where a simulation writes its package."""
    return out / "publication"
