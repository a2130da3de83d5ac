"""How many records go through the model at once: found by measuring on public inputs, never on data."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from hansa.privacy.grid import Grid
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptRecords
from hansa_client.training.memory import available_bytes, peak_bytes

SIZES = (8, 16, 32, 64, 128, 256, 512)
_GAIN = 0.97  # a larger pass must be so much faster for each record


def fastest_microbatch(
    engine: GradientEngine,
    places: int,
    sizes: Sequence[int] = SIZES,
    *,
    kept: bool = False,
    clock: Callable[[], float] = time.perf_counter,
) -> int:
    """The size of pass that takes the least time for a record among those that fit into memory.

    The probe's public records are repeated, and stretched to `places` tokens where they are texts. Sizes are tried
    in ascending order until one is no faster than the one before it, the device's memory is exhausted, or the next
    could take more than half of the machine's.

    Args:
        engine: of the model.
        places: the most tokens of a text; not read for other inputs.
        sizes: to try, ascending.
        kept: whether activations of the frozen part are kept, so that passes go through the rest alone.
        clock: seconds.

    Guarantees: what is found is a function of the model, the public shape and the machine: a performance setting
        that moves no clipped sum by more than float rounding.
    """
    best, best_time = sizes[0], float("inf")
    held = peak_bytes()
    for size in sizes:
        try:
            taken = _time(engine, size, places, clock, kept=kept) / size
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            break
        if taken >= _GAIN * best_time:
            break
        best, best_time = size, taken
        room = available_bytes()
        if room is not None and 2 * (peak_bytes() - held) > room // 2:
            break
    return best


def stretched_probe(engine: GradientEngine, records: int, places: int) -> dict[str, np.ndarray]:
    """So many public records, texts of `places` tokens without padding."""
    inputs = {}
    text = "attention_mask" in engine.built.probe_inputs
    for name, value in engine.built.probe_inputs.items():
        rows = np.resize(value, (records, *value.shape[1:]))
        if text and value.ndim == 2:
            rows = np.resize(value[0], places) if name != "attention_mask" else np.ones(places, value.dtype)
            rows = np.repeat(rows[None], records, axis=0)
        inputs[name] = rows
    return inputs


def _time(engine: GradientEngine, size: int, places: int, clock: Callable[[], float], *, kept: bool) -> float:
    """The shorter of two passes; where activations are kept the first one computes them."""
    inputs, each = stretched_probe(engine, size, places), np.arange(size, dtype=np.int64)
    below = KeptRecords(engine.keep(inputs), each) if kept else None
    times = []
    for _ in range(2):
        builder = ClippedSumBuilder(Grid.of(1.0, engine.built.flat.size))
        began = clock()
        engine.add_clipped(builder, inputs, np.zeros(size, dtype=np.int64), each, below)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(clock() - began)
    return min(times)
