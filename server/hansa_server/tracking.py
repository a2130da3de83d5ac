"""Where the figures of a league's run go when it ends: kept with the run, so that whoever carries it on finds them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from hansa.agreement import Agreement
from hansa.errors import LinkError
from hansa.identity.files import replace_file
from hansa.privacy.accountant import epsilon_spent
from hansa.privacy.charges import charges_of
from hansa.tracking import Figure, Tracked, trackers_of
from hansa_server.federation import Outcome

_FILE = "track.json"
_MOST_POINTS = 30  # of ε, each of which composes all rounds so far anew

_LOG = logging.getLogger("hansa.coordinator")


def keep_targets(folder: Path, targets: Sequence[str]) -> None:
    """Have a run's figures go there, in the place of where they were to go before.

    Args:
        folder: of the run.
        targets: see `hansa.tracking.tracker_of`.

    Raises:
        UsageError: one names no tracker; nothing has changed.
        ModuleNotFoundError: the package that one needs is not installed.
    """
    trackers_of(targets)
    replace_file(folder / _FILE, json.dumps([_absolute(target) for target in targets]).encode())


def _absolute(target: str) -> str:
    """The process that writes runs in another folder than the command that says where to."""
    kind, _, where = target.partition(":")
    return f"{kind}:{Path(where).absolute()}" if kind == "tensorboard" else target


def track(folder: Path, agreement: Agreement, run: str, outcome: Outcome) -> None:
    """Write a run's figures where they are to go; where that fails the run's own log says so, and the run is what it was."""
    path = folder / _FILE
    targets = json.loads(path.read_text()) if path.exists() else []
    if not targets:
        return
    made = tracked(agreement, run, outcome)
    for tracker in trackers_of(targets):
        try:
            tracker.write(made)
        except LinkError as error:
            _LOG.warning("the run is not tracked: %(error)s", {"error": error})


def tracked(agreement: Agreement, run: str, outcome: Outcome) -> Tracked:
    """A run of a league for `hansa.tracking`: who was there, what it cost, and ε of a member that was in every sum."""
    return Tracked(
        f"{agreement.terms.task.name}, {run}",
        run,
        (*_rounds(outcome), *_epsilons(agreement, outcome)),
        _terms(agreement),
        outcome.stopped_because is None,
    )


def _rounds(outcome: Outcome) -> Iterator[Figure]:
    for one in outcome.rounds:
        yield Figure("members/present", one.number, len(one.present))
        yield Figure("members/absent", one.number, len(one.absent))
        yield Figure("cost/seconds", one.number, one.seconds)
        yield Figure("cost/upload_bytes", one.number, sum(one.upload_bytes.values()))
        yield Figure("cost/download_bytes", one.number, sum(one.download_bytes.values()))


def _epsilons(agreement: Agreement, outcome: Outcome) -> Iterator[Figure]:
    terms, noise = agreement.terms, agreement.require_frozen().noise_multiplier
    delta = terms.privacy.delta
    if noise is None or delta is None or not outcome.rounds:
        return
    every, begun = -(-len(outcome.rounds) // _MOST_POINTS), 0
    for place, one in enumerate(outcome.rounds, 1):
        begun += 1 if one.sum is None else len(one.sum.rounds)
        if place % every and place != len(outcome.rounds):
            continue
        (charge,) = charges_of(terms, noise, rounds=begun, retries=0)
        yield Figure("privacy/epsilon", one.number, epsilon_spent([charge.against(None)], delta))


def _terms(agreement: Agreement) -> dict[str, str]:
    terms, frozen = agreement.terms, agreement.require_frozen()
    found = {
        "agreement_id": agreement.agreement_id, "mechanism": terms.privacy.mechanism,
        "rounds_planned": terms.training.rounds, "sampling_rate": terms.privacy.sampling_rate,
        "noise_multiplier": frozen.noise_multiplier, "clipping_norm": terms.privacy.clipping_norm,
        "parameters": frozen.model.parameters, "members": len(terms.members),
    }  # fmt: skip
    return {name: str(value) for name, value in found.items() if value is not None}
