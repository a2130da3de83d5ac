"""What a step of pooled training costs beside its gradient: everything that five members and the coordinator do."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from statistics import median

from hansa_simulations.bench.figures import Bench, Figure, Grid, describe_machine
from hansa_simulations.bench.pooled_league import StepTimes, pooled_steps

MEMBERS, LENGTH = 5, 75_000
GOAL_MS = 50.0
STEPS = 10
GROWTH_MEMBERS = (3, 5, 10, 20)
GROWTH_LENGTHS = (10_000, 75_000, 1_000_000)
_GROWTH_STEPS, _GROWTH_WARMING = 2, 2
_LARGEST = 10_000_000  # entries of all members: the bench ends within two minutes
_PLANNED_STEPS = 5


def measure_pooled(
    *,
    steps: int = STEPS,
    repeats: int = 2,
    growth: bool = True,
    folder: Path | None = None,
    members: int = MEMBERS,
    length: int = LENGTH,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure steps whose gradients lie ready; a sample is the median step of a run, runs of the three kinds in turn.

    The whole is a step on disk with members side by side. Its parts are taken with members in turn, on disk and in memory, where
    nobody waits for the processor.

    Args:
        steps: of a run that are measured.
        repeats: runs of each kind.
        growth: whether also 3 to 20 members and 10^4 to 10^6 weights are measured.
        folder: on which disk; by default that of temporary files.
        members, length: n and d of the run that is taken apart.
        progress: told what is measured next.

    Raises:
        EngineError: a step was not summed over all members.
    """
    durable, in_turn, memory = list[StepTimes](), list[StepTimes](), list[StepTimes]()
    grids = []
    with tempfile.TemporaryDirectory(dir=folder, prefix="hansa-bench-") as name:
        for number in range(repeats):
            progress(f"{members} members, {length:,} weights, run {number + 1} of {repeats}")
            durable.append(pooled_steps(members, length, steps, Path(name) / f"run-{number}"))
            in_turn.append(
                pooled_steps(members, length, steps, Path(name) / f"turn-{number}", together=False)
            )
            memory.append(pooled_steps(members, length, steps, None, together=False))
        if growth:
            grids.append(_growth(Path(name), progress))
    return Bench(
        title=f"a step of {members} members and {length:,} weights under shared noise, without the gradient",
        settings={"members": members, "length": length, "steps": steps, "repeats": repeats},
        figures=_figures(durable, in_turn, memory, members, length),
        ratios=(),
        notes=(
            "All members, the coordinator and a verifier of every sum share one process and one interpreter: their times add up, as "
            "they do not on machines of their own. Only waits for the disk, hashes and noise overlap.",
            "Parts are of steps with members in turn, so that their sum is more than the whole.",
            "The coordinator keeps its journal in memory and masked vectors until they are verified: a run that is killed here is "
            "not gone on with. Its log, and all that members must not lose, is on disk.",
            "Clipped sums lie ready; all else of a step is there: noise, masks, signatures, ledgers, cosignatures, server step.",
            "Durable writes: what files and databases on this disk add to steps in memory, members in turn.",
            "Signatures: P-256, by their number and what one costs here. One process checks each signature once, for everybody "
            "in it; on machines of their own each member checks them again.",
        ),
        machine=describe_machine(),
        grids=tuple(grids),
    )


def seconds_of_a_sum(members: int, length: int) -> float:
    """Seconds of one step of the protocol on this machine and the disk of its temporary files."""
    with tempfile.TemporaryDirectory(prefix="hansa-plan-") as name:
        return median(pooled_steps(members, length, _PLANNED_STEPS, Path(name) / "run").wall) / 1e3


def _figures(
    durable: list[StepTimes], in_turn: list[StepTimes], memory: list[StepTimes], members: int, length: int
) -> tuple[Figure, ...]:
    label = f"n{members}_d{length // 1000}k" if length % 1000 == 0 else f"n{members}_d{length}"
    whole, bare = [median(run.wall) for run in durable], [median(run.wall) for run in memory]
    one_by_one = [median(run.wall) for run in in_turn]
    noise, masks = [median(run.noise) for run in memory], [median(run.masks) for run in memory]
    signatures = [median(run.signatures) for run in memory]
    rest = [all_of_it - sum(parts) for all_of_it, *parts in zip(bare, noise, masks, signatures, strict=True)]
    added = [max(0.0, on_disk - in_memory) for on_disk, in_memory in zip(one_by_one, bare, strict=True)]

    def figure(name: str, what: str, samples: list[float], goal: float | None = None) -> Figure:
        return Figure(f"{name}_ms_per_step_{label}", what, tuple(samples), goal)

    return (
        figure("protocol", "a step, all parties together", whole, GOAL_MS),
        figure("protocol_in_turn", "a step, members in turn", one_by_one),
        figure("durable_writes", "of it: durable writes", added),
        figure("noise", "of it: shares of the noise", noise),
        figure("masks", "of it: masks, of members, coordinator and verifier", masks),
        figure("signatures", "of it: P-256 signatures, made and checked", signatures),
        figure("other", "of it: everything else", rest),
        figure("protocol_in_memory", "a step without a disk", bare),
        figure("protocol_cpu", "a step without a disk, CPU time", [median(run.cpu) for run in memory]),
        figure(
            "behind_gradient",
            "one member's critical path: from its gradient to its masked reply",
            [median(run.behind) for run in in_turn],
        ),
    )


def _growth(folder: Path, progress: Callable[[str], None]) -> Grid:
    cells = {}
    for n in GROWTH_MEMBERS:
        for length in GROWTH_LENGTHS:
            progress(f"growth: {n} members, {length:,} weights")
            if n * length > _LARGEST:
                continue
            times = pooled_steps(
                n, length, _GROWTH_STEPS, folder / f"growth-{n}-{length}", warming=_GROWTH_WARMING
            )
            words = f"a step, n = {n}, {length:,} weights"
            cells[n, length] = Figure(f"growth_n{n}_d{length}_ms", words, times.wall)
    return Grid("a step, all parties together, on disk, ms", "n \\ weights", cells)
