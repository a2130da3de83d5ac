"""What commands write: one envelope, exit statuses, nothing on stdout but the result."""

from __future__ import annotations

import json
import math

import click
import pytest

from hansa.cli.output import EXTRA_OF_MODULE, Format, emit, needed_extra, reported, requested_format
from hansa.errors import (
    AgreementError,
    BudgetRefusedError,
    ExitStatus,
    HansaError,
    MissingExtraError,
    Problem,
    WireError,
)


class UnverifiedError(HansaError):
    """A failed check, as a later room will raise one."""

    code = "HANSA-900"
    exit_status = ExitStatus.VERIFICATION_FAILED


def ended(error, output_format, capsys):
    """Exit status, stdout and stderr of a command that raises."""
    with pytest.raises(SystemExit) as caught, reported(output_format):
        raise error
    captured = capsys.readouterr()
    return caught.value.code, captured.out, captured.err


def test_a_result_as_json_is_one_envelope(capsys):
    emit({"epsilon": 1.5, "name": "ε"}, text="never", output_format=Format.JSON)
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "schema_version": 1,
        "status": "done",
        "data": {"epsilon": 1.5, "name": "ε"},
    }
    assert list(json.loads(captured.out)) == ["schema_version", "status", "data"]
    assert captured.err == ""


def test_a_result_as_text_is_the_text(capsys):
    emit({"epsilon": 1.5}, text="ε is 1.5", output_format=Format.TEXT)
    assert capsys.readouterr() == ("ε is 1.5\n", "")


def test_a_partial_result_says_so(capsys):
    emit({}, text="", output_format=Format.JSON, status=ExitStatus.REFUSED)
    assert json.loads(capsys.readouterr().out)["status"] == "refused"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_a_result_that_json_cannot_say_is_a_bug_not_a_wrong_file(number, capsys):
    with pytest.raises(ValueError, match="JSON"):
        emit({"epsilon": number}, text="", output_format=Format.JSON)
    assert capsys.readouterr().out == ""


ERRORS = [
    (WireError("x"), 1, "failed"),
    (AgreementError("x", [Problem("a", "b", "c")]), 2, "bad_input"),
    (BudgetRefusedError("x", remedy="y"), 3, "refused"),
    (UnverifiedError("x"), 4, "verification_failed"),
]


@pytest.mark.parametrize(("error", "status", "name"), ERRORS, ids=[name for _, _, name in ERRORS])
def test_an_error_as_json_is_an_envelope_with_its_status(error, status, name, capsys):
    code, out, err = ended(error, Format.JSON, capsys)
    assert code == status
    assert json.loads(out) == {"schema_version": 1, "status": name, "error": error.as_dict()}
    assert err == ""


@pytest.mark.parametrize(("error", "status", "name"), ERRORS, ids=[name for _, _, name in ERRORS])
def test_an_error_as_text_is_on_stderr_with_its_status(error, status, name, capsys):
    assert ended(error, Format.TEXT, capsys) == (status, "", error.diagnostics() + "\n")


def test_without_an_error_nothing_is_written(capsys):
    with reported(Format.JSON):
        pass
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("error", [KeyboardInterrupt(), click.Abort()], ids=["Ctrl-C", "Click's word for it"])
def test_ctrl_c_is_a_clean_end(error, capsys):
    assert ended(error, Format.TEXT, capsys) == (1, "", "HANSA-504: stopped by the user\n")
    code, out, _ = ended(error, Format.JSON, capsys)
    assert code == 1
    assert (json.loads(out)["status"], json.loads(out)["error"]["code"]) == ("failed", "HANSA-504")


def test_a_bug_is_told_in_one_line_and_with_its_traceback_on_request(capsys, monkeypatch):
    monkeypatch.delenv("HANSA_DEBUG", raising=False)
    code, out, err = ended(ZeroDivisionError("division by zero"), Format.TEXT, capsys)
    assert (code, out) == (1, "")
    assert err.startswith("HANSA-000: unexpected ZeroDivisionError: division by zero\n")
    assert "HANSA_DEBUG=1" in err
    assert "Traceback" not in err

    monkeypatch.setenv("HANSA_DEBUG", "1")
    code, out, err = ended(ZeroDivisionError("division by zero"), Format.JSON, capsys)
    assert code == 1
    assert json.loads(out)["error"]["code"] == "HANSA-000"
    assert "Traceback" in err
    assert "test_cli_output.py" in err


@pytest.mark.parametrize("module", sorted(EXTRA_OF_MODULE))
def test_a_missing_package_names_the_extra_that_brings_it(module, capsys):
    error = ModuleNotFoundError(f"No module named '{module}.nn'", name=f"{module}.nn")
    code, _, err = ended(error, Format.TEXT, capsys)
    assert code == 2
    assert err.startswith(f"{MissingExtraError.code}: this command needs {module}")
    assert f"pip install 'hansa[{EXTRA_OF_MODULE[module]}]'" in err


def test_a_missing_package_names_the_extra_of_the_command_where_it_is_known(capsys):
    token = needed_extra.set("simulation")
    try:
        _, _, err = ended(ModuleNotFoundError("x", name="torch"), Format.TEXT, capsys)
    finally:
        needed_extra.reset(token)
    assert "pip install 'hansa[simulation]'" in err


@pytest.mark.parametrize("name", ["hansa.nothing", "numpy", None])
def test_a_module_that_no_extra_brings_is_a_bug(name, capsys):
    code, _, err = ended(ModuleNotFoundError("No module named x", name=name), Format.TEXT, capsys)
    assert code == 1
    assert err.startswith("HANSA-000: unexpected ModuleNotFoundError")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("simulate --format json", Format.JSON),
        ("simulate --format=json x", Format.JSON),
        ("--format json", Format.JSON),
        ("simulate --format text", Format.TEXT),
        ("simulate --format yaml", Format.TEXT),
        ("simulate --format", Format.TEXT),
        ("simulate json", Format.TEXT),
        ("simulate -- --format json", Format.TEXT),
        ("", Format.TEXT),
    ],
)
def test_the_format_of_a_line_that_may_not_parse(line, expected):
    assert requested_format(line.split()) is expected
