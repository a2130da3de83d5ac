"""`hansa simulate`: the shell around `hansa_simulations.simulate`."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hansa.cli.options import ForceOption, FormatOption, TrackOption
from hansa.cli.output import Format, emit, reported
from hansa.errors import ExitStatus, UsageError

if TYPE_CHECKING:
    from hansa.agreement import Agreement
    from hansa.report import Report
    from hansa_simulations.settings import OverrideAsked


class EngineName(StrEnum):
    """What carries the messages of a simulation."""

    LOCAL = "local"
    RAY = "ray"


class Mechanism(StrEnum):
    """Privacy mechanisms that a run may be switched to."""

    LOCAL = "local"
    DISTRIBUTED = "distributed"


class Baseline(StrEnum):
    """What a federation is compared with."""

    POOLED = "pooled"
    LOCAL_ONLY = "local-only"


def simulate(
    agreement: Annotated[
        Path | None, typer.Argument(metavar="[AGREEMENT]", help="An agreement; without one, the quickstart.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option("--data", help="Folder that the agreement's data paths start from.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder for report, model and agreement.")] = None,
    engine: Annotated[
        EngineName, typer.Option("--engine", help="What carries the messages.")
    ] = EngineName.LOCAL,
    processes: Annotated[
        int | None, typer.Option("--processes", min=1, help="Members that train at the same time.")
    ] = None,
    device: Annotated[str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of everything public that is random.")] = 0,
    repeat: Annotated[int, typer.Option("--repeat", min=1, help="Run with so many seeds and average.")] = 1,
    no_dp: Annotated[
        bool, typer.Option("--no-dp", help="No clipping, no noise: what privacy costs.")
    ] = False,
    mechanism: Annotated[
        Mechanism | None, typer.Option("--mechanism", help="Another privacy mechanism.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", help="Another promise, at the agreement's δ.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Another learning rate of the members' steps.")
    ] = None,
    baseline: Annotated[Baseline | None, typer.Option("--baseline", help="What federation costs.")] = None,
    references: Annotated[
        bool, typer.Option("--references", help="Also run without privacy and on pooled data, and compare.")
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Also run pooled data and the other mechanism at the same ε, and compare."
        ),
    ] = False,
    attack: Annotated[
        bool, typer.Option("--attack", help="Also attack the trainer with canaries: a lower bound of ε.")
    ] = False,
    plant_noise: Annotated[
        str | None,
        typer.Option(
            "--plant-noise",
            metavar="GROUP=VALUE:SHARE[:training]",
            help="An experiment: turn this share of one group's labels into others, in all records or in those that train.",
        ),
    ] = None,
    no_mitigation: Annotated[
        bool, typer.Option("--no-mitigation", help="Leave [mitigation] out: what it changes.")
    ] = False,
    override: Annotated[
        list[str] | None,
        typer.Option(
            "--override",
            metavar="CONDITION",
            help="Excuse a condition of the gate that turns out inconclusive; repeat it.",
        ),
    ] = None,
    override_by: Annotated[
        str, typer.Option("--override-by", metavar="NAME,ROLE", help="Who excuses it, and as what.")
    ] = "",
    override_reason: Annotated[str, typer.Option("--override-reason", help="Why.")] = "",
    later: Annotated[
        Path | None,
        typer.Option(
            "--later",
            metavar="DIR",
            help="Have the published model evaluated once more, on the records in this folder; then: hansa model monitor.",
        ),
    ] = None,
    public_texts: Annotated[
        Path | None,
        typer.Option(
            "--public-texts", metavar="FILE", help="Texts that steps of compression may read, one a line."
        ),
    ] = None,
    public_source: Annotated[
        str, typer.Option("--public-source", metavar="TEXT", help="Where they come from, for the model card.")
    ] = "",
    members_home: Annotated[
        Path | None,
        typer.Option("--members-home", help="Folder in which members keep their budgets between runs."),
    ] = None,
    track: TrackOption = None,
    force: ForceOption = False,
    output_format: FormatOption = Format.TEXT,
) -> None:
    """Run a whole federation on this machine and report on it.

    Every member trains with differential privacy on its own data; the coordinator sees sums. Options that change
    the terms (--no-dp, --mechanism, --epsilon, --learning-rate, --no-mitigation, --baseline) make a derived agreement with an id of its own, saved in --out.
    """
    with reported(output_format):
        from hansa.agreement import read_agreement
        from hansa.report import render_text
        from hansa.tracking import trackers_of
        from hansa_simulations import Derivation
        from hansa_simulations import simulate as run
        from hansa_simulations.terminal import TerminalProgress
        from hansa_simulations.tracking import tracked

        read = read_agreement(agreement if agreement is not None else quickstart())
        changes = {"device": device, "processes": processes}
        read = read.with_performance(**{name: value for name, value in changes.items() if value is not None})
        if plant_noise is not None:
            read = with_planted(read, plant_noise)
        overrides = _overrides(override or [], override_by, override_reason)
        corpus = None
        if public_texts is not None:
            from hansa_server.publication.compress import PublicCorpus

            corpus = PublicCorpus.read(public_texts, public_source)
        derivation = Derivation(
            no_dp=no_dp,
            mechanism=None if mechanism is None else mechanism.value,
            baseline=None if baseline is None else baseline.value,
            epsilon=epsilon,
            learning_rate=learning_rate,
            no_mitigation=no_mitigation,
        )
        trackers = trackers_of(track or ())
        stop = threading.Event()
        with TerminalProgress() as progress, _stopping_gently(stop):
            report = run(
                read,
                data=data,
                derivation=derivation,
                engine=engine.value,
                seed=seed,
                repeat=repeat,
                references=references,
                compare=compare,
                attack=attack,
                overrides=overrides,
                later=later,
                corpus=corpus,
                members_home=members_home,
                out=out,
                force=force,
                progress=progress,
                stop=stop,
            )
        for tracker in trackers:
            tracker.write(tracked(report))
        shown = render_text(
            report, width=shutil.get_terminal_size((110, 24)).columns, colour=sys.stdout.isatty()
        )
        text = shown if out is None else f"{shown}\nWritten to {out}; open {out / 'report.html'} first."
        status = status_of(report)
        emit(report.model_dump(mode="json"), text=text, output_format=output_format, status=status)
    raise typer.Exit(status)


def _overrides(conditions: list[str], by: str, reason: str) -> list[OverrideAsked]:
    from hansa_simulations.settings import OverrideAsked

    name, _, role = (part.strip() for part in by.partition(","))
    if conditions and not (name and role and reason.strip()):
        raise UsageError(
            "an override names a person, a role and a reason",
            remedy="Pass --override-by 'NAME, ROLE' and --override-reason TEXT.",
        )
    return [OverrideAsked(condition, name, role, reason.strip()) for condition in conditions]


def with_planted(agreement: Agreement, asked: str) -> Agreement:
    """The agreement with noise in one group's labels; the data are of this machine, and in no hash."""
    from hansa.agreement.local import PlantedNoise

    group, _, share = asked.removesuffix(":training").rpartition(":")
    attribute, _, value = group.partition("=")
    known = {f"{one.name}={v}" for one in agreement.terms.data.groups for v in one.values}
    try:
        noise = PlantedNoise(
            attribute=attribute,
            value=value,
            share=float(share),
            where="training" if asked.endswith(":training") else "all",
        )
    except ValueError:
        noise = None
    if noise is None or group not in known:
        raise UsageError(
            f"--plant-noise {asked!r} names no group and share",
            remedy=f"Write one of {', '.join(sorted(known)) or 'the groups that the agreement lacks'}, a colon, and a share up to 1.",
        )
    if agreement.simulation is None:
        raise UsageError("the agreement has no [simulation], and so no data to plant anything in")
    return replace(agreement, simulation=agreement.simulation.model_copy(update={"planted": noise}))


