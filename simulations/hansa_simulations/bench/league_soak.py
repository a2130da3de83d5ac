"""Many rounds of one run: whether memory, threads and open files of its processes grow with them."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np

from hansa.errors import EngineError
from hansa.identity import COORDINATOR
from hansa_server.runs import ENDED
from hansa_simulations.processes.league import PARTS, ProcessLeague
from hansa_simulations.processes.watching import (
    children,
    command,
    descriptor_count,
    resident_bytes,
    thread_count,
)

_LOOK_S = 0.05
_ROUNDS_COMPARED = 20


@dataclass
class Soak:
    """What was seen after each round.

    Attributes:
        memory: bytes of each party's process.
        threads, descriptors: of all processes together.
        seconds: of each round.
    """

    memory: dict[str, list[int]] = field(default_factory=dict)
    threads: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    @property
    def slopes(self) -> dict[str, float]:
        """By how many bytes each party's process grows a round, over the last two thirds, by least squares.

        A process that was not there from the first third on is left out.
        """
        rounds = len(self.threads)
        return {
            party: slope(values[-(rounds - rounds // 3) :])
            for party, values in self.memory.items()
            if len(values) > rounds - rounds // 3
        }

    def more(self, counts: list[int]) -> float:
        """How many more there are at the end than after a third: the least of some rounds, since connections come and go."""
        third = len(counts) // 3
        before = counts[max(third - _ROUNDS_COMPARED, 0) : third]
        return float(min(counts[-_ROUNDS_COMPARED:]) - min(before))


def soak(league: ProcessLeague, rounds: int) -> Soak:
    """Run a league that is up for so many rounds, and look at its processes after each.

    Raises:
        EngineError: the run did not end as agreed.
    """
    found, at, seen = Soak(), time.monotonic(), 0
    if not league.run("start"):
        raise EngineError("the coordinator takes no run")
    while seen < rounds - 1:  # the process of a run goes with its last round
        row = league.row()
        if row.round > seen:
            now = time.monotonic()
            found.seconds.append((now - at) / (row.round - seen))
            at, seen = now, row.round
            parties = _everybody(league)
            for party, pid in parties.items():
                found.memory.setdefault(party, []).append(resident_bytes(pid))
            found.threads.append(sum(thread_count(pid) for pid in parties.values()))
            found.descriptors.append(sum(descriptor_count(pid) for pid in parties.values()))
        elif row.state in ENDED:
            raise EngineError(f"a run of {rounds} rounds is {row.state} after {row.round}: {row.note}")
        time.sleep(_LOOK_S)
    return found


def _everybody(league: ProcessLeague) -> dict[str, int]:
    """The processes by party; those that the coordinator has started, by what they are."""
    found = {party: process.pid for party, process in league.processes.items()}
    for pid in children(league.processes[COORDINATOR].pid):
        said = command(pid)
        what = next((part for part, word in PARTS.items() if word in said), "other")
        found[what] = pid
    return found


def slope(values: list[int]) -> float:
    """By how much they grow from one to the next, by least squares."""
    return float(np.polyfit(np.arange(len(values)), np.asarray(values, dtype=np.float64), 1)[0])
