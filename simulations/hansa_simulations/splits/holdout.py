"""Which records a simulator keeps back to measure quality.

`unit_hash` decides by a public pseudorandom function of each unit alone, so that adding or removing a unit moves
no other unit; a real member could use it and let the budgets of its two sides compose in parallel.
`stratified` looks at all records at once: it exists to repeat a published split and is for simulators only.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hansa.agreement import Terms
from hansa.agreement.local import TestSplit
from hansa.errors import DataError, Problem
from hansa_client.data import Records
from hansa_client.data.cells import codes, plain_code
from hansa_client.data.records import schema_columns

_DOMAIN = b"hansa test split v1"


@dataclass(frozen=True, eq=False)
class Holdout:
    """The two sides of a split: [n] bool each, every record on exactly one."""

    train: npt.NDArray[np.bool_]
    test: npt.NDArray[np.bool_]


def split_records(records: Records, terms: Terms, rule: TestSplit) -> Holdout:
    """Split one member's records by the rule that `[simulation.test]` names; no unit is on both sides."""
    if not len(records):
        test = np.zeros(0, dtype=np.bool_)
    elif rule.rule == "unit-hash":
        keys = _keys(records, terms)
        sides = {key: unit_hash(key, rule.seed) < rule.share for key in dict.fromkeys(keys)}
        test = np.fromiter((sides[key] for key in keys), dtype=np.bool_, count=len(keys))
    else:
        labels = codes(records.columns[terms.data.label], terms.task.labels).values
        test = stratified(_units(records, terms), labels, len(terms.task.labels), rule.share, rule.seed)
    return Holdout(~test, test)


def unit_hash(unit: str, seed: int) -> float:
    """A number in [0, 1) from a unit: the first 53 bits of HMAC-SHA-256 (RFC 2104) under a public seed."""
    mac = hmac.new(_DOMAIN + b"|" + str(seed).encode(), unit.encode(), hashlib.sha256)
    return (int.from_bytes(mac.digest()[:7], "big") >> 3) / 2**53


def stratified(
    units: Sequence[str], labels: npt.NDArray[np.int64], classes: int, share: float, seed: int
) -> npt.NDArray[np.bool_]:
    """FLamby's split of one hospital (NeurIPS 2022, `fed_heart_disease`): scikit-learn's `train_test_split`.

    It is stratified by label where every class has more than two units, and a plain shuffle elsewhere. Records
    of one unit stay together, under the label of the first.

    Args:
        units: each record's unit, in order.
        labels: each record's label.
        classes: how many labels are declared.
        share: of the units, for the test side.
        seed: scikit-learn's `random_state`.

    Returns:
        [n] bool, the test side.

    Raises:
        DataError: scikit-learn cannot give each side something of each class.
    """
    from sklearn.model_selection import train_test_split  # 1 s to import, and needed by this rule alone

    _, first, unit = np.unique(np.array(units, dtype=str), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # scikit-learn sees units in order of appearance
    of_unit = labels[first[order]]
    if len(order) < 2:
        return np.zeros(len(units), dtype=np.bool_)
    even = bool((np.bincount(of_unit, minlength=classes) > 2).all())
    try:
        # rounded, so that 1 - .34 is the .66 of the published split and not the float below it
        _, kept_back = train_test_split(
            np.arange(len(order)),
            test_size=round(share, 12),
            train_size=round(1 - share, 12),
            random_state=seed,
            shuffle=True,
            stratify=of_unit if even else None,
        )
    except ValueError as error:  # too few units for this share
        raise DataError(
            f"{len(order)} units cannot be split",
            [Problem("simulation.test", str(error), "choose another share, or rule = 'unit-hash'")],
            remedy="",
        ) from None
    test = np.zeros(len(order), dtype=np.bool_)
    test[order[kept_back]] = True
    return np.asarray(test[unit], dtype=np.bool_)


def _units(records: Records, terms: Terms) -> list[str]:
    """Each record's patient where the agreement names one, else its row."""
    rows = [f"row {position}" for position in records.positions.tolist()]
    if terms.data.unit is None:
        return rows
    unit = records.columns[terms.data.unit].as_text()
    return [
        row if missing else f"unit {plain_code(value)}"
        for row, value, missing in zip(rows, unit.values, unit.missing.tolist(), strict=True)
    ]


def _keys(records: Records, terms: Terms) -> list[str]:
    """What the hash of each record is taken of: its patient where the agreement names one, else what it says.

    A record's row would not do: taking one record away would move those below it. By their content, equal
    records are on the same side, and no test record has been trained on.
    """
    columns = [records.columns[name].as_text() for name in schema_columns(terms.data)]
    rows = zip(*(cells.values.tolist() for cells in columns), strict=True)
    contents = [json.dumps(row, ensure_ascii=False) for row in rows]
    units = _units(records, terms)
    return [
        unit if unit.startswith("unit ") else f"record {content}"
        for unit, content in zip(units, contents, strict=True)
    ]
