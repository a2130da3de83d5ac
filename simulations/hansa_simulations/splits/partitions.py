"""Which member holds which records of public files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hansa.agreement import Member, Simulation, Terms
from hansa.agreement.local import ColumnPartition, DirichletPartition, FilePartition
from hansa.errors import AgreementError, DataError, DataSourceError, HansaError, Problem
from hansa_client.data import Records, read_folders, read_records, unit_names, usable_records
from hansa_client.data.cells import codes

_CODES = "@member"  # no name of a canonical column starts so


def partition(terms: Terms, simulation: Simulation, data_dir: Path) -> dict[str, Records]:
    """Every member's records, those that cannot be used included.

    Args:
        terms: the agreement's.
        simulation: its source, mapping and partition.
        data_dir: where the files are.

    Returns:
        Member to records, in the agreement's order.

    Raises:
        AgreementError: generated data have no files.
        DataError: columns or rows that are missing, for all members at once.
        DataSourceError: files that are missing or cannot be read.
    """
    kind = simulation.partition
    if not data_dir.is_dir():
        raise DataSourceError(
            f"{data_dir} is not a folder", remedy="Pass --data DIR, the folder that holds the files."
        )
    if isinstance(kind, FilePartition):
        return _by_file(terms, simulation, kind, data_dir)
    if isinstance(kind, ColumnPartition):
        return _by_column(terms, simulation, kind, data_dir)
    if isinstance(kind, DirichletPartition):
        records = read_records(data_dir / kind.file, terms, simulation.source, simulation.columns)
        return by_dirichlet(records, terms, kind)
    raise AgreementError("generated data have no files", [Problem("simulation.partition", "'generated'")])


def _by_file(terms: Terms, simulation: Simulation, kind: FilePartition, data_dir: Path) -> dict[str, Records]:
    names = [member.name for member in terms.members]
    if kind.archive is not None:
        if simulation.source.format != "xml":
            raise AgreementError(
                "the archive cannot be read",
                [
                    Problem(
                        "simulation.partition.archive", "only XML records are read from archives", "unpack it"
                    )
                ],
            )
        folders = {name: kind.files[name] for name in names}
        return read_folders(data_dir / kind.archive, folders, terms, simulation.source, simulation.columns)
    parts: dict[str, Records] = {}
    errors: list[HansaError] = []
    for name in names:
        try:
            parts[name] = read_records(
                data_dir / kind.files[name], terms, simulation.source, simulation.columns
            )
        except (DataError, DataSourceError) as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        problems = [
            problem
            for error in errors
            for problem in (error.problems if isinstance(error, DataError) else [Problem("", error.cause)])
        ]
        raise DataError(f"the data of {len(errors)} members cannot be used", problems)
    return parts


def _by_column(
    terms: Terms, simulation: Simulation, kind: ColumnPartition, data_dir: Path
) -> dict[str, Records]:
    path = data_dir / kind.file
    records = read_records(path, terms, simulation.source, simulation.columns, extra={_CODES: kind.column})
    members = {m.name: codes(records.columns[_CODES], kind.values[m.name]).values >= 0 for m in terms.members}
    empty = [
        Problem(name, f"no row of {path} has {kind.column!r} in {list(kind.values[name])}", "")
        for name, rows in members.items()
        if not rows.any()
    ]
    if empty:
        raise DataError("members are left without rows", empty, remedy="Correct simulation.partition.values.")
    kept = records.without(_CODES)
    return {name: kept.take(rows) for name, rows in members.items()}


def by_dirichlet(records: Records, terms: Terms, kind: DirichletPartition) -> dict[str, Records]:
    """Deal the units of each label to the members by Dirichlet shares (arXiv 1909.06335, section 2).

    For each label the members' shares are one draw of Dirichlet(alpha · K · w), K members with public weights w
    of their declared units, so that a member gets its declared part on average. With equal units this is the
    usual Dirichlet(alpha). A unit goes to one member whole, by the label of its first record.

    Args:
        records: of the one file.
        terms: the agreement's.
        kind: concentration and seed.

    Returns:
        Member to its records in the order of the file; records that cannot be used go to nobody.

    Raises:
        DataError: members that are left without a record.
    """
    usable = records.take(usable_records(records, terms).rows)
    names = np.array(unit_names(usable, terms), dtype=object)
    _, first, unit = np.unique(names.astype(str), return_index=True, return_inverse=True)
    order = np.argsort(first, kind="stable")  # units in order of appearance
    labels = codes(usable.columns[terms.data.label], terms.task.labels).values[first]
    rng = np.random.default_rng(kind.seed)
    concentration = kind.alpha * len(terms.members) * _weights(terms.members)
    owner = np.empty(len(first), dtype=np.int64)
    for label in range(len(terms.task.labels)):
        units = order[labels[order] == label]
        shares = rng.dirichlet(concentration)
        cuts = np.round(np.cumsum(shares)[:-1] * len(units)).astype(np.int64)
        for member, dealt in enumerate(np.split(rng.permutation(units), cuts)):
            owner[dealt] = member
    parts = {m.name: usable.take(owner[unit] == place) for place, m in enumerate(terms.members)}
    empty = [Problem(name, "gets no record") for name, part in parts.items() if not len(part)]
    if empty:
        raise DataError(
            f"Dirichlet shares with alpha = {kind.alpha:g} leave members without records",
            empty,
            remedy="Choose a larger simulation.partition.alpha, or another seed.",
        )
    return parts


def _weights(members: tuple[Member, ...]) -> npt.NDArray[np.float64]:
    total = sum(member.units for member in members)
    return np.array([member.units / total for member in members], dtype=np.float64)
