"""What a round costs between machines: a SuperLink and five nodes as processes, over TLS and with node keys.

Members train nothing, and all else is real: homes, signatures, ledgers, the federation's log, the secure sum, the journal. An
exchange that carries as many numbers there and back over the same connections, and does nothing with them, is measured
in the same run.
"""

from __future__ import annotations

import json
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hansa.errors import EngineError
from hansa.identity import COORDINATOR
from hansa_server.coordinating import links_of
from hansa_server.runs import ENDED
from hansa_server.sqlite_journal import journal_size
from hansa_server.supervising import control_of, environment, superlink_command
from hansa_simulations.bench.figures import Bench, Figure, describe_machine
from hansa_simulations.bench.league_soak import Soak, soak
from hansa_simulations.processes.league import ProcessLeague, terms
from hansa_simulations.processes.watching import PeakMemory

NAMES = ("north", "south", "east", "west", "harbour")
ROUNDS, NOOPS = 4, 2
ROUND_GOALS_S = {"10m": 10.0, "100k": 4.5}
OVER_NOOP_GOAL, RECOVERY_GOAL_S, MEMORY_GOAL_BYTES = 1.5, 15.0, 1.2e9
_WIDTHS = {
    "10k": (28, 2, 4),
    "100k": (80, 2, 4),
    "10m": (648, 3, 8),
    "25m": (1020, 3, 10),
    "100m": (1020, 12, 10),
}
_STARTS_WITHIN_S, _RUNS_WITHIN_S = 120.0, 3600.0


@dataclass
class Measured:
    """Of one league.

    Attributes:
        entries: of its model.
        rounds: seconds of each, the first left out, which also prepares.
        noops: seconds of each exchange that does nothing.
        exchanges: seconds of each of the run's.
        peak_bytes: of the SuperLink and the run's process together, above what they had before the first exchange.
        link_bytes, run_bytes: likewise of each of the two, which need not have its most when the other has.
    """

    entries: int
    rounds: list[float] = field(default_factory=list)
    noops: list[float] = field(default_factory=list)
    exchanges: list[float] = field(default_factory=list)
    peak_bytes: int = 0
    link_bytes: int = 0
    run_bytes: int = 0


