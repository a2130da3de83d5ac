"""Quality of a model: the values against scikit-learn, what cannot be measured, and means over repeats."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from hansa.errors import DataError, ModelError
from hansa.report.schema import Quality
from hansa_simulations.quality import _area, combine, mean_quality, measure, newcombe, wilson

SEXES = {"sex": ("F", "M")}


def a_test_set(classes: int, n: int = 240, seed: int = 3):
    """Records of three members with two group attributes; some records belong to no group."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scores = rng.dirichlet(np.ones(classes), n) + 0.4 * np.eye(classes)[labels]
    scores /= scores.sum(axis=1, keepdims=True)
    members = np.array(["Aachen", "Bremen", "Celle"])[rng.integers(0, 3, n)]
    groups = np.stack([rng.integers(-1, 2, n), rng.integers(-1, 3, n)], axis=1)
    return labels, scores, groups, members, {"sex": ("F", "M"), "age": ("<45", "45-60", ">=60")}


def oracle(metric: str, labels, scores) -> float:
    if metric == "accuracy":
        return float(accuracy_score(labels, scores.argmax(axis=1)))
    if metric == "balanced-accuracy":
        return float(balanced_accuracy_score(labels, scores.argmax(axis=1)))
    if scores.shape[1] == 2:
        return float(roc_auc_score(labels, scores[:, 1]))
    return float(roc_auc_score(labels, scores, multi_class="ovr", average="macro"))


@pytest.mark.parametrize("classes", [2, 4])
@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "auc"])
def test_every_value_agrees_with_scikit_learn(metric, classes):
    labels, scores, groups, members, values = a_test_set(classes)
    quality = measure(metric, labels, scores, groups, members, values)

    assert quality.metric == metric
    assert quality.pooled == pytest.approx(oracle(metric, labels, scores), abs=1e-12)
    assert set(quality.by_member) == {"Aachen", "Bremen", "Celle"}
    for name, value in quality.by_member.items():
        mine = members == name
        assert value == pytest.approx(oracle(metric, labels[mine], scores[mine]), abs=1e-12)
        assert quality.counts.by_member[name] == mine.sum()
    assert quality.mean_over_members == pytest.approx(np.mean(list(quality.by_member.values())))
    for column, (attribute, names) in enumerate(values.items()):
        assert set(quality.by_group[attribute]) == set(names)
        for index, name in enumerate(names):
            mine = groups[:, column] == index
            expected = oracle(metric, labels[mine], scores[mine])
            assert quality.by_group[attribute][name] == pytest.approx(expected, abs=1e-12)
            assert quality.counts.by_group[attribute][name] == mine.sum()
    assert quality.counts.pooled == len(labels) > sum(quality.counts.by_group["sex"].values())


@pytest.mark.parametrize("metric", ["accuracy", "balanced-accuracy", "auc"])
def test_every_interval_holds_its_value_and_has_width(metric):
    quality = measure(metric, *a_test_set(3))
    pairs = [
        (quality.pooled, quality.intervals.pooled),
        (quality.mean_over_members, quality.intervals.mean_over_members),
    ]
    pairs += [(value, quality.intervals.by_member[name]) for name, value in quality.by_member.items()]
    for attribute, by_value in quality.by_group.items():
        pairs += [(value, quality.intervals.by_group[attribute][name]) for name, value in by_value.items()]
    assert len(pairs) == 2 + 3 + 2 + 3
    for value, (low, high) in pairs:
        assert 0 <= low < value < high <= 1


def test_ties_count_half():
    labels = [0, 0, 1, 1]
    scores = np.array([[0.5, 0.5], [0.9, 0.1], [0.5, 0.5], [0.2, 0.8]])
    quality = measure("auc", labels, scores, np.empty((4, 0)), ["a"] * 4, {})
    assert quality.pooled == (0.5 + 1 + 1 + 1) / 4


def test_auc_of_two_classes_is_the_same_for_logits_and_probabilities():
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, 80)
    logits = rng.normal(size=(80, 2)) + np.eye(2)[labels]
    odds = np.exp(logits)
    none = np.empty((80, 0))
    from_logits = measure("auc", labels, logits, none, ["a"] * 80, {})
    from_probabilities = measure("auc", labels, odds / odds.sum(axis=1, keepdims=True), none, ["a"] * 80, {})
    assert from_logits == from_probabilities


