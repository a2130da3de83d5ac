"""ONNX Runtime's fusions, then dynamic int8: weights as 8-bit integers, activations scaled as they come.

Dynamic quantisation looks at weights alone, so it costs no privacy; static scales would be minima and maxima of activations
on data. Weights of products are signed, one scale for each output, in 7 bits: on processors without VNNI two products of
full 8-bit numbers overflow their 16-bit sum (ONNX Runtime, "Quantize ONNX models", on reduce_range). Embeddings are looked
up, not multiplied: each row has 8 bits and a scale of its own. A head of less than a hundredth of the weights stays in
float32, for nothing would be gained.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from hansa.artifact.errors import ExportError, ModelFileError, StepError
from hansa.artifact.graph import read_graph
from hansa_server.publication.compress.candidate import Candidate
from hansa_server.publication.compress.fusing import fused, with_fast_gelu
from hansa_server.publication.compress.onnx_export import TOLERANCE, compare
from hansa_server.publication.compress.step import POST_PROCESSING, Cost

_FLOAT = 1  # onnx.TensorProto.FLOAT
_PRODUCTS = ("MatMul", "Attention")  # ONNX Runtime makes products of Gemm first
_SMALL_HEAD = 0.01  # of the weights
_LEVELS = 127


@dataclass(frozen=True)
class DynamicInt8:
    """Fuse and quantise an exported model.

    Attributes:
        target: ``cpu``. int8 on a GPU is refused: weights in int8 alone were measured slower there than bf16, and
            torchao's kernels want torch, which a published package does without.
    """

    target: Literal["cpu", "gpu"] = "cpu"
    name = "int8"
    cost: Cost = POST_PROCESSING

    def run(self, candidate: Candidate) -> tuple[Candidate, str]:
        if self.target != "cpu":
            raise StepError(
                "int8 for a GPU is not offered",
                remedy="Publish int8 for CPUs, or run model.safetensors in bfloat16 on a GPU.",
            )
        if candidate.onnx is None:
            raise StepError("the step 'int8' needs an exported model", remedy="Put 'onnx' before 'int8'.")
        same = fused(candidate)
        compare(candidate, same, TOLERANCE)
        data = quantised(with_fast_gelu(same))
        try:
            read_graph(data)
        except ModelFileError as error:
            raise ExportError(f"the quantised model would not be run: {error.cause}") from None
        return replace(candidate, onnx=data), (
            f"fused and quantised {len(candidate.onnx):,} bytes to {len(data):,} "
            f"({len(data) / len(candidate.onnx):.3f}); activations are scaled as they come."
        )


def quantised(data: bytes) -> bytes:
    """The file with int8 weights.

    Raises:
        ExportError: ONNX Runtime cannot quantise it.
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load_from_string(data)
    head = _small_head(model)
    _embeddings_by_row(model)
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="hansa-onnx-") as folder:
        warnings.simplefilter("ignore")
        logger = logging.getLogger()
        level = logger.level
        logger.setLevel(logging.ERROR)  # it advises on the root logger
        source, target = Path(folder) / "model.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(model.SerializeToString())
        try:
            quantize_dynamic(
                source,
                target,
                per_channel=True,
                reduce_range=True,
                weight_type=QuantType.QInt8,
                op_types_to_quantize=list(_PRODUCTS),
                nodes_to_exclude=head,
                extra_options={"MatMulConstBOnly": True, "DefaultTensorType": _FLOAT},
            )
        except Exception as error:  # of many kinds; the reader needs to know which step failed
            raise ExportError(f"the model cannot be quantised: {str(error).splitlines()[0][:300]}") from error
        finally:
            logger.setLevel(level)
        return target.read_bytes()


def _small_head(model: onnx.ModelProto) -> list[str]:
    """The names of the product that ends in the logits, here and in ONNX Runtime, if it is small enough to stay as it is."""
    graph = model.graph
    sizes = {one.name: int(np.prod(one.dims)) for one in graph.initializer}
    made = {output: node for node in graph.node for output in node.output}
    node = made.get(graph.output[0].name)
    if node is not None and node.op_type == "Add":  # of the bias
        node = next((made[name] for name in node.input if name in made), None)
    if node is None or node.op_type not in ("MatMul", "Gemm"):
        return []
    if sum(sizes.get(name, 0) for name in node.input) >= _SMALL_HEAD * sum(sizes.values()):
        return []
    node.name = node.name or "head"
    return [node.name, f"{node.name}_MatMul"]


def _embeddings_by_row(model: onnx.ModelProto) -> None:
    """Look tables of float32 up as int8 rows, each times its own scale."""
    graph = model.graph
    tables = {
        one.name: one
        for one in graph.initializer
        if one.data_type == _FLOAT and len(one.dims) == 2 and one.dims[0] > 1
    }
    used: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            used.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    done: set[str] = set()
    for node in graph.node:
        name = node.input[0] if node.input else ""
        looked_up = name in tables and all(_looks_up(one) for one in used[name])
        if not (looked_up and _looks_up(node)):
            nodes.append(node)
            continue
        if name not in done:
            done.add(name)
            rows, scales = _by_row(numpy_helper.to_array(tables[name]))
            graph.initializer.remove(tables[name])
            graph.initializer.append(numpy_helper.from_array(rows, f"{name}_rows"))
            graph.initializer.append(numpy_helper.from_array(scales, f"{name}_scales"))
        found, places = node.output[0], node.input[1]
        nodes += [
            helper.make_node("Gather", [f"{name}_rows", places], [f"{found}_rows"], axis=0),
            helper.make_node("Cast", [f"{found}_rows"], [f"{found}_float"], to=_FLOAT),
            helper.make_node("Gather", [f"{name}_scales", places], [f"{found}_scales"], axis=0),
            helper.make_node("Mul", [f"{found}_float", f"{found}_scales"], [found]),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def _looks_up(node: onnx.NodeProto) -> bool:
    axis = next((one.i for one in node.attribute if one.name == "axis"), 0)
    return node.op_type == "Gather" and axis == 0


def _by_row(table: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """int8 [rows, width] and float32 [rows, 1], whose product is the table within half a step."""
    scales = np.abs(table).max(axis=1, keepdims=True).astype(np.float32) / _LEVELS
    scales[scales == 0] = 1.0
    return np.rint(table / scales).astype(np.int8), scales
