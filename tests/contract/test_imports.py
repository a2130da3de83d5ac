"""Start-up: what `hansa --help` and `hansa agreement check` import, and nothing more.

Both must answer at once on an auditor's machine, which has neither torch nor flwr. A new name in a list below is a
decision: it costs every start of the command.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import hansa.agreement
from hansa.agreement.writing import agreement_toml
from support.audits import story
from support.identities import pinned

TEMPLATE = Path(hansa.agreement.__file__).parent / "templates" / "table.toml"

HELP = {"click", "hansa"}
CHECK = {
    *HELP,
    "annotated_types",
    "pydantic",
    "pydantic_core",
    "rfc8785",
    "shellingham",  # by typer
    "typer",
    "typing_extensions",
    "typing_inspection",
}

PROGRAM = """
import json, sys
before = set(sys.modules)  # whatever an environment loads into every Python
sys.argv = ["hansa", *{arguments!r}]
from hansa.cli import main
try:
    main()
except SystemExit as ended:
    new = set(sys.modules) - before
    third = {{name.partition(".")[0] for name in new}} - sys.stdlib_module_names
    loaded = {{"status": ended.code, "third": sorted(third), "all": sorted(new)}}
    print(json.dumps(loaded), file=sys.stderr)
"""


def loaded_by(*arguments: str) -> dict:
    """The exit status of a command line in a fresh Python, and the modules that it loaded."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(ran.stderr.splitlines()[-1])


def third_parties(names: list[str]) -> set[str]:
    """Without compiled modules that Python names by platform (``_sysconfigdata__linux_…``)."""
    return {name for name in names if not name.startswith("_")}


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (["--help"], HELP),
        (["agreement", "--help"], HELP),
        (["agreement", "check", str(TEMPLATE)], CHECK),
        (["agreement", "check", str(TEMPLATE), "--format", "json"], CHECK),
    ],
    ids=["help", "help of a group", "check", "check as JSON"],
)
def test_exactly_these_packages_are_imported(arguments, allowed):
    loaded = loaded_by(*arguments)
    assert loaded["status"] == 0
    assert third_parties(loaded["third"]) == allowed


def test_checking_an_agreement_with_keys_imports_no_more(tmp_path):
    path = tmp_path / "league.frozen.toml"
    path.write_text(agreement_toml(pinned()), encoding="utf-8")
    assert third_parties(loaded_by("agreement", "check", str(path))["third"]) == CHECK
    signed = loaded_by("agreement", "check", str(path), "--signatures", str(tmp_path))
    assert signed["status"] == 3  # nobody has
    assert "cryptography" in signed["third"]
    assert not {"torch", "flwr", "numpy.random"} & set(signed["third"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["ca", "init", "ca", "--name", "League"],
        ["node", "init", "north", "--home", "north"],
        ["node", "officer", "north", "--out", "officer"],
        ["node", "recover", "--home", "north"],
        ["agreement", "sign", "league.toml", "--home", "north"],
        [
            "agreement",
            "keys",
            "league.toml",
            "--signatures",
            ".",
            "--federation-log",
            "k",
            "--out",
            "keys.json",
        ],
        ["agreement", "amend", "league.toml", "--home", "north", "--revoke", "beta", "--reason", "x"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_identities_are_managed_without_torch_and_flwr(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loaded = loaded_by(*arguments)
    assert loaded["status"] in {0, 2}
    assert not {"torch", "flwr", "transformers", "opacus", "pandas", "scipy"} & set(loaded["third"])


def test_help_of_an_audit_brings_no_room_of_it():
    loaded = loaded_by("audit", "verify", "--help")
    assert loaded["status"] == 0
    assert not {"cryptography", "dp_accounting", "numpy", "pydantic", "scipy"} & set(loaded["third"])
    assert not {name for name in loaded["all"] if name.startswith(("hansa.audit", "hansa.ledger"))}


def test_an_audit_without_claims_of_epsilon_needs_no_accountant(tmp_path):
    ledgers = story().write(tmp_path)
    loaded = loaded_by("audit", "verify", str(ledgers / "federation"), "--keys", str(ledgers / "keys.json"))
    assert loaded["status"] == 0
    assert "cryptography" in loaded["third"]
    assert not {"dp_accounting", "scipy", "torch", "flwr", "matplotlib", "jinja2"} & set(loaded["third"])
    whole = loaded_by("audit", "verify", str(ledgers))
    assert "dp_accounting" in whole["third"]
    assert not {"torch", "flwr", "transformers", "opacus", "matplotlib"} & set(whole["third"])


def test_budgets_are_granted_and_read_without_torch_and_flwr(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    heavy = {"torch", "flwr", "transformers", "opacus", "pandas"}
    numbers = [
        "--epsilon",
        "4",
        "--delta",
        "1e-6",
        "--unit",
        "record",
        "--max-records",
        "1",
        "--reservations",
        "3",
    ]
    grant = ["node", "grant", "--home", "north", *numbers, "--officer-key", "officer/north.officer.key"]
    terms = ["--forecast", str(TEMPLATE)]
    for arguments, status in [
        (["node", "officer", "north", "--out", "officer"], 0),
        (["node", "init", "north", "--home", "north", "--officer", "officer/north.officer.pub"], 0),
        (grant, 0),
        (["node", "budget", "--home", "north"], 0),
        (["node", "budget", "--ledger", "north/state/ledger.sqlite", *terms], 3),
    ]:
        loaded = loaded_by(*arguments)
        assert loaded["status"] == status, arguments
        assert not heavy & set(loaded["third"]), arguments


def test_help_imports_no_command():
    from_hansa = {name for name in loaded_by("--help")["all"] if name.partition(".")[0] == "hansa"}
    assert from_hansa == {
        "hansa",
        "hansa.cli",
        "hansa.cli.app",
        "hansa.cli.commands",
        "hansa.cli.output",
        "hansa.errors",
    }


def test_check_imports_no_room_but_the_agreement():
    loaded = [
        name for name in loaded_by("agreement", "check", str(TEMPLATE))["all"] if name.startswith("hansa.")
    ]
    assert {name.split(".")[1] for name in loaded} == {
        "agreement",
        "canonical",
        "cli",
        "errors",
        "fairness",  # whether there is a table for an evaluation
        "privacy",  # the limits of a clipping norm
        "quorum",
    }
    assert {name for name in loaded if name.startswith("hansa.privacy.")} == {"hansa.privacy.clipping"}


@pytest.mark.parametrize("package", ["hansa", "hansa.cli", "hansa.agreement"])
def test_an_agreement_is_read_without_the_secure_sum(package):
    program = f"import sys, {package}; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert package in loaded
    assert not {"hansa.secagg", "hansa.identity", "cryptography"} & loaded


@pytest.mark.parametrize(
    "package",
    [
        "hansa",
        "hansa.cli",
        "hansa.agreement",
        "hansa.artifact",
        "hansa.audit",
        "hansa.privacy",
        "hansa.report",
        "hansa.identity",
        "hansa.ledger",
        "hansa.secagg",
    ],
)
def test_what_an_auditor_imports_brings_no_torch_and_no_flwr(package):
    program = f"import sys, {package}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"torch", "flwr", "transformers", "opacus", "pandas"} & set(ran.stdout.split())


def test_a_log_is_read_without_the_secure_sum_and_without_an_accountant():
    program = "import sys, hansa.ledger; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"hansa.secagg", "dp_accounting", "scipy", "asyncio", "http"} & set(ran.stdout.split())
