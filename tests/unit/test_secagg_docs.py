"""What docs/secure-sum.md states in numbers is what the code does."""

from __future__ import annotations

import math
import re
from pathlib import Path

from hansa.agreement.terms import SecureSum
from hansa.quorum import threshold
from hansa.secagg import Quantiser

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "secure-sum.md").read_text(encoding="utf-8")


def test_the_table_of_smallest_sums_has_every_league_from_3_to_100() -> None:
    start = PAGE.index("| n | t | honest |")
    rows = [
        line
        for line in PAGE[start : PAGE.index("## What is not promised")].splitlines()[2:]
        if line.startswith("|")
    ]
    cells = [re.findall(r"\d+", line) for line in rows]
    found = {
        int(n): (int(t), int(h))
        for row in cells
        for n, t, h in zip(row[::3], row[1::3], row[2::3], strict=True)
    }
    assert found == {n: (threshold(n), 2 * threshold(n) - n) for n in range(3, 101)}


def test_the_retries_that_a_member_allows() -> None:
    assert "`secure_sum.retries` of the agreement says (0 by default)" in PAGE
    assert SecureSum().retries == 0


def test_the_bound_on_wraps_by_noise() -> None:
    assert "2·exp(−72) < 1.1e-31" in PAGE
    assert Quantiser(1.0, 100.0, 3, noise_sd=1.0).wrap_probability(1) == 2 * math.exp(-72) < 1.1e-31
