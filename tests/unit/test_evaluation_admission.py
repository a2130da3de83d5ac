"""What a member lets a manifest ask of it: an agreed evaluation, of the very files that it names."""

from __future__ import annotations

import numpy as np
import pytest

from hansa.agreement.terms import Terms
from hansa.canonical import sha256_hex
from hansa.errors import BudgetRefusedError, ModelMismatchError, WireError
from hansa.secagg import Manifest
from hansa_client.evaluation.admission import evaluation_number, files_of
from support.evaluations import COMPARED, EVALUATION, JUDGED, REFERENCE, TRAINING
from support.leagues import terms_of

ROUNDS, ALLOWED = 2, 2


def terms(**changes: object) -> Terms:
    agreed = {"training": {"rounds": ROUNDS}, "evaluation": {**EVALUATION, "evaluations": ALLOWED}}
    return terms_of(**{**TRAINING, **agreed, **changes}).terms


def manifest(step: int = ROUNDS, *files: bytes) -> Manifest:
    """Of a step and files; nothing else of it is looked at."""
    return Manifest.model_construct(step=step, artifacts=tuple(sha256_hex(data) for data in files))


def arrays(*files: bytes) -> dict[str, np.ndarray]:
    return {sha256_hex(data): np.frombuffer(data, np.uint8) for data in files}


def test_the_steps_after_training_are_the_evaluations() -> None:
    asked = range(ROUNDS, ROUNDS + ALLOWED)
    assert [evaluation_number(terms(), manifest(step)) for step in asked] == [1, 2]


def test_one_evaluation_more_than_agreed_is_refused() -> None:
    with pytest.raises(
        BudgetRefusedError, match="evaluation 3 is asked for, and the agreement allows a model 2"
    ):
        evaluation_number(terms(), manifest(ROUNDS + ALLOWED))


@pytest.mark.parametrize("step", [0, 1])
def test_a_step_of_training_is_no_evaluation(step: int) -> None:
    with pytest.raises(WireError, match=f"step {step} is one of training"):
        evaluation_number(terms(), manifest(step))


def test_an_agreement_without_evaluations_allows_none() -> None:
    with pytest.raises(WireError, match="no private evaluation"):
        evaluation_number(terms_of(**TRAINING).terms, manifest())


def test_files_are_those_that_the_manifest_names() -> None:
    found = files_of(terms(), manifest(ROUNDS, JUDGED), arrays(JUDGED))
    assert found == {sha256_hex(JUDGED): JUDGED}
    both = files_of(terms(**COMPARED), manifest(ROUNDS, JUDGED, REFERENCE), arrays(JUDGED, REFERENCE))
    assert list(both.values()) == [JUDGED, REFERENCE]


@pytest.mark.parametrize(("changes", "named"), [({}, ()), ({}, (JUDGED, REFERENCE)), (COMPARED, (JUDGED,))])
def test_as_many_files_are_named_as_are_agreed(changes: dict[str, object], named: tuple[bytes, ...]) -> None:
    with pytest.raises(WireError, match=f"names {len(named)} files"):
        files_of(terms(**changes), manifest(ROUNDS, *named), arrays(*named))


def test_a_file_that_did_not_come_or_is_another_one_is_refused() -> None:
    with pytest.raises(ModelMismatchError):
        files_of(terms(), manifest(ROUNDS, JUDGED), arrays(REFERENCE))
    changed = {sha256_hex(JUDGED): np.frombuffer(REFERENCE, np.uint8)}
    with pytest.raises(ModelMismatchError):
        files_of(terms(), manifest(ROUNDS, JUDGED), changed)
