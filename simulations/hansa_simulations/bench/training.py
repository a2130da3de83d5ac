"""What privacy costs in training: whole steps of Hansa's trainer beside plain training of the same model.

Plain training, Opacus' hooks and Hansa take turns in one process, each on a copy of the model of its own, and every
multiple is of samples of the same turn. Memory is read in processes of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import torch

from hansa_client.training.gradients import GradientEngine
from hansa_client.training.microbatch import fastest_microbatch
from hansa_simulations.bench.figures import Bench, Figure, Grid, describe_machine
from hansa_simulations.bench.noise import noise_figures
from hansa_simulations.bench.training_growth import BATCHES, LENGTHS, training_grids
from hansa_simulations.bench.training_models import (
    CPU_SHAPE,
    GPU_SHAPE,
    MINILM,
    QUICK_SHAPE,
    Shape,
    bert,
)
from hansa_simulations.bench.training_ratios import (
    STEPS,
    cpu_figures,
    gpu_figures,
    kept_figures,
    memory_figures,
)

PARTS = ("cpu", "gpu", "memory", "kept", "noise", "growth")
MEMORY_BATCH = 256
_NOISE_REPEATS = 5
_NOTES = (
    "Multiples are medians over turns; in each turn every side ran once, and the next turn began with another.",
    f"A sample is a round of {STEPS} steps, divided by it: weights loaded, gradients, clipping, noise, the update.",
    "Hansa's steps are those of its trainer at rate 1 and noise multiplier 1, noise drawn when the step has its sum.",
    "Plain training is forward, backward and SGD on a batch that lies ready; attention is eager on all sides.",
    "Glibc keeps freed memory for all sides that share a process, which makes plain training faster too.",
    "Peak memory is that of a process with its imports; of batches with 3 steps of full fine-tuning.",
)
NO_GPU = "Left out: GPU, for torch finds none here."
NO_PEAK = "Left out: peak memory, for this system has no /proc/self/status."
NO_MINILM = f"Left out: kept activations on MiniLM-L6, for the package {MINILM} is not installed."
GPU_FULL = "Left out: GPU, for its memory does not hold BERT-base with a batch of 256."


def measure_training(
    *,
    repeats: int = 9,
    opacus: bool = True,
    memory: bool = True,
    growth: bool = True,
    only: Collection[str] = PARTS,
    quick: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure training.

    Args:
        repeats: samples of each figure of time; a third of them for growth.
        opacus: also run Opacus' hooks; with a batch of 256 they take 10 GB.
        memory: also read peak memory, in processes of their own.
        growth: also measure how time grows with batch, length and trained weights.
        only: which of `PARTS` to measure at all.
        quick: the same with a model that is too small to tell anything, to see that it runs; only noise keeps its goal.
        progress: told what comes next.

    Raises:
        EngineError: a process of its own failed.
        TrainingError: the trainer refused something.
    """
    shape = QUICK_SHAPE if quick else CPU_SHAPE
    figures: list[Figure] = []
    skipped: list[str] = []
    if "cpu" in only:
        progress("plain training, Hansa and Opacus on the CPU, in turn")
        figures += cpu_figures(shape, repeats, opacus=opacus, goals=not quick)
    if "gpu" in only:
        progress("the same on a GPU")
        figures += _or_skipped(_gpu(repeats, quick=quick), skipped)
    if memory and "memory" in only:
        progress("peak memory")
        figures += _or_skipped(_memory(shape, opacus=opacus, quick=quick), skipped)
    if "kept" in only:
        progress("kept activations")
        figures += _or_skipped(_kept(shape, repeats, quick=quick), skipped)
    if "noise" in only:
        progress("noise")
        figures += noise_figures(1 if quick else _NOISE_REPEATS)
    grids: Sequence[Grid] = ()
    if growth and "growth" in only:
        progress("growth with batch, length and trained weights")
        batches, lengths = ((2, 4), (4, 8)) if quick else (BATCHES, LENGTHS)
        grids = training_grids(shape, batches, lengths, max(1, repeats // 3))
    return Bench(
        title=f"Training: BERT {shape.hidden} × {shape.layers}, batch {shape.batch}, length {shape.length}",
        settings={"repeats": repeats, "threads": torch.get_num_threads(), "quick": int(quick)},
        figures=figures,
        ratios=(),
        grids=grids,
        notes=(*_NOTES, *skipped),
        machine=describe_machine(),
    )


def _or_skipped(found: Sequence[Figure] | str, skipped: list[str]) -> Sequence[Figure]:
    """The figures; or none of them, and why noted."""
    if isinstance(found, str):
        skipped.append(found)
        return ()
    return found


def _gpu(repeats: int, *, quick: bool) -> Sequence[Figure] | str:
    if not torch.cuda.is_available():
        return NO_GPU
    try:
        return gpu_figures(QUICK_SHAPE if quick else GPU_SHAPE, repeats)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        return GPU_FULL


def _memory(shape: Shape, *, opacus: bool, quick: bool) -> Sequence[Figure] | str:
    batch = 2 * shape.batch if quick else MEMORY_BATCH
    microbatch = shape.batch if quick else fastest_microbatch(GradientEngine(bert(shape)), shape.length)
    return memory_figures(batch, min(batch, microbatch), opacus=opacus, quick=quick) or NO_PEAK


def _kept(shape: Shape, repeats: int, *, quick: bool) -> Sequence[Figure] | str:
    found: list[Figure] = []
    for layers in (1, 2):
        some = kept_figures(layers, shape.batch, shape.length, repeats, goals=not quick)
        if some is None:
            return NO_MINILM
        found += some
    return found
