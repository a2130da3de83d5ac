"""Export to ONNX, by a trace that is compared with the model at other sizes than it was traced at.

torch's tracing exporter is used, not the one on torch.export: for the encoders here it is ten times faster, and ONNX
Runtime fuses the attention that it writes (decision 0106). What a trace can get wrong, a size that it took for a
constant, is what the comparison looks for.
"""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx.checker
import onnx.shape_inference
import torch
from torch import nn

from hansa.artifact.errors import ExportError, ModelFileError
from hansa.artifact.graph import read_graph
from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.step import POST_PROCESSING, Cost

OPSET = 17
TOLERANCE = 1e-3  # of a logit, against float32 arithmetic in another order
_OPERATOR = re.compile(r"(?:aten|prim|quantized|torchvision)::\w+")
_SHOWN = 300
_TORCH, _PRINTS = "_C", "_jit_onnx_log"  # what the exporter prints by, whose switch it turns on itself

Inputs = Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class ExportOnnx:
    """Write the model as ONNX in float32: rows, and for texts tokens, may vary.

    Attributes:
        tolerance: by how much a logit may differ from the torch model's.
    """

    tolerance: float = TOLERANCE
    name = "onnx"
    cost: Cost = POST_PROCESSING

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        inputs = _wide(candidate)
        data = _traced(candidate.module, inputs)
        try:
            onnx.checker.check_model(data, full_check=True)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise ExportError(f"the exported model is no valid ONNX: {_first(error)}") from None
        try:
            graph = read_graph(data)
        except ModelFileError as error:
            raise ExportError(f"the exported model would not be run: {error.cause}") from None
        exported = replace(candidate, onnx=data)
        worst = compare(exported, data, self.tolerance)
        return exported, (
            f"exported {len(data):,} bytes of float32, {graph.nodes} operators, "
            f"logits within {worst:.1g} of the torch model's."
        )


def compare(candidate: Candidate, data: bytes, tolerance: float) -> float:
    """The largest difference of a logit between an ONNX file and the torch model, at sizes of all kinds.

    Raises:
        ExportError: it is above the tolerance, or the file does not run.
    """
    worst = 0.0
    for inputs in _sizes(candidate):
        wanted = candidate.logits(inputs)
        found = run_onnx(data, inputs)
        if found.shape != wanted.shape or not np.isfinite(found).all():
            raise ExportError("the exported model gives scores of another shape, or none")
        worst = max(worst, float(np.abs(found - wanted).max()))
    if worst > tolerance:
        raise ExportError(
            f"the exported model computes something else: a logit differs by {worst:.3g}, at most {tolerance:g} is taken"
        )
    return worst


def run_onnx(data: bytes, inputs: Inputs, *, threads: int = 1) -> npt.NDArray[np.float32]:
    """Run a file that was made here, in this process."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4
    try:
        session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        scores: npt.NDArray[np.float32] = session.run(None, dict(inputs))[0]
    except Exception as error:  # ONNX Runtime raises kinds of its own that share no class
        raise ExportError(f"the exported model does not run: {_first(error)}") from error
    return scores


def _wide(candidate: Candidate) -> dict[str, npt.NDArray[Any]]:
    """The probe as the file takes it: float32 tables, int64 tokens."""
    return {
        name: value.astype(np.float32 if np.issubdtype(value.dtype, np.floating) else np.int64)
        for name, value in candidate.probe.items()
    }


def _sizes(candidate: Candidate) -> list[dict[str, npt.NDArray[Any]]]:
    """The probe, one record of it, and five, at its own length, shorter and longer."""
    probe = _wide(candidate)
    cases = [probe, {name: value[:1] for name, value in probe.items()}]
    cases.append({name: np.concatenate([value, value, value[:1]]) for name, value in probe.items()})
    tokenizer = candidate.tokenizer
    if tokenizer is not None:
        length = probe["input_ids"].shape[1]
        cases.append({name: value[:, : max(1, length // 2)] for name, value in probe.items()})
        text = " ".join([candidate.terms.task.name, *candidate.terms.task.labels] * 40)
        longest = tokenizer([text, text[: len(text) // 3], ""])
        cases.append({name: value.astype(np.int64) for name, value in longest.items()})
    return cases


def _traced(module: nn.Module, inputs: Inputs) -> bytes:
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(value)) for value in inputs.values())
    axes: dict[str, dict[int, str]] = {
        name: {0: "batch", 1: "length"} if name != "table" else {0: "batch"} for name in inputs
    }
    try:
        with _quiet(), tempfile.TemporaryDirectory(prefix="hansa-onnx-") as folder:
            target = Path(folder) / "model.onnx"
            torch.onnx.export(
                module,
                arguments,
                target,
                input_names=list(inputs),
                output_names=["logits"],
                dynamic_axes={**axes, "logits": {0: "batch"}},
                opset_version=OPSET,
                dynamo=False,
            )
            return target.read_bytes()
    except Exception as error:
        operator = _OPERATOR.search(str(error))
        named = f"the operator {operator.group()}" if operator else _first(error)
        raise ExportError(f"the model has no ONNX form: {named}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep a tracer's warnings, which are compared later, and torch's print of a graph that failed, off the caller's stdout."""
    internal = getattr(torch, _TORCH)
    printed = getattr(internal, _PRINTS)
    setattr(internal, _PRINTS, lambda *_: None)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        setattr(internal, _PRINTS, printed)


def _first(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:_SHOWN]
