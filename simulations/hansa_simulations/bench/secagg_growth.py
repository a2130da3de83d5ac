"""How a member's mask phase grows with members and entries, up to vectors of 400 MB."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from hansa.secagg import FolderStore, MaskWorkers, Quantiser
from hansa.secagg.dealing import Held, Parties, own_masks
from hansa.secagg.keys import RoundSecrets
from hansa.secagg.masks import add_masks
from hansa.secagg.ring import Vector
from hansa.secagg.terms import threshold
from hansa.wire import array_sha256
from hansa_simulations.bench.figures import Bench, Figure

MILLION = 1_000_000
GROWTH_MEMBERS = (3, 10, 30, 100)
GROWTH_LENGTHS = (10_000, 100_000, 1_000_000, 10_000_000)
BEST_OF = 3
BINDING, TRANSCRIPT = "ab" * 32, "cd" * 32


def mask_phase(n: int, length: int) -> Callable[[], None]:
    """What a member does between training and sending: encode, agree on n - 1 keys, expand and add n masks."""
    secrets, parties, held = parties_of(n)
    quantiser = Quantiser.finest(1.0, n)
    values = np.random.default_rng(0).normal(0, 0.02, length).astype(np.float32)
    vector = np.zeros(length, dtype="<u4")

    def phase() -> None:
        quantiser.encode(values, out=vector)
        add_masks(vector, *own_masks(secrets, parties, held, tuple(parties.x), BINDING))

    return phase


def large_member(n: int, length: int, processes: int) -> list[Figure]:
    """A member's mask phase over a large vector, in a fresh process whose peak memory is measured too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        measured = pool.submit(_large_member, n, length, processes).result()
    label = label_of(n, length)
    words = f"n = {n}, {length:,} entries, {processes} processes"
    return [
        Figure(f"member_mask_{label}_s", f"member: mask phase, {words}", tuple(measured["mask"]), goal=1.0),
        Figure(
            f"member_first_mask_{label}_s",
            "the same in memory that was never touched",
            tuple(measured["first"]),
        ),
        Figure(f"member_hash_{label}_s", "member: hash of the vector", tuple(measured["hash"])),
        Figure(f"member_spool_{label}_s", "member: durable spool", tuple(measured["spool"])),
        Figure(
            f"member_upload_{label}_bytes", "member: upload", tuple(measured["upload"]), goal=4.0 * length
        ),
        Figure(f"member_peak_{label}_bytes", "member: peak memory", tuple(measured["peak"]), goal=1.5e9),
    ]


def _large_member(n: int, length: int, processes: int) -> dict[str, list[float]]:
    secrets, parties, held = parties_of(n)
    quantiser = Quantiser.finest(1.0, n)
    values: Vector = np.random.default_rng(0).standard_normal(length, dtype=np.float32)
    values *= np.float32(0.02)
    seconds: list[float] = []
    with MaskWorkers(processes) as workers, tempfile.TemporaryDirectory() as folder:
        workers.warm()
        for _ in range(BEST_OF + 1):
            started = time.perf_counter()
            vector = quantiser.encode(values, out=workers.empty(length))
            workers.add_masks(vector, *own_masks(secrets, parties, held, tuple(parties.x), BINDING))
            seconds.append(time.perf_counter() - started)
            if len(seconds) <= BEST_OF:
                del vector
        hashed, spooled = [0.0], [0.0]
        with adding(hashed):
            array_sha256(vector)
        store = FolderStore(Path(folder))
        with adding(spooled):
            store.put("y", vector.data)
        store.close()
    kib = (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    )
    return {
        "first": seconds[:1],
        "mask": seconds[1:],
        "hash": hashed,
        "spool": spooled,
        "upload": [float(vector.nbytes)],
        "peak": [1024.0 * kib],
    }


def growth_figures(members: Sequence[int], lengths: Sequence[int]) -> list[Figure]:
    """A member's mask phase for each n and d, in one process: linear in n * d."""
    figures = []
    for n in members:
        for length in lengths:
            runs = 1 if n * length > 10**8 else BEST_OF
            (samples,) = in_turn(1, mask_phase(n, length), best_of=runs)
            figures.append(
                Figure(
                    f"growth_n{n}_d{length}_ms", f"member: mask phase, n = {n}, {length:,} entries", samples
                )
            )
    return figures


def plot_growth(bench: Bench, path: Path) -> None:
    """Draw the growth figures of a bench: milliseconds over entries, a line for each n, both axes logarithmic."""
    from matplotlib.figure import Figure as Plot

    times = {figure.name: figure.value for figure in bench.figures}
    plot = Plot(figsize=(6, 4), layout="constrained")
    axes = plot.subplots()
    for n in GROWTH_MEMBERS:
        line = [(d, times[f"growth_n{n}_d{d}_ms"]) for d in GROWTH_LENGTHS if f"growth_n{n}_d{d}_ms" in times]
        axes.plot([d for d, _ in line], [ms for _, ms in line], marker="o", label=f"n = {n}")
    axes.set(xscale="log", yscale="log", xlabel="entries", ylabel="member: mask phase (ms)")
    axes.legend()
    axes.grid(visible=True, alpha=0.3)
    plot.savefig(path)


def parties_of(n: int) -> tuple[RoundSecrets, Parties, dict[str, Held]]:
    """The secrets of one of n members, whom it shares a round with, and what it holds of them."""
    names = [f"m{index}" for index in range(n)]
    secrets = {name: RoundSecrets.draw(os.urandom) for name in names}
    x = {name: index + 1 for index, name in enumerate(names)}
    keys = {name: secrets[name].public(name, post_quantum=False) for name in names}
    me = names[n // 2]
    held = {name: Held(b"", b"", b"") for name in names}
    return secrets[me], Parties(me, x, keys, TRANSCRIPT, threshold(n)), held


def label_of(n: int, length: int) -> str:
    """How a figure's name tells n and the length."""
    return f"n{n}_{length // MILLION}m" if length >= MILLION else f"n{n}_d{length}"


def in_turn(repeats: int, *things: Callable[[], object], best_of: int = BEST_OF) -> list[tuple[float, ...]]:
    """Samples in milliseconds of each thing, taken in turn so that a busy spell hits all of them."""
    samples: list[list[float]] = [[] for _ in things]
    for _ in range(repeats):
        best = [float("inf")] * len(things)
        for _ in range(best_of):
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
