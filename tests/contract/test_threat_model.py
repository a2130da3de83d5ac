"""The page of threats against the code: every test and every decision that it names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "threat-model.md").read_text(encoding="utf-8")
NAMED = re.findall(r"`((?:contract|e2e|property|security|unit)/[\w/]+\.py)(?:::(\w+))?`", PAGE)


def functions_in(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_test_that_is_named_is_there() -> None:
    assert len(NAMED) >= 35
    for name, function in NAMED:
        path = ROOT / "tests" / name
        assert path.exists(), name
        assert not function or function in functions_in(path), f"{name}::{function}"


def test_every_page_that_is_linked_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) >= 20
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


def test_every_row_of_attacks_names_a_test() -> None:
    part = PAGE.partition("## Attacks and what defends")[2].partition("## What is not defended")[0]
    rows = [
        line
        for line in part.splitlines()
        if line.startswith("| ") and not re.match(r"\| (attack|---) ", line)
    ]
    assert len(rows) >= 30
    assert [row for row in rows if not re.search(r"`\w+/\w+\.py|privacy-traps", row)] == []
