"""The transparency project's proofs, good and bad: 98 + 98 + 204 + 118 of them."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest

from hansa.errors import ProofError
from hansa.merkle import verify_consistency, verify_inclusion, verify_subtree_consistency

VECTORS = Path(__file__).resolve().parents[2].parent / "shared" / "vectors" / "tlog"


def cases(kind: str, count: int) -> list[dict[str, Any]]:
    if not VECTORS.exists():
        pytest.skip("the transparency project's vectors are not beside this checkout")
    files = sorted((VECTORS / kind).rglob("*.json"))
    assert len(files) == count
    found = [{"file": file, **json.loads(file.read_text())} for file in files]
    assert {case["wantErr"] for case in found} == {False, True}
    return found


def hashes(case: dict[str, Any], *names: str) -> list[bytes]:
    return [b64decode(case[name] or "") for name in names]


def proof_of(case: dict[str, Any]) -> list[bytes]:
    return [b64decode(node) for node in case["proof"] or []]


def judge(case: dict[str, Any], check) -> None:
    try:
        check()
        accepted = True
    except ProofError:
        accepted = False
    assert accepted is not case["wantErr"], case["file"]


@pytest.mark.parametrize(("kind", "count"), [("inclusion", 98), ("subtreeinclusion", 204)])
def test_inclusion(kind: str, count: int) -> None:
    for case in cases(kind, count):
        leaf, root = hashes(case, "leafHash", "root")
        start, end = case.get("start", 0), case["end"] if "end" in case else case["treeSize"]
        judge(
            case,
            lambda leaf=leaf, root=root, start=start, end=end, case=case: verify_inclusion(
                leaf, case["leafIdx"], end, proof_of(case), root, start=start
            ),
        )


def test_consistency() -> None:
    for case in cases("consistency", 98):
        roots = hashes(case, "root1", "root2")
        judge(
            case,
            lambda roots=roots, case=case: verify_consistency(
                case["size1"], case["size2"], proof_of(case), *roots
            ),
        )


def test_subtree_consistency() -> None:
    for case in cases("subtreeconsistency", 118):
        roots = hashes(case, "root1", "root2")
        judge(
            case,
            lambda roots=roots, case=case: verify_subtree_consistency(
                case["start"], case["end"], case["size"], proof_of(case), *roots
            ),
        )


def test_nothing_follows_from_an_empty_tree() -> None:
    about_nothing = [case for case in cases("consistency", 98) if case["size1"] == 0]
    assert len(about_nothing) >= 5
    assert all(case["wantErr"] for case in about_nothing)
