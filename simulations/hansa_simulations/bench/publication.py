"""What the file that ships is worth beside the model that it was made from: size, latency, accuracy, worst group.

One encoder with a head trained on public benchmark texts stands for the final model of a run. It is exported and
quantised by the steps that a publication takes, and both sides are timed in turn on one thread: float32 PyTorch, which a
member would run otherwise, and the int8 file in ONNX Runtime.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch

from hansa_server.publication.compress import (
    Candidate,
    Distil,
    DynamicInt8,
    ExportOnnx,
    PruneVocabulary,
    compress,
)
from hansa_simulations.bench.figures import Bench, Figure, describe_machine
from hansa_simulations.bench.publication_evaluation import ROWS, evaluation_figure
from hansa_simulations.bench.publication_model import MIN_GROUP, Task, medquad_task, quick_task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Labels = npt.NDArray[np.int64]

_BATCHES = (1, 32)
QUICK_ROWS = 200
STUDENT_STEPS = 900  # about ten minutes on two processors
_NOTES = (
    "Latency is of texts of full length, in turns of both sides; a multiple is of samples of the same turn.",
    "PyTorch runs the merged float32 model in inference mode; attention is eager, as everywhere in Hansa.",
    "Points are hundredths of an accuracy on test records that nothing was trained on; groups are the institutes with at "
    f"least {MIN_GROUP} of them, and the worst is that which lost most.",
)


def measure_publication(
    data: Path | None,
    *,
    records: int = 1000,
    student_steps: int = STUDENT_STEPS,
    repeats: int = 9,
    quick: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Bench:
    """Measure compression.

    Args:
        data: the folder of MedQuAD's archive and of the public abstracts; by default where Hansa's own data lie.
        records: to train the head on, and as many to test.
        student_steps: of distillation; 0 leaves the student out.
        repeats: samples of each figure of time.
        quick: with a tiny model and generated notes.
        progress: told what comes next.

    Raises:
        UsageError: the data are not there.
        ExportError, StepError: a step failed.
    """
    progress("the model: embedding texts and training a head")
    task = quick_task(min(records, 64)) if quick else medquad_task(data, records)
    progress("export and int8")
    fp32 = compress(task.candidate, [ExportOnnx()])
    int8 = compress(fp32, [DynamicInt8()])
    before = _decided(task, task.candidate.logits)
    figures = [
        _size("int8_bytes_over_fp32", "int8 file ÷ float32 file", int8, fp32, None if quick else 0.27),
        *_latency(task, task.candidate, int8, repeats, "int8", 2.0, quick=quick),
        *_lost(
            task, before, int8, ("accuracy_lost_points", "worst_group_lost_points"), (0.5, 1.0), quick=quick
        ),
    ]
    progress("private evaluation beyond inference")
    figures.append(evaluation_figure(repeats, rows=QUICK_ROWS if quick else ROWS))
    if student_steps:
        progress("distillation on public texts")
        student = compress(task.candidate, [Distil(task.public, steps=student_steps)])
        shipped = compress(student, [ExportOnnx(), DynamicInt8()])
        small = compress(student, [PruneVocabulary(task.wider), ExportOnnx(), DynamicInt8()])
        figures += [
            _size("student_bytes_over_fp32", "student's int8 file ÷ float32 file", shipped, fp32, None if quick else 0.20),
            _size(
                "student_small_vocabulary_bytes_over_fp32",
                "the same with the vocabulary pruned",
                small,
                fp32,
                None if quick else 0.15,
            ),
            *_latency(task, task.candidate, shipped, repeats, "student", 4.0, quick=quick),
            *_lost(
                task, before, shipped, ("student_accuracy_lost_points", "student_worst_group_lost_points"), (3.0, None),
                quick=quick,
            ),
            *_lost(task, before, small, ("student_small_vocabulary_accuracy_lost_points", ""), (None, None), quick=quick),
        ]  # fmt: skip
    return Bench(
        title=f"Publication: {task.name}, {len(task.labels):,} test records, one thread",
        settings={
            "records": records,
            "student_steps": student_steps,
            "repeats": repeats,
            "quick": int(quick),
        },
        figures=figures,
        ratios=(),
        notes=(*_NOTES, *(f"{told.name}: {told.did}" for told in int8.told)),
        machine=describe_machine(),
    )


def _size(name: str, what: str, small: Candidate, large: Candidate, goal: float | None) -> Figure:
    return Figure(name, what, (len(small.onnx or b"") / len(large.onnx or b" "),), goal, cost=True)


def _session(candidate: Candidate) -> Any:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(candidate.onnx, options, providers=["CPUExecutionProvider"])


def _latency(
    task: Task, model: Candidate, shipped: Candidate, repeats: int, name: str, goal: float, *, quick: bool
) -> list[Figure]:
    """Milliseconds of both sides and how many times faster the file is, for one text and for 32."""
    session = _session(shipped)
    figures = []
    with one_thread():
        for batch in _BATCHES:
            inputs = {key: np.resize(value, (batch, value.shape[1])) for key, value in task.longest.items()}
            ours, theirs = [], []
            for turn in range(repeats + 1):
                theirs.append(_ms(partial(model.logits, inputs)))
                ours.append(_ms(partial(session.run, None, inputs)))
                if turn == 0:  # memory is laid out and kernels are chosen
                    ours, theirs = [], []
            words = "one text" if batch == 1 else f"{batch} texts"
            if name == "int8":
                figures.append(
                    Figure(f"torch_fp32_batch{batch}_ms", f"PyTorch float32, {words}", tuple(theirs))
                )
            figures += [
                Figure(f"{name}_batch{batch}_ms", f"{name} ONNX, {words}", tuple(ours)),
                Figure(
                    f"{name}_speedup_batch{batch}",
                    f"{name}: times faster, {words}",
                    tuple(b / a for a, b in zip(ours, theirs, strict=True)),
                    None if quick else goal,
                ),
            ]
    return figures


def _ms(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def _decided(task: Task, scores: Callable[[dict[str, npt.NDArray[Any]]], npt.NDArray[Any]]) -> Labels:
    """The class of each test record, in batches of texts of like length."""
    found = np.empty(len(task.labels), dtype=np.int64)
    for rows, inputs in task.batches():
        found[rows] = scores(inputs).argmax(axis=1)
    return found


def _lost(
    task: Task,
    before: Labels,
    shipped: Candidate,
    names: tuple[str, str],
    goals: tuple[float | None, float | None],
    *,
    quick: bool,
) -> list[Figure]:
    """Points of accuracy that the file has lost, on all test records and in the group that lost most."""
    session = _session(shipped)
    tokenizer = shipped.tokenizer
    if tokenizer is not None and tokenizer is not task.candidate.tokenizer:
        task = task.read_by(tokenizer)
    after = _decided(task, lambda inputs: session.run(None, inputs)[0])
    right_before, right_after = before == task.labels, after == task.labels
    lost = 100 * (float(right_before.mean()) - float(right_after.mean()))
    by_group = [
        100 * (float(right_before[rows].mean()) - float(right_after[rows].mean()))
        for value in np.unique(task.groups)
        if (rows := task.groups == value).sum() >= (1 if quick else MIN_GROUP)
    ]
    goal_all, goal_worst = (None, None) if quick else goals
    figures = [
        Figure(names[0], f"{_who(names[0])}accuracy lost, of {right_before.mean():.3f}", (lost,), goal_all)
    ]
    if names[1] and by_group:
        worst = f"{_who(names[1])}lost by the worst of {len(by_group)} groups"
        figures.append(Figure(names[1], worst, (max(by_group),), goal_worst))
    return figures


def _who(name: str) -> str:
    if name.startswith("student_small"):
        return "student with the vocabulary pruned: "
    return "student: " if name.startswith("student") else "int8: "


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
