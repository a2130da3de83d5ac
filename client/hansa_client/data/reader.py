"""From a path to records: which reader serves a source, and every problem told at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from hansa.agreement.local import Column, Source
from hansa.agreement.terms import Terms
from hansa.errors import AgreementError, DataError, DataSourceError, HansaError, Problem
from hansa_client.data.custom import read_custom
from hansa_client.data.records import ColumnMapping, Raw, Records, canonical, wanted_columns
from hansa_client.data.tables import read_csv, read_parquet, table_files
from hansa_client.data.xml_records import read_xml


def read_records(
    path: Path, terms: Terms, source: Source, columns: ColumnMapping, *, extra: ColumnMapping | None = None
) -> Records:
    """Read a member's data under the agreement's column names.

    Bad values are no error here: `hansa_client.data.encode` leaves such records out, `inspect` tells them.

    Args:
        path: a file, a folder of files, or for XML a tar archive.
        terms: whose schema names the columns.
        source: how files are read.
        columns: where each canonical column is found.
        extra: further columns to keep under the names given; for partitions.

    Raises:
        DataError: columns that are missing, in every file, and data without a record.
        DataSourceError: files that are missing or cannot be read.
    """
    return _joined(path, read_files(path, terms, source, columns, extra=extra))


def read_folders(
    path: Path, folders: Mapping[str, str], terms: Terms, source: Source, columns: ColumnMapping
) -> dict[str, Records]:
    """Read several members' records from folders of one XML archive in one pass.

    Args:
        path: an archive or a folder.
        folders: member to folder in it.
        terms: whose schema names the columns.
        source: how documents are read.
        columns: where each canonical column is found.

    Raises:
        DataError, DataSourceError: as `read_records`.
    """
    wanted = wanted_columns(terms.data, columns, {})
    found = read_xml(path, _record_element(source), list(wanted.values()), folders)
    return {
        member: _joined(path, [(raw.place, _read(raw, terms, source, wanted))])
        for member, raw in found.items()
    }


FileOutcome = tuple[str, "Records | HansaError"]


def read_files(
    path: Path,
    terms: Terms,
    source: Source,
    columns: ColumnMapping,
    *,
    folder: str = ".",
    extra: ColumnMapping | None = None,
) -> list[FileOutcome]:
    """Each file on its own: its records, or what is wrong with it.

    Raises:
        DataSourceError: the path itself does not exist or holds no file of the format.
        AgreementError: the source has no files.
    """
    wanted = wanted_columns(terms.data, columns, extra or {})
    if source.format == "generated":
        raise AgreementError(
            "the data are generated",
            [Problem("simulation.source.format", "'generated' names no file to read")],
        )
    files = table_files(path, source) if source.format in ("csv", "parquet") else [path]
    outcomes: list[FileOutcome] = []
    for file in files:
        try:
            raw = _raw(file, source, list(wanted.values()), folder)
            outcomes.append((raw.place, _read(raw, terms, source, wanted)))
        except DataSourceError as error:
            outcomes.append((str(file), error))
    return outcomes


def _raw(file: Path, source: Source, wanted: Sequence[Column], folder: str) -> Raw:
    if source.format == "csv":
        return read_csv(file, source, wanted)
    if source.format == "parquet":
        return read_parquet(file, wanted)
    if source.format == "xml":
        return read_xml(file, _record_element(source), wanted, {"": folder})[""]
    return read_custom(file, source, wanted)


def _read(raw: Raw, terms: Terms, source: Source, wanted: Mapping[str, Column]) -> Records | DataError:
    if raw.rows == 0 and not raw.columns:
        return DataError(f"{raw.place} is empty", [Problem(raw.place, "there are no rows")])
    records, problems = canonical(raw, terms.data, source, wanted)
    return DataError(f"{raw.place} does not fit the agreement", problems) if records is None else records


def _joined(path: Path, outcomes: Sequence[FileOutcome]) -> Records:
    sources = [outcome for _, outcome in outcomes if isinstance(outcome, DataSourceError)]
    if sources:
        causes = "; ".join(error.cause for error in sources)
        raise DataSourceError(causes, remedy=sources[0].what_to_do)
    problems = [p for _, outcome in outcomes if isinstance(outcome, DataError) for p in outcome.problems]
    parts = [outcome for _, outcome in outcomes if isinstance(outcome, Records)]
    if not problems and not any(len(part) for part in parts):
        problems = [Problem(str(path), "there are no rows")]
    if problems:
        raise DataError(f"the data in {path} do not fit the agreement", problems)
    return Records.concat(parts)


def _record_element(source: Source) -> str:
    if source.record is None:
        raise AgreementError(
            "the source is not complete",
            [
                Problem(
                    "simulation.source.record", "is missing", "format = 'xml' needs the element of a record"
                )
            ],
        )
    return source.record
