"""One training of a simulation: an agreement is frozen and its federation, or its baseline, is run."""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hansa.agreement import Agreement
from hansa.agreement.freezing import freeze_with
from hansa.errors import AgreementError, Problem
from hansa.models import BuiltModel
from hansa.report import Quality
from hansa.server_step import published_weights
from hansa_client.attack import attack_gradients
from hansa_client.data import Dataset
from hansa_client.evaluation.units import parted
from hansa_client.training.gradients import GradientEngine
from hansa_server.evaluating import Evaluations
from hansa_server.federation import Outcome, run_federation
from hansa_server.journal import InMemoryJournal
from hansa_server.members import Members
from hansa_server.summation import SecureSummation, Summation
from hansa_simulations.assembly import Run
from hansa_simulations.baseline import PlainSummation
from hansa_simulations.ending import Ending
from hansa_simulations.engines import engine_named
from hansa_simulations.evaluation import Evaluator
from hansa_simulations.fairness import told_of
from hansa_simulations.league import TrainingLeague
from hansa_simulations.ledgers import require_ledgers
from hansa_simulations.refusals import budget_refusals
from hansa_simulations.seat import Seat
from hansa_simulations.settings import Clock, Settings
from hansa_simulations.splits.planted import planted

CANARIES = 10_000  # of an attack beside a simulation

Vector: TypeAlias = npt.NDArray[np.float64]


def train_members(
    agreement: Agreement,
    train: Mapping[str, Dataset],
    gradients: GradientEngine,
    start: Vector,
    settings: Settings,
    clock: Clock,
    evaluator: Evaluator | None = None,
    own_files: Mapping[str, Dataset] | None = None,
) -> Run:
    """Freeze the agreement and run its federation; measure on the way if there is something to measure with.

    Args:
        own_files: evaluation records by member, for agreements under which each has a file of its own.
    """
    with clock.part("calibrating noise"):
        agreement = frozen_for(agreement, gradients.built, start)
    terms, every = agreement.terms, agreement.performance.evaluate_every
    parts = {name: parted(terms, held, (own_files or {}).get(name)) for name, held in train.items()}
    noise = None if agreement.simulation is None else agreement.simulation.planted
    train = {
        name: planted(part.training, terms, noise, (place, 0), trains=True)
        for place, (name, part) in enumerate(parts.items())
    }
    judging = {name: part.evaluation for name, part in parts.items()}
    history: list[tuple[int, Quality]] = []
    finished: list[Outcome] = []
    adapted: list[tuple[float, ...]] = []

    def after_round(outcome: Outcome) -> None:
        if outcome.state.adapted is not None:
            adapted.append(tuple(outcome.state.adapted.tolist()))
        done = outcome.state.round
        settings.progress.steps(done, terms.training.rounds)
        if evaluator is not None and every and (done % every == 0 or done == terms.training.rounds):
            with clock.part("measuring", told=False):
                history.append((done, evaluator.quality(published_weights(outcome.state))))
        if settings.stop.is_set() and done < terms.training.rounds:
            raise KeyboardInterrupt

    run = f"{agreement.agreement_id[:16]}-{secrets.token_hex(8)}"
    with ExitStack() as stack, clock.part("training"):
        home = settings.home
        engine = engine_named(settings.engine, agreement.performance.processes)
        if home is None and (engine.name != "local" or agreement.performance.processes > 1):
            # members answer in other processes: what they spent is read from files when they are done
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hansa-members-")))
        timings = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hansa-timings-")))
        if settings.home is not None:
            require_ledgers(settings.home, list(train))
        seat = None if terms.baseline else Seat.taken(agreement, run, settings.home)
        sums = None if seat is None else seat.sums(start, roaming=engine.name != "local")
        league = TrainingLeague(agreement, train, settings.seed, home, timings, gradients, sums, judging)
        stack.callback(league.close)

        ending = Ending(gradients.built, settings, clock)

        def coordinate(members: Members) -> None:
            journal = InMemoryJournal(keep=1)  # nobody calls this run again
            summation: Summation
            conclude = None
            if seat is None:
                summation = PlainSummation(agreement, members, journal, run)
            else:
                house = seat.house()
                summation = secure = SecureSummation(agreement, members, journal, run, house)
                if terms.evaluation is not None and settings.concluding:
                    conclude = ending.of(seat, house, Evaluations(agreement, run, secure), members, journal)
            finished.append(
                run_federation(
                    agreement,
                    start,
                    members,
                    journal,
                    run=run,
                    summation=summation,
                    after_round=after_round,
                    conclude=conclude,
                    resumable=False,
                )
            )
            if settings.later is not None and seat is not None:
                league.judge_on(
                    {name: parted(terms, held).evaluation for name, held in settings.later.items()}
                )
                ending.evaluate_later(seat, house, members)

        engine.run(agreement, league, run, coordinate)
        if seat is not None and terms.private:
            for name, why in budget_refusals(agreement, league, finished[0], run):
                settings.progress.refused(name, why)
        attack = None
        if settings.attack and finished[0].stopped_because is None:
            with clock.part("attacking the trainer"):
                # members differ in the divisor alone, which is no matter of privacy: one attack stands for all
                attack = attack_gradients(
                    agreement,
                    terms.members[0].name,
                    CANARIES,
                    seed=settings.seed,
                    progress=settings.progress.steps,
                )
            league.record_attack(attack)
        budgets = {name: league.budget(name) for name in train}
        train_seconds = league.train_seconds()
        told = [
            (one, {name: league.evaluation_spent(name, one.run) for name in train}) for one in ending.told
        ]
        if settings.ledgers is not None:
            shutil.rmtree(
                settings.ledgers, ignore_errors=True
            )  # nothing of an earlier run stays beside this one
            if seat is not None and terms.private:
                seat.export(league, settings.ledgers)
    outcome = finished[0]
    return Run(
        agreement=agreement,
        outcomes=(outcome,),
        weights=published_weights(outcome.state),
        history=tuple(history),
        adapted=tuple(adapted),
        budgets=budgets,
        train_seconds=train_seconds,
        attack=attack,
        fairness=told_of(agreement, told, outcome, ending.not_later),
        conclusion=ending.conclusion,
        not_concluded=outcome.not_concluded,
    )


def frozen_for(agreement: Agreement, built: BuiltModel, start: Vector) -> Agreement:
    """The agreement with model 0 fixed; one that is frozen already must be about this very model.

    Raises:
        AgreementError: it was frozen with another model.
    """
    new = freeze_with(replace(agreement, frozen=None), built, start)
    if agreement.frozen is None:
        return new
    there, here = agreement.frozen.model, new.require_frozen().model
    problems = [
        Problem(
            f"frozen.model.{name}",
            "is not that of the model built here",
            "use the same releases, or freeze anew",
        )
        for name in type(here).model_fields
        if getattr(there, name) != getattr(here, name)
    ]
    if problems:
        raise AgreementError("the agreement was frozen with another model", problems)
    return agreement
