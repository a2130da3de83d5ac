"""How much memory a few steps of training take at their peak: a process of its own for each way to train.

The peak is VmHWM of ``/proc/self/status``: that of ``getrusage`` starts with the memory of the process that started
this one.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hansa_client.training.gradients import GradientEngine
from hansa_simulations.bench.training_models import CPU_SHAPE, QUICK_SHAPE, bert, dataset
from hansa_simulations.bench.training_steps import Round, dp_round, opacus_round, plain_round

STATUS = Path("/proc/self/status")
STEPS = 3
SIDES = ("plain", "dp", "opacus")


def memory_bytes(field: str, status: str) -> int:
    """A field of ``/proc/self/status`` in bytes, ``VmHWM`` or ``VmRSS``.

    Raises:
        ValueError: there is no such field.
    """
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    raise ValueError(f"no {field} in {STATUS}")


def training(side: str, *, batch: int, microbatch: int, quick: bool) -> Round:
    """A round of `STEPS` steps of full fine-tuning."""
    shape = QUICK_SHAPE if quick else CPU_SHAPE
    built, data = bert(shape), dataset(batch, shape.length, shape.words)
    if side == "dp":
        return dp_round(GradientEngine(built), data, STEPS, microbatch)
    return (opacus_round if side == "opacus" else plain_round)(built, data, STEPS)


def main() -> None:
    """Train, and write ``{"peak_bytes": …, "start_bytes": …}``; the start is before there was a model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=SIDES, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--microbatch", type=int, required=True)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    start = memory_bytes("VmRSS", STATUS.read_text())
    training(asked.side, batch=asked.batch, microbatch=asked.microbatch, quick=asked.quick)()
    peak = memory_bytes("VmHWM", STATUS.read_text())
    asked.out.write_text(json.dumps({"peak_bytes": peak, "start_bytes": start}))


if __name__ == "__main__":
    main()
