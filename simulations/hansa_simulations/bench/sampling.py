"""How a bench takes its samples, on a machine that may be busy with other things."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

MILLION = 1_000_000
BEST_OF = 3  # runs behind a sample: a busy machine only ever adds time


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


@contextmanager
def adding(total: list[float]) -> Iterator[None]:
    """Add the seconds of a block to a total."""
    started = time.perf_counter()
    yield
    total[0] += time.perf_counter() - started
