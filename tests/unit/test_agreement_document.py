"""Agreements as values: reading files, ids, deriving, freezing."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from hansa.agreement import Agreement, Frozen, FrozenModel, Performance, parse_agreement, read_agreement
from hansa.errors import AgreementError

TEXT = """
[task]
name = "Example"
labels = ["no", "yes"]

[[members]]
name = "a"
units = 100

[[members]]
name = "b"
units = 200

[[members]]
name = "c"
units = 300
weight = 50.5

[data]
label = "y"

[[data.features]]
kind = "number"
name = "x"
range = [0, 1]

[model]
kind = "logistic"

[training]
rounds = 2

[privacy]
mechanism = "local"
epsilon = 1.0
delta = 1e-4
clipping_norm = 1.0
sampling_rate = 0.1
steps = 10
"""
# The hash that these terms have had since the first release. If this test fails, every agreement that parties
# hold has silently got another id: bring the old form back, or raise `schema_version`.
TERMS_ID = "4c513335c4cdb5fb7e0398eae03a0f1d32d6f0fe3d850fb673ab8d20076dab06"

SIMULATION = """
[simulation.partition]
kind = "files"
files = { a = "a.csv", b = "b.csv", c = "c.csv" }
"""
PERFORMANCE = """
[performance]
physical_batch_size = 7
processes = 2
"""


@pytest.fixture
def agreement():
    return parse_agreement(TEXT)


def frozen_for(agreement, **changes):
    values = {
        "terms_id": agreement.terms_id,
        "model": FrozenModel(parameters=2, initial_sha256="0" * 64, frozen_sha256="1" * 64),
        "noise_multiplier": 1.5,
    }
    return Frozen(**{**values, **changes})


def key(digit):
    """The form of a public key; whether it is a point is not this room's question."""
    return f"p256:02{str(digit) * 64}"


def keys_for(agreement):
    names = [member.name for member in agreement.terms.members]
    return {
        "member_keys": {name: key(digit) for digit, name in enumerate(names)},
        "coordinator_key": key(7),
    }


# --- ids -----------------------------------------------------------------------------------------------------


def test_the_terms_id_is_known(agreement):
    assert agreement.terms_id == TERMS_ID


