"""`docs/errors.md` has one row for each code, and each row says what the code says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hansa import errors
from hansa.artifact import errors as artifact_errors
from hansa.audit import errors as audit_errors
from hansa.errors import HansaError
from hansa.fairness import errors as fairness_errors
from hansa.following import errors as following_errors
from hansa.gate import errors as gate_errors
from hansa.identity import errors as identity_errors
from hansa.ledger import errors as ledger_errors
from hansa.privacy import errors as privacy_errors
from hansa.secagg import errors as secagg_errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "errors.md"
MODULES = {
    module.__name__
    for module in (
        errors,
        artifact_errors,
        audit_errors,
        fairness_errors,
        following_errors,
        gate_errors,
        identity_errors,
        ledger_errors,
        privacy_errors,
        secagg_errors,
    )
}
ROW = re.compile(r"^\| (HANSA-\d{3}) \| (\w+) \| (\d) ([a-z ]+) \| (.+) \| (.+) \|$")


def coded(root: type[HansaError]):
    if "code" in root.__dict__ and root.__module__ in MODULES:
        yield root
    for child in root.__subclasses__():
        yield from coded(child)


CLASSES = {error.code: error for error in coded(HansaError)}
ROWS = [
    match.groups() for line in PAGE.read_text(encoding="utf-8").splitlines() if (match := ROW.match(line))
]


def test_every_line_of_the_table_is_a_row():
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| HANSA-")]
    assert len(lines) == len(ROWS) >= 40


def test_every_code_has_one_row_and_every_row_a_code():
    assert sorted(code for code, *_ in ROWS) == sorted(CLASSES)


def test_no_code_is_used_twice():
    defined = list(coded(HansaError))
    assert len({error.code for error in defined}) == len(defined)
    assert {error.__module__ for error in defined} == MODULES


def test_rows_are_in_order():
    assert [code for code, *_ in ROWS] == sorted(CLASSES)


@pytest.mark.parametrize(
    ("code", "name", "status", "status_name", "when", "remedy"), ROWS, ids=[row[0] for row in ROWS]
)
def test_a_row_says_what_the_class_says(code, name, status, status_name, when, remedy):
    error = CLASSES[code]
    assert error.__name__ == name
    assert int(status) == error.exit_status
    assert status_name == error.exit_status.name.lower().replace("_", " ")
    assert len(when.split()) >= 4
    assert len(remedy.split()) >= 3


def test_every_error_that_a_person_can_meet_says_what_to_do_somewhere():
    # a class without a remedy of its own gets one where it is raised; the page has one for each
    assert all(remedy.strip() for *_, remedy in ROWS)
