"""The command line as a whole: the table, help, usage errors, missing extras."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from hansa.cli import app
from hansa.cli.commands import COMMANDS, Row, Table
from hansa.errors import ExitStatus


def rows(table=COMMANDS, path=()):
    for name, entry in table.items():
        if isinstance(entry, Row):
            yield (*path, name), entry
        else:
            yield from rows(entry.rows, (*path, name))


ROWS = dict(rows())


def run(*arguments):
    """Status of one command line in this process."""
    try:
        return app.run(arguments)
    except SystemExit as ended:
        return ended.code


@pytest.fixture
def one_command(monkeypatch, tmp_path):
    """A command line with the single command ``try``, whose module the test writes."""

    def made(source):
        (tmp_path / "tried_command.py").write_text(source, encoding="utf-8")
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.delitem(sys.modules, "tried_command", raising=False)
        row = Row("Try something.", "tried_command", "command", "simulation")
        monkeypatch.setattr(app, "ROOT", app.group("hansa", "Help.", {"try": row}))

    yield made
    sys.modules.pop("tried_command", None)


def test_the_table_holds_what_the_house_promises():
    assert {" ".join(path) for path in ROWS} >= {
        "simulate",
        "agreement new",
        "audit verify",
        "agreement check",
        "agreement show",
        "agreement freeze",
        "agreement sign",
        "agreement amend",
        "ca init",
        "ca issue",
        "ca revoke",
        "ca refresh",
        "node init",
        "node certificate",
        "node check",
        "bench engine",
        "bench secagg",
    }


@pytest.mark.parametrize(("path", "row"), ROWS.items(), ids=[" ".join(path) for path in ROWS])
def test_every_row_leads_to_a_documented_function(path, row):
    source = Path(find_spec(row.module).origin).read_text(encoding="utf-8")
    functions = {node.name: node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    assert row.function in functions
    assert ast.get_docstring(functions[row.function])


@pytest.mark.parametrize("path", ROWS, ids=[" ".join(path) for path in ROWS])
def test_help_of_a_command_shows_brackets_as_they_are(path, capsys):
    assert run(*path, "--help") == ExitStatus.DONE
    shown = capsys.readouterr().out
    assert "[default: text]" in shown
    assert "\\" not in shown


@pytest.mark.parametrize("entry", [*COMMANDS.values(), *ROWS.values()], ids=lambda entry: entry.help)
def test_help_of_the_table_is_one_short_sentence(entry):
    assert entry.help.endswith(".")
    assert "\n" not in entry.help
    assert len(entry.help) <= 75


def test_help_lists_every_command(capsys):
    assert run("--help") == ExitStatus.DONE
    listed = capsys.readouterr().out
    for name, entry in COMMANDS.items():
        assert name in listed
        assert entry.help.split()[0] in listed


@pytest.mark.parametrize("name", [name for name, entry in COMMANDS.items() if isinstance(entry, Table)])
def test_help_of_a_group_lists_its_commands(name, capsys):
    assert run(name, "--help") == ExitStatus.DONE
    listed = capsys.readouterr().out
    for row_name, row in COMMANDS[name].rows.items():
        assert row_name in listed
        assert row.help in " ".join(listed.split())


@pytest.mark.parametrize("path", [path for path, row in ROWS.items() if row.extra is None], ids=" ".join)
def test_help_of_a_command_is_its_functions(path, capsys):
    assert run(*path, "--help") == ExitStatus.DONE
    shown = capsys.readouterr().out
    assert f"Usage: hansa {' '.join(path)}" in shown
    assert "--format" in shown


def test_the_version_is_that_of_the_distribution(capsys):
    assert run("--version") == ExitStatus.DONE
    assert capsys.readouterr().out == "hansa 0.1.0\n"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["fly"], "No such command 'fly'"),
        (["agreement", "fly"], "No such command 'fly'"),
        (["agreement", "check"], "Missing argument 'FILE'"),
        (["agreement", "check", "a", "b"], "unexpected extra argument"),
        (["agreement", "check", "a", "--epsilon", "3"], "No such option"),
        (["agreement", "new", "--kind", "image"], "'image' is not one of"),
        (["agreement", "check", "a", "--format", "yaml"], "'yaml' is not one of"),
    ],
)
def test_a_usage_error_ends_with_2_and_says_where_help_is(arguments, words, capsys):
    assert run(*arguments) == ExitStatus.BAD_INPUT
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert "--help" in captured.err


@pytest.mark.parametrize(
    ("arguments", "place"), [(["fly"], "hansa"), (["agreement", "check"], "hansa agreement check")]
)
def test_a_usage_error_as_json_is_an_envelope(arguments, place, capsys):
    assert run(*arguments, "--format", "json") == ExitStatus.BAD_INPUT
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert (told["status"], told["error"]["code"]) == ("bad_input", "HANSA-104")
    assert f"`{place} --help`" in told["error"]["remedy"]
    assert captured.err == ""


def test_a_command_runs_and_returns_0(one_command, capsys):
    one_command("def command(count: int = 1):\n    '''Doc.'''\n    print('count', count)\n")
    assert run("try", "--count", "3") == ExitStatus.DONE
    assert capsys.readouterr().out == "count 3\n"


def test_a_module_is_imported_when_its_command_is_called_and_not_before(one_command, capsys):
    one_command("print('imported')\ndef command():\n    '''Doc.'''\n")
    assert run("--help") == ExitStatus.DONE
    assert "imported" not in capsys.readouterr().out
    assert run("try") == ExitStatus.DONE
    assert capsys.readouterr().out == "imported\n"


@pytest.mark.parametrize("inside", [False, True], ids=["at import", "while it runs"])
def test_a_missing_extra_is_that_of_the_command(one_command, inside, capsys):
    failing = "raise ModuleNotFoundError('No module named torch', name='torch')\n"
    one_command(
        f"def command():\n    '''Doc.'''\n    {failing}"
        if inside
        else f"{failing}\ndef command():\n    '''Doc.'''\n"
    )
    assert run("try") == ExitStatus.BAD_INPUT
    told = capsys.readouterr().err
    assert told.startswith("HANSA-103: this command needs torch")
    assert "pip install 'hansa[simulation]'" in told


def test_an_error_that_a_command_does_not_report_itself_is_reported(one_command, capsys):
    one_command(
        "from hansa.errors import WireError\n"
        "def command(format: str = ''):\n    '''Doc.'''\n    raise WireError('too large')\n"
    )
    assert run("try") == ExitStatus.FAILED
    assert capsys.readouterr().err == "HANSA-501: too large\n"
    assert run("try", "--format", "json") == ExitStatus.FAILED
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "HANSA-501"


def test_an_exit_status_of_typer_is_kept(one_command):
    one_command("import typer\ndef command():\n    '''Doc.'''\n    raise typer.Exit(3)\n")
    assert run("try") == ExitStatus.REFUSED


def test_names_are_completed_without_importing_commands(one_command):
    one_command("raise RuntimeError('imported')\n")
    completed = app.ROOT.shell_complete(click.Context(app.ROOT), "t")
    assert [item.value for item in completed] == ["try"]


def test_the_script_turns_pydantic_plugins_off_and_lets_a_user_keep_them():
    code = (
        "import os, sys; sys.argv = ['hansa', '--version']\n"
        "from hansa.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: print(end.code, os.environ['PYDANTIC_DISABLE_PLUGINS'])"
    )
    unset = {name: value for name, value in os.environ.items() if name != "PYDANTIC_DISABLE_PLUGINS"}
    for given, expected in (({}, "__all__"), ({"PYDANTIC_DISABLE_PLUGINS": "a"}, "a")):
        said = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**unset, **given},
        )
        assert said.stdout.splitlines()[-1] == f"0 {expected}"


def test_a_terminal_that_cannot_show_a_letter_does_not_stop_a_command(tmp_path):
    program = (
        "import sys; sys.argv = ['hansa', 'agreement', 'new', 'ε.toml']\nfrom hansa.cli import main; main()"
    )
    said = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "latin-1"},
    )
    assert said.stdout.startswith(b"Wrote \\u03b5.toml.")


def test_a_reader_that_leaves_early_is_no_traceback(tmp_path):
    program = (
        "import sys; sys.argv = ['hansa', 'agreement', 'new', 'a.toml']\nfrom hansa.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    ) as process:
        process.stdout.close()
        told = process.stderr.read()
    assert process.returncode == ExitStatus.FAILED
    assert told == b""
