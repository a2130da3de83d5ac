"""`hansa run start|list|log|recompute|resume|stop`: runs of a league, at the coordinator."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from hansa.cli.lines import lines
from hansa.cli.options import FormatOption, HomeOption, TrackOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from hansa_server.home import CoordinatorHome
    from hansa_server.runs import RunRow, Runs

_GOES_ON_WITHIN_S = 30.0

AgreementArgument: TypeAlias = Annotated[
    Path | None,
    typer.Argument(metavar="[AGREEMENT]", help="The frozen agreement, to be sure; a home has one."),
]
RunOption: TypeAlias = Annotated[
    str | None, typer.Option("--run", metavar="NAME", help="Which run; by default the newest.")
]
WaitOption: TypeAlias = Annotated[bool, typer.Option("--wait", help="Wait for the run to end.")]


def start(
    home: HomeOption,
    agreement: AgreementArgument = None,
    wait: WaitOption = False,
    track: TrackOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Start a run of the league's agreement.

    With --wait: status 0 once it is done, 3 where a rule ended it, 6 where the gate refused its model.
    """
    with reported(output_format):
        from hansa.errors import RunStateError
        from hansa.tracking import trackers_of
        from hansa_server.runs import ENDED, Runs
        from hansa_server.supervising import carry, control_of
        from hansa_server.tracking import keep_targets

        league = _league(home, agreement)
        trackers_of(track or ())
        runs = Runs(league.runs)
        busy = [row for row in runs.all() if row.state not in ENDED]
        if busy:
            raise RunStateError(
                f"run {busy[0].run} is {busy[0].state}",
                remedy="Wait for it, resume it, or stop it: a league has one run at a time.",
            )
        with control_of(league) as control:
            control.wait(0.0)  # before anything is written
            run = runs.begin(league.agreement.agreement_id, league.agreement.terms.training.rounds)
            keep_targets(runs.folder(run), track or ())
            carry(control, runs, run)
        status = _going(runs, run, "Started", wait, output_format)
    raise typer.Exit(status)