def test_a_member_and_a_group_of_one_class_are_counted_but_have_no_auc():
    labels = np.array([0, 1, 0, 1, 1, 1, 1])
    scores = np.stack([1 - np.linspace(0.1, 0.9, 7), np.linspace(0.1, 0.9, 7)], axis=1)
    members = ["two"] * 4 + ["one"] * 3
    groups = [[0], [0], [0], [0], [0], [0], [1]]
    quality = measure("auc", labels, scores, groups, members, {"sex": ("F", "M", "X")})

    assert set(quality.by_member) == set(quality.intervals.by_member) == {"two"}
    assert quality.counts.by_member == {"two": 4, "one": 3}
    assert quality.mean_over_members == quality.by_member["two"]
    assert set(quality.by_group["sex"]) == {"F"}
    assert quality.counts.by_group["sex"] == {"F": 6, "M": 1, "X": 0}
    assert not any(math.isnan(value) for value in (quality.pooled, *quality.intervals.pooled))


def test_classes_that_a_member_does_not_have_are_left_out_of_its_mean():
    labels = np.array([0, 0, 1, 1, 2, 2])
    scores = np.eye(3)[[0, 1, 1, 1, 2, 0]] * 0.8 + 0.1
    members = ["ab", "ab", "ab", "ab", "c", "c"]
    quality = measure("balanced-accuracy", labels, scores, np.empty((6, 0)), members, {})
    assert quality.by_member == {"ab": (0.5 + 1) / 2, "c": 0.5}
    areas = measure("auc", labels, scores, np.empty((6, 0)), members, {})
    assert areas.by_member["ab"] == pytest.approx(np.mean([0.75, 0.75]))
    assert "c" not in areas.by_member


@pytest.mark.parametrize(
    ("metric", "labels", "what"),
    [
        ("accuracy", [], "there are none"),
        ("auc", [1, 1, 1], "more than one class"),
        ("auc", [], "there are none"),
    ],
)
def test_nothing_to_measure_is_an_error_and_not_a_nan(metric, labels, what):
    scores = np.full((len(labels), 2), 0.5)
    with pytest.raises(DataError, match="cannot be measured") as raised:
        measure(metric, labels, scores, np.empty((len(labels), 0)), ["a"] * len(labels), {})
    assert what in raised.value.diagnostics()


def test_auc_that_no_member_has_is_an_error_even_where_the_pool_has_one():
    with pytest.raises(DataError, match="cannot be measured"):
        measure("auc", [0, 0, 1, 1], np.eye(2)[[0, 1, 1, 0]], np.empty((4, 0)), ["a", "a", "b", "b"], {})


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_not_finite_are_told_with_their_number(bad):
    scores = np.full((5, 2), 0.5)
    scores[[1, 3], 0] = bad
    with pytest.raises(ModelError, match="2 of 5") as raised:
        measure("accuracy", [0, 1, 0, 1, 0], scores, np.empty((5, 0)), ["a"] * 5, {})
    assert "learning_rate" in raised.value.diagnostics()


@pytest.mark.parametrize(
    ("labels", "groups", "members"),
    [([0, 2, 1], [[0]] * 3, ["a"] * 3), ([0, -1, 1], [[0]] * 3, ["a"] * 3), ([0, 1, 1], [[2]] * 3, ["a"] * 3),
     ([0, 1, 1], [[-2]] * 3, ["a"] * 3), ([0, 1, 1], [[0]] * 3, ["a"] * 2), ([0, 1], [[0]] * 2, ["a"] * 2)],
)  # fmt: skip
def test_arrays_that_do_not_fit_together_are_refused(labels, groups, members):
    with pytest.raises(ValueError, match=r"must be|do not fit"):
        measure("accuracy", labels, np.full((3, 2), 0.5), groups, members, SEXES)


def test_wilson_is_the_published_interval():
    # Newcombe, Stat. Med. 17 (1998), table I, method 3
    for hits, trials, low, high in [
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ]:
        estimate = wilson(hits, trials)
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=5e-5)
        assert estimate.value == hits / trials


