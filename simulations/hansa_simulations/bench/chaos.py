"""Processes of a league are killed at random instants, and what must hold afterwards is looked at.

Nothing here depends on how far anything got: after each kill whoever was killed is started again, a run that ended is followed by
another until all kills were made, and each run is then judged by its logs alone.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hansa.errors import EngineError
from hansa.identity import COORDINATOR
from hansa.wire import Message, array_sha256
from hansa_server.coordinating import coordinate
from hansa_server.home import read_home
from hansa_server.runs import ENDED, Runs
from hansa_simulations.bench.figures import Bench, Figure, describe_machine
from hansa_simulations.processes.league import LINK, PARTS, RUN, ProcessLeague, terms
from hansa_simulations.processes.watching import children, is_there

NAMES = ("north", "south", "east", "west")
ROUNDS = 40
RETRIES = 3  # of the agreement: steps that may be summed again
_STARTS_WITHIN_S, _ENDS_WITHIN_S, _FOUND_WITHIN_S, _GOES_WITHIN_S = 240.0, 1200.0, 240.0, 60.0


@dataclass
class Chaos:
    """What was done.

    Attributes:
        kills: by who was killed: a member, or a part of the coordinator.
        runs: state by run.
        rounds: finished, of all runs.
        seconds: that it took.
    """

    kills: Counter[str] = field(default_factory=Counter)
    runs: dict[str, str] = field(default_factory=dict)
    rounds: int = 0
    seconds: float = 0.0


def measure_chaos(
    kills: int,
    *,
    seed: int = 0,
    rounds: int = ROUNDS,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Kill so many processes at random instants, and judge each run.

    Raises:
        EngineError: a run did not end, or something is wrong afterwards; says what.
    """
    with tempfile.TemporaryDirectory(dir=folder, prefix="hansa-chaos-") as name:
        league = ProcessLeague(Path(name), NAMES, terms(NAMES, rounds))
        league.enrol()
        found = chaos(league, victims(kills, NAMES, seed), progress)
        judge(league, rounds)
    by = [
        Figure(f"killed_{who}_count", f"kills of {who}", (float(n),))
        for who, n in sorted(found.kills.items())
    ]
    return Bench(
        title=f"{kills} kills of processes of a league of {len(NAMES)}, at random instants",
        settings={"kills": kills, "seed": seed, "rounds": rounds},
        figures=(
            *by,
            Figure("runs_done_count", "runs that ended as agreed", (float(_ended(found, "done")),)),
            Figure("runs_partial_count", "runs that a rule ended", (float(_ended(found, "partial")),)),
            Figure("rounds_count", "finished rounds", (float(found.rounds),)),
            Figure("chaos_s", "all of it", (found.seconds,)),
        ),
        ratios=(),
        notes=(
            "Every run ended. Every member's ledger holds each round once, and all that the federation's log says of it; an audit "
            "of all logs found nothing; each model is, to the bit, what the journal of its run gives again.",
        ),
        machine=describe_machine(),
    )


def victims(kills: int, names: Sequence[str], seed: int) -> list[tuple[str, float]]:
    """Who is killed in turn, and how many seconds after the last was back."""
    kinds, chance = ("member", RUN, LINK), random.Random(seed)  # noqa: S311  # instants, no secrets
    chosen = [kinds[number % len(kinds)] for number in range(kills)]
    chance.shuffle(chosen)
    return [
        (chance.choice(list(names)) if who == "member" else who, chance.uniform(0.0, 3.0)) for who in chosen
    ]


def chaos(
    league: ProcessLeague, plan: Sequence[tuple[str, float]], progress: Callable[[str], None] = lambda _: None
) -> Chaos:
    """Start a league, kill by plan, and see each run to its end.

    Args:
        league: enrolled; it is ended with this call.
        plan: who is killed, and after how many seconds. `COORDINATOR` is killed with its SuperLink.
        progress: told of each kill.

    Raises:
        EngineError: a process or a run does not come back.
    """
    found, began = Chaos(), time.monotonic()
    try:
        league.start(COORDINATOR, *league.names)
        league.until(lambda: "The league meets" in league.log(COORDINATOR), _STARTS_WITHIN_S)
        for number, (who, seconds) in enumerate(plan, 1):
            _run_on(league)
            time.sleep(seconds)
            progress(f"kill {number} of {len(plan)}: {who}")
            _kill(league, who)
            found.kills["member" if who in league.names else who] += 1
        _run_on(league)
        league.until(lambda: league.row().state in ENDED, _ENDS_WITHIN_S)
        league.stop()
    finally:
        league.end()
    rows = league.runs.all()
    found.runs = {row.run: row.state for row in rows}
    found.rounds = sum(row.round for row in rows)
    found.seconds = time.monotonic() - began
    return found


