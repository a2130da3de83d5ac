"""How a bench takes its samples, on a machine that may be busy with other things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

MILLION = 1_000_000
BEST_OF = 5  # runs behind a sample: a busy machine only ever adds time


def label_of(n: int, length: int) -> str:
    """How a figure's name tells n and the length."""
    return f"n{n}_{length // MILLION}m" if length >= MILLION else f"n{n}_d{length}"


def in_turn(repeats: int, *things: Callable[[], object]) -> list[tuple[float, ...]]:
    """Samples in milliseconds of each thing, taken in turn so that a busy spell hits all of them."""
    samples: list[list[float]] = [[] for _ in things]
    for _ in range(repeats):
        best = [float("inf")] * len(things)
        for _ in range(BEST_OF):
            for index, thing in enumerate(things):
                started = time.perf_counter()
                thing()
                best[index] = min(best[index], time.perf_counter() - started)
        for index, value in enumerate(best):
            samples[index].append(1e3 * value)
    return [tuple(each) for each in samples]


def alternating(
    repeats: int, *things: Callable[[], object], clock: Callable[[], float] = time.perf_counter
) -> list[tuple[float, ...]]:
    """Samples in milliseconds of each thing, each one run, after one of each that is not measured.

    Every round begins with another of them, so that none always runs behind the same other one. What is to be
    compared are samples of the same round: a spell of other work on the machine hits both.
    """
    for thing in things:
        thing()
    samples: list[list[float]] = [[] for _ in things]
    for repeat in range(repeats):
        for place in range(len(things)):
            index = (place + repeat) % len(things)
            started = clock()
            things[index]()
            samples[index].append(1e3 * (clock() - started))
    return [tuple(each) for each in samples]


@contextmanager
def noting(laps: list[float]) -> Iterator[None]:
    """Append the seconds of a block to a list."""
    started = time.perf_counter()
    yield
    laps.append(time.perf_counter() - started)


def best_of_laps(runs: Sequence[Sequence[float]]) -> float:
    """Seconds of a piece of work from the laps of several runs of it, each lap at its best.

    A busy spell in one lap of a long run does not spoil the others.

    Raises:
        ValueError: the runs have not the same laps.
    """
    total: float = sum(min(laps) for laps in zip(*runs, strict=True))
    return total
