"""The records of one member under the agreement's column names, before they are encoded for a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.agreement.local import Column, Source
from hansa.agreement.terms import BandGroup, Data, NumberFeature
from hansa.errors import Problem
from hansa_client.data.cells import Cells, translate

ColumnMapping = Mapping[str, Column | str | int]
"""Canonical column name to where a file holds it, as `Simulation.columns`; by default the same name."""


@dataclass(frozen=True, eq=False)
class Raw:
    """What a reader found in one file, by the file's own column names.

    Attributes:
        place: the file, as a person names it.
        rows: how many records there are.
        columns: the wanted columns that were found.
        available: names of the columns that the file has, for an error that helps.
    """

    place: str
    rows: int
    columns: Mapping[str | int, Cells]
    available: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Records:
    """Records under the agreement's column names, with the text that the member wrote.

    Attributes:
        columns: label, unit, features and groups by the schema's names, [n] each.
        positions: [n] int64, each record's row in its source, which stays with it through every split.
    """

    columns: Mapping[str, Cells]
    positions: npt.NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        if any(len(cells) != len(self.positions) for cells in self.columns.values()):
            raise ValueError("columns of different lengths")

    def __len__(self) -> int:
        return len(self.positions)

    def take(self, rows: npt.NDArray[Any]) -> Records:
        """Some of the records, by index or by mask."""
        return Records({name: cells.take(rows) for name, cells in self.columns.items()}, self.positions[rows])

    def without(self, name: str) -> Records:
        """The same records with one column fewer."""
        return Records({key: cells for key, cells in self.columns.items() if key != name}, self.positions)

    @classmethod
    def concat(cls, parts: Sequence[Records]) -> Records:
        """The records of several files of one member, in order, with rows counted on."""
        names = list(parts[0].columns)
        columns = {name: Cells.concat([part.columns[name] for part in parts]) for name in names}
        return cls(columns, np.arange(sum(len(part) for part in parts), dtype=np.int64))


def column_of(columns: ColumnMapping, name: str) -> Column:
    """Where a canonical column is found; by default a column of the same name."""
    entry = columns.get(name, name)
    return entry if isinstance(entry, Column) else Column(column=entry)


def schema_columns(data: Data) -> tuple[str, ...]:
    """The canonical columns that the agreement needs, each once: label, unit, features, groups."""
    unit = () if data.unit is None else (data.unit,)
    names = (data.label, *unit, *(f.name for f in data.features), *(g.name for g in data.groups))
    return tuple(dict.fromkeys(names))


def number_columns(data: Data) -> frozenset[str]:
    """The canonical columns that are read as numbers."""
    features = {feature.name for feature in data.features if isinstance(feature, NumberFeature)}
    return frozenset(features | {group.name for group in data.groups if isinstance(group, BandGroup)})


def wanted_columns(data: Data, columns: ColumnMapping, extra: ColumnMapping) -> dict[str, Column]:
    """Every column to read: the schema's, and `extra` ones under the names given there."""
    wanted = {name: column_of(columns, name) for name in schema_columns(data)}
    return {**wanted, **{name: column_of(extra, name) for name in extra}}


def canonical(
    raw: Raw, data: Data, source: Source, wanted: Mapping[str, Column]
) -> tuple[Records | None, list[Problem]]:
    """Rename and translate what a reader found.

    Returns:
        The records, or `None` with a problem for each column that the file does not have.
    """
    problems = [
        _absent(raw, name, column) for name, column in wanted.items() if column.column not in raw.columns
    ]
    if problems:
        return None, problems
    numeric = number_columns(data)
    columns: dict[str, Cells] = {}
    for name, column in wanted.items():
        cells = translate(raw.columns[column.column], column.values, source.missing)
        if name not in numeric:
            cells = cells.as_text()
        elif source.decimal == "," and cells.values.dtype == object:
            cells = cells.map_text(_decimal_comma)
        columns[name] = cells
    return Records(columns, np.arange(raw.rows, dtype=np.int64)), []


def _decimal_comma(text: str) -> str:
    """A number with a decimal comma as one with a point; what has a point of its own stays no number."""
    return text.replace(".", " ").replace(",", ".")


def _absent(raw: Raw, name: str, column: Column) -> Problem:
    shown = f"column {column.column}" if isinstance(column.column, int) else f"column {column.column!r}"
    needed = "" if column.column == name else f", which holds {name!r}"
    there = ", ".join(raw.available[:30]) + (", …" if len(raw.available) > 30 else "")
    remedy = f"it has {there}; map the column under [simulation.columns]" if there else "map the column"
    return Problem(raw.place, f"there is no {shown}{needed}", remedy)
