"""Every member's training and test records, as `[simulation]` of an agreement describes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hansa.agreement import Agreement, Simulation
from hansa.agreement.local import GeneratedPartition
from hansa.errors import AgreementError, DataError, Problem
from hansa_client.data import Records, usable_records
from hansa_simulations.splits.generated import generate
from hansa_simulations.splits.holdout import split_records
from hansa_simulations.splits.partitions import partition


@dataclass(frozen=True, eq=False)
class MemberRecords:
    """One simulated member's records.

    Attributes:
        train: what the member trains on.
        test: what the simulator keeps back; no unit is on both sides.
        left_out: reason to the number of records of the source that cannot be used.
    """

    train: Records
    test: Records
    left_out: Mapping[str, int] = field(default_factory=dict)


def load_members(agreement: Agreement, data_dir: Path | None, seed: int) -> dict[str, MemberRecords]:
    """Read or generate the data of every member.

    Args:
        agreement: with a `[simulation]` section.
        data_dir: where the files of the section are; not needed for generated data.
        seed: of the run. Generated data are drawn anew for each; splits of files follow the seeds of their own
            section, so that repeated runs measure the same split.

    Returns:
        Member to records, in the agreement's order. Records that cannot be used (no declared label, a value
        missing under ``missing = "drop"``) are left out before the split, and counted.

    Raises:
        AgreementError: there is no `[simulation]`, no data directory was given, or the agreement was derived from
            another by pooling its members.
        DataError: missing columns, and members that are left without training or test records; all at once.
        DataSourceError: files that are missing or cannot be read.
    """
    simulation = agreement.simulation
    if simulation is None:
        raise AgreementError(
            "there are no data to simulate with",
            [Problem("simulation", "the section is missing", "say where each member's data are")],
        )
    if agreement.terms.baseline == "pooled":
        raise AgreementError(
            "an agreement on pooled records does not say which member they come from",
            [
                Problem(
                    "baseline", "was derived on the command line", "run the original with --baseline pooled"
                )
            ],
            remedy="",
        )
    if isinstance(simulation.partition, GeneratedPartition):
        return _generated(agreement, simulation, simulation.partition, seed)
    if data_dir is None:
        raise AgreementError(
            "the agreement reads its data from files",
            [Problem("--data", "was not given", "pass --data DIR, the folder that holds the files")],
            remedy="",
        )
    parts = partition(agreement.terms, simulation, data_dir)
    members: dict[str, MemberRecords] = {}
    problems: list[Problem] = []
    for name, records in parts.items():
        usable = usable_records(records, agreement.terms)
        kept = records.take(usable.rows)
        try:
            split = split_records(kept, agreement.terms, simulation.test)
        except DataError as error:
            problems += [Problem(name, f"{error.cause}: {p.what}", p.remedy) for p in error.problems]
            continue
        members[name] = MemberRecords(kept.take(split.train), kept.take(split.test), usable.left_out)
        problems += _empty_sides(name, members[name], len(records))
    if problems:
        raise DataError(
            "members are left without records", problems, remedy="Correct the data or [simulation]."
        )
    return members


def _empty_sides(name: str, member: MemberRecords, rows: int) -> list[Problem]:
    reasons = "; ".join(f"{count} rows: {reason}" for reason, count in member.left_out.items())
    if not len(member.train) and not len(member.test):
        why = f"no row of {rows} can be used" if rows else "has no rows"
        return [Problem(name, why, reasons)]
    return [
        Problem(name, f"has no {side} records among {len(member.train) + len(member.test)}",
                "change simulation.test.share or seed")
        for side, records in (("training", member.train), ("test", member.test))
        if not len(records)
    ]  # fmt: skip


def _generated(
    agreement: Agreement, simulation: Simulation, kind: GeneratedPartition, seed: int
) -> dict[str, MemberRecords]:
    members = {}
    for place, member in enumerate(agreement.terms.members):
        train = generate(agreement.terms, simulation, place, member.units, (kind.seed, seed, 0))
        test = generate(agreement.terms, simulation, place, kind.test_records, (kind.seed, seed, 1))
        members[member.name] = MemberRecords(train, test)
    return members