def test_newcombe_bounds_are_where_the_estimate_is_1_96_standard_errors_away():
    for area, m, n in [(0.5, 10, 40), (0.83, 25, 30), (0.99, 7, 200)]:
        estimate = newcombe(area, m, n)
        for bound in (estimate.low, estimate.high):
            q = (m + n) / 2 - 1
            variance = (
                bound * (1 - bound) * (1 + q * (1 - bound) / (2 - bound) + q * bound / (1 + bound)) / (m * n)
            )
            assert abs(area - bound) / math.sqrt(variance) == pytest.approx(1.959964, abs=1e-5)


def test_influences_sum_to_the_variance_of_delong():
    rng = np.random.default_rng(4)
    positive = np.arange(50) < 11
    scores = rng.integers(0, 9, 50) + 3.0 * positive  # with ties
    against = [[(a > b) + 0.5 * (a == b) for b in scores[~positive]] for a in scores[positive]]
    placements = np.array(against)
    value, influence = _area(positive, scores)
    assert value == pytest.approx(placements.mean())
    variance = placements.mean(axis=1).var() / 11 + placements.mean(axis=0).var() / 39
    assert np.sum(influence**2) == pytest.approx(variance)
    assert influence.sum() == pytest.approx(0, abs=1e-12)


def test_perfect_estimates_do_not_claim_to_be_exact():
    for estimate in (wilson(12, 12), newcombe(1.0, 6, 6), combine([wilson(12, 12), wilson(3, 3)])):
        assert estimate.value == estimate.high == 1.0
        assert 0.3 < estimate.low < 0.9
    assert newcombe(0.0, 6, 6).high == pytest.approx(1 - newcombe(1.0, 6, 6).low)
    assert newcombe(1.0, 1, 1).low < 0.3  # one pair of records says next to nothing


def test_combining_independent_parts_narrows_and_equal_ones_does_not():
    one = wilson(50, 100)
    independent = combine([one] * 4)
    assert (independent.high - independent.low) == pytest.approx((one.high - one.low) / 2)
    same = combine([one] * 4, np.ones((4, 4)))
    assert (same.low, same.high) == pytest.approx((one.low, one.high))


def test_the_mean_over_repeats_is_taken_name_by_name():
    qualities = [measure("auc", *a_test_set(2, seed=seed)) for seed in (1, 2, 3)]
    mean = mean_quality(qualities)
    assert mean.pooled == pytest.approx(np.mean([q.pooled for q in qualities]))
    assert mean.by_group["age"]["<45"] == pytest.approx(
        np.mean([q.by_group["age"]["<45"] for q in qualities])
    )
    lows, highs = zip(*(q.intervals.by_member["Celle"] for q in qualities), strict=True)
    assert mean.intervals.by_member["Celle"] == pytest.approx((np.mean(lows), np.mean(highs)))
    assert mean.counts.by_member["Celle"] == round(np.mean([q.counts.by_member["Celle"] for q in qualities]))
    assert mean.counts.pooled == 240


def test_the_mean_of_one_repeat_is_that_repeat():
    quality = measure("accuracy", *a_test_set(3))
    assert mean_quality([quality]) == quality


def test_a_name_is_averaged_over_the_repeats_that_measured_it():
    both = measure("auc", [0, 1, 0, 1], np.eye(2)[[0, 1, 0, 0]], [[0], [0], [1], [1]], ["a"] * 4, SEXES)
    one = measure("auc", [0, 1, 1, 1], np.eye(2)[[0, 1, 0, 0]], [[0], [0], [1], [1]], ["a"] * 4, SEXES)
    assert "M" not in one.by_group["sex"]
    mean = mean_quality([both, one])
    assert mean.by_group["sex"]["M"] == both.by_group["sex"]["M"]
    assert mean.counts.by_group["sex"] == {"F": 2, "M": 2}


def test_means_of_nothing_or_of_different_metrics_are_refused():
    qualities: list[Quality] = [measure("auc", *a_test_set(2)), measure("accuracy", *a_test_set(2))]
    for wrong in ([], qualities):
        with pytest.raises(ValueError, match="one metric"):
            mean_quality(wrong)
