"""What is wrong with a member's data, told at once, before anything is signed or spent.

The findings are for the member's own eyes: they hold counts, and codes as the files spell them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from hansa.agreement.local import Source
from hansa.agreement.terms import BandGroup, CategoryFeature, Feature, Group, NumberFeature, Terms
from hansa.errors import DataError, HansaError, Problem
from hansa_client.data.cells import Cells, Mask, codes, numbers
from hansa_client.data.encoding import group_codes, has_value, unit_names, usable_records
from hansa_client.data.reader import read_files
from hansa_client.data.records import ColumnMapping, Records

MAX_CLIPPED_SHARE = (
    0.01  # a few outliers are clipped as agreed; more of them mean another physical unit or range
)
_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One thing about the data.

    Attributes:
        severity: an ``error`` must be corrected, a ``warning`` be known.
        file: where.
        column: the agreement's name of the column; empty where the whole file is meant.
        what: the finding in words.
        rows: how many rows it concerns; absent where that has no meaning.
        remedy: what to do.
    """

    severity: Literal["error", "warning"]
    file: str
    column: str
    what: str
    rows: int | None = None
    remedy: str = ""

    def as_problem(self) -> Problem:
        """The finding as a line of an error."""
        place = f"{self.file}, {self.column}" if self.column else self.file
        if self.what.startswith(self.file):  # an error of reading names its file itself
            place = ""
        return Problem(place, self.what, self.remedy)

    def as_dict(self) -> dict[str, object]:
        """The finding as plain JSON values."""
        return {
            "severity": self.severity,
            "file": self.file,
            "column": self.column,
            "what": self.what,
            "rows": self.rows,
            "remedy": self.remedy,
        }


