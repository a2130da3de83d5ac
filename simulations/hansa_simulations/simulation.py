"""`simulate`: an agreement in, a federation trained through Flower on this machine, a report out."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from hansa.agreement import Agreement, read_agreement
from hansa.agreement.publication_rules import reads_public_texts
from hansa.errors import DataSourceError, OutputExistsError, UsageError
from hansa.models import BuiltModel, build_model
from hansa.privacy.adaptation import adaptation_of
from hansa.report import Reference, Repeat, Report, write_report
from hansa.report.mitigated import WITHOUT
from hansa_client.data import Dataset, encode
from hansa_client.training import engine_for
from hansa_server.publication.compress import PublicCorpus
from hansa_server.publication.judged import require_exportable
from hansa_simulations.assembly import Measured, Run, assemble
from hansa_simulations.derived import (
    Derivation,
    alone,
    pooled,
    under,
    without_mitigation,
    without_privacy,
)
from hansa_simulations.evaluation import Evaluator
from hansa_simulations.models import built_from
from hansa_simulations.quality import mean_quality
from hansa_simulations.settings import Clock, OverrideAsked, Progress, Settings
from hansa_simulations.splits import load_members
from hansa_simulations.splits.planted import planted
from hansa_simulations.training import frozen_for, train_members
from hansa_simulations.warm_start import warm_start

Vector: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MemberData:
    """One simulated member's records.

    Attributes:
        train: what it trains on.
        test: what the simulator keeps to measure quality, outside the protocol.
    """

    train: Dataset
    test: Dataset


@dataclass(frozen=True)
class Simulated:
    """One finished run.

    Attributes:
        report: what is shown.
        agreement: that it ran under, frozen.
        weights: float64 [d], of the final model; absent for ``local-only``, which has one model per member.
        built: the model's form.
    """

    report: Report
    agreement: Agreement
    weights: Vector | None
    built: BuiltModel


def simulate(
    agreement: Agreement | Path | str,
    *,
    data: Path | None = None,
    members: Mapping[str, MemberData] | None = None,
    model: torch.nn.Module | None = None,
    derivation: Derivation = Derivation(),  # noqa: B008  # frozen
    engine: str = "local",
    seed: int = 0,
    repeat: int = 1,
    references: bool = False,
    compare: bool = False,
    attack: bool = False,
    overrides: Sequence[OverrideAsked] = (),
    later: Path | Mapping[str, Dataset] | None = None,
    corpus: PublicCorpus | None = None,
    members_home: Path | None = None,
    out: Path | None = None,
    force: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> Report:
    """Run a federation on this machine.

    Args:
        agreement: an agreement, or the path of one.
        data: folder that the agreement's `[simulation]` paths start from.
        members: data of each member, in place of what `[simulation]` names.
        model: a model of one's own; the agreement's model must be ``custom`` and hold the hash of its source.
        derivation: what to change in the terms.
        engine: ``local`` or ``ray``.
        seed: see `Settings`.
        repeat: runs with the seeds `seed`, `seed` + 1, …; the report holds the last run, and the mean quality.
        references: also train without privacy and on pooled data, to say what federation and privacy each cost.
        compare: also run what the other mechanism and pooled data reach at the same ε and δ, with every seed.
        attack: also attack the members' trainer with canaries that are nobody's data, and report what that shows.
        overrides: of conditions of the gate that turn out inconclusive, by named persons.
        later: records by member on which a published model is evaluated once more, or a folder that is read as `data` is.
        corpus: public texts, for steps of compression that read texts.
        members_home: folder in which members keep their budgets between runs.
        out: folder to write `report.json`, `report.html`, `model.safetensors`, `agreement.toml` and, where privacy is
            claimed, `ledgers` to; where the agreement publishes, also `publication` or `refusal.json`.
        force: replace what `out` holds.
        progress: told what is done.
        stop: once it is set, the run ends after the round in hand, with a partial report.

    Raises:
        HansaError: see `hansa.errors`; nothing is written to `out` unless the run took place.
    """
    original = agreement if isinstance(agreement, Agreement) else read_agreement(Path(agreement))
    if out is not None:
        check_output(out, force=force)
    terms = original.terms
    if corpus is None and terms.published and reads_public_texts(terms.publication, terms.data):
        raise UsageError(
            "steps of publication.compress read public texts, and none are named",
            remedy="Pass --public-texts FILE, one text a line, and --public-source TEXT.",
        )
    if repeat < 1:
        raise UsageError("--repeat needs at least one run")
    ledgers = None if out is None else out / LEDGERS
    settings = Settings(
        engine,
        seed,
        members_home,
        ledgers,
        attack=attack,
        overrides=tuple(overrides),
        corpus=corpus,
        progress=progress or Progress(),
        stop=stop or threading.Event(),
    )
    finished: list[Simulated] = []
    for number in range(repeat):
        one = replace(settings, seed=seed + number)
        with_references = references and number == 0
        last = number == repeat - 1  # the report is that of the last run
        one = replace(one, attack=attack and last, concluding=last, published=out if last else None)
        try:
            finished.append(
                _run(
                    original, derivation, data, members, model, one,
                    references=with_references, compare=compare, later=later if last else None,
                )
            )  # fmt: skip
        except KeyboardInterrupt:
            if not finished:
                raise
            break
        if finished[-1].report.status == "partial" or settings.stop.is_set():
            break
    result = _averaged(finished)
    if out is not None:
        write_output(result, out)
    return result.report


LEDGERS = "ledgers"  # folder of the logs, as an auditor gets them
_WRITTEN = ("report.json", "report.html", "agreement.toml", "model.safetensors")


def check_output(out: Path, *, force: bool) -> None:
    """Look before a run at what would only fail after it.

    Raises:
        OutputExistsError: `out` holds a run already, and `force` is not given.
        UsageError: `out` is no folder, or cannot be written to.
    """
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder", remedy="Choose another --out.")
    if not force and out.exists() and any(out.iterdir()):
        raise OutputExistsError(f"{out} is not empty")
    there = next(folder for folder in (out, *out.absolute().parents) if folder.exists())
    if not os.access(there, os.W_OK | os.X_OK):
        raise UsageError(f"{there} cannot be written to", remedy="Choose another --out.")


def write_output(result: Simulated, out: Path) -> None:
    """Write a run's report, agreement and model."""
    from hansa.agreement.writing import agreement_toml

    out.mkdir(parents=True, exist_ok=True)
    for name in _WRITTEN:
        (out / name).unlink(missing_ok=True)  # nothing of an earlier run stays beside this one
    write_report(result.report, out)
    (out / "agreement.toml").write_text(agreement_toml(result.agreement), encoding="utf-8")
    if result.weights is not None:
        metadata = {"agreement_id": result.report.agreement_id, "model_sha256": result.report.model_sha256}
        result.built.save(out / "model.safetensors", result.weights, metadata)


