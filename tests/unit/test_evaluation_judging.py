"""With the noise off, a sum of members' tables says what fairlearn says of the pooled rows."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.fairness.counting import clamp
from hansa.fairness.metrics import Reading, by_group, flips
from hansa.fairness.release import NoisyTables
from hansa.fairness.views import view
from hansa.privacy.randomness import SecretRandomness
from hansa_client.evaluation import judging as under_test
from hansa_client.evaluation.judging import FileEvaluation
from support.evaluations import COMPARED, JUDGED, REFERENCE, frozen, scores_of
from support.leagues import table

CAP = 300


class Silent(SecretRandomness):
    """No noise: for a test of what is counted, and nowhere else."""

    def noise(self, sigma: float, n: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        assert sigma >= 64
        return np.zeros(n, np.int64)


@pytest.fixture
def evaluated(monkeypatch):
    """Members' vectors without noise, and their records."""
    agreement, _ = frozen(**COMPARED)
    files = {"j": JUDGED, "r": REFERENCE}
    logits = lambda data, _name, records, **_: np.log(scores_of(data, records)).astype(np.float32)  # noqa: E731
    monkeypatch.setattr(under_test, "score_artifact", logits)
    records = [table(200 + 40 * i, i) for i in range(3)]
    evaluators = [FileEvaluation(agreement, held) for held in records]
    vectors = [one.evaluate(files, ("j", "r"), Silent()) for one in evaluators]
    plan = evaluators[0]._plan
    total = np.sum(vectors, axis=0)
    assert np.array_equal(total // plan.scale * plan.scale, total)
    return NoisyTables(plan.layout, total / plan.scale, 0.0, CAP, 3), records


def test_metrics_by_group_are_those_of_the_pooled_rows(evaluated):
    fairlearn = pytest.importorskip("fairlearn.metrics")
    tables, records = evaluated
    labels = np.concatenate([held.labels for held in records])
    decided = np.concatenate([scores_of(JUDGED, held).argmax(1) for held in records])
    sides = np.concatenate([held.groups["side"] for held in records])
    for metric, function in (
        ("true-positive-rate", fairlearn.true_positive_rate),
        ("false-positive-rate", fairlearn.false_positive_rate),
        ("selection-rate", fairlearn.selection_rate),
    ):
        frame = fairlearn.MetricFrame(
            metrics=function, y_true=labels, y_pred=decided, sensitive_features=sides
        )
        found = by_group(tables, "side", metric, Reading(1.96)).estimates
        assert found["side=left"].value == pytest.approx(frame.by_group[0])
        assert found["side=right"].value == pytest.approx(frame.by_group[1])


def test_flips_by_group_are_those_of_the_pooled_rows(evaluated):
    tables, records = evaluated
    flipped = np.concatenate(
        [scores_of(JUDGED, r).argmax(1) != scores_of(REFERENCE, r).argmax(1) for r in records]
    )
    sides = np.concatenate([held.groups["side"] for held in records])
    for code, side in enumerate(("left", "right")):
        found = flips(view(tables, {"side": side}), Reading(1.96))
        assert found is not None
        assert found.value == pytest.approx(flipped[sides == code].mean())


def test_a_cell_is_clamped_before_the_noise():
    assert clamp(np.array([500, 3]), CAP).tolist() == [CAP, 3]
