"""Running a model's file as data: in a process that has no keys, no ledger, no network and no files.

Members are asked to run files that somebody else made. The file is read first (`hansa.artifact.graph`); then a process
with an empty environment, limits of time and memory and no descriptor of ours gets its bytes and the inputs through a
pipe, and gives back scores.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hansa.artifact import confined_worker
from hansa.artifact.errors import ConfinedRunError, ModelFileError
from hansa.artifact.graph import MAX_MODEL_BYTES, Graph, read_graph

_WORKER = Path(confined_worker.__file__)
_SHOWN = 300  # characters of what the process wrote before it ended
_HEADER_BYTES = 4096
_NO_RUNTIME = "ModuleNotFoundError: No module named 'onnxruntime'"
_WORDS = {
    "network": "the system refuses a network namespace: a run that broke out of the runtime could reach the network",
    "files": "the system has no Landlock: a run that broke out of the runtime could read this user's files",
}

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Limits:
    """What a run may take.

    Attributes:
        seconds: by the clock, and of processor time for each thread.
        memory_bytes: of address space, the runtime's own 1 GB included.
        model_bytes: size of the file.
        batch: rows at once.
        threads: of the runtime.
    """

    seconds: int = 600
    memory_bytes: int = 4 << 30
    model_bytes: int = MAX_MODEL_BYTES
    batch: int = 32
    threads: int = 1


@dataclass(frozen=True)
class ConfinedScores:
    """What a run gave.

    Attributes:
        scores: float32 [rows, classes], all finite.
        unprotected: walls that this machine could not put up, in words; empty where all stand.
    """

    scores: Scores
    unprotected: tuple[str, ...]


def run_confined(
    model: bytes,
    inputs: Mapping[str, npt.NDArray[Any]],
    *,
    classes: int,
    limits: Limits | None = None,
    all_walls: bool = False,
) -> ConfinedScores:
    """Run an ONNX file on rows, outside this process.

    Args:
        model: the file's bytes; nothing else of it is known to the process, not even a path.
        inputs: arrays by the graph's input names, first axis = rows, numbers.
        classes: how many scores a row must get.
        limits: of the run.
        all_walls: refuse, before the file is read by anything that runs it, where this machine lacks a wall.

    Guarantees: the process starts with an empty environment, an empty folder as its place, no descriptor but pipes to
    this one, no way to write a file or to gain privileges, and bounded time and memory; where the system lets it, no
    network and no right to open a file. Nothing of it comes back but finite float32 of the shape asked for.
    Assumes: the runtime does with the listed operators what they say; `ConfinedScores.unprotected` tells which walls
    would not stand if it did not.
    Leaks: scores, to the caller alone. Errors say nothing of rows.

    Raises:
        ModelFileError: the file holds what is not run, or takes other inputs.
        ConfinedRunError: no scores within the limits, or a wall is missing and all are asked for.
    """
    limits = limits or Limits()
    graph = read_graph(model, max_bytes=limits.model_bytes)
    arrays, rows = _fitting(graph, inputs)
    described = [
        {"name": name, "dtype": str(a.dtype), "shape": list(a.shape), "bytes": a.nbytes}
        for name, a in arrays.items()
    ]
    header = json.dumps(
        {
            "model_bytes": len(model),
            "inputs": described,
            "rows": rows,
            "batch": limits.batch,
            "all_walls": all_walls,
            "limits": {
                "memory_bytes": limits.memory_bytes,
                "cpu_s": limits.seconds * limits.threads,
                "threads": limits.threads,
            },
        }
    ).encode()
    request = [len(header).to_bytes(8, "little"), header, model, *(a.tobytes() for a in arrays.values())]
    answer = _run(b"".join(request), limits)
    return _checked(answer, rows, classes, all_walls=all_walls)


def _fitting(graph: Graph, inputs: Mapping[str, npt.NDArray[Any]]) -> tuple[dict[str, npt.NDArray[Any]], int]:
    """The inputs in the file's order and types."""
    wanted = {port.name: port for port in graph.inputs}
    if set(wanted) != set(inputs):
        raise ModelFileError(
            f"the model's file takes {', '.join(sorted(wanted))[:200]}, and is given {', '.join(sorted(inputs))}"
        )
    arrays = {name: np.ascontiguousarray(inputs[name], dtype=port.dtype) for name, port in wanted.items()}
    for name, array in arrays.items():
        shape = wanted[name].shape
        fits = len(shape) == array.ndim and all(
            isinstance(size, str) or size == real
            for size, real in zip(shape[1:], array.shape[1:], strict=True)
        )
        if not fits or (shape and isinstance(shape[0], int)):
            raise ModelFileError(
                f"the model's file takes {name[:80]!r} of another shape than rows of this agreement"
            )
    return arrays, len(next(iter(arrays.values())))


def _run(request: bytes, limits: Limits) -> bytes:
    with tempfile.TemporaryDirectory(prefix="hansa-run-") as empty:
        process = subprocess.Popen(  # noqa: S603  # this interpreter and a file of this package, nothing of the model's
            [sys.executable, "-I", "-B", str(_WORKER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=empty,
            env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            close_fds=True,
            start_new_session=True,
        )
        try:
            answer, complaint = process.communicate(request, timeout=limits.seconds)
        except subprocess.TimeoutExpired:
            raise ConfinedRunError(f"the model's file gave no scores within {limits.seconds} s") from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
    if process.returncode == 0:
        return answer
    last = complaint.decode(errors="replace").strip().splitlines()
    if last and last[-1] == _NO_RUNTIME:
        raise ModuleNotFoundError(_NO_RUNTIME, name="onnxruntime")
    if process.returncode < 0:
        how = signal.Signals(-process.returncode).name
        raise ConfinedRunError(
            f"the process of the model's file was ended by {how}: its time or its memory ran out"
        )
    raise ConfinedRunError(
        f"the model's file does not run: {_printable(last[-1] if last else 'no reason given')}"
    )


def _checked(answer: bytes, rows: int, classes: int, *, all_walls: bool) -> ConfinedScores:
    length = int.from_bytes(answer[:8], "little")
    if not 0 < length <= _HEADER_BYTES:
        raise ConfinedRunError("the process of the model's file gave no answer")
    header = json.loads(answer[8 : 8 + length])
    unprotected = tuple(_WORDS[name] for name in header["open"] if name in _WORDS)
    if all_walls and unprotected:
        raise ConfinedRunError(
            f"the model's file was not run: {unprotected[0]}",
            remedy="Run it on Linux 5.13 or later with user namespaces, or allow files to run without this wall.",
        )
    if rows and header["shape"] != [rows, classes]:
        raise ConfinedRunError(f"the model's file gives no {classes} scores for a row")
    body = answer[8 + length :]
    if len(body) != rows * classes * 4:
        raise ConfinedRunError("the process of the model's file gave no whole answer")
    scores = np.frombuffer(body, dtype="<f4").reshape(rows, classes)
    if not np.isfinite(scores).all():
        raise ConfinedRunError("the model's file gives scores that are not finite")
    return ConfinedScores(scores, unprotected)


def _printable(line: str) -> str:
    """What a runtime said of a file, without anything that a terminal would act on."""
    return "".join(c if c.isprintable() else " " for c in line)[:_SHOWN]
