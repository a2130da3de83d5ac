"""What is agreed but not acted on yet is said, and nothing else is."""

from __future__ import annotations

import pytest

from hansa.agreement import not_in_force, parse_agreement
from hansa.cli.agreement import Kind, template
from support.leagues import terms_of


@pytest.fixture(params=list(Kind))
def agreement(request):
    return parse_agreement(template(request.param))


def places(agreement):
    return [sentence.partition(":")[0] for sentence in not_in_force(agreement.terms)]


def test_the_secure_sum_is_in_force(agreement):
    assert places(agreement) == []
    assert places(agreement.derive(secure_sum={"min_members": 3, "post_quantum": True, "retries": 2})) == []


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"fairness": {"max_gap": 0.1}}, "fairness", "not judged"),
        ({"fairness": {"min_worst_group": 0.6}}, "fairness", "not judged"),
        ({"fairness": {"min_group_size": 10}}, "fairness", "not judged"),
        ({"privacy": {"colluding": 2}}, "privacy.colluding", "distributed"),
        ({"publication": {"min_quality": 0.6}}, "publication", "nothing is judged or signed"),
    ],
)
def test_each_part_that_does_nothing_yet_is_said(agreement, changes, place, words):
    derived = agreement.derive(**changes)
    assert places(derived) == [place]
    assert words in not_in_force(derived.terms)[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"privacy": {"epsilon": 3.0}},
        {"privacy": {"mechanism": "none"}},
        {"fairness": {"metric": "auc"}},
        {"training": {"average_tail": 0.0}},
    ],
)
def test_what_is_in_force_is_not_said(agreement, changes):
    assert not_in_force(agreement.derive(**changes).terms) == not_in_force(agreement.terms)


def test_patients_as_units_are_in_force():
    assert parse_agreement(template(Kind.TABLE)).terms.privacy.unit == "patient"
    assert "patient" not in " ".join(not_in_force(parse_agreement(template(Kind.TABLE)).terms))


def test_every_part_is_said_together(agreement):
    derived = agreement.derive(
        privacy={"colluding": 2}, fairness={"max_gap": 0.1}, publication={"min_quality": 0.6}
    )
    assert places(derived) == ["privacy.colluding", "fairness", "publication"]


def test_distributed_noise_is_in_force():
    shared = terms_of(privacy={"mechanism": "distributed", "colluding": 2}, training={"rounds": 8})
    assert places(shared) == []


def test_what_judges_a_file_that_is_published_is_in_force(agreement):
    derived = agreement.derive(
        fairness={"max_gap": 0.1},
        publication={"compress": ["onnx", "int8"], "min_quality": 0.6},
        evaluation={"max_rows_per_cell": 1000, "epsilon": 1.0, "share": 0.2},
    )
    assert derived.terms.published
    assert places(derived) == []