@dataclass(frozen=True)
class Inspection:
    """The result of `inspect`.

    Attributes:
        files: that were looked at.
        rows: in all readable files.
        usable_rows: that a run would use.
        units: privacy units among them.
        labels: label to the number of usable rows.
        findings: errors first.
    """

    files: tuple[str, ...]
    rows: int
    usable_rows: int
    units: int
    labels: Mapping[str, int]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> tuple[Finding, ...]:
        """What must be corrected."""
        return tuple(finding for finding in self.findings if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What must be known."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def raise_for_errors(self, place: str) -> None:
        """Raise `DataError` with every error, and the warnings after them, if there is an error."""
        if self.errors:
            problems = [finding.as_problem() for finding in self.errors]
            problems += [
                Problem(p.place, f"warning: {p.what}", p.remedy)
                for p in (w.as_problem() for w in self.warnings)
            ]
            count = len(self.errors)
            raise DataError(f"{place} has {count} error{'s' if count != 1 else ''}", problems)


def inspect(
    path: Path,
    terms: Terms,
    source: Source,
    columns: ColumnMapping,
    *,
    folder: str = ".",
    only: tuple[str | int, tuple[str, ...]] | None = None,
    declared_units: int | None = None,
) -> Inspection:
    """Look at a member's data and tell everything that is wrong with them.

    Args:
        path: a file, a folder, or an archive.
        terms: the agreement's.
        source: how files are read.
        columns: where each canonical column is found.
        folder: the member's folder inside an XML archive.
        only: a column of the file and the codes in it that are the member's, where several share a file.
        declared_units: the member's public number of units, to compare.

    Raises:
        DataSourceError: the path itself does not exist.
    """
    extra: ColumnMapping = {} if only is None else {"@member": only[0]}
    findings: list[Finding] = []
    parts: list[Records] = []
    outcomes = read_files(path, terms, source, columns, folder=folder, extra=extra)
    for file, outcome in outcomes:
        if isinstance(outcome, HansaError):
            findings += _unread(file, outcome)
            continue
        records = outcome
        if only is not None:
            records = records.take(codes(records.columns["@member"], only[1]).values >= 0)
        records = records.without("@member")
        findings += _records(file, records, terms)
        parts.append(records)
    whole = Records.concat(parts) if parts else None
    labels: dict[str, int] = {}
    units = usable = 0
    if whole is not None and len(whole):
        kept = whole.take(usable_records(whole, terms).rows)
        usable = len(kept)
        units = len(set(unit_names(kept, terms)))
        counts = np.bincount(codes(kept.columns[terms.data.label], terms.task.labels).values, minlength=1)
        labels = {label: int(count) for label, count in zip(terms.task.labels, counts, strict=False) if count}
        findings += _whole(str(path), whole, kept, terms, labels, declared_units)
    ordered = sorted(findings, key=lambda finding: finding.severity != "error")
    rows = sum(len(part) for part in parts)
    return Inspection(tuple(file for file, _ in outcomes), rows, usable, units, labels, tuple(ordered))


def _unread(file: str, error: HansaError) -> Iterator[Finding]:
    if isinstance(error, DataError):
        for problem in error.problems:
            yield Finding("error", problem.place or file, "", problem.what, remedy=problem.remedy)
    else:
        yield Finding("error", file, "", error.cause, remedy=error.what_to_do)


def _records(file: str, records: Records, terms: Terms) -> Iterator[Finding]:
    """What one file's values say."""
    n = len(records)
    if n == 0:
        yield Finding("error", file, "", "there are no rows", rows=0)
        return
    data = terms.data
    label = records.columns[data.label]
    yield from _count("error", file, data.label, label.missing, "have no label")
    yield from _undeclared(file, data.label, label, terms.task.labels, "task.labels")
    if terms.privacy.unit == "patient" and data.unit is not None:
        missing = records.columns[data.unit].missing
        yield from _count("error", file, data.unit, missing, "name no patient")
    for feature in data.features:
        yield from _feature(file, records.columns[feature.name], feature)
    features = {feature.name: feature for feature in data.features}
    for group in data.groups:
        twin = features.get(group.name)
        same = (
            isinstance(twin, NumberFeature)
            if isinstance(group, BandGroup)
            else (isinstance(twin, CategoryFeature) and twin.values == group.values)
        )
        yield from _group(file, records.columns[group.name], group, told=same)


def _feature(file: str, cells: Cells, feature: Feature) -> Iterator[Finding]:
    if isinstance(feature, NumberFeature):
        yield from _not_numbers(file, feature.name, cells)
        values = numbers(cells).values
        low, high = feature.range
        with np.errstate(invalid="ignore"):
            outside = (values < low) | (values > high)
        share = outside.sum() / len(cells)
        yield from _count(
            "error" if share > MAX_CLIPPED_SHARE else "warning",
            file,
            feature.name,
            outside,
            f"are outside the public range {low:g} to {high:g} and would be clipped",
            "check the physical unit; declare what stands for a missing value; or agree on another range",
        )
    elif isinstance(feature, CategoryFeature):
        yield from _undeclared(
            file, feature.name, cells, feature.values, f"data.features.{feature.name}.values"
        )
    if feature.missing == "drop":
        empty = cells.missing if feature.kind != "text" else ~has_value(cells, feature)
        yield from _count(
            "warning", file, feature.name, empty, "have no value and are left out (missing = 'drop')"
        )


def _not_numbers(file: str, name: str, cells: Cells) -> Iterator[Finding]:
    read = numbers(cells)
    yield from _count(
        "error", file, name, read.not_numbers, f"are not numbers{_examples(cells, read.not_numbers)}",
        "declare what stands for a missing value, or the decimal sign, under simulation.source",
    )  # fmt: skip
    yield from _count(
        "error", file, name, read.not_finite, "hold NaN or an infinity", "leave such cells empty"
    )


def _group(file: str, cells: Cells, group: Group, *, told: bool) -> Iterator[Finding]:
    if not told:
        if isinstance(group, BandGroup):
            yield from _not_numbers(file, group.name, cells)
        else:
            yield from _undeclared(file, group.name, cells, group.values, f"data.groups.{group.name}.values")
    yield from _count("warning", file, group.name, cells.missing, f"belong to no group of {group.name}")


def _whole(
    path: str,
    records: Records,
    kept: Records,
    terms: Terms,
    labels: Mapping[str, int],
    declared_units: int | None,
) -> Iterator[Finding]:
    """What only all files together say."""
    if not labels:
        yield Finding("error", path, "", "there is no row that a run could use", rows=len(records))
        return
    if len(labels) == 1:
        only = next(iter(labels))
        yield Finding("warning", path, terms.data.label, f"there is one class only, {only!r}", rows=len(kept))
    yield from _groups(path, kept, terms)
    names = unit_names(kept, terms)
    _, sizes = np.unique(np.array(names, dtype=str), return_counts=True)
    cap = terms.privacy.max_records_per_unit
    over = sizes > cap
    if over.any():
        rows = int((sizes[over] - cap).sum())
        yield Finding(
            "warning", path, terms.data.unit or "",
            f"{int(over.sum())} units have more than {cap} records; {rows} rows beyond the cap are left out",
            rows=rows, remedy="the first of each unit by order in the file are used",
        )  # fmt: skip
    if declared_units is not None and not declared_units / 2 <= len(sizes) <= declared_units * 2:
        yield Finding(
            "warning", path, "",
            f"there are {len(sizes)} units, while the agreement declares {declared_units} for this member",
            remedy="the declared number is the divisor of every mean; agree on a closer one",
        )  # fmt: skip


def _groups(path: str, kept: Records, terms: Terms) -> Iterator[Finding]:
    """Groups of which this member can say nothing when a model is judged, because they are not there or lack a label."""
    if terms.evaluation is None:
        return
    labels = codes(kept.columns[terms.data.label], terms.task.labels).values
    for group in terms.data.groups:
        if group.name not in kept.columns:
            continue  # told as a column that is missing
        of_group = group_codes(kept.columns[group.name], group)
        for place, value in enumerate(group.values):
            there = of_group == place
            rows = int(there.sum())
            lacking = [label for i, label in enumerate(terms.task.labels) if not (labels[there] == i).any()]
            if not lacking:
                continue
            what = (
                f"has no row with the label {', '.join(map(repr, lacking))}" if rows else "has no row at all"
            )
            yield Finding(
                "warning", path, group.name, f"the group {value!r} {what}", rows=rows,
                remedy="other members may have them; a group too small in all of them together blocks the gate",
            )  # fmt: skip


def _undeclared(
    file: str, name: str, cells: Cells, vocabulary: tuple[str, ...], place: str
) -> Iterator[Finding]:
    undeclared = codes(cells, vocabulary).undeclared
    yield from _count(
        "error", file, name, undeclared,
        f"hold a code that is not declared{_examples(cells, undeclared)}",
        f"map it under simulation.columns.{name}.values, or agree on it in {place}",
    )  # fmt: skip


def _examples(cells: Cells, rows: Mask) -> str:
    distinct = sorted(set(cells.as_text().values[rows].tolist()))
    shown = ", ".join(repr(value[:40]) for value in distinct[:_SHOWN])
    return f": {shown}{', …' if len(distinct) > _SHOWN else ''}" if distinct else ""


def _count(
    severity: Literal["error", "warning"], file: str, name: str, rows: Mask, what: str, remedy: str = ""
) -> Iterator[Finding]:
    count = int(rows.sum())
    if count:
        yield Finding(severity, file, name, f"{count} of {len(rows)} rows {what}", rows=count, remedy=remedy)