def _run(
    original: Agreement,
    derivation: Derivation,
    data: Path | None,
    members: Mapping[str, MemberData] | None,
    model: torch.nn.Module | None,
    settings: Settings,
    *,
    references: bool,
    compare: bool,
    later: Path | Mapping[str, Dataset] | None,
) -> Simulated:
    clock = Clock(settings.progress)
    agreement = derivation.apply(original)
    _refuse(agreement, settings, model)
    if later is not None:
        _refuse_later(agreement, settings, from_files=isinstance(later, Path))
    if compare and (not agreement.terms.private or agreement.terms.baseline is not None):
        raise UsageError(
            "mechanisms are compared at one ε: a federation that claims privacy is needed",
            remedy="Leave --compare out, or --no-dp and --baseline.",
        )
    others = _mechanisms(agreement) if compare else []
    others += [one for one in _references(agreement) if one[0] not in dict(others)] if references else []
    with clock.part("building the model"):
        built = _built(agreement, model)
        require_exportable(agreement.terms, built)
    with clock.part("reading data"):
        held = members or _load(original, data, settings.seed, built)
        _check_members(original, held)
        settings = replace(settings, later=_later(original, later, settings.seed, built))
        evaluator = Evaluator(agreement.terms, built, {name: member.test for name, member in held.items()})
    with clock.part("public warm start"):
        start = warm_start(original, built, settings.progress.steps)
        gradients = engine_for(built, agreement.performance)
    train = {name: member.train for name, member in held.items()}
    together = {"pooled": Dataset.concat(list(train.values()))}
    weights: Vector | None
    if agreement.terms.baseline == "local-only":
        parts: list[Run] = []
        for name, records in train.items():
            parts.append(
                train_members(alone(agreement, name), {name: records}, gradients, start, settings, clock)
            )
            if parts[-1].stopped_because is not None:
                break
        run = Run.together(frozen_for(agreement, built, start), parts)
        models = {part.only_member: part.weights for part in parts}
        quality, weights = evaluator.quality_of_each({name: models.get(name, start) for name in train}), None
    else:
        used = together if agreement.terms.baseline == "pooled" else train
        own_files = {
            name: member.test for name, member in held.items()
        }  # where each judges on records of its own
        run = train_members(agreement, used, gradients, start, settings, clock, evaluator, own_files)
        weights = run.weights
        with clock.part("measuring"):
            quality = evaluator.quality(weights)
    compared: list[Reference] = []
    if run.stopped_because is None:
        apart = replace(
            settings, home=None, ledgers=None, attack=False, published=None, concluding=False, later=None
        )  # a comparison spends nothing of what members keep
        for kind, other in others:
            if settings.stop.is_set():
                break
            used = together if other.terms.baseline == "pooled" else train
            try:
                reference = train_members(other, used, gradients, start, apart, clock)
            except KeyboardInterrupt:
                break
            if reference.stopped_because is not None:
                break
            compared.append(
                Reference(
                    kind=kind,
                    agreement_id=reference.agreement.agreement_id,
                    quality=evaluator.quality(reference.weights),
                )
            )
    with clock.part("accounting"):
        measured = Measured(
            quality,
            evaluator.quality(start),
            tuple(compared),
            clock.total(),
            clock.seconds,
            _in_no_group(held),
        )
        report = assemble(original, run, derivation.changes(), measured, settings.engine, settings.seed)
    return Simulated(report, run.agreement, weights, built)