def resume(
    home: HomeOption,
    agreement: AgreementArgument = None,
    run: RunOption = None,
    wait: WaitOption = False,
    track: TrackOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Have an interrupted run go on, in the phase in which it stopped, carried by a new Flower run.

    A run whose model the gate refused goes on where `hansa run override` has excused something: its gate is decided again.
    """
    with reported(output_format):
        from hansa.errors import RunStateError
        from hansa_server.coordinating import override_files, refused
        from hansa_server.runs import ENDED, Runs
        from hansa_server.supervising import carry, control_of
        from hansa_server.tracking import keep_targets

        league = _league(home, agreement)
        runs = Runs(league.runs)
        row = runs.one(run)
        folder = runs.folder(row.run)
        if row.state in ENDED and not (refused(folder) and override_files(folder)):
            raise RunStateError(
                f"run {row.run} is {row.state}, and does not go on",
                remedy="Start a new one, or excuse what could not be decided: hansa run override."
                if refused(folder)
                else "Start a new one.",
            )
        if runs.alive(row.run):
            raise RunStateError(f"run {row.run} is {row.state}", remedy="It goes on by itself.")
        with control_of(league) as control:
            control.wait(0.0)  # before anything is written
            if row.state in ENDED:
                runs.reopen(row.run)
            if track:
                keep_targets(runs.folder(row.run), track)
            carry(control, runs, row.run)
        status = _going(runs, row.run, "Resumed", wait, output_format)
    raise typer.Exit(status)


def evaluate(
    home: HomeOption,
    agreement: AgreementArgument = None,
    run: RunOption = None,
    wait: WaitOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Have members evaluate a published model once more, on the records that they have now; then: hansa model monitor.

    --run names the run that has published it, by default the newest. With --wait: status 0 once the evaluation stands in the
    federation's log, 3 where too few members took part.
    """
    with reported(output_format):
        from hansa.errors import RunStateError
        from hansa_server.later_evaluation import begin_evaluation
        from hansa_server.runs import ENDED, Runs
        from hansa_server.supervising import carry, control_of

        league = _league(home, agreement)
        runs = Runs(league.runs)
        busy = [row.run for row in runs.all() if row.state not in ENDED]
        if busy:
            raise RunStateError(
                f"run {busy[0]} has not ended", remedy="Wait for it, or stop it: hansa run stop."
            )
        with control_of(league) as control:
            control.wait(0.0)  # before anything is written
            begun = begin_evaluation(league, runs, run)
            carry(control, runs, begun)
        status = _going(runs, begun, "Started", wait, output_format)
    raise typer.Exit(status)


def stop(
    home: HomeOption,
    agreement: AgreementArgument = None,
    run: RunOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """End a run for good, with what it has: members are told, and free what they had reserved."""
    with reported(output_format):
        from hansa.errors import RunStateError
        from hansa_server.runs import ENDED, Runs

        runs = Runs(_league(home, agreement).runs)
        row = runs.one(run)
        if row.state in ENDED:
            raise RunStateError(f"run {row.run} is {row.state} already", remedy="")
        runs.ask_to_stop(row.run)
        again = (
            ""
            if runs.alive(row.run)
            else "\nIts process is gone: `hansa run resume` has it told to the members."
        )
        text = f"Run {row.run} stops.{again}"
        emit({"run": row.run, "asked_to_stop": True}, text=text, output_format=output_format)


def listed(
    home: HomeOption, agreement: AgreementArgument = None, output_format: FormatOption = Format.TEXT
) -> None:
    """List the runs of the league, the newest first."""
    with reported(output_format):
        from hansa_server.runs import Runs

        rows = Runs(_league(home, agreement).runs).all()
        text = "\n".join(map(run_lines, rows)) or "There is no run yet."
        emit({"runs": [row.as_dict() for row in rows]}, text=text, output_format=output_format)


def log(
    home: HomeOption,
    agreement: AgreementArgument = None,
    run: RunOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Show what happened in a run: its rounds, who was in them, and the entries of the federation's log."""
    with reported(output_format):
        from contextlib import closing

        from hansa.ledger import LogView, SignedEntry, SqliteLogStore
        from hansa.ledger.entry import OfRun
        from hansa_server.runs import Runs

        league = _league(home, agreement)
        row = Runs(league.runs).one(run)
        with closing(SqliteLogStore(league.log, read_only=True)) as store:
            entries = [SignedEntry.parse(data).entry for data in LogView(store).entries()]
        found = [entry for entry in entries if isinstance(entry, OfRun) and entry.run == row.run]
        told = [
            {"at": entry.at, "type": entry.type, "by": entry.writer, "round": getattr(entry, "round", None)}
            for entry in found
        ]
        shown = [
            f"{one['at']}  {one['type']:<12} {one['by']}"
            + (f"  round {one['round']}" if one["round"] else "")
            for one in told
        ]
        emit(
            {"run": row.as_dict(), "entries": told},
            text="\n".join([run_lines(row), *shown]),
            output_format=output_format,
        )


def recompute(
    home: HomeOption,
    agreement: AgreementArgument = None,
    run: RunOption = None,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Recompute each sum of a run from the masked vectors that members sent, as the run's journal keeps them.

    Status 4 where a record does not prove the sum that it names, is missing, or is not the one that the federation's log has.
    """
    with reported(output_format):
        from hansa.agreement.amendments import rosters_ever
        from hansa_server.recomputing import logged_sums
        from hansa_server.recomputing import recompute as recomputed
        from hansa_server.runs import Runs

        league = _league(home, agreement)
        runs = Runs(league.runs)
        row = runs.one(run)
        logged, rosters = logged_sums(league, row.run), rosters_ever(league.agreement, [league.league])
        count = recomputed(league.agreement, rosters, runs.folder(row.run), row.run, logged)
        text = f"Run {row.run}: {count} sums recomputed, each the one that its record names."
        emit({"run": row.run, "recomputed": count}, text=text, output_format=output_format)


def run_lines(row: RunRow) -> str:
    """A run in a person's words."""
    head = f"Run {row.run}: {row.state}, {row.round} of {row.rounds} rounds"
    note = f" — {row.note}" if row.note else ""
    carried = f"; carried by {len(row.flower_runs)} Flower runs" if len(row.flower_runs) > 1 else ""
    return head + note + carried


def _league(folder: Path, agreement: Path | None) -> CoordinatorHome:
    from hansa.agreement import read_agreement
    from hansa_server.home import read_home

    league = read_home(folder)
    if agreement is not None and read_agreement(agreement).agreement_id != league.agreement.agreement_id:
        raise UsageError(
            f"{agreement} is not the agreement of {folder}",
            remedy="A home is one league; name its own agreement.",
        )
    return league


def _going(runs: Runs, run: str, what: str, wait: bool, output_format: Format) -> ExitStatus:
    """Tell of a run that was begun or goes on, once it has ended where somebody waits for that; with which status to exit."""
    from hansa_server.coordinating import refused

    row = _waited(runs, run) if wait else runs.one(run)
    status = _status(row, refused=refused(runs.folder(run)))
    _answer(row, what, status, output_format)
    return status


def _waited(runs: Runs, run: str) -> RunRow:
    from hansa_server.runs import ENDED

    since = time.monotonic()
    while True:
        row, now = runs.one(run), time.monotonic()
        if row.state != "interrupted":
            since = now
        # the coordinator has a run go on whose process ended, if it can
        if row.state in ENDED or now - since > _GOES_ON_WITHIN_S:
            return row
        time.sleep(0.2)


def _status(row: RunRow, *, refused: bool) -> ExitStatus:
    if row.state == "done" and row.note:  # nothing came of the finished model
        return ExitStatus.NOT_PUBLISHED if refused else ExitStatus.FAILED
    found = {"partial": ExitStatus.REFUSED, "stopped": ExitStatus.FAILED, "interrupted": ExitStatus.FAILED}
    return found.get(row.state, ExitStatus.DONE)


def _answer(row: RunRow, what: str, status: ExitStatus, output_format: Format) -> None:
    text = f"{what}: {run_lines(row)}"
    if row.members:
        text += f"\n{lines(row.members)}"
    emit(row.as_dict(), text=text, output_format=output_format, status=status)
