"""With the noise off, every metric is fairlearn's, or scikit-learn's, on the pooled rows."""

from __future__ import annotations

import numpy as np
import pytest
from fairlearn import metrics as fair
from sklearn import metrics as sk

from hansa.fairness.layout import Table
from hansa.fairness.metrics import Reading, auc, by_group, flips, gap, loss, measure
from hansa.fairness.views import view
from support.fairness import ATTRIBUTES, layout, scored, without_noise

READING = Reading(1.96)
ORACLES = {
    "accuracy": sk.accuracy_score,
    "balanced-accuracy": sk.balanced_accuracy_score,
    "selection-rate": fair.selection_rate,
    "true-positive-rate": fair.true_positive_rate,
    "false-positive-rate": fair.false_positive_rate,
    "positive-predictive-value": sk.precision_score,
    "prevalence": lambda y_true, y_pred: float(np.mean(y_true)),
}


@pytest.fixture(scope="module")
def rows():
    return scored(np.random.default_rng(11), 3000, reference=True)


@pytest.fixture(scope="module")
def frames(rows):
    decided = np.argmax(rows.scores, axis=1)
    found = {}
    for column, (name, values) in enumerate(ATTRIBUTES.items()):
        names = np.array([*values, "none"])[rows.groups[:, column]]
        found[name] = fair.MetricFrame(
            metrics=ORACLES, y_true=rows.labels, y_pred=decided, sensitive_features=names
        )
    return found


TABLES = [
    (Table(("sex", "age"), 1),),
    (Table(("sex",), 1), Table(("age",), 1)),
    (Table(("sex", "age"), 1), Table(("age",), 1), Table((), 1)),
]


@pytest.mark.parametrize("tables", TABLES)
@pytest.mark.parametrize("metric", ORACLES)
def test_metrics_are_fairlearns(rows, frames, metric, tables):
    noisy = without_noise(layout(tables=tables, compared="decisions"), rows)
    everybody = measure(view(noisy), metric, READING)
    assert everybody.value == pytest.approx(frames["sex"].overall[metric])
    for attribute, values in ATTRIBUTES.items():
        groups = by_group(noisy, attribute, metric, READING)
        told = {name: frames[attribute].by_group[metric][name] for name in values}
        for name, value in told.items():
            assert groups.estimates[f"{attribute}={name}"].value == pytest.approx(value)
        apart = gap(groups.estimates, metric)
        assert apart.estimate.value == pytest.approx(max(told.values()) - min(told.values()))
        assert apart.ratio.value == pytest.approx(min(told.values()) / max(told.values()))
        worst = max if metric == "false-positive-rate" else min
        assert apart.worst == f"{attribute}={worst(told, key=told.get)}"


def test_gaps_have_fairlearns_names(rows):
    """demographic_parity_difference and equalized_odds_difference, on rows that have a sex."""
    kept = rows.groups[:, 0] >= 0
    decided, sex = np.argmax(rows.scores, axis=1)[kept], rows.groups[kept, 0]
    noisy = without_noise(layout(compared="decisions"), rows)

    def difference(metric):
        return gap(by_group(noisy, "sex", metric, READING).estimates, metric).estimate.value

    features = {"sensitive_features": sex}
    assert difference("selection-rate") == pytest.approx(
        fair.demographic_parity_difference(rows.labels[kept], decided, **features)
    )
    assert max(difference("true-positive-rate"), difference("false-positive-rate")) == pytest.approx(
        fair.equalized_odds_difference(rows.labels[kept], decided, **features)
    )


def test_intersections_are_post_processing(rows):
    noisy = without_noise(layout(compared="decisions"), rows)
    kept = (rows.groups[:, 0] == 1) & (rows.groups[:, 1] == 2)
    found = measure(view(noisy, {"sex": "male", "age": ">=60"}), "accuracy", READING)
    assert found.value == pytest.approx(np.mean(np.argmax(rows.scores, axis=1)[kept] == rows.labels[kept]))


def test_the_area_is_that_of_binned_scores_and_says_how_far_it_is_from_the_scores_own(rows):
    noisy = without_noise(layout(compared="scores"), rows)
    for model, scores in (("judged", rows.scores[:, 1]), ("reference", rows.reference[:, 1])):
        found = auc(view(noisy), READING, model=model)
        binned = np.searchsorted(np.array(layout().edges), scores)
        assert found.estimate.value == pytest.approx(sk.roc_auc_score(rows.labels, binned))
        whole = sk.roc_auc_score(rows.labels, scores)
        assert abs(whole - found.estimate.value) <= found.hidden
        assert abs(whole - found.estimate.value) < 0.01 < found.hidden < 0.1


def test_losses_and_flips_are_those_of_the_rows(rows):
    before, after = (np.argmax(s, axis=1) for s in (rows.reference, rows.scores))
    for compared in ("decisions", "scores"):
        seen = view(without_noise(layout(compared=compared), rows), {"sex": "female"})
        kept = rows.groups[:, 0] == 0
        lost = np.mean(before[kept] == rows.labels[kept]) - np.mean(after[kept] == rows.labels[kept])
        assert loss(seen, "accuracy", READING).value == pytest.approx(lost)
        assert flips(seen, READING).value == pytest.approx(np.mean(before[kept] != after[kept]))
        balanced = [sk.balanced_accuracy_score(rows.labels[kept], d[kept]) for d in (before, after)]
        assert loss(seen, "balanced-accuracy", READING).value == pytest.approx(balanced[0] - balanced[1])


def test_several_labels_are_scikit_learns():
    rows = scored(np.random.default_rng(12), 2000, 3, reference=True)
    tables = (Table(("sex",), None), *(Table(("sex",), c) for c in range(3)))
    form = layout(labels=("a", "b", "c"), tables=tables, compared="decisions")
    noisy, decided = without_noise(form, rows), np.argmax(rows.scores, axis=1)
    seen = view(noisy)
    assert measure(seen, "accuracy", READING).value == pytest.approx(np.mean(decided == rows.labels))
    assert measure(seen, "balanced-accuracy", READING).value == pytest.approx(
        sk.balanced_accuracy_score(rows.labels, decided)
    )
    for c in range(3):
        against = rows.labels == c
        for metric, oracle in (
            ("true-positive-rate", fair.true_positive_rate),
            ("false-positive-rate", fair.false_positive_rate),
            ("positive-predictive-value", sk.precision_score),
        ):
            value = measure(seen, metric, READING, positive=c).value
            assert value == pytest.approx(oracle(against.astype(int), (decided == c).astype(int)))
        one = auc(view(noisy, against_rest=c), READING)
        binned = np.searchsorted(np.array(form.edges), rows.scores[:, c])
        assert one.estimate.value == pytest.approx(sk.roc_auc_score(against, binned))
    before = np.argmax(rows.reference, axis=1)
    lost = np.mean(before == rows.labels) - np.mean(decided == rows.labels)
    assert loss(seen, "accuracy", READING).value == pytest.approx(lost)