def _built(agreement: Agreement, model: torch.nn.Module | None) -> BuiltModel:
    device = agreement.performance.device
    if model is not None:
        return built_from(model, agreement.terms, device)
    return build_model(agreement.terms, folder=agreement.folder, device=device)


def _load(agreement: Agreement, data: Path | None, seed: int, built: BuiltModel) -> dict[str, MemberData]:
    records, terms = load_members(agreement, data, seed), agreement.terms
    noise = None if agreement.simulation is None else agreement.simulation.planted
    found = {}
    for place, (name, held) in enumerate(records.items()):
        sides = (encode(side, terms, built.tokenize) for side in (held.train, held.test))
        found[name] = MemberData(
            *(planted(side, terms, noise, (place, i), trains=False) for i, side in enumerate(sides))
        )
    return found


def _in_no_group(held: Mapping[str, MemberData]) -> tuple[str, ...]:
    """What a reader must know of records whose group the agreement does not name."""
    found = []
    for name, member in held.items():
        sides = [side for side in (member.train, member.test) if len(side)]
        for attribute in sides[0].groups if sides else ():
            places = np.concatenate([side.groups[attribute] for side in sides])
            if lost := int((places < 0).sum()):
                found.append(
                    f"{lost:,} of {len(places):,} records of {name} have no value of {attribute} that the agreement names: "
                    "they count among all, and in no group. `hansa node check` says why."
                )
    return tuple(found)


def _later(
    agreement: Agreement, later: Path | Mapping[str, Dataset] | None, seed: int, built: BuiltModel
) -> Mapping[str, Dataset] | None:
    """All of each member's later records, whichever side they would be on in another run."""
    if isinstance(later, Path):
        if not later.is_dir():
            raise DataSourceError(
                f"{later} is not a folder", remedy="Pass --later DIR, the folder that holds the newer files."
            )
        held = _load(agreement, later, seed, built)
        later = {name: Dataset.concat([one.train, one.test]) for name, one in held.items()}
    if later is not None:
        _check_members(agreement, later)
    return later


def _check_members(agreement: Agreement, held: Mapping[str, object]) -> None:
    names = {member.name for member in agreement.terms.members}
    if set(held) != names:
        wrong = ", ".join(sorted(names ^ set(held)))
        raise UsageError(f"data and agreement name different members: {wrong}")


def _references(agreement: Agreement) -> list[tuple[str, Agreement]]:
    """What a run is compared with, each without one constraint or both."""
    found = []
    if agreement.terms.baseline is None:
        found.append(("pooled, same privacy" if agreement.terms.private else "pooled", pooled(agreement)))
    if agreement.terms.mitigation is not None:
        found.append((WITHOUT, without_mitigation(agreement)))
    if agreement.terms.private:
        found.append(("federated, no privacy", without_privacy(agreement)))
        if agreement.terms.baseline is None:
            found.append(("pooled, no privacy", without_privacy(pooled(agreement))))
    return found


