"""Time and memory of private training as multiples of plain training's, and what kept activations save."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from hansa.privacy.grid import Grid
from hansa.privacy.randomness import SecretRandomness
from hansa_client.data import Dataset
from hansa_client.training.clipping import ClippedSumBuilder
from hansa_client.training.gradients import GradientEngine
from hansa_client.training.kept import KeptActivations, KeptRecords
from hansa_client.training.microbatch import fastest_microbatch
from hansa_simulations.bench.figures import Figure
from hansa_simulations.bench.peers import run_peer
from hansa_simulations.bench.sampling import alternating
from hansa_simulations.bench.training_models import RANK, Adapting, Shape, bert, dataset, minilm
from hansa_simulations.bench.training_peak import STATUS
from hansa_simulations.bench.training_steps import (
    CLIPPING_NORM,
    LEARNING_RATE,
    NOISE_MULTIPLIER,
    Round,
    dp_round,
    opacus_round,
    plain_round,
)

STEPS = 4  # in the round of one sample
_PEAK = "hansa_simulations.bench.training_peak"
_PEAK_TIMEOUT_S = 600.0
_KINDS: dict[Adapting, tuple[str, str]] = {
    "none": ("full", "full fine-tuning"),
    "ffa-lora": ("ffa_lora", f"FFA-LoRA r = {RANK}"),
}
_BATCHES = 2  # in an epoch of MiniLM


def over(
    name: str,
    what: str,
    above: Sequence[float],
    below: Sequence[float],
    goal: float | None = None,
    *,
    cost: bool = True,
) -> Figure:
    """One thing's samples divided by another's of the same rounds."""
    return Figure(name, what, tuple(a / b for a, b in zip(above, below, strict=True)), goal, cost=cost)


def cpu_figures(shape: Shape, repeats: int, *, opacus: bool = True, goals: bool = True) -> list[Figure]:
    """Full fine-tuning and FFA-LoRA on the CPU: milliseconds of a step and multiples of plain training's.

    Args:
        shape: of the model.
        repeats: samples, each of a round of `STEPS` steps.
        opacus: also run Opacus' hooks.
        goals: whether the shape is the one that goals are for.
    """
    found: list[Figure] = []
    for adapter, (name, words) in _KINDS.items():
        goal = {"none": 1.25, "ffa-lora": 1.05}[adapter]
        data = dataset(shape.batch, shape.length, shape.words)
        engine = GradientEngine(bert(shape, adapter))
        rounds: list[Round] = [
            plain_round(bert(shape, adapter), data, STEPS),
            dp_round(engine, data, STEPS),
        ]
        if opacus:
            rounds.append(opacus_round(bert(shape, adapter), data, STEPS))
        plain, ours, *theirs = [
            tuple(ms / STEPS for ms in samples) for samples in alternating(repeats, *rounds)
        ]
        ratio = f"{name}_dp_over_plain_cpu"
        found += [
            over(ratio, f"{words}: Hansa ÷ plain", ours, plain, goal if goals else None),
            Figure(f"{name}_plain_cpu_ms", f"{words}: plain step", plain),
            Figure(f"{name}_dp_cpu_ms", f"{words}: Hansa's step", ours),
        ]
        if theirs:
            prefix = "" if adapter == "none" else f"{name}_"
            found += [
                over(
                    f"{prefix}opacus_hooks_over_plain_cpu",
                    f"{words}: Opacus' hooks ÷ plain",
                    theirs[0],
                    plain,
                ),
                Figure(f"{name}_opacus_hooks_cpu_ms", f"{words}: step of Opacus' hooks", theirs[0]),
            ]
    return found


def gpu_figures(
    shape: Shape, repeats: int, *, device: str = "cuda", precision: torch.dtype = torch.bfloat16
) -> list[Figure]:
    """The same in bfloat16 on another device, without Opacus; the microbatch is Hansa's own choice."""
    found: list[Figure] = []
    for adapter, (name, words) in _KINDS.items():
        goal = {"none": 1.15, "ffa-lora": 1.05}[adapter]
        data = dataset(shape.batch, shape.length, shape.words)
        engine = GradientEngine(bert(shape, adapter, device=device), precision=precision)
        microbatch = min(shape.batch, fastest_microbatch(engine, shape.length))
        plain, ours = (
            tuple(ms / STEPS for ms in samples)
            for samples in alternating(
                repeats,
                plain_round(bert(shape, adapter, device=device), data, STEPS, precision),
                dp_round(engine, data, STEPS, microbatch),
            )
        )
        found += [
            over(f"{name}_dp_over_plain_gpu", f"{words}, GPU: Hansa ÷ plain", ours, plain, goal),
            Figure(f"{name}_plain_gpu_ms", f"{words}, GPU: plain step", plain),
            Figure(f"{name}_dp_gpu_ms", f"{words}, GPU: Hansa's step", ours),
        ]
    return found


