"""Errors: one tree, codes that are unique, and what a person and a program are told."""

from __future__ import annotations

import re

import pytest

from hansa import errors
from hansa.errors import (
    AgreementError,
    BudgetRefusedError,
    EngineError,
    ExitStatus,
    HansaError,
    MachineError,
    MissingExtraError,
    OutputExistsError,
    Problem,
    ProblemsError,
    WireError,
)
from hansa.identity.errors import KeyFileError, SignatureError
from hansa.ledger.errors import (
    CosignatureQuorumError,
    EntryError,
    LogDamagedError,
    LogStoreError,
    LogVerificationError,
    NoteFormatError,
    NoteSignatureError,
    TilesError,
)
from hansa.secagg.errors import MaskWorkersError, StateError


def descendants(root: type[HansaError]) -> list[type[HansaError]]:
    found = [root]
    for child in root.__subclasses__():
        found += descendants(child)
    return found


TREE = [error for error in descendants(HansaError) if error.__module__ == errors.__name__]
CODED = [error for error in TREE if "code" in error.__dict__]


def test_the_walk_finds_the_tree():
    assert {HansaError, ProblemsError, AgreementError, WireError} <= set(TREE)
    assert len(CODED) >= 15


def test_every_exception_of_the_module_is_in_the_tree():
    defined = {
        value
        for value in vars(errors).values()
        if isinstance(value, type)
        and issubclass(value, BaseException)
        and value.__module__ == errors.__name__
    }
    assert defined == set(TREE)


def test_codes_are_unique_and_well_formed():
    codes = [error.code for error in CODED]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"HANSA-\d{3}", code) for code in codes)


@pytest.mark.parametrize(
    "error",
    [
        SignatureError, KeyFileError, NoteFormatError, NoteSignatureError, CosignatureQuorumError, EntryError,
        LogVerificationError, LogStoreError, TilesError,
    ],
    ids=lambda error: error.code,
)  # fmt: skip
def test_what_a_person_meets_in_files_of_others_has_a_remedy(error):
    assert error("x").diagnostics() == f"{error.code}: x\n  {error.remedy}"
    assert error.remedy.endswith(".")
    assert error("x", remedy="").diagnostics() == f"{error.code}: x"


def test_only_classes_that_gather_others_have_no_code_of_their_own():
    assert set(TREE) - set(CODED) == {ProblemsError, MachineError}


def test_what_fails_of_a_machine_is_told_from_what_somebody_said():
    machine = {error for error in descendants(MachineError) if "code" in error.__dict__}
    assert machine == {EngineError, LogStoreError, LogDamagedError, MaskWorkersError, StateError}
    assert not any(error.travels for error in descendants(MachineError))


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.__name__)
def test_every_class_says_what_it_is_and_ends_with_a_failure(error):
    assert error.__doc__
    assert isinstance(error.exit_status, ExitStatus)
    assert error.exit_status is not ExitStatus.DONE


def test_exit_statuses_are_those_of_the_command_line():
    assert {status.name: int(status) for status in ExitStatus} == {
        "DONE": 0,
        "FAILED": 1,
        "BAD_INPUT": 2,
        "REFUSED": 3,
        "VERIFICATION_FAILED": 4,
        "CONNECTION": 5,
        "NOT_PUBLISHED": 6,
    }


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AgreementError("x", []), 2),
        (MissingExtraError("x"), 2),
        (OutputExistsError("x"), 2),
        (BudgetRefusedError("x"), 3),
        (WireError("x"), 1),
        (HansaError("x"), 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_status_by_kind(error, status):
    assert error.exit_status == status


def test_diagnostics_are_code_cause_and_remedy():
    assert WireError("a header is not JSON").diagnostics() == "HANSA-501: a header is not JSON"
    assert HansaError("it broke", remedy="Mend it.").diagnostics() == "HANSA-000: it broke\n  Mend it."


def test_a_remedy_given_where_it_is_raised_replaces_the_one_of_the_class():
    of_class = OutputExistsError("runs/a holds a run")
    assert of_class.what_to_do == OutputExistsError.remedy
    assert of_class.remedy in of_class.diagnostics()
    own = OutputExistsError("runs/a holds a run", remedy="Name another.")
    assert own.diagnostics() == "HANSA-102: runs/a holds a run\n  Name another."
    assert OutputExistsError("runs/a holds a run", remedy="").diagnostics() == "HANSA-102: runs/a holds a run"


def test_problems_are_told_all_at_once():
    problems = [
        Problem("privacy.epsilon", "is missing", "a number above 0"),
        Problem("", "nothing else is right either"),
    ]
    error = AgreementError("the agreement has 2 problems", problems)
    assert error.diagnostics().splitlines() == [
        "HANSA-101: the agreement has 2 problems",
        "  - privacy.epsilon: is missing (a number above 0)",
        "  - nothing else is right either",
        f"  {AgreementError.remedy}",
    ]
    assert error.as_dict() == {
        "code": "HANSA-101",
        "cause": "the agreement has 2 problems",
        "remedy": AgreementError.remedy,
        "problems": [
            {"place": "privacy.epsilon", "what": "is missing", "remedy": "a number above 0"},
            {"place": "", "what": "nothing else is right either", "remedy": ""},
        ],
    }


def test_an_error_keeps_its_problems_when_the_list_changes_later():
    problems = [Problem("a", "b")]
    error = AgreementError("x", problems)
    problems.clear()
    assert error.problems == (Problem("a", "b"),)


def test_as_dict_is_code_cause_and_remedy():
    assert WireError("too large").as_dict() == {"code": "HANSA-501", "cause": "too large", "remedy": ""}


def test_problems_are_values():
    assert Problem("a", "b", "c") == Problem("a", "b", "c")
    assert len({Problem("a", "b"), Problem("a", "b"), Problem("a", "c")}) == 2
    assert Problem("a", "b") != "a: b"
    assert repr(Problem("a", "b", "c")) == "Problem('a', 'b', 'c')"
