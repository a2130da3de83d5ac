"""What a simulation leaves, told to a privacy officer."""

from __future__ import annotations

import json
from pathlib import Path

from support.cli import hansa, league_on_disk
from support.pages import Page


def test_a_simulation_s_logs_become_a_report(tmp_path: Path) -> None:
    league_on_disk(tmp_path)
    out = tmp_path / "out"
    ran = hansa("simulate", tmp_path / "agreement.toml", "--data", tmp_path, "--out", out)
    assert ran.status == 0, ran.stderr
    ledgers = out / "ledgers"
    values, page = tmp_path / "audit.json", tmp_path / "audit.html"
    keys = ("--keys", ledgers / "keys.json")
    assert hansa("audit", "report", ledgers, *keys, "--out", values).status == 0
    assert hansa("audit", "report", ledgers, *keys, "--out", page).status == 0

    tree = json.loads(values.read_text())
    run = json.loads((out / "report.json").read_text())
    assert tree["identity"]["agreement_id"] == run["agreement_id"]
    assert tree["identity"]["runs"][0]["sums"] == run["rounds"]
    spent = {one["member"]: one["limits"][0]["spent"] for one in tree["guarantee"]["budgets"]}
    claimed = {member["name"]: member["epsilon"] for member in run["members"]}
    assert spent.keys() == claimed.keys()
    assert all(abs(spent[name] - claimed[name]) < 1e-6 for name in claimed)
    assert any("one machine held all keys" in line for line in tree["trust"]["limits"])

    read = Page(page.read_text())
    assert read.wrong == []
    assert len(read.all("svg")) == 3
    assert "Not measured." in read.text()