@contextmanager
def _stopping_gently(stop: threading.Event) -> Iterator[None]:
    """The first Ctrl-C ends the run after the round in hand, the second at once.

    An exception raised by a signal can be lost where Python has nobody to give it to (callbacks from C, finalizers);
    a flag that is looked at between rounds cannot.
    """

    def ask(_signal: int, _frame: object) -> None:
        stop.set()
        signal.signal(signal.SIGINT, before)
        typer.echo("Stopping after this round, with a partial report. Ctrl-C again stops at once.", err=True)

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def quickstart() -> Path:
    """The agreement that runs when none is named."""
    return Path(str(files("hansa_simulations") / "quickstart.toml"))


def status_of(report: Report) -> ExitStatus:
    """How a run ended, for the shell.

    0 for one that finished, 6 where the gate refused its model, 3 where a rule stopped it, 1 where a person did or a machine failed, where
    what follows training failed, or where an attack contradicts its ε.
    """
    if report.attack is not None and report.attack.contradicts:
        return ExitStatus.FAILED
    if report.status == "done" and report.publication is not None:
        return {"refused": ExitStatus.NOT_PUBLISHED, "failed": ExitStatus.FAILED}.get(
            report.publication.status, ExitStatus.DONE
        )
    if report.status == "done":
        return ExitStatus.DONE
    return ExitStatus.REFUSED if report.stopped_by == "rule" else ExitStatus.FAILED
