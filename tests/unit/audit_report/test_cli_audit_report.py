"""`hansa audit report` as a person uses it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.audits import KEYS, MEMBERS, edited, story
from support.cli import Called, hansa
from support.published import report_of, write_report_json

TRUTH = story()


@pytest.fixture
def ledgers(tmp_path: Path) -> Path:
    return TRUTH.write(tmp_path)


def report(ledgers: Path, out: Path, *more: str | Path) -> Called:
    keys = ledgers.parent / "compared.json"
    KEYS.write(keys)
    return hansa("audit", "report", ledgers, "--keys", keys, "--out", out, *more)


def test_a_page_and_values(ledgers: Path, tmp_path: Path) -> None:
    page, values = tmp_path / "audit.html", tmp_path / "audit.json"
    called = report(ledgers, page)
    assert (called.status, called.stderr) == (0, "")
    assert called.stdout.startswith("Verified\n")
    assert page.read_text().startswith("<!doctype html>")
    called = report(ledgers, values, "--format", "json")
    assert called.data == {"out": str(values), "verified": True, "failures": 0, "not_checked": 4 + 1}
    tree = json.loads(values.read_text())
    assert tree["integrity"]["verified"] is True
    assert str(ledgers) in tree["integrity"]["command"]
    assert tree["integrity"]["checked_by"].startswith("hansa ")


def test_something_wrong_ends_with_status_4_and_a_report_that_says_so(ledgers: Path, tmp_path: Path) -> None:
    own = list(TRUTH.own[MEMBERS[0]])
    own[3] = edited(own[3], step=8)
    broken = TRUTH.with_own(MEMBERS[0], own).write(tmp_path / "broken")
    out = tmp_path / "audit.html"
    called = report(broken, out, "--format", "json")
    assert called.status == 4
    assert called.envelope["status"] == "verification_failed"
    assert called.data["failures"] >= 1
    assert "<title>FAILED" in out.read_text()
    told = report(broken, out, "--force")
    assert told.status == 4
    assert f"FAILED. The first: members/{MEMBERS[0]}, entry 3 (release)." in told.stdout


def test_claims_of_a_run_s_report_are_checked_and_shown(ledgers: Path, tmp_path: Path) -> None:
    claims = write_report_json(report_of(TRUTH), tmp_path)
    out = tmp_path / "audit.json"
    assert report(ledgers, out, "--report", claims).status == 0
    tree = json.loads(out.read_text())
    assert tree["identity"]["title"] == "Readmission"
    assert f"--report {claims}" in tree["integrity"]["command"]
    write_report_json(report_of(TRUTH), tmp_path, rounds=3)
    assert report(ledgers, out, "--report", claims, "--force").status == 4


def test_an_ending_that_is_none(ledgers: Path, tmp_path: Path) -> None:
    called = report(ledgers, tmp_path / "audit.pdf")
    assert called.status == 2
    assert "neither .html nor .json" in called.stderr
    assert not (tmp_path / "audit.pdf").exists()


def test_nothing_is_overwritten_unless_asked(ledgers: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    out.write_text("mine")
    called = report(ledgers, out)
    assert called.status == 2
    assert "HANSA-102" in called.stderr
    assert out.read_text() == "mine"
    assert report(ledgers, out, "--force").status == 0
    assert out.read_text() != "mine"


def test_keys_beside_the_logs_are_warned_of_and_named_as_to_be_got(ledgers: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.json"
    called = hansa("audit", "report", ledgers, "--out", out)
    assert called.status == 0
    assert "Whoever made up the logs made up the keys" in called.stderr
    integrity = json.loads(out.read_text())["integrity"]
    assert "--keys KEYS.json" in integrity["command"]
    assert integrity["keys_beside"] is True
    page = tmp_path / "audit.html"
    assert hansa("audit", "report", ledgers, "--out", page).status == 0
    assert "keys not compared" in page.read_text()
    assert report(ledgers, out, "--force").status == 0
    assert json.loads(out.read_text())["integrity"]["keys_beside"] is False


def test_what_cannot_be_read_leaves_no_report(ledgers: Path, tmp_path: Path) -> None:
    out = tmp_path / "audit.html"
    for arguments, code in (
        (("audit", "report", tmp_path / "nothing", "--keys", ledgers / "keys.json", "--out", out), "HANSA-761"),
        (("audit", "report", ledgers / "federation", "--out", out), "HANSA-104"),
        (
            (
                "audit", "report", ledgers, "--keys", ledgers / "keys.json", "--report", tmp_path / "no.json",
                "--out", out,
            ),
            "HANSA-601",
        ),
    ):  # fmt: skip
        called = hansa(*arguments)
        assert called.status == 2, called.stderr
        assert code in called.stderr
    assert not out.exists()


PROGRAM = """
import sys
from hansa.cli.app import run
status = run(sys.argv[1:])
print(status, *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("out", "drawing"), [("audit.json", False), ("audit.html", True)], ids=["values", "page"]
)
def test_an_auditor_needs_neither_torch_nor_flwr(
    ledgers: Path, tmp_path: Path, out: str, drawing: bool
) -> None:
    ran = subprocess.run(
        [
            sys.executable, "-c", PROGRAM, "audit", "report", str(ledgers), "--keys", str(ledgers / "keys.json"),
            "--out", str(tmp_path / out),
        ],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )  # fmt: skip
    status, *modules = ran.stderr.split()
    assert status in {"0", "ExitStatus.DONE"}
    assert not {"torch", "flwr", "transformers", "opacus", "pandas", "grpc"} & set(modules)
    assert ({"matplotlib", "jinja2"} <= set(modules)) is drawing
