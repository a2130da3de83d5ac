"""Each trap of docs/privacy-traps.md, and each edge of docs/privacy.md, has the test that is named beside it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROWS = [
    line.split(" | ")
    for line in (ROOT / "docs" / "privacy-traps.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("| ") and not line.startswith(("| **", "| ---", "| trap"))
]
EDGES = (ROOT / "docs" / "privacy.md").read_text(encoding="utf-8")


def test_there_are_traps() -> None:
    assert len(ROWS) > 40


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0][2:])
def test_a_trap_has_its_tests(row: list[str]) -> None:
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", row[2])
    assert named
    for path, test in named:
        assert re.search(rf"\bdef {test}\(", (ROOT / "tests" / path).read_text(encoding="utf-8")), (
            path,
            test,
        )


def test_a_sharp_edge_has_its_tests() -> None:
    everything = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    named = set(re.findall(r"`(test_\w+)`", EDGES))
    assert len(named) > 20
    assert [test for test in sorted(named) if f"def {test}(" not in everything] == []
