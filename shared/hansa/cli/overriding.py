"""`hansa run override` and `hansa node override`: a named person excuses what a gate could not decide."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption
from hansa.cli.output import Format, emit, reported
from hansa.cli.run import RunOption
from hansa.errors import UsageError

if TYPE_CHECKING:
    from hansa.ledger import Gate, Override, SignedEntry

ConditionOption: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--condition", metavar="TEXT", help="A condition that was inconclusive, as it is listed; repeat it."
    ),
]
ByOption: TypeAlias = Annotated[
    str, typer.Option("--by", metavar="NAME,ROLE", help="Who excuses it, and as what.")
]
ReasonOption: TypeAlias = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why.")]


def by_coordinator(
    home: HomeOption,
    run: RunOption = None,
    condition: ConditionOption = None,
    by: ByOption = "",
    reason: ReasonOption = "",
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file", metavar="FILE", help="An override that a member's person has signed; repeat it."
        ),
    ] = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Excuse what the gate of a run could not decide, in the coordinator's name or by members' files.

    Without --condition and --file it lists what could not be decided. What fails is never excused. `hansa run resume` then has
    the gate decided again: the overrides are logged, members recompute the gate, and what is published shows who took the
    responsibility.
    """
    with reported(output_format):
        from hansa.gate.overriding import read_override
        from hansa.identity import COORDINATOR
        from hansa.ledger import SignedEntry
        from hansa_server.coordinating import OVERRIDES, override_files
        from hansa_server.home import read_home
        from hansa_server.runs import Runs

        league = read_home(home)
        runs = Runs(league.runs)
        row = runs.one(run)
        gate = _gate_in(league.log, league.agreement.agreement_id, row.run)
        folder = runs.folder(row.run)
        before = [read_override(path, gate, league.roster) for path in override_files(folder)]
        given = [read_override(path, gate, league.roster) for path in file or []]
        said = _said(gate, COORDINATOR, condition or [], by, reason)
        excused = _excused([*before, *given])
        given += [SignedEntry.sign(one, league.signer()) for one in said if one.condition not in excused]
        if given:
            (folder / OVERRIDES).mkdir(mode=0o700, exist_ok=True)
        written = [_put(folder / OVERRIDES / _name(one), one) for one in given]
        following = f"hansa run resume --home {home} --run {row.run}"
        _answer(gate, written, _excused([*before, *given]), following, output_format)


def by_member(
    home: HomeOption,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="NAME", help="Which run; by default whichever came to a gate last."),
    ] = None,
    agreement: Annotated[
        str | None,
        typer.Option("--agreement", metavar="ID", help="Which agreement, where the node serves several."),
    ] = None,
    condition: ConditionOption = None,
    by: ByOption = "",
    reason: ReasonOption = "",
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="The folder for the files that are signed.")
    ] = Path(),
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Excuse, in this member's name, what the gate of a run could not decide.

    The gate is read from this member's own copy of the federation's log. Without --condition it lists what could not be
    decided, also beside a node that runs. With it an entry is signed for each and put into the member's ledger (stop the node
    first), and into a file, which the coordinator takes with `hansa run override --file`.
    """
    with reported(output_format):
        from hansa_client.accepted import accepted_of
        from hansa_client.assembly import mirror_file
        from hansa_client.node_file import read_home
        from hansa_client.node_ledger import ledger_of

        node = read_home(home)
        served = accepted_of(node, agreement)
        path = mirror_file(node, served.agreement.agreement_id)
        if not path.is_file():
            raise UsageError(
                f"{node.settings.name} has seen nothing of the federation's log yet",
                remedy="Its node has to take part in a run first.",
            )
        gate = _gate_in(path, served.agreement.agreement_id, run)
        said = _said(gate, node.settings.name, condition or [], by, reason)
        signed: list[SignedEntry] = []
        if said:
            with ledger_of(node) as ledger:
                signed = [ledger.record_override(one) for one in said]
                ledger.checkpoint()
        written = [_put(out / _name(one), one) for one in signed]
        following = "hansa run override --file, at the coordinator"
        _answer(gate, written, _excused(signed), following, output_format)


def _gate_in(path: Path, agreement_id: str, run: str | None) -> Gate:
    """The newest gate that a file of the federation's log shows."""
    from hansa.gate.overriding import newest_gate
    from hansa.ledger import LogView, SqliteLogStore, read_entry

    with closing(SqliteLogStore(path, read_only=True)) as store:
        return newest_gate((read_entry(data).entry for data in LogView(store).entries()), agreement_id, run)


def _said(gate: Gate, party: str, conditions: Sequence[str], by: str, reason: str) -> list[Override]:
    """What a person says about each condition."""
    from hansa.gate.overriding import Person, override_of
    from hansa.ledger.entry import utc

    if not conditions:
        if by or reason:
            raise UsageError(
                "--by and --reason name no condition",
                remedy="Pass --condition for each that is excused; without any option they are listed.",
            )
        return []
    person, now = Person.of(by, reason), utc(datetime.now(UTC))
    return [override_of(gate, one, party, person, now) for one in dict.fromkeys(conditions)]


def _name(signed: SignedEntry) -> str:
    from hansa.gate.overriding import SUFFIX
    from hansa.ledger import Override

    entry = signed.entry
    party = entry.party if isinstance(entry, Override) else entry.writer
    return f"{party}-{entry.sha256[:16]}{SUFFIX}"


def _put(path: Path, signed: SignedEntry) -> Path:
    """Write an override; the same one twice is no harm."""
    from hansa.identity.files import write_new
    from hansa.ledger.files import entry_lines

    data = entry_lines(signed).encode()
    if not path.is_file() or path.read_bytes() != data:
        write_new(path, data)
    return path


def _excused(given: Sequence[SignedEntry]) -> list[str]:
    """The conditions that overrides are about."""
    from hansa.ledger import Override

    return list(dict.fromkeys(one.entry.condition for one in given if isinstance(one.entry, Override)))


def _answer(
    gate: Gate, written: list[Path], excused: list[str], following: str, output_format: Format
) -> None:
    from hansa.gate.overriding import failing, undecided

    left = [name for name in undecided(gate.conditions) if name not in excused]
    fails = list(failing(gate.conditions))
    data = {
        "run": gate.run,
        "gate": gate.decision,
        "artifact_sha256": gate.artifact_sha256,
        "written": [str(path) for path in written],
        "excused": excused,
        "undecided": left,
        "fails": fails,
    }
    told = []
    if written:
        told.append(f"Excused {len(excused)} of the conditions that run {gate.run} could not decide.")
    elif gate.decision == "open":
        told.append(f"The gate of run {gate.run} is open: nothing is to be excused.")
    else:
        told.append(f"The gate of run {gate.run} is closed.")
    told += [f"  could not be decided: {name}" for name in left]
    told += [f"  fails, and nobody excuses it: {name}" for name in fails]
    if written:
        told.append(lines({"written": [str(path) for path in written]}))
        told.append(f"Next: {following}" if not fails else "The gate stays closed: something fails.")
    emit(data, text="\n".join(told), output_format=output_format)