def measure_league(
    *,
    sizes: Sequence[str] = ("100k", "10m"),
    memory: str | None = "25m",
    recovery: bool = True,
    soak_rounds: int = 0,
    rounds: int = ROUNDS,
    folder: Path | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure leagues on this machine.

    Args:
        sizes: of the models whose rounds are timed: keys of a list of models.
        memory: of the model whose peak memory is read; `None` for none.
        recovery: whether also a coordinator is killed.
        soak_rounds: of a league whose memory is followed over a run; 0 for none.
        rounds: of a run that is timed.
        folder: on which disk; by default that of temporary files.
        progress: told what is measured next.

    Raises:
        EngineError: a league could not be made, or its run did not end as agreed.
    """
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="hansa-league-") as name:
        for size in sizes:
            progress(f"rounds of {len(NAMES)} members, {size} weights")
            figures += figures_of_rounds(size, timed(Path(name) / size, size, rounds, NOOPS))
        if memory is not None:
            progress(f"memory, {memory} weights")
            found = timed(Path(name) / f"memory-{memory}", memory, 2, 0)
            figures += figures_of_memory(memory, found)
        if recovery:
            progress("a coordinator that is killed")
            seconds = recovered(Path(name) / "recovery")
            what = "from the restart of a killed coordinator to the next exchange"
            figures.append(Figure("recovery_s", what, (seconds,), RECOVERY_GOAL_S))
        if soak_rounds:
            progress(f"{soak_rounds} rounds")
            with started(Path(name) / "soak", "10k", soak_rounds) as league:
                figures += _soak_figures(soak(league, soak_rounds), soak_rounds)
    return Bench(
        title=f"a league of {len(NAMES)} nodes on this machine, over TLS and with node keys",
        settings={"members": len(NAMES), "rounds": rounds, "sizes": ", ".join(sizes), "soak": soak_rounds},
        figures=tuple(figures),
        ratios=(),
        notes=(
            "Members train nothing; ledgers, the federation's log, signatures, the secure sum and the coordinator's journal are real.",
            "A round is what passes between two finished ones, the first left out: three exchanges, the next round's keys among "
            "them. An exchange that does nothing carries as many 32-bit numbers there and back, to and from everybody.",
            "All parties share the processors and the disk of one machine, which they would not.",
            "Memory is what the system counts as resident, pages of mapped files among it, above what the two had before.",
        ),
        machine=describe_machine(),
    )


def figures_of_rounds(size: str, found: Measured) -> list[Figure]:
    """A round, an exchange that does nothing, and the one divided by three of the other."""
    three = 3 * statistics.median(found.noops)
    goal = ROUND_GOALS_S.get(size)
    over = OVER_NOOP_GOAL if size == "10m" else None
    return [
        Figure(f"round_s_{size}", f"a round, {found.entries:,} weights", tuple(found.rounds), goal),
        Figure(
            f"noop_s_{size}", f"an exchange that does nothing, {found.entries:,} numbers", tuple(found.noops)
        ),
        Figure(
            f"round_over_three_noop_{size}",
            f"a round ÷ three exchanges that do nothing, {size}",
            tuple(seconds / three for seconds in found.rounds),
            over,
            cost=True,
        ),
    ]


def figures_of_memory(size: str, found: Measured) -> list[Figure]:
    """What the two large processes of the coordinator had at most, together and each."""
    over = f"{len(NAMES)}x{size}"
    return [
        Figure(
            f"peak_rss_bytes_{over}",
            f"memory of SuperLink and run together, {found.entries:,} weights",
            (float(found.peak_bytes),),
            MEMORY_GOAL_BYTES,
        ),
        Figure(f"peak_rss_link_bytes_{over}", "of the SuperLink alone", (float(found.link_bytes),)),
        Figure(f"peak_rss_run_bytes_{over}", "of the run's process alone", (float(found.run_bytes),)),
    ]


def _soak_figures(found: Soak, rounds: int) -> list[Figure]:
    rest, slopes = f"the last {rounds - rounds // 3} of {rounds}", found.slopes
    return [
        Figure(
            "memory_slope_bytes_per_round",
            f"growth of the process that grows most a round, {rest}",
            (max(slopes.values()),),
            10_000.0,
        ),
        *(
            Figure(f"memory_slope_{party}_bytes_per_round", f"growth of {party} a round", (value,))
            for party, value in sorted(slopes.items())
        ),
        Figure("soak_round_ms", "a round of 10k weights", tuple(1e3 * s for s in found.seconds)),
        Figure(
            "threads_count",
            f"threads at the end, above round {rounds // 3}",
            (found.more(found.threads),),
            0.0,
        ),
        Figure("descriptors_count", "open files at the end, above it", (found.more(found.descriptors),), 0.0),
    ]


def model_of(size: str) -> str:
    """The section of an agreement's model with about so many weights."""
    width, layers, heads = _WIDTHS[size]
    return f'kind = "tabular-transformer"\nwidth = {width}\nlayers = {layers}\nheads = {heads}'


@contextmanager
def started(
    folder: Path, size: str, rounds: int, *, node_names: Sequence[str] = NAMES
) -> Iterator[ProcessLeague]:
    """A league whose coordinator and nodes run; ended with the context."""
    made = ProcessLeague(folder, tuple(node_names), terms(node_names, rounds, model_of(size)))
    made.enrol()
    try:
        made.start(COORDINATOR, *node_names)
        made.until(lambda: "The league meets" in made.log(COORDINATOR), _STARTS_WITHIN_S)
        yield made
    finally:
        made.end()


def timed(folder: Path, size: str, rounds: int, noops: int) -> Measured:
    """Run a league whose rounds are timed.

    Raises:
        EngineError: it did not end as agreed.
    """
    made = ProcessLeague(folder, NAMES, terms(NAMES, rounds, model_of(size), deadline_s=600.0))
    made.enrol()
    home = made.coordinator
    with (folder / "superlink.log").open("wb") as log:
        link = subprocess.Popen(  # noqa: S603  # this interpreter, and paths of the home
            [*superlink_command(home), "--isolation", "process"],
            env=environment(home),
            stdout=log,
            stderr=log,
        )
        made.processes["superlink"] = link
    try:
        with control_of(home) as control:
            control.wait(time.monotonic() + _STARTS_WITHIN_S)
            control.admit(links_of(home))
        made.start(*NAMES)
        entries = home.agreement.require_frozen().model.parameters
        return _carried(made, link.pid, entries, noops)
    finally:
        made.end()


def _carried(made: ProcessLeague, link: int, entries: int, noops: int) -> Measured:
    found, state, note = Measured(entries), "", ""
    serving = subprocess.Popen(  # noqa: S603  # likewise
        [sys.executable, "-m", "hansa_simulations.processes.serving", str(made.home(COORDINATOR)), str(entries), str(noops)],
        env=environment(made.coordinator), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=(made.folder / "serving.log").open("wb"), text=True,
    )  # fmt: skip
    made.processes["serving"] = serving  # type: ignore[assignment]
    if serving.stdin is None or serving.stdout is None:
        raise EngineError("a process of a run has no pipes")
    peak = PeakMemory(lambda: (link, serving.pid))
    idle: dict[int, int] = {}
    with peak:
        for line in serving.stdout:
            told: dict[str, Any] = json.loads(line)
            if "idle" in told:
                idle = peak.now_of_each()
                serving.stdin.write("\n")
                serving.stdin.flush()
            found.noops += told.get("noop_s", [])
            if "exchange_s" in told:
                found.exchanges.append(told["exchange_s"])
            if told.get("round", 0) > 1:
                found.rounds.append(told["seconds"])
            state, note = told.get("state", state), told.get("note", note)
    serving.wait()
    found.peak_bytes = peak.bytes - sum(idle.values())
    found.link_bytes, found.run_bytes = (peak.of_each[pid] - idle[pid] for pid in (link, serving.pid))
    if state != "done":
        log = (made.folder / "serving.log").read_text(errors="replace")[-2000:]
        raise EngineError(f"the run of a bench ended as {state!r}: {note}\n{log}")
    return found


def recovered(folder: Path, names: Sequence[str] = NAMES) -> float:
    """Seconds from the restart of a coordinator that was killed with all its processes to the next exchange of its run.

    Raises:
        EngineError: it does not come.
    """
    with started(folder, "10k", 40, node_names=names) as made:
        made.run("start")
        made.until(lambda: made.row().round >= 2)
        made.kill_all(COORDINATOR)
        run = made.coordinator.runs / made.row().run
        before = journal_size(run)
        began = time.monotonic()
        made.start(COORDINATOR)
        made.until(lambda: made.run("resume"), _STARTS_WITHIN_S)
        made.until(lambda: journal_size(run) > before, _STARTS_WITHIN_S)
        seconds = time.monotonic() - began
        if made.row().state in ENDED:
            raise EngineError(f"the run of a bench is {made.row().state}")
        made.processes[COORDINATOR].send_signal(signal.SIGTERM)
        return seconds
