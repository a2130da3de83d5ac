"""`hansa node check`: a member looks at its own data before it signs anything."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.local import ColumnPartition, FilePartition, GeneratedPartition, Source
from hansa.cli.options import FormatOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import UsageError

if TYPE_CHECKING:
    from hansa_client.data import Inspection


def check(
    agreement: Annotated[Path, typer.Option("--agreement", metavar="FILE", help="The agreement, as TOML.")],
    data: Annotated[
        Path | None, typer.Argument(metavar="[DATA]", help="A file, a folder of files, or an archive.")
    ] = None,
    home: Annotated[
        Path | None,
        typer.Option(
            "--home",
            metavar="DIR",
            help="The node whose `node.toml` says where data are, and how they are read.",
        ),
    ] = None,
    member: Annotated[
        str | None,
        typer.Option("--member", metavar="NAME", help="Whose data these are, where several share a place."),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Check a member's data against an agreement and tell everything that is wrong with them.

    With --home files are read as that node reads them: data, [source] and [columns] of its `node.toml`. Otherwise as
    [simulation] of the agreement says: source, columns and, with --member, the member's file, folder or codes. Nothing
    is spent and nothing leaves this machine.
    """
    with reported(output_format):
        terms = read_agreement(agreement)
        if home is not None:
            if member is not None:
                raise UsageError("a node's home says which member it is", remedy="Leave --member out.")
            data, member, inspection = _at_home(home, data, terms)
        elif data is None:
            raise UsageError("no data are named", remedy="Name DATA, or the node's --home.")
        else:
            inspection = _inspect(data, terms, member)
        inspection.raise_for_errors(str(data))
        emit(_data(data, member, inspection), text=_text(data, inspection), output_format=output_format)


def _at_home(home: Path, data: Path | None, agreement: Agreement) -> tuple[Path, str, Inspection]:
    from hansa_client.data import inspect
    from hansa_client.node_file import read_home

    node = read_home(home)
    settings = node.settings
    units = {m.name: m.units for m in agreement.terms.members}
    if settings.name not in units:
        raise UsageError(
            f"{settings.name!r} is no member of the agreement", remedy=f"Members are {', '.join(units)}."
        )
    if data is None:
        if settings.data is None:
            raise UsageError(f"node.toml of {home} names no data", remedy='There: data = "/srv/hansa/data"')
        data = node.folder / settings.data
    declared = units[settings.name]
    found = inspect(data, agreement.terms, settings.source, settings.columns, declared_units=declared)
    return data, settings.name, found


def _inspect(data: Path, agreement: Agreement, member: str | None) -> Inspection:
    from hansa_client.data import inspect

    if agreement.terms.baseline == "pooled":
        raise UsageError(
            "an agreement on pooled records has no members whose data could be checked",
            remedy="Name the agreement that it was derived from.",
        )
    units = {m.name: m.units for m in agreement.terms.members}
    if member is not None and member not in units:
        raise UsageError(
            f"{member!r} is no member of the agreement", remedy=f"Members are {', '.join(units)}."
        )
    simulation = agreement.simulation
    if simulation is None:
        declared = None if member is None else units[member]
        return inspect(data, agreement.terms, Source(), {}, declared_units=declared)
    kind = simulation.partition
    path, folder = data, "."
    only: tuple[str | int, tuple[str, ...]] | None = None
    if isinstance(kind, GeneratedPartition):
        raise UsageError(
            f"the data of this agreement come from the generator {simulation.source.generator!r}",
            remedy="There is no file to check; `hansa simulate` makes them.",
        )
    if isinstance(kind, FilePartition):
        if kind.archive is not None and (data / kind.archive).is_file():
            path = data / kind.archive
        if member is not None:
            path, folder = _members_file(path, kind, member)
    else:
        path = data / kind.file if (data / kind.file).exists() else data
        if member is not None and isinstance(kind, ColumnPartition):
            only = (kind.column, kind.values[member])
    # a whole file that several members share says nothing about one member's number of units
    whole = member is None or (only is None and not isinstance(kind, FilePartition))
    declared = None if whole or member is None else units[member]
    return inspect(
        path, agreement.terms, simulation.source, simulation.columns, folder=folder, only=only, declared_units=declared
    )  # fmt: skip


def _members_file(path: Path, kind: FilePartition, member: str) -> tuple[Path, str]:
    """The member's own file or folder below `path`, or `path` itself where it is that already."""
    own = kind.files[member]
    if path.is_file():
        return path, own if kind.archive is not None else "."
    return (path / own if (path / own).exists() else path), "."


def _data(path: Path, member: str | None, inspection: Inspection) -> dict[str, object]:
    return {
        "path": str(path),
        "member": member,
        "files": len(inspection.files),
        "rows": inspection.rows,
        "usable_rows": inspection.usable_rows,
        "units": inspection.units,
        "labels": dict(inspection.labels),
        "warnings": [finding.as_dict() for finding in inspection.warnings],
    }


def _text(path: Path, inspection: Inspection) -> str:
    labels = ", ".join(f"{label} {count}" for label, count in inspection.labels.items())
    lines = [
        f"{path} fits the agreement.",
        f"  {inspection.rows} rows in {len(inspection.files)} file{'s' if len(inspection.files) != 1 else ''}, "
        f"{inspection.usable_rows} usable, {inspection.units} privacy units",
        f"  labels: {labels}",
        *(f"  warning: {finding.as_problem()}" for finding in inspection.warnings),
    ]
    return "\n".join(lines)
