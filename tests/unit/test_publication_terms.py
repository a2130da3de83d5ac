"""What an agreement may say about its publication, and what it says by that."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.agreement import Agreement
from hansa.agreement.freezing import freeze_with
from hansa.agreement.writing import agreement_toml
from hansa.artifact.errors import ExportError
from hansa.errors import AgreementError
from hansa.fairness.agreed import agreed_epsilon, conditions_of
from hansa.fairness.beforehand import never_passing, outlook, require_decidable
from hansa.fairness.composition import And, Or, UnsafeNoGate
from hansa.fairness.conditions import (
    AttackWithinClaim,
    EpsilonAtMost,
    GapAtMost,
    GroupLossAtMost,
    LossAtMost,
    MembersAtLeast,
    UtilityAtLeast,
    WorstGroupAtLeast,
)
from hansa.fairness.errors import UndecidableError
from hansa_server.publication.compress.onnx_export import ExportOnnx
from support.cli import hansa
from support.published_runs import TERMS

AGREEMENT = Agreement(TERMS).derive(
    publication=None, evaluation=None, fairness={"max_gap": None, "min_worst_group": None}
)
EVALUATION = {"max_rows_per_cell": 500, "epsilon": 1.0, "share": 0.3, "compared": "decisions"}
COMPRESS = ["onnx", "int8"]


def published(evaluation=EVALUATION, fairness=None, **publication):
    """A league with groups whose model is published."""
    said = {"compress": COMPRESS, **publication}
    return AGREEMENT.derive(evaluation=evaluation, publication=said, fairness=fairness or {})


def problems(**changes) -> str:
    with pytest.raises(AgreementError) as caught:
        published(**changes)
    return caught.value.diagnostics()


def test_conditions_are_data_that_composes():
    (attribute, *_) = [group.name for group in AGREEMENT.terms.data.groups]
    agreement = published(
        conditions=[
            {"kind": "utility", "at_least": 0.6},
            {"kind": "gap", "attribute": attribute, "at_most": 0.2},
            {"kind": "worst-group", "attribute": attribute, "at_least": 0.5},
            {"kind": "loss", "at_most": 0.1},
            {"kind": "group-loss", "attribute": attribute, "at_most": 0.1},
            {"kind": "epsilon", "at_most": 9.0},
            {"kind": "members", "at_least": 3},
            {
                "kind": "any-of",
                "conditions": [
                    {"kind": "attack"},
                    {"kind": "all-of", "conditions": [{"kind": "unsafe-no-gate"}, {"kind": "attack"}]},
                ],
            },
        ]
    )
    stated = conditions_of(agreement.terms)
    metric = agreement.terms.fairness.metric
    assert stated.conditions[:8] == (
        UtilityAtLeast(metric, 0.6),
        GapAtMost(metric, attribute, 0.2),
        WorstGroupAtLeast(metric, attribute, 0.5),
        LossAtMost(metric, 0.1),
        GroupLossAtMost(metric, attribute, 0.1),
        EpsilonAtMost(9.0),
        MembersAtLeast(3),
        Or(AttackWithinClaim(), And(UnsafeNoGate(), AttackWithinClaim())),
    )
    again = published(conditions=[{"kind": "utility", "at_least": 0.61}])
    assert again.terms_id != agreement.terms_id  # another condition is another agreement


def test_each_attribute_is_meant_where_none_is_named():
    agreement = published(conditions=[{"kind": "gap", "at_most": 0.2}])
    named = [one.attribute for one in conditions_of(agreement.terms).conditions if isinstance(one, GapAtMost)]
    assert named == [group.name for group in agreement.terms.data.groups]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"compress": ["int8", "onnx"], "min_quality": 0.5}, "is not in order"),
        ({"compress": ["merge"], "min_quality": 0.5}, "has no 'onnx'"),
        ({}, "nothing is asked of the model"),
        ({"conditions": [{"kind": "epsilon", "at_most": 1.0}]}, "nothing is asked of the model"),
        ({"conditions": [{"kind": "gap", "attribute": "height", "at_most": 0.1}]}, "is no attribute"),
        (
            {"conditions": [{"kind": "utility", "metric": "calibration-error", "at_least": 0.1}]},
            "better small",
        ),
        ({"conditions": [{"kind": "loss", "metric": "selection-rate", "at_most": 0.1}]}, "no loss of"),
        ({"conditions": [{"kind": "gaps", "at_most": 0.1}]}, "publication.conditions.0"),
        ({"conditions": [{"kind": "utility", "at_least": 1.5}]}, "less than or equal to 1"),
        ({"evaluation": None, "min_quality": 0.5}, "nothing is published that was not evaluated"),
        ({"compress": ["onnx"], "min_quality": 0.5}, "makes another file"),
        (
            {
                "evaluation": {**EVALUATION, "compared": "none"},
                "conditions": [{"kind": "loss", "at_most": 0.1}],
            },
            "write evaluation.compared",
        ),
    ],
)
def test_what_cannot_be_kept_is_told(changes, said):
    assert said in problems(**changes)


def test_lists_are_not_deeper_than_somebody_reads():
    inner = {"kind": "utility", "at_least": 0.5}
    for _ in range(5):
        inner = {"kind": "all-of", "conditions": [inner]}
    assert "lists deep" in problems(conditions=[inner])


def test_an_old_agreement_has_its_old_id():
    assert "conditions" not in AGREEMENT.terms.tree()["publication"]


def test_epsilon_adds_up_where_units_may_train_and_evaluate():
    held_out = published(min_quality=0.5)
    own = {"max_rows_per_cell": 500, "epsilon": 1.0, "units": "own-file", "compared": "decisions"}
    both = published(evaluation=own, min_quality=0.5)
    trained = held_out.terms.privacy.epsilon
    assert agreed_epsilon(held_out.terms) == max(trained, 1.0)
    assert agreed_epsilon(both.terms) == trained + 1.0


# --- a gate that can never open ----------------------------------------------------------------------------


def test_a_gate_that_can_never_open_is_refused_before_anybody_trains():
    tight = published(
        evaluation={**EVALUATION, "epsilon": 0.01}, conditions=[{"kind": "gap", "at_most": 0.01}]
    )
    told = never_passing(tight.terms)
    assert told
    assert all("can never pass" in problem.what for problem in told)
    with pytest.raises(UndecidableError) as caught:
        require_decidable(tight.terms)
    assert "gap of" in caught.value.diagnostics()


def test_it_is_refused_also_where_nobody_says_on_how_many_records_members_judge():
    """Neither the number of members nor ε depends on them; what does is left to the run."""
    own = {"max_rows_per_cell": 500, "epsilon": 1.0, "units": "own-file", "compared": "decisions"}
    impossible = published(
        evaluation=own,
        min_quality=0.5,
        conditions=[{"kind": "members", "at_least": 50}, {"kind": "epsilon", "at_most": 0.01}],
    )
    assert [problem.what.split("'")[1] for problem in never_passing(impossible.terms)] == [
        "members >= 50", "epsilon at every member <= 0.01",
    ]  # fmt: skip
    assert never_passing(published(evaluation=own, min_quality=0.5).terms) == ()


def test_freezing_refuses_it_too():
    small = published(fairness={"min_group_size": 10**6, "max_gap": 0.5})

    class Built:
        frozen_sha256 = "ab" * 32
        tokenizer_sha256 = None

    with pytest.raises(UndecidableError, match="can never open"):
        freeze_with(small, Built(), np.zeros(3))


def test_freezing_refuses_a_model_that_has_no_onnx_form(tmp_path, monkeypatch):
    def fails(*_):
        raise ExportError("the model has no ONNX form: the operator aten::special_i0e")

    monkeypatch.setattr(ExportOnnx, "run", fails)
    file = tmp_path / "league.toml"
    file.write_text(agreement_toml(published(min_quality=0.5)), encoding="utf-8")
    called = hansa("agreement", "freeze", file)
    assert called.status == 1
    assert "HANSA-826" in called.stderr
    assert "special_i0e" in called.stderr
    assert not (tmp_path / "league.frozen.toml").exists()


def test_too_few_members_and_too_little_epsilon_never_pass():
    never = published(
        min_quality=0.5,
        conditions=[{"kind": "members", "at_least": 50}, {"kind": "epsilon", "at_most": 0.01}],
    )
    told = " ".join(problem.what for problem in never_passing(never.terms))
    assert "'members >= 50'" in told
    assert "epsilon at every member <= 0.01" in told


def test_a_plan_tells_of_a_gate_that_can_never_open(tmp_path):
    never = published(min_quality=0.5, conditions=[{"kind": "members", "at_least": 50}])
    file = tmp_path / "never.toml"
    file.write_text(agreement_toml(never), encoding="utf-8")
    plan = ("agreement", "plan", file, "--steps", "4", "--rate", "1", "--dimension", "7")
    called = hansa(*plan)
    assert "can never open, and `hansa agreement check` refuses it" in called.stdout
    assert "! 'members >= 50' can never pass" in called.stdout
    (told,) = hansa(*plan, "--format", "json").data["never"]
    assert told.startswith("'members >= 50' can never pass")


def test_an_attack_that_nobody_has_made_yet_is_no_reason_to_refuse():
    later = published(min_quality=0.5, conditions=[{"kind": "attack"}])
    assert "attack" not in " ".join(problem.what for problem in never_passing(later.terms))


def test_the_outlook_says_what_a_league_can_decide():
    agreement = published(min_quality=0.5)
    seen = outlook(agreement.terms, quality=0.9, records=20_000)
    assert seen is not None
    assert seen.parts[0].decidable
    few = outlook(agreement.terms, quality=0.55, records=50)
    assert not few.parts[0].decidable
