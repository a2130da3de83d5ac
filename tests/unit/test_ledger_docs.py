"""What docs/ledger-format.md states is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from hansa.ledger.entry import Entry
from hansa.ledger.log import MAX_ENTRY_BYTES
from hansa.ledger.note import MAX_NOTE_BYTES, MAX_SIGNATURES
from hansa.ledger.store import LOG_LAYOUT
from hansa.ledger.tiles import tile_path
from hansa.ledger.witness import WITNESS_LAYOUT
from support.ledgers import one_of_each

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ledger-format.md").read_text(encoding="utf-8")
ROWS = {
    match[1]: match[2]
    for line in PAGE.splitlines()
    if (match := re.match(r"^\| `([a-z]+)` \| .+? \| (.+) \|$", line))
}


def test_the_table_has_a_row_for_each_type_and_no_other() -> None:
    assert list(ROWS) == list(one_of_each())


@pytest.mark.parametrize("name", list(one_of_each()))
def test_a_row_names_every_member_of_its_type(name: str) -> None:
    row = ROWS[name]
    named = set(re.findall(r"`([a-z0-9_]+)`", row))
    members = set(type(one_of_each()[name]).model_fields) - set(Entry.model_fields)
    assert members <= named, members - named
    words = {  # of values, of other entries, and of the one table inside an entry
        "revoke", "replace", "join", "leave", "suspend", "resume", "record", "patient", "training", "evaluation",
        "compression", "open", "closed", "pass", "fail", "inconclusive", "coordinator", "reservation", "p256",
        "gradients", "units", "kind", "event", "count", "shared", "coalition", "in_parts_of", "name", "verdict", "exempt", "override_sha256", "low", "high", "approvals", "type", "version", "at",
    }  # fmt: skip
    assert named - members <= words


def test_numbers_and_names_of_the_page() -> None:
    assert f"{MAX_ENTRY_BYTES:,}".replace(",", " ") in PAGE
    assert MAX_NOTE_BYTES == 1024 * 1024
    assert f"{MAX_SIGNATURES} signatures" in PAGE
    for layout in (LOG_LAYOUT, WITNESS_LAYOUT):
        assert f"`{layout.application_id.to_bytes(4, 'big').decode()}`" in PAGE
        assert layout.version == 1
    assert tile_path(0, 1234067).removeprefix("tile/0/") in PAGE
    assert (1.1).hex() in PAGE