def memory_figures(
    batch: int, microbatch: int, *, opacus: bool = True, quick: bool = False
) -> list[Figure] | None:
    """Peak memory of full fine-tuning with a large batch, each way to train in a process of its own.

    Args:
        batch: records in a step.
        microbatch: what Hansa may also cut it into.
        opacus: also run Opacus' hooks, which need memory for `batch` models.
        quick: a small model, and no goals.

    Returns:
        The figures, or `None` where the system does not tell a process' peak.
    """
    if not STATUS.exists():
        return None
    ways = {"plain": ("plain", batch), "dp": ("dp", batch), "dp_microbatches": ("dp", microbatch)}
    if opacus:
        ways["opacus_hooks"] = ("opacus", batch)
    words = {
        "plain": "plain",
        "dp": "Hansa, one pass",
        "dp_microbatches": f"Hansa, passes of {microbatch}",
        "opacus_hooks": "Opacus' hooks",
    }
    peaks: dict[str, tuple[float, float]] = {}
    for way, (side, size) in ways.items():
        options = ["--side", side, "--batch", str(batch), "--microbatch", str(size)]
        told = run_peer(_PEAK, [*options, *(["--quick"] if quick else [])], timeout_s=_PEAK_TIMEOUT_S)
        peaks[way] = (float(told["peak_bytes"]), float(told["peak_bytes"] - told["start_bytes"]))
    found = [
        Figure(f"full_{way}_peak_bytes", f"full, batch {batch}, peak memory: {words[way]}", (peak,))
        for way, (peak, _) in peaks.items()
    ]
    for way in [way for way in ways if way != "plain"]:
        name = f"full_{way}" if way != "opacus_hooks" else way
        goal = 1.2 if way == "dp" and not quick else None
        what = f"full, batch {batch}: peak memory, {words[way]} ÷ plain"
        (whole, added), (plain, plain_added) = peaks[way], peaks["plain"]
        found += [
            over(f"{name}_over_plain_memory", what, (whole,), (plain,), goal),
            over(
                f"{name}_over_plain_memory_added",
                f"{what}, without what was there before the model",
                (added,),
                (plain_added,),
            ),
        ]
    return found


def kept_figures(
    upper_layers: int, batch: int, length: int, repeats: int, *, goals: bool = True
) -> list[Figure] | None:
    """MiniLM with FFA-LoRA in its last layers: epochs with kept activations, after the first, and without.

    Returns:
        The figures, or `None` where the package with the model is not installed.
    """
    found = minilm(upper_layers, length)
    if found is None:
        return None
    built, words = found
    records = _BATCHES * batch
    data = dataset(records, length, words)
    engine = GradientEngine(built)
    with engine.keep(data.inputs) as kept:
        # the turns that are not measured are the first epochs: in them activations are computed and kept
        without, with_kept = alternating(
            repeats, epoch(engine, data, batch), epoch(engine, data, batch, kept)
        )
    layers = "last layer" if upper_layers == 1 else f"last {upper_layers} layers"
    what = f"MiniLM-L6, FFA-LoRA on the {layers}"
    goal = 3.0 if goals and upper_layers == 1 else None
    name = f"minilm_last{upper_layers}"
    return [
        over(
            f"{name}_kept_over_computed", f"{what}: speed with kept activations ÷ without", without, with_kept,
            goal, cost=False,
        ),
        Figure(f"{name}_epoch_ms", f"{what}: epoch of {records} records", without),
        Figure(f"{name}_kept_epoch_ms", f"{what}: epoch after the first, activations kept", with_kept),
    ]  # fmt: skip


def epoch(engine: GradientEngine, data: Dataset, batch: int, kept: KeptActivations | None = None) -> Round:
    """Every record once, in whole private steps: weights written, clipped sums, noise, weights changed.

    Args:
        engine: of the model.
        data: the records.
        batch: of a step.
        kept: activations of these records; without it all are computed.
    """
    built = engine.built
    grid = Grid.of(CLIPPING_NORM, built.flat.size)
    sigma = grid.sigma(NOISE_MULTIPLIER)
    start = built.initial_vector()
    batches = np.split(np.arange(len(data), dtype=np.int64), len(data) // batch)

    def run() -> None:
        randomness, weights = SecretRandomness(), start.copy()
        for chosen in batches:
            built.flat.load(built.module, weights)
            builder = ClippedSumBuilder(grid)
            some = {name: value[chosen] for name, value in data.inputs.items()}
            units = np.arange(len(chosen), dtype=np.int64)
            below = None if kept is None else KeptRecords(kept, chosen)
            engine.add_clipped(builder, some, data.labels[chosen], units, below)
            noisy = builder.finish().values + randomness.noise(sigma, grid.dimension)
            weights -= LEARNING_RATE * noisy / (grid.scale * batch)

    return run