def _mechanisms(agreement: Agreement) -> list[tuple[str, Agreement]]:
    """The same promise on pooled data, and kept by the other mechanism.

    Raises:
        AgreementError: the terms do not allow distributed noise.
    """
    other = "local" if agreement.terms.privacy.mechanism == "distributed" else "distributed"
    return [
        ("pooled, same privacy", pooled(agreement)),
        (f"federated, {other} noise", under(agreement, other)),
    ]


def _refuse(agreement: Agreement, settings: Settings, model: torch.nn.Module | None) -> None:
    """Refuse, before anything is read or built, what a run cannot keep its word about."""
    if settings.attack and (not agreement.terms.private or agreement.terms.baseline is not None):
        raise UsageError(
            "only a federation that claims privacy is attacked",
            remedy="Leave --attack out, or --no-dp and --baseline.",
        )
    if settings.attack and agreement.terms.privacy.sampling != "poisson":
        raise UsageError(
            f"attacks know nothing of batches that are drawn as {agreement.terms.privacy.sampling!r}",
            remedy="Leave --attack out, or agree on sampling = 'poisson'.",
        )
    if settings.attack and adaptation_of(agreement.terms) is not None:
        raise UsageError(
            "attacks know nothing of what adapts to noisy sums under this agreement ([mitigation])",
            remedy="Leave --attack out, or pass --no-mitigation beside it.",
        )
    if settings.home is not None and not agreement.terms.private:
        raise UsageError(
            "members that keep a budget take part in no run without privacy",
            remedy="Leave --members-home out, or --no-dp.",
        )
    if model is not None and (settings.engine != "local" or agreement.performance.processes > 1):
        raise UsageError(
            "a model that is handed over as an object stays in its process",
            remedy="Use the local engine with one process, or register the model as an entry point.",
        )


def _refuse_later(agreement: Agreement, settings: Settings, *, from_files: bool) -> None:
    """Refuse a later evaluation that could not take place, before anything is trained."""
    evaluation = agreement.terms.evaluation
    if evaluation is None or not agreement.terms.published or evaluation.evaluations < 2:
        raise UsageError(
            "an evaluation on later records is of a published model, under an agreement that allows it a second one",
            remedy="Agree on [publication] and evaluation.evaluations = 2 or more, before training; or leave --later out.",
        )
    simulation = agreement.simulation
    if from_files and simulation is not None and simulation.partition.kind == "generated":
        raise UsageError(
            "generated records have no later ones, and no folder is read",
            remedy="Use an agreement whose [simulation] reads files, or leave --later out.",
        )
    if evaluation.units != "held-out":
        raise UsageError(
            "simulated members have no second file of their own for later records",
            remedy="Agree on evaluation.units = 'held-out', or leave --later out.",
        )
    if settings.engine != "local" or agreement.performance.processes > 1:
        raise UsageError(
            "later records are evaluated by members that stay in one process",
            remedy="Use the local engine with one process, or leave --later out.",
        )


def _averaged(runs: list[Simulated]) -> Simulated:
    """The last run that finished, with the mean quality of all that did and a row for each.

    ε, members, curves and model are the last run's; every run spent as much.
    """
    done = [run for run in runs if run.report.status == "done"]
    if len(done) < 2:
        return (done or runs)[-1]
    last, runs = done[-1], done
    rows = tuple(
        Repeat(
            seed=r.report.seed,
            pooled=r.report.quality.pooled,
            mean_over_members=r.report.quality.mean_over_members,
        )
        for r in runs
    )
    report = last.report.model_copy(
        update={
            "quality": mean_quality([r.report.quality for r in runs]),
            "repeats": rows,
            "references": _mean_references([run.report.references for run in runs]),
            "seconds": sum(r.report.seconds for r in runs),
        }
    )
    return replace(last, report=report)


def _mean_references(found: list[tuple[Reference, ...]]) -> tuple[Reference, ...]:
    """Each reference with its mean quality over the runs that have it: all of them, or the first."""
    return tuple(
        first.model_copy(
            update={
                "quality": mean_quality(
                    [one.quality for references in found for one in references if one.kind == first.kind]
                )
            }
        )
        for first in found[0]
    )