def test_the_terms_id_is_the_hash_of_sorted_json_with_all_defaults(agreement):
    # json.dumps writes these values just as RFC 8785 does: only ASCII, and no number that the two write differently
    tree = whole_numbers_as_integers(agreement.terms.tree())
    written = json.dumps(tree, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(written.encode()).hexdigest() == agreement.terms_id
    assert '"rule":"fedavg"' in written
    assert '"min_members":3' in written


def whole_numbers_as_integers(value):
    if isinstance(value, dict):
        return {key: whole_numbers_as_integers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole_numbers_as_integers(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


@pytest.mark.parametrize("more", [SIMULATION, PERFORMANCE, SIMULATION + PERFORMANCE])
def test_what_one_machine_does_is_in_no_id(agreement, more):
    richer = parse_agreement(TEXT + more)
    assert (richer.simulation, richer.performance) != (agreement.simulation, agreement.performance)
    assert richer.terms_id == agreement.terms_id
    frozen = frozen_for(agreement)
    assert richer.freeze(frozen).agreement_id == agreement.freeze(frozen).agreement_id


def test_comments_order_and_ways_of_writing_are_in_no_id(agreement):
    model = '[model]\nkind = "logistic"\n'
    rewritten = "# note\n" + model + TEXT.replace(model, "").replace("epsilon = 1.0", "epsilon = 1")
    rewritten = rewritten.replace("1e-4", "0.0001").replace("rounds = 2", "rounds = 0x2")
    assert rewritten != TEXT
    assert parse_agreement(rewritten).terms_id == agreement.terms_id


def test_defaults_that_are_written_out_change_no_id(agreement):
    assert parse_agreement(TEXT + "\n[secure_sum]\nmin_members = 3\n").terms_id == agreement.terms_id


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("epsilon = 1.0", "epsilon = 1.0000000000000002"),
        ('name = "Example"', 'name = "example"'),
        ("units = 100", "units = 101"),
        ('labels = ["no", "yes"]', 'labels = ["yes", "no"]'),
        ("range = [0, 1]", "range = [0, 1.5]"),
        ("weight = 50.5", ""),
        ("rounds = 2", "rounds = 5"),
        ('mechanism = "local"', 'mechanism = "none"'),
        ("steps = 10", "steps = 10\ncolluding = 2"),
    ],
)
def test_every_term_is_in_the_terms_id(agreement, old, new):
    assert TEXT.count(old) == 1
    assert parse_agreement(TEXT.replace(old, new)).terms_id != agreement.terms_id


def test_the_agreement_id_covers_everything_frozen(agreement):
    ids = {
        agreement.freeze(frozen_for(agreement, **changes)).agreement_id
        for changes in (
            {},
            {"noise_multiplier": 1.6},
            {"model": FrozenModel(parameters=3, initial_sha256="0" * 64, frozen_sha256="1" * 64)},
            {"model": FrozenModel(parameters=2, initial_sha256="2" * 64, frozen_sha256="1" * 64)},
            {"model": FrozenModel(parameters=2, initial_sha256="0" * 64, frozen_sha256="2" * 64)},
            {
                "model": FrozenModel(
                    parameters=2, initial_sha256="0" * 64, frozen_sha256="1" * 64, tokenizer_sha256="3" * 64
                )
            },
            keys_for(agreement),
            {**keys_for(agreement), "coordinator_key": key(8)},
            {**keys_for(agreement), "auditor_keys": {"inspector": key(9)}},
        )
    }
    assert len(ids) == 9
    assert agreement.terms_id not in ids


def test_the_agreement_id_covers_the_terms(agreement):
    other = agreement.derive(privacy={"epsilon": 2.0})
    same_model = frozen_for(agreement)
    assert agreement.freeze(same_model).agreement_id != other.freeze(frozen_for(other)).agreement_id


def test_without_freezing_there_is_no_agreement_id(agreement):
    with pytest.raises(AgreementError, match="not frozen"):
        _ = agreement.agreement_id


# --- freezing ------------------------------------------------------------------------------------------------


def test_freezing_keeps_the_terms(agreement):
    frozen = agreement.freeze(frozen_for(agreement))
    assert frozen.terms_id == agreement.terms_id
    assert frozen.frozen == frozen_for(agreement)
    assert agreement.frozen is None


def test_the_frozen_part_of_other_terms_is_refused(agreement):
    other = agreement.derive(privacy={"epsilon": 2.0})
    with pytest.raises(AgreementError, match="other terms"):
        other.freeze(frozen_for(agreement))


def test_terms_edited_after_freezing_are_told(agreement):
    text = f"""{TEXT}
[frozen]
terms_id = "{agreement.terms_id}"
noise_multiplier = 1.5
model = {{ parameters = 2, initial_sha256 = "{"0" * 64}", frozen_sha256 = "{"1" * 64}" }}
"""
    assert parse_agreement(text).agreement_id == agreement.freeze(frozen_for(agreement)).agreement_id
    with pytest.raises(AgreementError, match="other terms"):
        parse_agreement(text.replace("epsilon = 1.0", "epsilon = 8.0"))


def test_noise_that_is_frozen_must_fit_the_mechanism(agreement):
    with pytest.raises(AgreementError) as caught:
        agreement.freeze(frozen_for(agreement, noise_multiplier=None))
    assert "noise_multiplier: is missing" in caught.value.diagnostics()
    open_terms = agreement.derive(privacy={"mechanism": "none"})
    assert open_terms.freeze(frozen_for(open_terms, noise_multiplier=None)).agreement_id
    with pytest.raises(AgreementError) as caught:
        open_terms.freeze(frozen_for(open_terms))
    assert "noise that nobody adds" in caught.value.diagnostics()


@pytest.mark.parametrize("multiplier", [0.0, -1.0, math.inf, math.nan])
def test_no_noise_multiplier_but_a_finite_positive_one_is_frozen(agreement, multiplier):
    with pytest.raises(ValidationError):
        frozen_for(agreement, noise_multiplier=multiplier)


# --- deriving ------------------------------------------------------------------------------------------------


def test_deriving_changes_what_it_is_told_and_nothing_else(agreement):
    derived = agreement.derive(privacy={"mechanism": "none", "epsilon": None, "delta": None})
    expected = TEXT.replace('mechanism = "local"', 'mechanism = "none"')
    expected = expected.replace("epsilon = 1.0\n", "").replace("delta = 1e-4\n", "")
    assert derived.terms == parse_agreement(expected).terms
    assert derived.terms_id == parse_agreement(expected).terms_id != agreement.terms_id
    assert not derived.terms.private
    assert agreement.terms.private


def test_deriving_nothing_is_the_same_agreement(agreement):
    assert agreement.derive().terms_id == agreement.terms_id


def test_a_derived_agreement_is_not_frozen_and_keeps_what_stands_beside_the_terms():
    whole = parse_agreement(TEXT + SIMULATION + PERFORMANCE, folder=Path("league"))
    derived = whole.freeze(frozen_for(whole)).derive(privacy={"epsilon": 2.0})
    assert derived.frozen is None
    assert (derived.simulation, derived.performance) == (whole.simulation, whole.performance)
    assert derived.folder == Path("league")


def test_a_baseline_is_derived_and_taken_back(agreement):
    pooled = agreement.derive(baseline="pooled")
    assert pooled.terms.baseline == "pooled"
    assert pooled.terms_id != agreement.terms_id
    assert pooled.derive(baseline=None).terms_id == agreement.terms_id


def test_members_may_be_fewer_in_a_baseline_only(agreement):
    one = [{"name": "a", "units": 100}]
    assert len(agreement.derive(members=one, baseline="pooled").terms.members) == 1
    with pytest.raises(AgreementError, match="cannot be kept"):
        agreement.derive(members=one)


def test_deriving_something_that_breaks_a_rule_is_refused(agreement):
    with pytest.raises(AgreementError) as caught:
        agreement.derive(privacy={"epsilon": 0.0, "magic": 1}, training={"rounds": 3})
    assert {problem.place for problem in caught.value.problems} == {
        "privacy.epsilon",
        "privacy.magic",
        "training.rounds",
    }


# --- what stands beside the terms ----------------------------------------------------------------------------


def test_performance_changes_no_id(agreement):
    faster = agreement.freeze(frozen_for(agreement)).with_performance(
        physical_batch_size=1024, device="cuda:1"
    )
    assert faster.performance == Performance(physical_batch_size=1024, device="cuda:1")
    assert faster.agreement_id == agreement.freeze(frozen_for(agreement)).agreement_id


@pytest.mark.parametrize("change", [{"physical_batch_size": 0}, {"epsilon": 3.0}, {"processes": "many"}])
def test_performance_that_is_wrong_is_told(agreement, change):
    with pytest.raises(AgreementError) as caught:
        agreement.with_performance(**change)
    assert [problem.place for problem in caught.value.problems] == [f"performance.{next(iter(change))}"]


def test_an_agreement_is_frozen_as_a_value(agreement):
    with pytest.raises(dataclasses.FrozenInstanceError):
        agreement.terms = None
    with pytest.raises(ValidationError):
        agreement.terms.privacy.epsilon = 100.0


def test_public_quantities(agreement):
    assert [member.public_weight for member in agreement.terms.members] == [100.0, 200.0, 50.5]
    assert agreement.terms.local_steps == 5
    assert agreement.terms.private


# --- reading files -------------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_folder(tmp_path):
    file = tmp_path / "agreement.toml"
    file.write_text(TEXT, encoding="utf-8")
    agreement = read_agreement(file)
    assert isinstance(agreement, Agreement)
    assert agreement.folder == tmp_path
    assert agreement.terms_id == parse_agreement(TEXT).terms_id


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (b"[task\n", "line 1"),
        (b"a = 1\na = 2\n", "line 2"),
        (b"", "privacy: the section is missing"),
    ],
    ids=["absent", "no text", "no TOML", "a key twice", "empty"],
)
def test_a_file_that_cannot_be_read_says_which_and_why(tmp_path, content, words):
    file = tmp_path / "agreement.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(AgreementError) as caught:
        read_agreement(file)
    assert str(file) in caught.value.diagnostics()
    assert words in caught.value.diagnostics()
    assert "hansa agreement check" in caught.value.what_to_do


def test_a_folder_is_no_file(tmp_path):
    with pytest.raises(AgreementError, match="cannot read"):
        read_agreement(tmp_path)


def test_the_number_of_problems_is_said_in_words():
    with pytest.raises(AgreementError, match=r"has 1 problem$"):
        parse_agreement(TEXT.replace("epsilon = 1.0", "epsilon = 0"))
    with pytest.raises(AgreementError, match=r"has 2 problems$"):
        parse_agreement(TEXT.replace("epsilon = 1.0", "epsilon = 0").replace("rounds = 2", "rounds = 3"))
