"""Many rounds of one run: whether memory, threads and open files of its processes grow with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from hansa.errors import EngineError
from hansa_server.runs import ENDED
from hansa_simulations.processes.league import ProcessLeague
from hansa_simulations.processes.watching import (
    children,
    descriptor_count,
    resident_bytes,
    thread_count,
)

_LOOK_S = 0.05


@dataclass
class Soak:
    """What was seen.

    Attributes:
        memory: bytes of each process by its number, after each round.
        seconds: of each round.
        slope_bytes: that the process which grows most has more a round, over the last two thirds, by least squares.
        more_threads, more_descriptors: of all processes after the last round, beyond those after a third.
    """

    memory: dict[int, list[int]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    slope_bytes: float = 0.0
    more_threads: int = 0
    more_descriptors: int = 0


def soak(league: ProcessLeague, rounds: int) -> Soak:
    """Run a league that is up for so many rounds, and look at its processes after each.

    Raises:
        EngineError: the run did not end as agreed.
    """
    found, at, seen = Soak(), time.monotonic(), 0
    if not league.run("start"):
        raise EngineError("the coordinator takes no run")
    counted: dict[int, tuple[int, int]] = {}
    while True:
        row = league.row()
        if row.round > seen:
            now = time.monotonic()
            found.seconds.append((now - at) / (row.round - seen))
            at, seen = now, row.round
            pids = _everybody(league)
            for pid in pids:
                found.memory.setdefault(pid, []).append(resident_bytes(pid))
            if seen >= rounds // 3 and not counted:
                counted = {pid: (thread_count(pid), descriptor_count(pid)) for pid in pids}
            if seen >= rounds - 1:  # the process of a run goes with its last round
                now_counted = {pid: (thread_count(pid), descriptor_count(pid)) for pid in counted}
                found.more_threads = sum(now_counted[pid][0] - counted[pid][0] for pid in counted)
                found.more_descriptors = sum(now_counted[pid][1] - counted[pid][1] for pid in counted)
                break
        if row.state in ENDED:
            raise EngineError(f"a run of {rounds} rounds is {row.state} after {row.round}: {row.note}")
        time.sleep(_LOOK_S)
    growths = [
        slope(values[len(values) // 3 :]) for values in found.memory.values() if len(values) > seen // 2
    ]
    found.slope_bytes = max(growths)
    return found


def _everybody(league: ProcessLeague) -> list[int]:
    own = [process.pid for process in league.processes.values()]
    return sorted({*own, *(child for pid in own for child in children(pid))})


def slope(values: list[int]) -> float:
    """By how much they grow from one to the next, by least squares."""
    return float(np.polyfit(np.arange(len(values)), np.asarray(values, dtype=np.float64), 1)[0])
