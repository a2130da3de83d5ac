"""Tables from files: CSV through pandas, Parquet through pyarrow. Every cell of a CSV is read as text."""

from __future__ import annotations

import codecs
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from hansa.agreement.local import Column, Source
from hansa.errors import DataSourceError
from hansa_client.data.cells import Cells
from hansa_client.data.records import Raw

SUFFIXES = {"csv": (".csv", ".tsv", ".data"), "parquet": (".parquet", ".pq")}


def table_files(path: Path, source: Source) -> list[Path]:
    """The files that a table is in: the file itself, or those of a folder, by name.

    Raises:
        DataSourceError: nothing is there, or the folder holds no file of the format.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataSourceError(f"{path} does not exist", remedy="Check the path of the data.")
    suffixes = SUFFIXES[source.format]
    files = sorted(file for file in path.iterdir() if file.is_file() and file.suffix.lower() in suffixes)
    if not files:
        raise DataSourceError(
            f"{path} holds no {source.format} file",
            remedy=f"Files in it must end in {', '.join(suffixes)}; or name the file itself.",
        )
    return files


def read_csv(file: Path, source: Source, wanted: Iterable[Column]) -> Raw:
    """Read columns of a CSV file.

    Args:
        file: the file.
        source: delimiter, encoding, and whether the first line names the columns.
        wanted: columns by header name or by zero-based place.

    Raises:
        DataSourceError: the file cannot be read, is in another encoding, or has lines of more fields than the
            first.
    """
    try:
        codecs.lookup(source.encoding)
    except LookupError:
        raise DataSourceError(
            f"{source.encoding!r} is not an encoding",
            remedy="Set simulation.source.encoding, for example 'utf-8'.",
        ) from None
    try:
        # header=None: pandas would silently rename columns that share a name
        frame = pd.read_csv(
            file, header=None, sep=source.delimiter, encoding=source.encoding, dtype=object, na_filter=False
        )
    except pd.errors.EmptyDataError:
        return Raw(str(file), 0, {})
    except UnicodeError:
        raise DataSourceError(
            f"{file} is not {source.encoding} text{_lines_that_fail(file, source.encoding)}",
            remedy="Name its encoding in simulation.source.encoding, for example 'cp1252' or 'latin-1'.",
        ) from None
    except pd.errors.ParserError as error:
        cause = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise DataSourceError(
            f"{file} is not a regular CSV: {cause}",
            remedy=f"Is {source.delimiter!r} its delimiter (simulation.source.delimiter)?",
        ) from None
    except OSError as error:
        raise _unreadable(file, error) from None
    names: list[str] = []
    if source.header:
        names = [str(name).strip() for name in frame.iloc[0].tolist()]
        frame = frame.iloc[1:]
    found: dict[str | int, Cells] = {}
    for column in wanted:
        place = _place(file, column.column, names, frame.shape[1])
        if place is not None:
            found[column.column] = Cells.of(frame.iloc[:, place].tolist())
    available = tuple(names) if names else (f"columns 0 to {frame.shape[1] - 1}",)
    return Raw(str(file), len(frame), found, available)


def _place(file: Path, key: str | int, names: list[str], width: int) -> int | None:
    """A column's place in the file, or `None` if it has no such column."""
    if isinstance(key, int):
        return key if 0 <= key < width else None
    if names.count(key) > 1:
        raise DataSourceError(
            f"{file} has {names.count(key)} columns named {key!r}",
            remedy="Map the column by its zero-based place instead of its name.",
        )
    return names.index(key) if key in names else None


def _lines_that_fail(file: Path, encoding: str) -> str:
    """How many lines of a file are not in an encoding, where lines can be told apart without it."""
    if codecs.lookup(encoding).name.startswith(("utf-16", "utf-32")):
        return ""
    failing = []
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode(encoding)
            except UnicodeDecodeError:
                failing.append(number)
    return f": {len(failing)} lines fail, the first is line {failing[0]}" if failing else ""


def read_parquet(file: Path, wanted: Iterable[Column]) -> Raw:
    """Read columns of a Parquet file; integers and floats stay numbers, everything else becomes text.

    Raises:
        DataSourceError: the file is truncated or no Parquet, or a column is of a nested type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            names = list(parquet.schema_arrow.names)
            places = {column.column: _place(file, column.column, names, len(names)) for column in wanted}
            keys = {key: names[place] for key, place in places.items() if place is not None}
            table = parquet.read(columns=sorted(set(keys.values())))
            rows = int(parquet.metadata.num_rows)
        cells = {name: _parquet_cells(pa, table.column(name)) for name in table.column_names}
    except pa.ArrowNotImplementedError as error:
        raise DataSourceError(f"{file} holds a column of a type that cannot be read: {error}") from None
    except pa.ArrowException as error:
        raise DataSourceError(
            f"{file} is truncated or not a Parquet file: {str(error).splitlines()[0]}",
            remedy="Copy or export the file again.",
        ) from None
    except OSError as error:
        raise _unreadable(file, error) from None
    return Raw(str(file), rows, {key: cells[name] for key, name in keys.items()}, tuple(names))


def _parquet_cells(pa: Any, column: Any) -> Cells:
    missing = np.asarray(column.is_null().to_numpy(), dtype=np.bool_)
    kind = column.type
    if pa.types.is_integer(kind) and not pa.types.is_uint64(kind):
        return Cells(column.fill_null(0).to_numpy().astype(np.int64), missing)
    if pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return Cells(column.cast(pa.float64()).fill_null(0.0).to_numpy().astype(np.float64), missing)
    if pa.types.is_boolean(kind):
        return Cells(column.cast(pa.int64()).fill_null(0).to_numpy(), missing)
    return Cells.of(column.cast(pa.string()).to_pylist())


def _unreadable(file: Path, error: OSError) -> DataSourceError:
    reason = error.strerror or str(error).splitlines()[0]
    return DataSourceError(
        f"{file} cannot be read: {reason}", remedy="Check that the file is whole and readable."
    )
