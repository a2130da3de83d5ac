"""One column as a file holds it, and how its cells become numbers or codes of a public vocabulary.

Nothing here looks at a column's statistics: what a cell means depends on the cell and on the agreement alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_WHOLE_NUMBER = re.compile(r"(?:\+(?=\d))?(-?\d+)(?:\.0*)?")


@dataclass(frozen=True, eq=False)
class Cells:
    """The cells of one column.

    Attributes:
        values: [n] str objects as the file spells them, or int64 or float64 where the file has types; what a
            missing cell holds has no meaning.
        missing: [n] bool.
    """

    values: npt.NDArray[Any]
    missing: Mask

    def __post_init__(self) -> None:
        if self.values.shape != self.missing.shape or self.values.ndim != 1:
            raise ValueError("values and missing must be vectors of one length")
        if self.values.dtype not in (np.dtype(object), np.dtype(np.int64), np.dtype(np.float64)):
            raise ValueError(f"cells of dtype {self.values.dtype} are not known")

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, values: Iterable[object]) -> Cells:
        """Cells from Python values; `None` is missing, anything that is not a string is written as one."""
        read = list(values)
        array = np.empty(len(read), dtype=object)
        array[:] = ["" if value is None else spelled(value) for value in read]
        return cls(array, np.fromiter((value is None for value in read), dtype=np.bool_, count=len(read)))

    @classmethod
    def concat(cls, parts: Sequence[Cells]) -> Cells:
        """The cells of several files in order; types that differ are spelled out as text."""
        if len({part.values.dtype for part in parts}) > 1:
            parts = [part.as_text() for part in parts]
        return cls(np.concatenate([p.values for p in parts]), np.concatenate([p.missing for p in parts]))

    def take(self, rows: npt.NDArray[Any]) -> Cells:
        """The cells of some rows, by index or by mask."""
        return Cells(self.values[rows], self.missing[rows])

    def as_text(self) -> Cells:
        """The same cells as strings; ``1.0`` of a typed file becomes ``1``."""
        if self.values.dtype == object:
            return self
        array = np.empty(len(self), dtype=object)
        array[:] = [spelled(value) for value in self.values.tolist()]
        return Cells(array, self.missing)

    def map_text(self, change: Callable[[str], str | None]) -> Cells:
        """Every cell that is not missing under `change`, called once per distinct text; `None` is missing."""
        text = self.as_text()
        places, distinct = pd.factorize(text.values)
        changed = [change(value) for value in distinct]
        values, missing = text.values.copy(), text.missing.copy()
        present = ~text.missing
        if changed:
            values[present] = np.array(["" if c is None else c for c in changed], dtype=object)[
                places[present]
            ]
            missing[present] = np.array([c is None for c in changed])[places[present]]
        return Cells(values, missing)


def spelled(value: object) -> str:
    """A value of a typed file as text: whole floats without a fraction, booleans as 0 and 1."""
    if isinstance(value, bool | np.bool_):
        return str(int(value))
    if isinstance(value, float | np.floating):
        return str(int(value)) if float(value).is_integer() else repr(float(value))
    return str(value).strip()


def plain_code(text: str) -> str:
    """A code in the one spelling that codes are compared in: ``1``, ``1.0``, ``1.`` and ``+1`` are ``1``.

    Leading zeros stay, since they tell codes of many classifications apart.
    """
    whole = _WHOLE_NUMBER.fullmatch(text)
    return whole.group(1) if whole else text


def translate(cells: Cells, values: Mapping[str, str], missing: Sequence[str]) -> Cells:
    """Cells in the agreement's spelling.

    Args:
        cells: as the file holds them.
        values: code in the file to value in the agreement; exact spelling first, then as `plain_code`.
        missing: what stands for a missing value, unless `values` says otherwise.
    """
    if cells.values.dtype != object and not values:
        return _without_markers(cells, missing)
    plain = {plain_code(code): value for code, value in values.items()}
    markers = frozenset(marker.strip() for marker in missing)

    def change(text: str) -> str | None:
        if text in values:
            return values[text]
        if text in markers:
            return None
        return plain.get(plain_code(text), text)

    return cells.map_text(change)


def _without_markers(cells: Cells, missing: Sequence[str]) -> Cells:
    """Typed cells in which the markers that are numbers (``-9``, ``nan``) count as missing."""
    marked = np.zeros(len(cells), dtype=np.bool_)
    for marker in missing:
        try:
            number = float(marker)
        except ValueError:
            continue
        marked |= np.isnan(cells.values) if np.isnan(number) else cells.values == number
    return Cells(cells.values, cells.missing | marked) if marked.any() else cells


@dataclass(frozen=True, eq=False)
class Numbers:
    """A column of numbers.

    Attributes:
        values: [n] float64, NaN wherever there is no finite number.
        not_numbers: [n] bool, cells whose text is no number.
        not_finite: [n] bool, cells that hold NaN or an infinity.
    """

    values: Floats
    not_numbers: Mask
    not_finite: Mask


def numbers(cells: Cells) -> Numbers:
    """Read cells as numbers. A missing cell is NaN in `Numbers.values` and in neither mask."""
    if cells.values.dtype == object:
        read = pd.to_numeric(pd.Series(cells.values, dtype=object), errors="coerce").to_numpy(
            dtype=np.float64
        )
        spelled_nan = np.isin(_lowered(cells.values), ("nan", "+nan", "-nan"))
    else:
        read = cells.values.astype(np.float64)
        spelled_nan = np.ones(len(cells), dtype=np.bool_)
    present = ~cells.missing
    not_numbers = present & np.isnan(read) & ~spelled_nan
    not_finite = present & ~np.isfinite(read) & ~not_numbers
    return Numbers(np.where(present & np.isfinite(read), read, np.nan), not_numbers, not_finite)


def _lowered(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    short = [value.lower() if len(value) < 5 else "" for value in values]
    return np.array(short, dtype=object).astype(str) if short else np.array([], dtype=str)


@dataclass(frozen=True, eq=False)
class Codes:
    """A column of codes of a public vocabulary.

    Attributes:
        values: [n] int64, the place in the vocabulary, -1 where there is none.
        undeclared: [n] bool, cells whose code is not in the vocabulary.
    """

    values: Integers
    undeclared: Mask


def codes(cells: Cells, vocabulary: Sequence[str]) -> Codes:
    """Read cells as codes; ``1.0`` matches the code ``1``. A missing cell is -1 and not undeclared."""
    text = cells.as_text()
    exact = {value: i for i, value in enumerate(vocabulary)}
    plain = {plain_code(value): i for i, value in enumerate(vocabulary)}
    places, distinct = pd.factorize(text.values)
    found = np.array([exact.get(v, plain.get(plain_code(v), -1)) for v in distinct], dtype=np.int64)
    values = found[places] if len(distinct) else np.zeros(0, dtype=np.int64)
    values = np.where(text.missing, -1, values)
    return Codes(values, (values < 0) & ~text.missing)