def _run_on(league: ProcessLeague) -> None:
    """See that there is a run that has not ended."""
    rows = league.runs.all()
    if rows and rows[0].state not in ENDED:
        return
    league.until(lambda: league.run("start"), _STARTS_WITHIN_S)


def _kill(league: ProcessLeague, who: str) -> None:
    if who in league.names:
        league.kill(who)
        league.start(who)
        return
    if who == COORDINATOR:
        meetings = league.log(COORDINATOR).count("The league meets")
        _kill_with_superlink(league)
        league.start(COORDINATOR)
        league.until(lambda: league.log(COORDINATOR).count("The league meets") > meetings, _STARTS_WITHIN_S)
        if league.row().state not in ENDED:
            league.until(lambda: league.run("resume"), _STARTS_WITHIN_S)
        return
    found: list[int] = []

    def there() -> bool:
        pid = league.part(PARTS[who])
        found[:] = [] if pid is None else [pid]
        if not found and who == RUN:
            _run_on(league)  # it has ended since
        return bool(found)

    league.until(there, _FOUND_WITHIN_S)
    with suppress(ProcessLookupError):  # it has ended by itself just now
        os.kill(found[0], signal.SIGKILL)


def _kill_with_superlink(league: ProcessLeague) -> None:
    """What else the coordinator has started has to go by itself."""
    started, link = children(league.processes[COORDINATOR].pid), league.part(PARTS[LINK])
    league.kill(COORDINATOR)
    if link is not None:
        with suppress(ProcessLookupError):
            os.kill(link, signal.SIGKILL)
    league.until(lambda: not any(map(is_there, started)), _GOES_WITHIN_S)


def judge(league: ProcessLeague, rounds: int) -> None:
    """See what a league has left that runs no more.

    Raises:
        EngineError: a member was charged twice or less than the federation's log says, a run has not ended, an audit finds
            something wrong, or a model is not what its journal gives.
    """
    home = league.coordinator
    summed = [entry for entry in league.entries(COORDINATOR) if entry.type == "aggregate"]
    for name in league.names:
        released = [(entry.run, entry.round) for entry in league.entries(name) if entry.type == "release"]
        twice = [one for one, count in Counter(released).items() if count > 1]
        _require(not twice, f"{name} has put a round on record twice: {twice[:3]}")
        lacking = {(one.run, one.round) for one in summed if name in one.released} - set(released)
        _require(not lacking, f"{name} has no record of {sorted(lacking)[:3]}")
        for run in {run for run, _ in released}:
            most = rounds + RETRIES
            count = sum(one == run for one, _ in released)
            _require(count <= most, f"{name} has worked {count} times in a run of {rounds} rounds")
    ledgers = [str(league.home(name) / "state" / "ledger.sqlite") for name in league.names]
    for row in league.runs.all():
        _require(row.state in ENDED, f"run {row.run} is {row.state}: {row.note}")
        folder = home.runs / row.run
        steps = [one for one in summed if one.run == row.run]
        _require(len(steps) == row.round, f"run {row.run} has {row.round} rounds, and the log {len(steps)}")
        if not steps:
            continue
        keys = str(league.folder / "keys.json")
        league.does(
            [["audit", "verify", str(home.log), str(folder / "rounds.jsonl"), *ledgers, "--keys", keys]]
        )
        model = np.load(folder / "model.npy", allow_pickle=False)
        again = replayed(league, row.run)
        _require(np.array_equal(model, again), f"the model of run {row.run} is not what its journal gives")
        _require(
            steps[-1].model_sha256 == array_sha256(again), f"the log names another model of run {row.run}"
        )


def replayed(league: ProcessLeague, run: str) -> np.ndarray:
    """float64 [d], the model of a run made again from its journal, in a copy of the coordinator's home, with nobody asked."""
    with tempfile.TemporaryDirectory(dir=league.folder, prefix="replay-") as name:
        copy = Path(name) / "home"
        shutil.copytree(league.home(COORDINATOR), copy)
        home = read_home(copy)
        runs = Runs(home.runs)
        runs.tell(run, "running")
        for left in ("model.npy", "state.message"):
            (home.runs / run / left).unlink()
        coordinate(home, runs, run, lambda _: _Nobody())
        again: np.ndarray = np.load(home.runs / run / "model.npy", allow_pickle=False)
        return again


class _Nobody:
    """Members of whom nothing may be asked: all they said is in the journal."""

    def exchange(self, requests: Mapping[str, Message], deadline_s: float) -> Mapping[str, Message]:  # noqa: ARG002  # the port's
        """See `Members.exchange`."""
        raise EngineError(f"a replay asks {', '.join(requests)}, whose answers are not in the journal")


def _ended(found: Chaos, state: str) -> int:
    return sum(one == state for one in found.runs.values())


def _require(holds: bool, otherwise: str) -> None:  # noqa: FBT001  # a condition
    if not holds:
        raise EngineError(f"after kills: {otherwise}")
